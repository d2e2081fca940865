//! The data plane's handle on the ledger: it can hold and settle, nothing else.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::journal::{NotDurable, Outbox, Record, Ticket, Waiters};
use super::{Purse, Shared};
use crate::policy::credit::returned;
use crate::types::{Credits, KeyNum, RequestId, RouteNum};

/// What a worker's thread makes its [`Spender`] from; unlike that, it may cross threads.
#[derive(Clone, Debug)]
pub struct SpenderSeed {
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
}

impl SpenderSeed {
    pub(super) fn new(shared: Arc<Shared>, outbox: Arc<Outbox>) -> Self {
        Self { shared, outbox }
    }

    /// Tells the ledger when the worker has nothing to do, and when it has again: while it is busy, a
    /// fuller batch costs nobody anything.
    pub fn parking(&self) -> impl Fn(bool) + Clone + Send + Sync + 'static {
        let (outbox, shared) = (Arc::clone(&self.outbox), Arc::clone(&self.shared));
        move |parked| {
            outbox.set_parked(parked);
            if parked && shared.gathering.load(Ordering::SeqCst) && outbox.is_idling() {
                shared.wake_now();
            }
        }
    }

    /// Makes the handle, on the thread that uses it.
    #[must_use]
    pub fn start(self) -> Spender {
        let waiters = Waiters::new(Arc::clone(&self.outbox));
        Spender(Rc::new(Inner { shared: self.shared, outbox: self.outbox, waiters }))
    }
}

/// The data plane's handle on the ledger: it can hold and settle, nothing else.
#[derive(Clone, Debug)]
pub struct Spender(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    waiters: Waiters,
}

/// Why nothing was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// The balance less holds in flight is below the amount.
    #[error("not enough credits")]
    Insufficient,
    /// The ledger cannot write, or too much waits to be written.
    #[error("the ledger is unavailable")]
    Unavailable,
}

impl Spender {
    /// Sets credits aside for a request; in memory when this returns, on disk when
    /// [`Hold::committed`] does.
    ///
    /// # Errors
    /// Nothing is held then, and nothing was charged.
    pub fn hold(
        &self,
        purse: &Arc<Purse>,
        key: KeyNum,
        route: RouteNum,
        amount: Credits,
        id: RequestId,
    ) -> Result<Hold, HoldError> {
        if !self.0.shared.healthy.load(Ordering::Relaxed) {
            return Err(HoldError::Unavailable);
        }
        if !purse.try_take(amount) {
            return Err(HoldError::Insufficient);
        }
        let record = Record::Hold { id, account: purse.num, key, route, amount };
        let Some(ticket) = self.0.outbox.push(record) else {
            purse.give(amount);
            return Err(HoldError::Unavailable);
        };
        self.0.shared.wake();
        let open = Open { purse: Arc::clone(purse), spender: self.clone(), id, amount, ticket };
        Ok(Hold(Some(open)))
    }

    /// Wakes this worker's waiters; runs on its thread for as long as it lives.
    pub async fn pump(&self) {
        self.0.waiters.pump().await;
    }
}

/// Credits set aside. Dropped without being settled, it is released: the request costs nothing.
#[derive(Debug)]
pub struct Hold(Option<Open>);

#[derive(Debug)]
struct Open {
    purse: Arc<Purse>,
    spender: Spender,
    id: RequestId,
    amount: Credits,
    ticket: Ticket,
}

impl Hold {
    /// Waits until the hold is on disk; one atomic load where it is already.
    ///
    /// # Errors
    /// [`NotDurable`] where its commit failed: release it, and let no charged answer leave.
    pub async fn committed(&self) -> Result<(), NotDurable> {
        match &self.0 {
            Some(open) => open.spender.0.waiters.durable(open.ticket).await,
            None => Ok(()),
        }
    }

    /// Turns the hold into its charge, at most the hold; the rest returns at once.
    pub fn settle(mut self, charge: Credits) -> Settled {
        match self.0.take() {
            Some(open) => open.settle(charge),
            None => Settled(None),
        }
    }
}

impl Open {
    fn settle(self, charge: Credits) -> Settled {
        let back = returned(self.amount, charge);
        let charge = self.amount.checked_sub(back).unwrap_or(self.amount);
        let inner = &self.spender.0;
        // The record first: who spends what returns must come after it in the journal.
        let ticket = inner.outbox.push(Record::Settle { id: self.id, charge });
        self.purse.give(back);
        let wait = ticket.filter(|_| !back.is_zero());
        if wait.is_some() {
            inner.shared.wake(); // one that nobody waits for goes with the next batch
        }
        Settled(wait.map(|ticket| (self.spender.clone(), ticket)))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            open.settle(Credits::ZERO);
        }
    }
}

/// A hold that became a charge.
#[derive(Debug)]
pub struct Settled(Option<(Spender, Ticket)>);

impl Settled {
    /// Waits until the charge is on disk. A charge equal to its hold has nothing to wait for:
    /// a crash would charge the same.
    ///
    /// # Errors
    /// [`NotDurable`] where its commit failed: let the last byte of the answer not leave.
    pub async fn committed(&self) -> Result<(), NotDurable> {
        match &self.0 {
            Some((spender, ticket)) => spender.0.waiters.durable(*ticket).await,
            None => Ok(()),
        }
    }

    /// Whether there is anything to wait for.
    #[must_use]
    pub fn must_wait(&self) -> bool {
        self.0.is_some()
    }
}
