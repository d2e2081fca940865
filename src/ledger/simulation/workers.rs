//! Simulates workers and their clients: requests that are held, answered, kept, settled or abandoned.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use fastrand::Rng;

use super::disk::Disk;
use super::limits::key_of;
use super::repeats::Attempts;
use crate::clock::Clock;
use crate::ledger::purse::Purse;
use crate::ledger::record::{ExternalId, Kept};
use crate::ledger::spender::{Hold, HoldError, HoldRequest, Settled, Spender, SpenderSeed};
use crate::ledger::store::Books;
use crate::ledger::threads::Shared;
use crate::types::{AccountNum, Credits, RequestId, RouteNum, StatusClass, WallTime};

/// Most requests in flight.
const MANY: usize = 12;

/// The stage of a request.
enum Stage {
    /// Credits are held. The request is at the upstream, or the response head waits until the hold is on disk.
    Held(Hold),
    /// The response head was sent, and the charge is known.
    Begun(Hold),
    /// The response body is complete. Its last byte may wait until the charge is on disk.
    Ended(Settled),
    /// The hold is kept beyond the request. The response may wait until that is on disk.
    Kept(Settled),
}

struct Request {
    id: RequestId,
    account: usize,
    hold: i64,
    charge: i64,
    stage: Stage,
    /// The flag that the ledger's waker sets; `None` while the request does not wait for the ledger.
    woken: Option<Arc<Woken>>,
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The workers.
pub(super) struct Workers {
    pub(super) random: Rng,
    disk: Disk,
    clock: Clock,
    shared: Arc<Shared>,
    spenders: Vec<Spender>,
    /// The futures that wake waiting tasks, one for each worker.
    pumps: Vec<Pin<Box<dyn Future<Output = ()>>>>,
    purses: Vec<Arc<Purse>>,
    /// The credits that each account's purse must have.
    pub(super) available: Vec<i64>,
    requests: Vec<Request>,
    repeats: Attempts,
    /// Jobs that this process opened, and perhaps settled.
    kept: Vec<(AccountNum, RequestId)>,
    /// Number of jobs that a worker settled.
    pub(super) jobs_settled: u64,
    /// True if no request starts or continues any more.
    still: bool,
    ids: u128,
    /// Number of times that a response head, a complete response or a kept hold was acknowledged to a client.
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    /// Number of holds that would have exceeded a spending limit.
    pub(super) capped: u64,
}

impl Workers {
    pub(super) fn new(
        seed: u64,
        ids: u128,
        disk: Disk,
        clock: Clock,
        shared: Arc<Shared>,
        accounts: usize,
    ) -> Self {
        let (_, outboxes) = shared.outboxes.split_last().expect("an outbox");
        let spenders: Vec<Spender> = outboxes
            .iter()
            .map(|outbox| SpenderSeed::new(Arc::clone(&shared), Arc::clone(outbox), disk.readers()).start())
            .collect();
        let pump = |spender: &Spender| -> Pin<Box<dyn Future<Output = ()>>> {
            let spender = spender.clone();
            Box::pin(async move { spender.pump().await })
        };
        let number = |at: usize| AccountNum(u32::try_from(at + 1).expect("few accounts"));
        let purses: Vec<_> =
            (0..accounts).map(|at| shared.purses.get(number(at)).expect("a purse")).collect();
        let available = purses.iter().map(|purse| purse.available().millionths()).collect();
        let pumps = spenders.iter().map(pump).collect();
        let (random, requests) = (Rng::with_seed(seed), Vec::new());
        Self {
            random,
            disk,
            clock,
            shared,
            spenders,
            pumps,
            purses,
            available,
            requests,
            repeats: Attempts::default(),
            kept: Vec::new(),
            jobs_settled: 0,
            still: false,
            ids,
            acknowledged: 0,
            refused: 0,
            capped: 0,
        }
    }

    /// Takes the numbers of repeated requests that were answered, and of answers that are lost.
    pub(super) fn replays(&self) -> (u64, u64) {
        self.disk.look(|_, durable| {
            let known = &mut durable.repeats;
            (std::mem::take(&mut known.replayed), std::mem::take(&mut known.lost))
        })
    }

    pub(super) fn ids(&self) -> u128 {
        self.ids
    }

    /// Runs one random step of one worker.
    pub(super) fn step(&mut self) {
        if self.still {
            return;
        }
        match self.random.u32(..16) {
            9 => self.poll_job(),
            11.. => self.repeat(),
            0..4 => self.begin(),
            4..9 if !self.requests.is_empty() => self.go_on(),
            _ => self.pump(),
        }
    }

    fn begin(&mut self) {
        if self.requests.len() >= MANY {
            return;
        }
        self.ids += 1;
        let (worker, account) =
            (self.random.usize(..self.spenders.len()), self.random.usize(..self.purses.len()));
        let hold = self.random.i64(0..40);
        let charge = if self.random.bool() { hold } else { self.random.i64(0..=hold) };
        let (id, route) = (RequestId(self.ids), RouteNum(self.random.u32(1..=2)));
        let (key, amount) = (key_of(account), Credits::from_millionths(hold));
        let (purse, caps) = (&self.purses[account], &self.shared.caps.get(key));
        let wanted = HoldRequest { purse, caps, key, route, amount, id, claim: None };
        let held = self.spenders[worker].hold_as(wanted);
        match held {
            Ok(held) => {
                self.available[account] -= hold;
                self.requests.push(Request {
                    id,
                    account,
                    hold,
                    charge,
                    stage: Stage::Held(held),
                    woken: None,
                });
            }
            Err(HoldError::Insufficient) => self.refused += 1,
            Err(HoldError::Capped(_)) => self.capped += 1,
            Err(HoldError::Unavailable) => {
                assert!(!self.shared.is_healthy.load(Ordering::SeqCst), "refused although the disk is well");
            }
        }
    }

    fn go_on(&mut self) {
        let Request { id, account, hold, charge, stage, mut woken } =
            self.requests.swap_remove(self.random.usize(..self.requests.len()));
        let gone = self.random.u32(..8) == 0;
        let amount = Credits::from_millionths(charge);
        let stage = match stage {
            // The hold is dropped: the upstream failed, or received no request.
            Stage::Held(_) if gone => {
                self.available[account] += hold;
                return;
            }
            Stage::Held(held) => match poll(&mut woken, held.committed()) {
                Poll::Pending => Stage::Held(held),
                Poll::Ready(Ok(())) => {
                    self.disk.look(|_, durable| durable.knows(id));
                    self.acknowledged += 1;
                    Stage::Begun(held)
                }
                Poll::Ready(Err(_)) => {
                    self.available[account] += hold; // 503, charged 0
                    return;
                }
            },
            Stage::Begun(held) if self.random.u32(..5) == 0 => {
                woken = None;
                self.kept.push((self.purses[account].num, id));
                let deadline = WallTime(self.clock.wall().0 + self.random.i64(0..20_000));
                let external_id = ExternalId::new(&id.to_string()).expect("an external id");
                Stage::Kept(held.keep(Kept { external_id, deadline, charge_at_deadline: amount }, None))
            }
            Stage::Begun(held) => {
                self.available[account] += hold - charge;
                woken = None;
                Stage::Ended(held.settle(amount, StatusClass::Success))
            }
            // The client disconnected: the charge does not depend on it.
            Stage::Ended(_) | Stage::Kept(_) if gone => return,
            Stage::Kept(kept) => match poll(&mut woken, kept.committed()) {
                Poll::Pending => Stage::Kept(kept),
                Poll::Ready(Ok(())) => {
                    self.disk.look(|_, durable| durable.knows_kept(id));
                    self.acknowledged += 1;
                    return;
                }
                Poll::Ready(Err(_)) => return,
            },
            Stage::Ended(settled) => match poll(&mut woken, settled.committed()) {
                Poll::Pending => Stage::Ended(settled),
                Poll::Ready(Ok(())) => {
                    let below = charge < hold;
                    assert_eq!(settled.must_wait(), below);
                    if below {
                        self.disk.look(|_, durable| durable.knows_charge(id, amount));
                    }
                    self.acknowledged += 1;
                    return;
                }
                Poll::Ready(Err(_)) => return, // the last byte is not sent
            },
        };
        self.requests.push(Request { id, account, hold, charge, stage, woken });
    }

    /// A client repeats a request with an idempotency key.
    fn repeat(&mut self) {
        self.ids += 1;
        let spender = &self.spenders[self.random.usize(..self.spenders.len())];
        let (purse, id) = (&self.purses[0], RequestId(self.ids));
        self.available[0] += self.repeats.step(&mut self.random, &self.disk, purse, spender, id);
    }

    /// A request tells that a job is done: one that was kept just now, perhaps before that is on disk, or any other.
    fn poll_job(&mut self) {
        let mut jobs = self.disk.look(|_, durable| durable.kept());
        jobs.extend(&self.kept);
        let Some((account, id)) = self.random.choice(jobs) else { return };
        let external_id = ExternalId::new(&id.to_string()).expect("an external id");
        let at = account.0 as usize - 1;
        let spender = &self.spenders[self.random.usize(..self.spenders.len())];
        let Some(job) = spender.open_job(&self.purses[at], &external_id) else { return };
        let charge = Credits::from_millionths(self.random.i64(0..40));
        if let Some((charged, _)) = spender.settle_job(&job, charge, StatusClass::Success) {
            self.available[at] += job.amount.millionths() - charged.millionths();
            self.jobs_settled += 1;
        }
    }

    /// Wakes the tasks whose batch is committed or failed.
    pub(super) fn pump(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        for pump in &mut self.pumps {
            assert!(pump.as_mut().poll(&mut context).is_pending());
        }
    }

    /// Checks that every purse has the credits that its account's requests left, minus those withheld for failed
    /// bookings.
    pub(super) fn agrees(&self, withheld: impl Fn(AccountNum) -> i64) {
        for (purse, available) in self.purses.iter().zip(&self.available) {
            assert_eq!(purse.available().millionths(), *available - withheld(purse.num));
        }
    }

    /// Checks that no task waits any more once everything is on disk and the workers were notified.
    pub(super) fn nobody_sleeps(&mut self) {
        self.pump();
        for request in &self.requests {
            let woken = request.woken.as_ref().is_none_or(|woken| woken.0.load(Ordering::SeqCst));
            assert!(woken, "{} waits for a batch that is on disk", request.id);
        }
    }

    /// Stops all requests: no request starts or continues from here on.
    pub(super) fn be_still(&mut self) {
        self.still = true;
    }

    /// Stops the workers before the ledger, as in a clean stop: requests in flight are dropped, which releases their
    /// holds.
    pub(super) fn stop(&mut self) {
        self.still = true;
        self.available[0] += self.repeats.stop(&self.disk);
        for Request { account, hold, stage, .. } in self.requests.drain(..) {
            if !matches!(stage, Stage::Ended(_) | Stage::Kept(_)) {
                self.available[account] += hold;
            }
        }
    }
}

fn poll<T>(woken: &mut Option<Arc<Woken>>, future: impl Future<Output = T>) -> Poll<T> {
    let flag = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&flag));
    let polled = pin!(future).poll(&mut Context::from_waker(&waker));
    *woken = polled.is_pending().then_some(flag);
    polled
}
