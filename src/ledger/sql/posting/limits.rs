//! Sets spending limits, and begins their periods.

use std::collections::HashSet;

use super::groups;
use crate::ledger::sql::db::{Connection, Row, Transaction, params};
use crate::ledger::sql::leases;
use crate::ledger::sql::rows::spending;
use crate::ledger::store::{Begun, Result};
use crate::policy::credit::refill::Every;
use crate::policy::credit::{SpendLimit, Spending};
use crate::types::{AccountNum, Credits, KeyNum, WallTime};

/// The columns of [`spending`].
const SPENDING: &str = "spend_limit, spent, spend_every, spent_before, spend_period";

/// Writes a limit, and since when it counts. `table`: `keys`, `spend_groups` or `accounts`.
pub(in crate::ledger::sql) fn store(
    tx: &Transaction<'_>,
    table: &str,
    num: u32,
    spending: &Spending,
) -> Result<()> {
    let sql = format!(
        "UPDATE {table} SET spend_limit = ?2, spend_every = ?3, spent_before = ?4, spend_period = ?5 WHERE num = ?1"
    );
    let limit = spending.limit;
    let values = params![
        num,
        limit.map(|limit| limit.credits.millionths()),
        limit.and_then(|limit| limit.every).map(Every::name),
        spending.before.millionths(),
        spending.period.map(|period| period.0),
    ];
    tx.run(&sql, values)
}

/// Sets the spending limits of accounts.
pub(in crate::ledger::sql) fn limit_accounts(
    tx: &Transaction<'_>,
    limits: &[(AccountNum, Option<SpendLimit>)],
    at: WallTime,
) -> Result<Vec<(AccountNum, Spending, Spending)>> {
    let sql = format!("SELECT {SPENDING} FROM accounts WHERE num = ?1");
    let mut changed = Vec::new();
    for (num, limit) in limits {
        let found = tx.find(&sql, params![num.0], |row| spending(row, 0))?;
        let Some(before) = found else { continue };
        let mut after = before;
        after.set_limit(*limit, at);
        store(tx, "accounts", num.0, &after)?;
        leases::changed_account(tx, *num)?;
        changed.push((*num, before, after));
    }
    Ok(changed)
}

/// True if there is a limit.
pub(super) fn exist(tx: &Transaction<'_>) -> Result<bool> {
    tx.exists(
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM keys WHERE spend_limit IS NOT NULL)
             OR EXISTS (SELECT 1 FROM spend_groups) OR EXISTS (SELECT 1 FROM accounts WHERE spend_limit IS NOT NULL)",
        params![],
    )
}

/// True if a period of a limit is over.
pub(in crate::ledger::sql) fn are_over(connection: &Connection, now: WallTime) -> Result<bool> {
    for table in ["keys", "spend_groups", "accounts"] {
        if !over(connection, table, now, 1)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Begins the periods of limits that are over.
pub(in crate::ledger::sql) fn begin(tx: &Transaction<'_>, now: WallTime, most: usize) -> Result<Begun> {
    let locked = if tx.is_shared() { Some(lock(tx, now, most)?) } else { None };
    let begin = |table: &str| -> Result<Vec<(u32, Credits)>> {
        let mut begun = Vec::new();
        let mut over = over(tx, table, now, most)?;
        over.retain(|(num, _)| locked.as_ref().is_none_or(|locked| locked.contains(&(table, *num))));
        for (num, mut spending) in over {
            let more = spending.begin(now);
            store(tx, table, num, &spending)?;
            begun.push((num, more));
        }
        Ok(begun)
    };
    let groups = begin("spend_groups")?.into_iter().map(|(num, more)| Ok((groups::id(tx, num)?, more)));
    Ok(Begun {
        keys: begin("keys")?.into_iter().map(|(num, more)| (KeyNum(num), more)).collect(),
        groups: groups.collect::<Result<_>>()?,
        accounts: begin("accounts")?.into_iter().map(|(num, more)| (AccountNum(num), more)).collect(),
    })
}

/// Locks the accounts of the limits whose period is over, as folds of other gateways do before they count what is spent. Returns
/// the tables and numbers of these limits.
fn lock<'a>(tx: &Transaction<'_>, now: WallTime, most: usize) -> Result<HashSet<(&'a str, u32)>> {
    let mut locked = HashSet::new();
    let mut lists = Vec::new();
    for table in ["accounts", "keys", "spend_groups"] {
        let numbers: Vec<u32> = over(tx, table, now, most)?.into_iter().map(|(num, _)| num).collect();
        lists.push(numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(","));
        locked.extend(numbers.into_iter().map(|num| (table, num)));
    }
    let listed = |at: usize| format!("ANY (CAST(string_to_array(?{at}, ',') AS BIGINT[]))");
    let sql = format!(
        "SELECT num FROM accounts WHERE num = {}
             OR num IN (SELECT account FROM keys WHERE num = {})
             OR num IN (SELECT account FROM spend_groups WHERE num = {}) ORDER BY num FOR UPDATE",
        listed(1),
        listed(2),
        listed(3)
    );
    if !locked.is_empty() {
        tx.exists(&sql, params![lists[0], lists[1], lists[2]])?;
    }
    Ok(locked)
}

/// The limits whose period is over, at most `most`.
fn over(connection: &Connection, table: &str, now: WallTime, most: usize) -> Result<Vec<(u32, Spending)>> {
    let sql = format!(
        "SELECT num, {SPENDING} FROM {table} WHERE spend_every = ?1 AND spend_period < ?2
         UNION ALL SELECT num, {SPENDING} FROM {table} WHERE spend_every = ?1 AND spend_period > ?3 LIMIT ?4"
    );
    let mut found = Vec::new();
    for every in Every::ALL {
        let limit = SpendLimit { credits: Credits::ZERO, every: Some(every) };
        let Some(start) = limit.period(now) else { continue };
        let values = params![every.name(), start.0, limit.latest(now).0, most - found.len()];
        let columns = |row: &Row<'_>| Ok((row.get(0)?, spending(row, 1)?));
        found.extend(connection.all(&sql, values, columns)?);
    }
    Ok(found)
}
