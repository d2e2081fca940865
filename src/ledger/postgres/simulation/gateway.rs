//! Simulates a gateway: the ledger's real threads, one step at a time, and the clients of one worker.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fastrand::Rng;
use futures_util::FutureExt;

use super::judge::{Told, Wish};
use super::seen::Seen;
use crate::clock::Clock;
use crate::ledger::caps::KeyCaps;
use crate::ledger::fleet::{Lease, LeaseThread, NoLease};
use crate::ledger::handle::Parts;
use crate::ledger::postgres::{JournalAt, Server, open};
use crate::ledger::spender::{Hold, HoldError, HoldRequest, Settled, Spender, SpenderSeed};
use crate::ledger::store::{LedgerError, Result};
use crate::ledger::threads::{BooksThread, CommitThread, Shared, Written};
use crate::types::{AccountNum, Credits, KeyNum, RequestId, RouteNum, StatusClass};

/// Most requests in flight at a gateway.
const MANY: usize = 10;
/// Most times that a request leases credits which others are faster to hold.
const MAX_TRIES: u32 = 8;

thread_local! {
    /// The commit threads of the gateways, which other threads of theirs wait for.
    static COMMITS: RefCell<HashMap<usize, CommitThread>> = RefCell::default();
}

/// Waits for a barrier by letting the gateway's commit thread commit.
struct SimulatedBarrier(usize);

impl Written for SimulatedBarrier {
    fn wait(&mut self, shared: &Shared) -> Result<()> {
        let number = shared.barrier.request();
        commit(self.0);
        // There is no outcome once the commit thread has ended, which closes the barrier.
        shared.barrier.outcome(number).unwrap_or(Err(LedgerError::Closed))
    }
}

fn commit(at: usize) {
    COMMITS.with_borrow_mut(|commits| commits.get_mut(&at).map(CommitThread::commit));
}

type Leasing = Pin<Box<dyn Future<Output = Result<Lease, NoLease>>>>;

/// The stage of a request.
enum Stage {
    /// It waits until credits are leased; how often it did so.
    Leasing(Leasing, u32),
    /// Credits are held. The head of the response waits until that is on disk.
    Held(Hold),
    /// The head was sent.
    Begun(Hold),
    /// The end of the response may wait until the charge is on disk.
    Ended(Settled),
}

struct Request {
    id: RequestId,
    wish: Wish,
    stage: Stage,
}

/// What simulated gateways share: accounts and keys, chance, and what clients were told.
pub(super) struct Environment<'a> {
    pub(super) random: Rng,
    pub(super) accounts: Vec<AccountNum>,
    pub(super) keys: Vec<KeyNum>,
    /// What each client was told.
    pub(super) wishes: BTreeMap<RequestId, Wish>,
    /// The last request id.
    pub(super) ids: u128,
    pub(super) seen: &'a mut Seen,
}

/// A process that serves as a gateway.
pub(super) struct Process {
    at: usize,
    shared: Arc<Shared>,
    pub(super) books: BooksThread,
    leases: LeaseThread,
    spender: Spender,
    requests: Vec<Request>,
}

impl Process {
    /// `at`: the number of the gateway in the simulation.
    pub(super) fn start(at: usize, server: &Server, journal: &JournalAt, clock: &Clock) -> Result<Self> {
        let storage = open(server, journal)?;
        let parts = Parts::open(storage, 1, Duration::ZERO, clock.clone(), false)?;
        let Parts { shared, readers, books, commit, leases, .. } = parts;
        let seed = SpenderSeed::new(Arc::clone(&shared), Arc::clone(&shared.outboxes[0]), readers);
        COMMITS.with_borrow_mut(|commits| commits.insert(at, commit));
        Ok(Self {
            at,
            shared,
            books: books.with_barrier(Box::new(SimulatedBarrier(at))),
            leases: leases.expect("a fleet").with_barrier(Box::new(SimulatedBarrier(at))),
            spender: seed.start(),
            requests: Vec::new(),
        })
    }

    pub(super) fn commit(&mut self) {
        commit(self.at);
    }

    /// Runs the thread of the leases. True if it settled what a lost gateway left.
    pub(super) fn lease(&mut self) -> bool {
        self.leases.run_once(Duration::ZERO);
        self.leases.join_recovery()
    }

    /// A client begins a request, or one goes on.
    pub(super) fn serve(&mut self, environment: &mut Environment<'_>) {
        let begins = self.requests.len() < MANY && (self.requests.is_empty() || environment.random.bool());
        if begins {
            return self.begin(environment);
        }
        let request = self.requests.swap_remove(environment.random.usize(..self.requests.len()));
        let next = self.go_on(request, environment);
        self.requests.extend(next);
    }

    fn begin(&mut self, environment: &mut Environment<'_>) {
        environment.ids += 1;
        let (random, id) = (&mut environment.random, RequestId(environment.ids));
        let hold = random.i64(1..30);
        let charge = if random.bool() { hold } else { random.i64(0..=hold) };
        let wish =
            Wish { account: random.usize(..environment.accounts.len()), hold, charge, told: Told::Nothing };
        let held = self.hold(id, wish, 0, environment);
        self.requests.extend(held);
    }

    /// Holds credits, or waits until some are leased; `None` if the request is refused.
    fn hold(
        &self,
        id: RequestId,
        wish: Wish,
        tries: u32,
        environment: &mut Environment<'_>,
    ) -> Option<Request> {
        let (account, amount) = (environment.accounts[wish.account], Credits::from_millionths(wish.hold));
        let purse = self.shared.purses.get(account).expect("a purse");
        let key = environment.keys[wish.account];
        let (route, caps) = (RouteNum(1), &KeyCaps::NONE);
        let wanted = HoldRequest { purse: &purse, caps, key, route, amount, id, claim: None };
        match self.spender.hold_as(wanted) {
            Ok(held) => {
                environment.wishes.insert(id, wish);
                Some(Request { id, wish, stage: Stage::Held(held) })
            }
            Err(HoldError::Insufficient) if tries < MAX_TRIES => {
                let spender = self.spender.clone();
                let leasing = async move { spender.lease(&purse, &KeyCaps::NONE, amount).await };
                Some(Request { id, wish, stage: Stage::Leasing(Box::pin(leasing), tries + 1) })
            }
            Err(HoldError::Unavailable) => {
                environment.seen.unavailable += 1;
                None
            }
            Err(_) => None,
        }
    }

    fn go_on(&mut self, request: Request, environment: &mut Environment<'_>) -> Option<Request> {
        let Request { id, wish, stage } = request;
        let mut tell = |told| {
            environment.wishes.insert(id, Wish { told, ..wish });
        };
        let is_gone = environment.random.u32(..8) == 0;
        let stage = match stage {
            Stage::Leasing(mut leasing, tries) => {
                let leased = leasing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                match leased {
                    Poll::Pending => Stage::Leasing(leasing, tries),
                    Poll::Ready(Ok(Lease::Enough)) => {
                        environment.seen.leased += 1;
                        return self.hold(id, wish, tries, environment);
                    }
                    Poll::Ready(Ok(Lease::TooLittle)) => {
                        environment.seen.refused += 1;
                        return None;
                    }
                    Poll::Ready(Err(NoLease)) => {
                        environment.seen.unavailable += 1;
                        return None;
                    }
                }
            }
            Stage::Held(_) if is_gone => {
                tell(Told::Released);
                return None;
            }
            Stage::Held(held) => match held.committed().now_or_never() {
                None => Stage::Held(held),
                Some(Ok(())) => {
                    tell(Told::Head);
                    Stage::Begun(held)
                }
                Some(Err(_)) => {
                    tell(Told::Released); // 503
                    return None;
                }
            },
            Stage::Begun(held) => {
                tell(Told::Settled);
                Stage::Ended(held.settle(Credits::from_millionths(wish.charge), StatusClass::Success))
            }
            Stage::Ended(_) if is_gone => return None, // the client is
            Stage::Ended(settled) => match settled.committed().now_or_never() {
                None => Stage::Ended(settled),
                Some(Ok(())) => {
                    tell(Told::Charged);
                    environment.seen.acknowledged += 1;
                    return None;
                }
                Some(Err(_)) => return None, // the end is not sent
            },
        };
        Some(Request { id, wish, stage })
    }

    /// Ends without a clean stop. The network must be cut, since no destructor of a killed process tells others anything.
    pub(super) fn crash(self) {
        COMMITS.with_borrow_mut(|commits| commits.remove(&self.at));
    }

    /// Stops as a gateway does: requests are dropped, which releases their holds; everything is written and folded; what is
    /// leased returns.
    pub(super) fn stop(mut self, environment: &mut Environment<'_>) -> Result<()> {
        for Request { id, wish, stage } in self.requests.drain(..) {
            if matches!(stage, Stage::Held(_) | Stage::Begun(_)) {
                environment.wishes.insert(id, Wish { told: Told::Released, ..wish });
            }
        }
        let booked = self.books.finish();
        let commit = COMMITS.with_borrow_mut(|commits| commits.remove(&self.at)).expect("a commit thread");
        let committed = commit.finish();
        let is_settled = booked.is_ok() && committed.is_ok() && self.shared.is_folded();
        let desk = self.shared.desk.as_ref().ok_or(LedgerError::Closed)?;
        desk.close(is_settled);
        self.shared.is_healthy.store(false, Ordering::SeqCst);
        while self.leases.run_once(Duration::ZERO).is_some() {}
        booked.and(committed).and(self.leases.end())
    }
}
