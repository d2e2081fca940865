//! Assigns numbers to what a configuration lists, and books opening grants.

use super::db::{Transaction, params};
use super::posting::{self, Posting, refills};
use super::{accounts, keys};
use crate::ledger::store::{Registered, Registration, Result};
use crate::types::{RouteNum, WallTime};

/// Registers accounts, keys, routes, buckets and refills.
pub(super) fn register(tx: &Transaction<'_>, wanted: &Registration, at: WallTime) -> Result<Registered> {
    let mut registered = Registered::default();
    let mut posting = Posting::start(tx)?;
    posting::register(tx, &wanted.buckets)?;
    refills::register(tx, wanted.refills.as_deref(), at)?;
    if let Some(lists) = wanted.lists_requests {
        let sql = "UPDATE journal SET listed_since = CASE WHEN ?1 THEN coalesce(listed_since, ?2) END";
        tx.run(sql, params![lists, at.0])?;
    }
    for account in &wanted.accounts {
        let row = accounts::register(tx, &mut posting, account, at)?;
        refills::put_on(tx, row.num, account.plan.as_deref())?;
        registered.accounts.push(row);
    }
    posting.finish()?;
    registered.keys = keys::register(tx, &wanted.keys, at)?;
    for name in &wanted.routes {
        let sql = "INSERT INTO routes (name) VALUES (?1) ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING num";
        let num = tx.one(sql, params![name.as_str()], |row| row.get(0))?;
        registered.routes.push(RouteNum(num));
    }
    Ok(registered)
}
