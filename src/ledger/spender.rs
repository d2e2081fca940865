//! Implements the data plane's handle on the ledger. It can hold and settle credits, nothing else.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::adoption::{Awaited, Settlement};
use super::caps::{Capped, Caps, KeyCaps};
use super::claims::Claim;
use super::fleet::{Desk, Lease, NoLease};
use super::jobs::{OpenJob, Taken};
use super::outbox::{NotDurable, Outbox, Ticket, Waiters};
use super::purse::{JobSlot, Lessee, Purse};
use super::record::{ExternalId, Kept, Record};
use super::store::Readers;
use super::threads::Shared;
use crate::policy::credit::returned;
use crate::types::{Credits, KeyNum, RequestId, RouteNum, StatusClass, WallTime};

/// Longest time that a request waits for leases of its account and its spending limits.
const MAX_LEASE: Duration = Duration::from_secs(2);

/// The data from which a worker's thread starts its [`Spender`]. Unlike a spender, it can be sent to another thread.
#[derive(Clone, Debug)]
pub struct SpenderSeed {
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    readers: Readers,
}

impl SpenderSeed {
    pub(super) fn new(shared: Arc<Shared>, outbox: Arc<Outbox>, readers: Readers) -> Self {
        Self { shared, outbox, readers }
    }

    /// Returns a function for the worker to call when it has nothing to do: it starts a commit if a task waits for one.
    /// While the worker is busy, a later and larger batch delays no task.
    pub fn on_park(&self) -> impl Fn() + Send + Sync + 'static {
        let (outbox, shared) = (Arc::clone(&self.outbox), Arc::clone(&self.shared));
        move || {
            if outbox.is_awaited() {
                shared.commit_wanted();
            }
        }
    }

    /// Starts the spender, on the thread that will use it.
    #[must_use]
    pub fn start(self) -> Spender {
        let waiters = Waiters::new(Arc::clone(&self.outbox));
        let Self { shared, outbox, readers } = self;
        Spender(Rc::new(Inner { shared, outbox, waiters, readers }))
    }
}

/// The data plane's handle on the ledger. It can hold and settle credits, nothing else.
#[derive(Clone, Debug)]
pub struct Spender(pub(super) Rc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) waiters: Waiters,
    /// Reads what is stored of requests with an idempotency key, and of jobs of a fleet.
    pub(super) readers: Readers,
}

/// The reason why no credits were held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// The key, or the account, may spend less than the amount.
    #[error("a spending limit is reached")]
    Capped(Capped),
    /// The account's balance minus its open holds is below the amount.
    #[error("not enough credits")]
    Insufficient,
    /// The ledger cannot write, or too many records wait to be written.
    #[error("the ledger is unavailable")]
    Unavailable,
}

/// Which credits are held, and for what.
#[derive(Debug)]
pub struct HoldRequest<'a> {
    /// The purse of the account that pays.
    pub purse: &'a Arc<Purse>,
    /// What the key, and its group, may still spend.
    pub caps: &'a KeyCaps,
    /// The key of the request.
    pub key: KeyNum,
    /// The route of the request.
    pub route: RouteNum,
    /// The credits.
    pub amount: Credits,
    /// The request's id.
    pub id: RequestId,
    /// The claim of the request's idempotency key, which is recorded with the hold, and until when it is for.
    pub claim: Option<(&'a mut Claim, WallTime)>,
}

impl Spender {
    /// Holds credits for a request. The hold is in memory when this returns, and on disk when [`Hold::committed`]
    /// returns.
    ///
    /// # Errors
    /// [`HoldError`]. Nothing is held then.
    #[inline]
    pub fn hold(
        &self,
        purse: &Arc<Purse>,
        key: KeyNum,
        route: RouteNum,
        amount: Credits,
        id: RequestId,
    ) -> Result<Hold, HoldError> {
        self.hold_as(HoldRequest { purse, caps: &KeyCaps::NONE, key, route, amount, id, claim: None })
    }

    /// Holds credits for a request whose key may have a spending limit, and that may claim its idempotency key.
    ///
    /// # Errors
    /// As [`Spender::hold`].
    #[inline]
    pub fn hold_as(&self, wanted: HoldRequest<'_>) -> Result<Hold, HoldError> {
        let HoldRequest { purse, caps, key, route, amount, id, claim } = wanted;
        if !self.0.shared.is_healthy.load(Ordering::Relaxed) {
            return Err(HoldError::Unavailable);
        }
        if self.0.shared.desk.as_ref().is_some_and(|desk| desk.is_cut_off()) {
            return Err(HoldError::Unavailable);
        }
        let caps = match self.0.shared.caps.is_empty() {
            true => Caps::default(),
            false => Caps { key: caps.clone(), account: purse.cap() },
        };
        caps.try_take(amount).map_err(HoldError::Capped)?;
        if !purse.try_take(amount) {
            caps.change(amount);
            return Err(HoldError::Insufficient);
        }
        let record = Record::Hold { id, account: purse.num, key, route, amount };
        let pushed = match &claim {
            None => self.0.outbox.push(&record),
            Some((claim, until)) => self.0.outbox.push_all(&[claim.record(id, *until), record]),
        };
        let Some(ticket) = pushed else {
            purse.give(amount);
            caps.change(amount);
            return Err(HoldError::Unavailable);
        };
        if let Some(desk) = &self.0.shared.desk {
            renew_what_runs_low(desk, purse, &caps);
        }
        if let Some((claim, until)) = claim {
            claim.recorded(id, until);
        }
        self.0.shared.record_added();
        let purse = Arc::clone(purse);
        Ok(Hold(Some(Open { purse, caps, spender: self.clone(), id, key, amount, ticket })))
    }

    /// True if the gateways of a fleet share the credits.
    #[must_use]
    pub fn is_of_fleet(&self) -> bool {
        self.0.shared.desk.is_some()
    }

    /// Leases credits for an amount, if the account has them and its spending limits leave them, and waits for it for a bounded
    /// time. If no credits are leased, no more can come: [`Lease::TooLittle`].
    ///
    /// # Errors
    /// [`NoLease`]: nothing can be leased now, whatever the account has.
    pub async fn lease(&self, purse: &Arc<Purse>, key: &KeyCaps, amount: Credits) -> Result<Lease, NoLease> {
        let Some(desk) = &self.0.shared.desk else { return Ok(Lease::TooLittle) };
        let caps = Caps { key: key.clone(), account: purse.cap() };
        let caps = caps.all().map(|(_, cap)| Arc::clone(cap) as Arc<dyn Lessee>);
        let all: Vec<Arc<dyn Lessee>> = caps.chain([Arc::clone(purse) as _]).collect();
        let leased = async {
            for short in all.iter().filter(|lessee| lessee.pot().local() < amount) {
                if desk.lease(short, amount).await? == Lease::TooLittle {
                    return Ok(Lease::TooLittle);
                }
            }
            Ok(Lease::Enough)
        };
        tokio::time::timeout(MAX_LEASE, leased).await.unwrap_or(Ok(Lease::TooLittle))
    }

    /// The open job of an account with this external id, if it is this gateway's.
    #[must_use]
    pub fn open_job(&self, purse: &Purse, external_id: &ExternalId) -> Option<OpenJob> {
        self.0.shared.jobs.find(purse.num, external_id)
    }

    /// True if the account has or had a job with this external id at this gateway.
    #[must_use]
    pub fn knows_job(&self, purse: &Purse, external_id: &ExternalId) -> bool {
        self.0.shared.jobs.knows(purse.num, external_id)
    }

    /// True if no further job can be opened.
    #[must_use]
    pub fn is_full_of_jobs(&self) -> bool {
        self.0.shared.jobs.is_full()
    }

    /// Wakes this worker's waiting tasks, on the worker's thread. Never returns; is dropped with the worker.
    pub async fn pump(&self) {
        self.0.waiters.pump().await;
    }
}

/// Leases more ahead of need.
fn renew_what_runs_low(desk: &Desk, purse: &Arc<Purse>, caps: &Caps) {
    if purse.pot().runs_low() {
        desk.renew(Arc::clone(purse) as _);
    }
    for (_, cap) in caps.all().filter(|(_, cap)| cap.pot().runs_low()) {
        desk.renew(Arc::clone(cap) as _);
    }
}

/// Credits that are held for a request. If it is dropped without being settled, the hold is released: the request costs
/// nothing.
#[derive(Debug)]
pub struct Hold(Option<Open>);

#[derive(Debug)]
struct Open {
    purse: Arc<Purse>,
    /// The caps of the key and the account, if they have spending limits.
    caps: Caps,
    spender: Spender,
    id: RequestId,
    key: KeyNum,
    amount: Credits,
    ticket: Ticket,
}

impl Hold {
    /// Waits until the hold is on disk; one atomic load if it already is.
    ///
    /// # Errors
    /// [`NotDurable`] if the commit failed. The caller must then release the hold and send no response that is charged.
    pub async fn committed(&self) -> Result<(), NotDurable> {
        match &self.0 {
            Some(open) => open.spender.0.waiters.durable(open.ticket).await,
            None => Ok(()),
        }
    }

    /// The credits held.
    #[must_use]
    pub fn amount(&self) -> Credits {
        self.0.as_ref().map_or(Credits::ZERO, |open| open.amount)
    }

    /// Settles the hold: charges at most its amount, and returns the rest to the purse immediately.
    pub fn settle(mut self, charge: Credits, outcome: StatusClass) -> Settled {
        match self.0.take() {
            Some(open) => open.settle(charge, outcome),
            None => Settled(None),
        }
    }

    /// Keeps the hold beyond its request, for a job. It is settled by its external id or at its deadline, and a crash does
    /// not put it in doubt. If the account has an open job with this id, which is paid for already, the hold is released.
    pub fn keep(mut self, kept: Kept, slot: Option<JobSlot>) -> Settled {
        let Some(open) = self.0.take() else { return Settled(None) };
        let shared = &open.spender.0.shared;
        let job = OpenJob {
            hold: open.id,
            account: open.purse.num,
            key: open.key,
            amount: open.amount,
            external_id: kept.external_id.clone(),
        };
        let record = Record::Keep { id: open.id, kept: kept.clone() };
        let Some(recorded) = shared.jobs.open(job, || open.spender.0.outbox.push(&record)) else {
            return open.settle(Credits::ZERO, StatusClass::Success);
        };
        // They may have another spending limit since: what the settlement returns to it must be taken from it.
        open.caps.pass_on(&shared.caps_of(open.key, Some(&open.purse)), open.amount);
        match slot {
            Some(slot) => slot.fill(),
            None => open.purse.add_job(),
        }
        let Some(ticket) = recorded else {
            let awaited = shared.successor.pass_on(open.id, Settlement::Keep(kept));
            return Settled(Some(Commit::Successor(awaited)));
        };
        shared.record_added();
        let (is_of_fleet, spender) = (shared.desk.is_some(), open.spender.clone());
        Settled(Some(match is_of_fleet {
            true => Commit::Kept(spender, ticket, open.id),
            false => Commit::Own(spender, ticket),
        }))
    }
}

impl Open {
    fn settle(self, charge: Credits, outcome: StatusClass) -> Settled {
        let back = returned(self.amount, charge);
        let charge = self.amount.checked_sub(back).unwrap_or(self.amount);
        let inner = &self.spender.0;
        // The record is added before the credits are returned: a hold that spends them must come after it in the
        // journal.
        let ticket = inner.outbox.push(&Record::Settle { id: self.id, charge, outcome });
        self.purse.give(back);
        self.caps.change(back);
        // A limit that was set since, or of the group that the key is in now, must know of this charge.
        self.caps.pass_on(&inner.shared.caps_of(self.key, Some(&self.purse)), charge);
        let Some(ticket) = ticket else {
            let settlement = Settlement::Charge(charge, outcome); // the ledger was handed over
            let awaited = inner.shared.successor.pass_on(self.id, settlement);
            return Settled(Some(Commit::Successor(awaited)).filter(|_| !back.is_zero()));
        };
        inner.shared.record_added();
        Settled(Some(Commit::Own(self.spender.clone(), ticket)).filter(|_| !back.is_zero()))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            open.settle(Credits::ZERO, StatusClass::None);
        }
    }
}

/// A hold that was settled or kept.
#[derive(Debug)]
pub struct Settled(pub(super) Option<Commit>);

/// The commit that a settlement waits for.
#[derive(Debug)]
pub(super) enum Commit {
    /// That of this process.
    Own(Spender, Ticket),
    /// That of a record in the outbox of the books thread.
    Books(Spender, Ticket),
    /// That of the process that the ledger was handed over to.
    Successor(Awaited),
    /// That of a job's hold. Then the gateways of the fleet must be able to find the job.
    Kept(Spender, Ticket, RequestId),
    /// That of a job of the fleet, which the books thread takes.
    OfFleet(Spender, Taken),
}

impl Settled {
    /// Waits until the settlement, or the record that keeps the hold, is on disk. Returns immediately for a charge
    /// equal to its hold, since a crash would charge the same.
    ///
    /// # Errors
    /// [`NotDurable`] if the commit failed. The caller must then not send the last byte of the response.
    pub async fn committed(&self) -> Result<(), NotDurable> {
        match &self.0 {
            Some(Commit::Own(spender, ticket)) => spender.0.waiters.durable(*ticket).await,
            Some(Commit::Books(spender, ticket)) => spender.books_durable(*ticket).await,
            Some(Commit::Successor(awaited)) => awaited.durable().await,
            Some(Commit::Kept(spender, ticket, hold)) => {
                spender.0.waiters.durable(*ticket).await?;
                spender.until_shared(*hold).await;
                Ok(())
            }
            Some(Commit::OfFleet(spender, taken)) => spender.taken(taken).await,
            None => Ok(()),
        }
    }

    /// True if somebody else settled the job before, which is known once [`Settled::committed`] has returned.
    #[must_use]
    pub fn was_too_late(&self) -> bool {
        matches!(&self.0, Some(Commit::OfFleet(_, taken)) if taken.was_too_late())
    }

    /// True if [`Settled::committed`] waits for a record.
    #[must_use]
    pub fn must_wait(&self) -> bool {
        self.0.is_some()
    }
}
