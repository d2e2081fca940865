//! Settles kept holds, which are those of jobs. In a fleet, gives them to the fleet, and takes those that it settles.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::books::BooksThread;
use super::opening;
use crate::ledger::jobs::Settling;
use crate::ledger::outbox::Ticket;
use crate::ledger::record::ExternalId;
use crate::ledger::store::{FleetJob, LedgerError, Result, TakenJobs};
use crate::ledger::tally::{Fold, OpenHold};
#[cfg(test)]
use crate::policy::credit::returned;
use crate::types::{AccountId, Credits, RequestId, StatusClass};

/// Most holds that are settled at their deadline in one fold. The rest waits for the next one.
const MAX_SETTLED_AT_ONCE: usize = 10_000;
/// Most jobs of a fleet that are taken in one transaction.
const MAX_TAKEN_AT_ONCE: usize = 500;
/// Most jobs that failed transactions may have taken. Further ones are given back when the gateway is restarted.
const MAX_PERHAPS_TAKEN: usize = 100_000;
/// Most such transactions before other work is done.
const MAX_ROUNDS: usize = 3;

/// The charge of a job, and the ticket of its record; `None` if the ledger is closed.
pub(in crate::ledger) type SettledHere = (Credits, Option<Ticket>);

impl BooksThread {
    /// Settles kept holds whose deadline has passed.
    pub(super) fn settle_due_holds(&mut self) {
        for hold in self.tally.kept_until(self.clock.wall(), MAX_SETTLED_AT_ONCE) {
            let charge = hold.kept.as_ref().map_or(Credits::ZERO, |kept| kept.charge_at_deadline);
            self.settle_kept(hold.id, charge, StatusClass::None);
        }
    }

    /// Settles a kept hold, once. Returns the charge; `None` if there is no such hold, or somebody else settles it.
    pub(super) fn settle_kept(
        &mut self,
        id: RequestId,
        charge: Credits,
        outcome: StatusClass,
    ) -> Option<Credits> {
        let job = self.shared.jobs.take(id)?;
        let (charge, _) = self.shared.settle_job(&job, charge, outcome);
        #[cfg(test)]
        self.kept_settled.push((job.account, returned(job.amount, charge)));
        Some(charge)
    }

    /// Settles the open job of an account. The settlement is on disk when this returns. `None` if there is no such job.
    pub(in crate::ledger) fn settle_external(
        &mut self,
        account: &AccountId,
        external_id: &ExternalId,
        charge: Option<Credits>,
    ) -> Result<Option<Credits>> {
        let num = self.account(account)?.num;
        if let Some(job) = self.shared.jobs.find(num, external_id) {
            let charged = self.settle_kept(job.hold, charge.unwrap_or(job.amount), StatusClass::Success);
            self.wait_until_written()?;
            return Ok(charged);
        }
        if !self.is_leased() {
            return Ok(None);
        }
        let hold = match self.books.reader()?.find_job(Some(num), external_id)? {
            FleetJob::Open(hold) => hold,
            FleetJob::BeingSettled => {
                let message = format!("a gateway is settling the job {}: try again", external_id.as_str());
                return Err(LedgerError::Refused(message));
            }
            FleetJob::Settled | FleetJob::Unknown => return Ok(None),
        };
        let wanted = [(hold.id, charge.unwrap_or(hold.amount), StatusClass::Success)];
        let settled = self.settle_of_fleet(&wanted)?.pop().flatten();
        self.wait_until_written()?;
        self.shared.want_fold(); // so that all gateways see soon what became of it
        Ok(settled.map(|(charged, _)| charged))
    }

    /// Gives the kept holds that nobody settles now to the fleet, with the next fold.
    pub(super) fn share_kept(&mut self) {
        if self.shared.desk.is_none() {
            return;
        }
        for id in self.tally.kept_holds() {
            if self.shared.jobs.share(id) {
                self.tally.share(id);
            }
        }
    }

    /// The fleet has these jobs now.
    pub(super) fn shared_kept(&self, fold: &Fold) {
        for hold in &fold.shared {
            self.shared.jobs.shared(hold.id);
            self.shared.purses.get(hold.account).iter().for_each(|purse| purse.share_job());
        }
    }

    /// Takes open jobs of the fleet and settles them. Returns for each the charge, and the ticket of its record; `None` if the
    /// fleet does not have the job any more: somebody else settles it.
    pub(in crate::ledger) fn settle_of_fleet(
        &mut self,
        wanted: &[(RequestId, Credits, StatusClass)],
    ) -> Result<Vec<Option<SettledHere>>> {
        if self.unwritten.is_some() {
            self.fold_committed()?; // the jobs may be in there
        }
        let ids: Vec<RequestId> = wanted.iter().map(|(id, ..)| *id).collect();
        let taken = self.take_of_fleet(&ids)?;
        let settle = |(id, charge, outcome): &(RequestId, Credits, StatusClass)| {
            let taken = taken.iter().find(|taken| taken.id == *id)?;
            let mut settled = None;
            for hold in &taken.holds {
                if !self.hold_taken(hold) {
                    continue; // it is being settled here
                }
                let Some(job) = opening::open_job(hold) else { continue };
                // Of several with the same external id, one is charged.
                let charge = if settled.is_none() { *charge } else { Credits::ZERO };
                let one = self.shared.settle_job(&job, charge, *outcome);
                settled.get_or_insert(one);
            }
            settled
        };
        Ok(wanted.iter().map(settle).collect())
    }

    /// Takes jobs of the fleet. If that fails, they may have been taken.
    fn take_of_fleet(&mut self, ids: &[RequestId]) -> Result<Vec<TakenJobs>> {
        self.books.take_jobs(ids).inspect_err(|_| {
            let room = MAX_PERHAPS_TAKEN.saturating_sub(self.perhaps_taken.len());
            self.perhaps_taken.extend(ids.iter().take(room));
        })
    }

    /// Holds what was taken. False if it is held here already.
    fn hold_taken(&mut self, hold: &OpenHold) -> bool {
        if self.tally.is_open(hold.id) {
            return false;
        }
        self.tally.take(hold.clone());
        // Another gateway may have created the account just now.
        let purse = self.shared.purses.add(hold.account, Credits::ZERO);
        purse.take_job();
        // What is not charged is leased by this gateway.
        let caps = self.shared.caps_of(hold.key, Some(&purse));
        for lessee in caps.all().map(|(_, cap)| Arc::clone(cap) as _).chain([purse as _]) {
            self.shared.desk.iter().for_each(|desk| desk.renew(Arc::clone(&lessee)));
        }
        true
    }

    /// Settles the jobs of the fleet that requests wait for.
    pub(super) fn settle_wanted(&mut self) {
        for _ in 0..MAX_ROUNDS {
            let some: Vec<Settling> = {
                let mut settling = self.shared.jobs.settling.lock();
                let count = settling.len().min(MAX_TAKEN_AT_ONCE);
                settling.drain(..count).collect()
            };
            if some.is_empty() {
                return;
            }
            let wanted: Vec<_> = some.iter().map(|one| (one.hold, one.charge, one.outcome)).collect();
            let settled = self.settle_of_fleet(&wanted);
            if let Err(error) = &settled {
                tracing::error!(%error, jobs = some.len(), "jobs are not settled: they stay open");
            }
            for (at, one) in some.into_iter().enumerate() {
                one.tell(settled.as_ref().ok().and_then(|all| all.get(at).copied()));
            }
        }
        self.shared.job_added(); // the rest follows after a fold, if one is due
    }

    /// Settles jobs of the fleet whose deadline has passed, and gives back those that a failed transaction may have taken.
    pub(super) fn settle_due_of_fleet(&mut self) -> Result<()> {
        self.give_back_taken()?;
        if !self.shared.leads.load(Ordering::SeqCst) {
            return Ok(());
        }
        for _ in 0..MAX_ROUNDS {
            let due = self.books.due_jobs(self.clock.wall(), MAX_TAKEN_AT_ONCE)?;
            let due: Vec<_> = due.into_iter().map(|(id, charge)| (id, charge, StatusClass::None)).collect();
            if due.is_empty() {
                return Ok(());
            }
            self.settle_of_fleet(&due)?;
            self.fold()?;
        }
        Ok(())
    }

    /// Gives jobs back to the fleet that a transaction took of which the outcome is not known.
    fn give_back_taken(&mut self) -> Result<()> {
        if self.perhaps_taken.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = self.perhaps_taken.iter().take(MAX_TAKEN_AT_ONCE).copied().collect();
        let taken = self.take_of_fleet(&ids)?;
        self.perhaps_taken.retain(|id| !ids.contains(id));
        let holds: BTreeMap<RequestId, &OpenHold> =
            taken.iter().flat_map(|taken| &taken.holds).map(|hold| (hold.id, hold)).collect();
        for hold in holds.into_values() {
            if self.hold_taken(hold) {
                self.tally.share(hold.id);
            }
        }
        self.fold()
    }
}
