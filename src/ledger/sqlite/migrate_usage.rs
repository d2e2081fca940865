//! Counts anew the usage of versions that kept each moment in an interval of one length only.

use crate::ledger::sql::db::{Transaction, params};
use crate::ledger::sql::usage::{Id, SUM_STEPS, Sums, durations_of};
use crate::ledger::store::{Result, UsageStep};
use crate::policy::outcome::usage::UsageCount;

const ROWS: &str =
    "SELECT account, at, key, route, outcome, requests, credits, bytes_in, bytes_out, durations
     FROM usage WHERE step = ?1 AND account >= 0";

fn each(tx: &Transaction<'_>, step: UsageStep, mut call: impl FnMut(Id, &UsageCount, i64)) -> Result<()> {
    tx.each(ROWS, params![step.minutes()], |row| {
        let (account, at, key, route, outcome) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
        let (bytes_in, bytes_out) = (row.get(7)?, row.get(8)?);
        let count =
            UsageCount { requests: row.get(5)?, bytes_in, bytes_out, durations: durations_of(row, 9)? };
        call(Id { account, step, at, key, route, outcome }, &count, row.get(6)?);
        Ok(())
    })
}

/// Adds up minutes in hours, hours in days, and the sums.
pub(super) fn count_anew(tx: &Transaction<'_>) -> Result<()> {
    for (from, to) in [(UsageStep::Minute, UsageStep::Hour), (UsageStep::Hour, UsageStep::Day)] {
        let mut longer = Sums::default();
        each(tx, from, |id, count, charged| {
            longer.add(Id { step: to, at: to.floor(id.at), ..id }, count, charged);
        })?;
        longer.write(tx)?;
    }
    let mut sums = Sums::default();
    for step in SUM_STEPS {
        each(tx, step, |id, count, charged| sums.add_sums(&id, count, charged))?;
    }
    sums.write(tx)
}
