//! Settles the open holds of the process that handed the ledger over.

use super::books::BooksThread;
use super::opening;
use crate::ledger::adoption::Settlement;
use crate::ledger::jobs::OpenJob;
use crate::ledger::record::{Kept, Record};
use crate::ledger::store::Result;
use crate::ledger::tally::OpenHold;
use crate::policy::credit::returned;
use crate::types::{Credits, RequestId, StatusClass};

impl BooksThread {
    /// Settles or keeps a hold of the process that handed the ledger over. It is on disk when this returns. False if there
    /// is no such hold.
    pub(in crate::ledger) fn settle_adopted(
        &mut self,
        id: RequestId,
        settlement: Settlement,
    ) -> Result<bool> {
        let is_settled = match settlement {
            Settlement::Charge(charge, outcome) if self.adopted.remove(&id) => {
                self.tally.open_hold(id).cloned().map(|hold| self.settle(&hold, charge, outcome)).is_some()
            }
            Settlement::Charge(..) => false,
            Settlement::Job(charge, outcome) => {
                if self.settle_kept(id, charge, outcome).is_none() && self.is_leased() {
                    self.settle_of_fleet(&[(id, charge, outcome)])?; // or it is settled already
                }
                true
            }
            Settlement::Keep(kept) if self.adopted.remove(&id) => self.keep_adopted(id, kept),
            Settlement::Keep(_) => false,
            Settlement::Claim(repeat, answer) => opening::decide_adopted(&self.shared, id, repeat, answer),
        };
        if is_settled {
            self.wait_until_written()?;
            self.shared.want_fold_soon();
        }
        Ok(is_settled)
    }

    fn keep_adopted(&mut self, id: RequestId, kept: Kept) -> bool {
        let Some(hold) = self.tally.open_hold(id).cloned() else { return false };
        let job = OpenJob {
            hold: id,
            account: hold.account,
            key: hold.key,
            amount: hold.amount,
            external_id: kept.external_id.clone(),
        };
        let record = Record::Keep { id, kept };
        let own_outbox = self.shared.outboxes.last();
        if self.shared.jobs.open(job, || own_outbox.and_then(|outbox| outbox.push(&record))).is_none() {
            self.settle(&hold, Credits::ZERO, StatusClass::Success); // this job is paid for already
            return true;
        }
        if let Some(purse) = self.shared.purses.get(hold.account) {
            purse.add_job();
        }
        self.shared.record_added();
        true
    }

    /// Puts the rest of the adopted holds in doubt, since nobody will settle them. Returns their number.
    pub(in crate::ledger) fn abandon_adopted(&mut self) -> Result<usize> {
        for (id, hold) in self.shared.claims.adopted() {
            opening::decide_adopted(&self.shared, hold, id, Some(Vec::new()));
        }
        self.fold()?;
        let ids: Vec<RequestId> = self.adopted.drain().filter(|id| self.tally.is_open(*id)).collect();
        if !ids.is_empty() {
            self.unwritten = Some(self.tally.doubt(&ids));
            self.fold_committed()?;
        }
        Ok(ids.len())
    }

    /// Settles an adopted hold. Adds the record before it returns the credits.
    fn settle(&mut self, hold: &OpenHold, charge: Credits, outcome: StatusClass) {
        let Some(purse) = self.shared.purses.get(hold.account) else { return };
        let back = returned(hold.amount, charge);
        let charge = hold.amount.checked_sub(back).unwrap_or(hold.amount);
        if let Some(own_outbox) = self.shared.outboxes.last() {
            own_outbox.push(&Record::Settle { id: hold.id, charge, outcome });
        }
        purse.give(back);
        self.shared.caps_of(hold.key, Some(&purse)).change(back);
        self.shared.record_added();
    }
}
