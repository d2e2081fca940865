//! Fills the shared state when a ledger is opened.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::shared::Shared;
use crate::ledger::caps::{KeyCaps, SpendCap};
use crate::ledger::claims::{self, ClaimChange};
use crate::ledger::jobs::OpenJob;
use crate::ledger::record::Record;
use crate::ledger::store::{BooksReader, LeaseOf, Result, each_account};
use crate::ledger::tally::{Fold, OpenHold};
use crate::types::{Credits, KeyHash, RequestId, StatusClass};

/// Creates the purses and caps of all accounts and keys. Returns the sum over all accounts.
pub(super) fn fill(shared: &Shared, reader: &mut dyn BooksReader) -> Result<i128> {
    reader.freeze()?; // other gateways of a fleet fold meanwhile
    let is_leased = shared.desk.is_some();
    let mut sum = reader.operator_accounts()?.sum();
    each_account(reader, |row| {
        sum += i128::from(row.balance.millionths());
        let purse = shared.purses.add(row.num, row.balance.checked_sub(row.held).unwrap_or_default());
        row.wallet.into_iter().for_each(|wallet| purse.show(*wallet));
        if let Some(cap) = SpendCap::new(LeaseOf::Limit(row.num), &row.spending, is_leased) {
            shared.caps.note();
            purse.set_cap(Some(Arc::new(cap)));
        }
        ControlFlow::Continue(())
    })?;
    reader.each_group(None, &mut |row| {
        let cap = SpendCap::new(LeaseOf::Group(row.num), &row.spending, is_leased);
        cap.into_iter().for_each(|cap| shared.caps.add_group(row.id.clone(), Arc::new(cap)));
    })?;
    reader.each_cap(&mut |key, spending, group| {
        let group = group.and_then(|id| shared.caps.group(&id));
        let own = SpendCap::new(LeaseOf::Key(key), &spending, is_leased).map(Arc::new);
        shared.caps.set(key, KeyCaps { own, group });
    })?;
    Ok(sum)
}

/// Subtracts a hold that is open at the start, and lists its job.
pub(super) fn take_open(shared: &Shared, hold: &OpenHold) {
    let purse = shared.purses.get(hold.account);
    let is_listed = open_job(hold).map(|job| shared.jobs.open(job, || ()).is_some());
    if is_listed == Some(false) {
        // Gateways of a fleet opened a job of this name twice: one hold pays for it.
        let released = Record::Settle { id: hold.id, charge: Credits::ZERO, outcome: StatusClass::Success };
        shared.outboxes.last().and_then(|outbox| outbox.push(&released));
        return;
    }
    let caps = shared.caps_of(hold.key, purse.as_ref());
    caps.change(Credits::ZERO.checked_sub(hold.amount).unwrap_or_default());
    if let Some(purse) = purse {
        purse.take_kept(hold.amount);
        if is_listed.is_some() {
            purse.add_job();
        }
    }
}

/// Most claims that are adopted. Repeats of the others are told that their answer was not kept.
const MAX_ADOPTED: usize = 100_000;

/// Lists the claims that are in progress in the process that handed the ledger over.
pub(super) fn adopt_claims(shared: &Shared, reader: &mut dyn BooksReader) -> Result<()> {
    reader.unanswered(MAX_ADOPTED)?.iter().for_each(|row| shared.claims.adopt(row));
    Ok(())
}

/// Ends the claims that a crash left in progress: their answers are lost.
pub(super) fn lose_claims(fold: &mut Fold, reader: &mut dyn BooksReader) -> Result<()> {
    let mut stored = reader.unanswered(MAX_ADOPTED)?;
    stored.retain(|row| !fold.claims.iter().any(|(id, _)| *id == row.id));
    for (_, change) in &mut fold.claims {
        if let ClaimChange::Made(row) = change {
            row.answer.get_or_insert_default();
        }
    }
    let lost = stored.into_iter().map(|row| (row.id, ClaimChange::Answered(row.hold, Vec::new())));
    fold.claims.extend(lost);
    Ok(())
}

/// Records what became of an adopted claim. False if the ledger is closed.
pub(super) fn decide_adopted(shared: &Shared, hold: RequestId, id: KeyHash, answer: Option<Vec<u8>>) -> bool {
    let Some(outbox) = shared.outboxes.last() else { return false };
    let unclaim = || vec![Record::Unclaim { id: hold, repeat: id }];
    let records = answer.as_ref().map_or_else(unclaim, |sealed| claims::records(hold, id, sealed));
    let Some(ticket) = outbox.push_all(&records) else { return false };
    shared.claims.settle_adopted(&id, hold, answer, (outbox, ticket));
    shared.want_fold_soon();
    shared.record_added();
    true
}

/// The job of a kept hold.
pub(in crate::ledger) fn open_job(hold: &OpenHold) -> Option<OpenJob> {
    let external_id = hold.kept.as_ref()?.external_id.clone();
    let OpenHold { id, account, key, amount, .. } = *hold;
    Some(OpenJob { hold: id, account, key, amount, external_id })
}
