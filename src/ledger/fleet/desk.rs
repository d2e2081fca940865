//! Requests that wait until credits of their account are leased.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::ledger::purse::Purse;
use crate::types::{AccountNum, Credits, Moment};

/// Most requests that wait. Further ones are refused.
const MAX_ASKING: usize = 10_000;
/// Longest time that a request waits for credits that other gateways have leased.
pub(in crate::ledger) const MAX_LEASE_WAIT: Duration = Duration::from_millis(1_500);

/// No credits can be leased now, whatever the account has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger is unavailable")]
pub struct NoLease;

/// A request that waits.
#[derive(Debug)]
struct Waiter {
    amount: Credits,
    /// When the thread of the leases first saw it.
    since: Option<Moment>,
    /// Gets the end of the wait: the request may look if there is enough now.
    ended: oneshot::Sender<Result<(), NoLease>>,
}

/// What is wanted of an account.
#[derive(Debug)]
pub(in crate::ledger) struct Want {
    pub(in crate::ledger) purse: Arc<Purse>,
    waiters: Vec<Waiter>,
}

impl Want {
    /// What the requests that wait need, all together.
    pub(in crate::ledger) fn need(&self) -> Credits {
        self.waiters
            .iter()
            .fold(Credits::ZERO, |sum, one| sum.checked_add(one.amount).unwrap_or(Credits::MAX))
    }

    /// Ends the wait of all requests for which there is enough, of those for which there never will be, since it is more than
    /// the account has, and of those that have waited for [`MAX_LEASE_WAIT`]. True if some go on waiting.
    pub(in crate::ledger) fn settle(&mut self, may_come: Credits, now: Moment) -> bool {
        let mut local = self.purse.local();
        let waiters = std::mem::take(&mut self.waiters);
        for mut waiter in waiters.into_iter().filter(|waiter| !waiter.ended.is_closed()) {
            let rest = local.checked_sub(waiter.amount).filter(|rest| !rest.is_negative());
            let has_waited = now.since(*waiter.since.get_or_insert(now)) >= MAX_LEASE_WAIT;
            let could_be = !has_waited && local.checked_add(may_come).is_none_or(|all| all >= waiter.amount);
            match rest {
                Some(rest) => local = rest,
                None if could_be => {
                    self.waiters.push(waiter);
                    continue;
                }
                None => {}
            }
            let _ = waiter.ended.send(Ok(())); // or its client is gone
        }
        !self.waiters.is_empty()
    }

    /// Ends the wait of all requests: nothing can be leased now.
    pub(in crate::ledger) fn refuse(self) {
        for waiter in self.waiters {
            let _ = waiter.ended.send(Err(NoLease)); // or its client is gone
        }
    }
}

#[derive(Debug, Default)]
struct State {
    wants: HashMap<AccountNum, Want>,
    asking: usize,
    must_end: bool,
}

/// Where requests wait for credits to be leased.
#[derive(Debug, Default)]
pub(in crate::ledger) struct Desk {
    state: Mutex<State>,
    changed: Condvar,
}

impl Desk {
    /// Asks for credits of an account, which a request waits for; `None` if too many wait, or the ledger is closed.
    fn ask(&self, purse: &Arc<Purse>, amount: Credits) -> Option<oneshot::Receiver<Result<(), NoLease>>> {
        let (ended, wait) = oneshot::channel();
        let mut state = self.state.lock();
        if state.asking >= MAX_ASKING || state.must_end {
            return None;
        }
        state.asking += 1;
        let want = || Want { purse: Arc::clone(purse), waiters: Vec::new() };
        state.wants.entry(purse.num).or_insert_with(want).waiters.push(Waiter { amount, since: None, ended });
        self.changed.notify_one();
        Some(wait)
    }

    /// Waits until a purse has an amount, or cannot get it, at most [`MAX_LEASE_WAIT`].
    ///
    /// # Errors
    /// [`NoLease`].
    pub(in crate::ledger) async fn lease(&self, purse: &Arc<Purse>, amount: Credits) -> Result<(), NoLease> {
        let wait = async {
            let ended = self.ask(purse, amount).ok_or(NoLease)?;
            ended.await.unwrap_or(Err(NoLease))
        };
        tokio::time::timeout(MAX_LEASE_WAIT, wait).await.unwrap_or(Ok(()))
    }

    /// As [`Desk::lease`], for a thread that may block.
    pub(in crate::ledger) fn lease_now(&self, purse: &Arc<Purse>, amount: Credits) -> Result<(), NoLease> {
        if purse.local() >= amount {
            return Ok(());
        }
        let ended = self.ask(purse, amount).ok_or(NoLease)?;
        // The thread of the leases ends each wait in time, or drops it with the ledger.
        ended.blocking_recv().unwrap_or(Err(NoLease))
    }

    /// Asks for more credits of an account, ahead of need.
    pub(in crate::ledger) fn renew(&self, purse: &Arc<Purse>) {
        let mut state = self.state.lock();
        let want = || Want { purse: Arc::clone(purse), waiters: Vec::new() };
        state.wants.entry(purse.num).or_insert_with(want);
        self.changed.notify_one();
    }

    /// Waits until something is wanted, at most `time`, and takes it. True if the ledger is being closed.
    pub(in crate::ledger) fn take(&self, time: Duration) -> (Vec<Want>, bool) {
        let mut state = self.state.lock();
        if state.wants.is_empty() && !state.must_end {
            self.changed.wait_for(&mut state, time);
        }
        state.asking = 0;
        (state.wants.drain().map(|(_, want)| want).collect(), state.must_end)
    }

    /// Puts back what is still wanted.
    pub(in crate::ledger) fn put_back(&self, wants: Vec<Want>) {
        let mut state = self.state.lock();
        for mut want in wants {
            state.asking += want.waiters.len();
            match state.wants.get_mut(&want.purse.num) {
                Some(newer) => {
                    want.waiters.append(&mut newer.waiters);
                    newer.waiters = want.waiters;
                }
                None => drop(state.wants.insert(want.purse.num, want)),
            }
        }
    }

    /// Lets the thread of the leases end.
    pub(in crate::ledger) fn close(&self) {
        self.state.lock().must_end = true;
        self.changed.notify_one();
    }
}
