//! Requests that wait until credits of their account are leased.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::claims::ClaimQueue;
use crate::ledger::purse::Lessee;
use crate::ledger::store::{Hint, LeaseOf};
use crate::types::{Credits, Moment};

/// Most requests that wait. Further ones are refused.
const MAX_ASKING: usize = 10_000;
/// Most hints that wait.
const MAX_HINTS: usize = 1_000;
/// Most changed spending limits of which leases wait to be returned.
const MAX_RETURNS: usize = 10_000;
/// Longest time that a request waits for credits that other gateways have leased.
pub(in crate::ledger) const MAX_LEASE_WAIT: Duration = Duration::from_millis(1_500);
/// Longest time until the thread of the leases has said so. If it does not, the database does not answer.
pub(super) const MAX_ANSWER: Duration = Duration::from_millis(1_900);

/// What became of a lease that was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// There is enough, unless others take it first.
    Enough,
    /// There is less, and no more came in time.
    TooLittle,
}

/// No credits can be leased now, whatever the account has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger is unavailable")]
pub struct NoLease;

/// A request that waits.
#[derive(Debug)]
struct Waiter {
    amount: Credits,
    /// Less is of use, too.
    takes_less: bool,
    /// When the thread of the leases first saw it.
    since: Option<Moment>,
    /// Gets the end of the wait: the request may look if there is enough now.
    ended: oneshot::Sender<Result<Lease, NoLease>>,
}

/// What is wanted of an account, or of a spending limit.
#[derive(Debug)]
pub(in crate::ledger) struct Want {
    pub(in crate::ledger) purse: Arc<dyn Lessee>,
    waiters: Vec<Waiter>,
}

impl Want {
    /// What the requests that wait need, all together.
    pub(in crate::ledger) fn need(&self) -> Credits {
        self.waiters
            .iter()
            .fold(Credits::ZERO, |sum, one| sum.checked_add(one.amount).unwrap_or(Credits::MAX))
    }

    /// What the request needs that needs least.
    pub(in crate::ledger) fn least(&self) -> Credits {
        let least = |waiter: &Waiter| if waiter.takes_less { Credits::ZERO } else { waiter.amount };
        self.waiters.iter().map(least).min().unwrap_or_default()
    }

    /// Ends the wait of all requests for which there is enough, of those for which there never will be, since it is more than
    /// the account has, and of those that have waited for [`MAX_LEASE_WAIT`]. `may_come`: what the account has besides the purse.
    /// True if some go on waiting.
    pub(in crate::ledger) fn settle(&mut self, may_come: Credits, now: Moment) -> bool {
        let mut local = self.purse.pot().local();
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
            let lease = if rest.is_some() { Lease::Enough } else { Lease::TooLittle };
            let _ = waiter.ended.send(Ok(lease)); // or its client is gone
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
    wants: HashMap<LeaseOf, Want>,
    /// What is to be returned, because what there is of it was changed.
    returns: Vec<Arc<dyn Lessee>>,
    asking: usize,
    hints: Vec<Hint>,
    must_end: bool,
    is_settled: bool,
}

/// What the thread of the leases has to do.
#[derive(Debug)]
pub(super) struct Taken {
    /// What requests wait for, or will soon need.
    pub(super) wants: Vec<Want>,
    /// What is to be returned, because what there is of it was changed.
    pub(super) returns: Vec<Arc<dyn Lessee>>,
    /// What other gateways did.
    pub(super) hints: Vec<Hint>,
    /// True if the ledger is being closed.
    pub(super) must_end: bool,
}

/// Where requests wait for credits to be leased.
#[derive(Debug, Default)]
pub(in crate::ledger) struct Desk {
    state: Mutex<State>,
    changed: Condvar,
    pub(super) claims: ClaimQueue,
    is_cut_off: AtomicBool,
}

impl Desk {
    /// Asks for credits of an account, which a request waits for; `None` if too many wait, or the ledger is closed.
    fn ask(
        &self,
        purse: &Arc<dyn Lessee>,
        amount: Credits,
        takes_less: bool,
    ) -> Option<oneshot::Receiver<Result<Lease, NoLease>>> {
        let (ended, wait) = oneshot::channel();
        let mut state = self.state.lock();
        if state.asking >= MAX_ASKING || state.must_end {
            return None;
        }
        state.asking += 1;
        let want = || Want { purse: Arc::clone(purse), waiters: Vec::new() };
        state.wants.entry(purse.of()).or_insert_with(want).waiters.push(Waiter {
            amount,
            takes_less,
            since: None,
            ended,
        });
        self.changed.notify_one();
        Some(wait)
    }

    /// Waits until a purse has an amount, or cannot get it, at most [`MAX_LEASE_WAIT`].
    ///
    /// # Errors
    /// [`NoLease`].
    pub(in crate::ledger) async fn lease(
        &self,
        purse: &Arc<dyn Lessee>,
        amount: Credits,
    ) -> Result<Lease, NoLease> {
        let wait = async {
            let ended = self.ask(purse, amount, false).ok_or(NoLease)?;
            ended.await.unwrap_or(Err(NoLease))
        };
        tokio::time::timeout(MAX_ANSWER, wait).await.unwrap_or(Err(NoLease))
    }

    /// As [`Desk::lease`], for several purses at once, on a thread that may block. What can be had of each is leased, if it is
    /// less.
    pub(in crate::ledger) fn lease_now(&self, wanted: &[(Arc<dyn Lessee>, Credits)]) -> Result<(), NoLease> {
        let short = wanted.iter().filter(|(purse, amount)| purse.pot().local() < *amount);
        let asked: Option<Vec<_>> = short.map(|(purse, amount)| self.ask(purse, *amount, true)).collect();
        // The thread of the leases ends each wait in time, or drops it with the ledger.
        let mut ended = asked.ok_or(NoLease)?.into_iter();
        ended.try_for_each(|ended| ended.blocking_recv().unwrap_or(Err(NoLease)).map(drop))
    }

    /// Asks for more credits of an account, ahead of need.
    pub(in crate::ledger) fn renew(&self, purse: Arc<dyn Lessee>) {
        let mut state = self.state.lock();
        state.wants.entry(purse.of()).or_insert(Want { purse, waiters: Vec::new() });
        self.changed.notify_one();
    }

    /// Waits until there is something to do, at most `time`, and takes it.
    pub(super) fn take(&self, time: Duration) -> Taken {
        let mut state = self.state.lock();
        let is_idle = state.wants.is_empty() && state.returns.is_empty() && state.hints.is_empty();
        if is_idle && self.claims.is_empty() && !state.must_end {
            self.changed.wait_for(&mut state, time);
        }
        state.asking = 0;
        Taken {
            wants: state.wants.drain().map(|(_, want)| want).collect(),
            returns: std::mem::take(&mut state.returns),
            hints: std::mem::take(&mut state.hints),
            must_end: state.must_end,
        }
    }

    /// Tells the thread of the leases what another gateway did.
    pub(super) fn add_hint(&self, hint: Hint) {
        let mut state = self.state.lock();
        if state.hints.len() < MAX_HINTS {
            state.hints.push(hint); // otherwise it is read without a hint
        }
        self.changed.notify_one();
    }

    /// Has what is leased of a spending limit returned, since the limit was changed.
    pub(in crate::ledger) fn give_back(&self, lessee: Arc<dyn Lessee>) {
        let mut state = self.state.lock();
        if state.returns.len() < MAX_RETURNS {
            state.returns.push(lessee); // or it is returned once it is not used any more
            self.changed.notify_one();
        }
    }

    /// Wakes the thread of the leases. False if it has ended, or is about to.
    pub(super) fn wake(&self) -> bool {
        let state = self.state.lock();
        self.changed.notify_one();
        !state.must_end
    }

    /// Puts back what is still wanted.
    pub(in crate::ledger) fn put_back(&self, wants: Vec<Want>) {
        let mut state = self.state.lock();
        for mut want in wants {
            state.asking += want.waiters.len();
            match state.wants.get_mut(&want.purse.of()) {
                Some(newer) => {
                    want.waiters.append(&mut newer.waiters);
                    newer.waiters = want.waiters;
                }
                None => drop(state.wants.insert(want.purse.of(), want)),
            }
        }
    }

    /// Lets the thread of the leases end. `is_settled`: all is written and folded, so that it returns what is leased.
    pub(in crate::ledger) fn close(&self, is_settled: bool) {
        let mut state = self.state.lock();
        (state.must_end, state.is_settled) = (true, is_settled);
        self.changed.notify_one();
    }

    /// True if everything was written and folded when the ledger was closed.
    pub(in crate::ledger) fn is_settled(&self) -> bool {
        self.state.lock().is_settled
    }

    /// Ends all waits, also later ones: the thread of the leases ends, or has panicked.
    pub(in crate::ledger) fn shut(&self) {
        let mut state = self.state.lock();
        state.must_end = true;
        state.wants.drain().for_each(|(_, want)| want.refuse());
        self.claims.clear();
    }

    /// Says if the database was not reached for so long that nothing may be held.
    pub(in crate::ledger) fn set_cut_off(&self, is_cut_off: bool) {
        self.is_cut_off.store(is_cut_off, Ordering::Relaxed);
    }

    /// True if nothing may be held.
    pub(in crate::ledger) fn is_cut_off(&self) -> bool {
        self.is_cut_off.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::purse::Purses;
    use crate::types::AccountNum;

    /// A request is told that there is too little only if there is, or after its time.
    #[test]
    fn a_request_waits_while_there_may_be_enough() {
        let credits = Credits::from_millionths;
        // What is in the purse, what may come, for how long the request has waited, and what it is told.
        let table = [
            (10, 0, 0, Some(Lease::Enough)),
            (9, 0, 0, Some(Lease::TooLittle)),
            (5, 5, 0, None), // another request took from the purse after it was looked at
            (5, 4, 0, Some(Lease::TooLittle)),
            (0, 1_000, 1_499, None),
            (0, 1_000, 1_500, Some(Lease::TooLittle)),
            (10, 1_000, 1_500, Some(Lease::Enough)),
        ];
        for (local, may_come, waited, told) in table {
            let purse = Purses::new(false).add(AccountNum(1), credits(local));
            let (ended, mut wait) = oneshot::channel();
            let since = Some(Moment::default());
            let mut want = Want {
                purse,
                waiters: vec![Waiter { amount: credits(10), takes_less: false, since, ended }],
            };
            let goes_on =
                want.settle(credits(may_come), Moment::default().plus(Duration::from_millis(waited)));
            assert_eq!(wait.try_recv().ok(), told.map(Ok), "{local} {may_come} {waited}");
            assert_eq!(goes_on, told.is_none());
        }
    }
}
