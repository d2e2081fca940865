//! Fills the shared state when a ledger is opened.

use std::ops::ControlFlow;

use super::shared::Shared;
use crate::ledger::caps::SpendCap;
use crate::ledger::jobs::OpenJob;
use crate::ledger::store::{BooksReader, Result, each_account};
use crate::ledger::tally::OpenHold;
use crate::types::Credits;

/// Creates the purses and caps of all accounts and keys. Returns the sum over all accounts.
pub(super) fn fill(shared: &Shared, reader: &mut dyn BooksReader) -> Result<i128> {
    let mut sum = reader.operator_accounts()?.sum();
    each_account(reader, |row| {
        sum += i128::from(row.balance.millionths());
        let purse = shared.purses.add(row.num, row.balance);
        row.wallet.into_iter().for_each(|wallet| purse.show(*wallet));
        purse.set_cap(SpendCap::of(&row.spending));
        ControlFlow::Continue(())
    })?;
    reader.each_cap(&mut |key, spending| {
        SpendCap::of(&spending).into_iter().for_each(|cap| shared.caps.add(key, cap));
    })?;
    Ok(sum)
}

/// Subtracts a hold that is open at the start, and lists its job.
pub(super) fn take_open(shared: &Shared, hold: &OpenHold) {
    let purse = shared.purses.get(hold.account);
    let caps = shared.caps_of(hold.key, purse.as_ref());
    caps.change(Credits::ZERO.checked_sub(hold.amount).unwrap_or_default());
    if let Some(purse) = purse {
        purse.take_kept(hold.amount);
        if let Some(job) = open_job(hold)
            && shared.jobs.open(job, || ()).is_some()
        {
            purse.add_job();
        }
    }
}

/// The job of a kept hold.
pub(super) fn open_job(hold: &OpenHold) -> Option<OpenJob> {
    let external_id = hold.kept.as_ref()?.external_id.clone();
    let OpenHold { id, account, key, amount, .. } = *hold;
    Some(OpenJob { hold: id, account, key, amount, external_id })
}
