//! Settles kept holds, which are those of jobs. In a fleet, gives them to the fleet, and takes those that it settles.

use std::sync::Arc;

use super::books::BooksThread;
use super::opening;
use crate::ledger::outbox::Ticket;
use crate::ledger::record::ExternalId;
use crate::ledger::store::Result;
use crate::ledger::tally::Fold;
#[cfg(test)]
use crate::policy::credit::returned;
use crate::types::{AccountId, Credits, RequestId, StatusClass};

/// Most holds that are settled at their deadline in one fold. The rest waits for the next one.
const MAX_SETTLED_AT_ONCE: usize = 10_000;
/// Most jobs of a fleet that are settled at their deadline after one fold, each by a transaction.
const MAX_TAKEN_AT_ONCE: usize = 200;

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
        let (open, _) = self.books.reader()?.find_job(Some(num), external_id)?;
        let Some(hold) = open.first() else { return Ok(None) };
        let settled = self.settle_of_fleet(hold.id, charge.unwrap_or(hold.amount), StatusClass::Success)?;
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

    /// Takes an open job of the fleet and settles it. Returns the charge, and the ticket of its record; `None` if the fleet does
    /// not have the job any more: another gateway settles it.
    pub(in crate::ledger) fn settle_of_fleet(
        &mut self,
        id: RequestId,
        charge: Credits,
        outcome: StatusClass,
    ) -> Result<Option<(Credits, Option<Ticket>)>> {
        if self.unwritten.is_some() {
            self.fold_committed()?; // the job may be in there
        }
        let mut settled = None;
        for hold in self.books.take_jobs(id)? {
            self.tally.take(hold.clone());
            let Some(job) = opening::open_job(&hold) else { continue };
            if let Some(purse) = self.shared.purses.get(hold.account) {
                purse.take_job();
                // What is not charged is leased by this gateway.
                let caps = self.shared.caps_of(hold.key, Some(&purse));
                for lessee in caps.all().map(|(_, cap)| Arc::clone(cap) as _).chain([purse as _]) {
                    self.shared.desk.iter().for_each(|desk| desk.renew(Arc::clone(&lessee)));
                }
            }
            // Of several with the same external id, one is charged.
            let charge = if settled.is_none() { charge } else { Credits::ZERO };
            let one = self.shared.settle_job(&job, charge, outcome);
            settled.get_or_insert(one);
        }
        Ok(settled)
    }

    /// Settles jobs of the fleet whose deadline has passed.
    pub(super) fn settle_due_of_fleet(&mut self) -> Result<()> {
        let due = self.books.due_jobs(self.clock.wall(), MAX_TAKEN_AT_ONCE)?;
        if due.is_empty() {
            return Ok(());
        }
        for (id, charge) in due {
            self.settle_of_fleet(id, charge, StatusClass::None)?;
        }
        self.fold()
    }
}
