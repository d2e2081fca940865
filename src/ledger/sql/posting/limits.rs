//! Sets spending limits, and begins their periods.

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
    let begin = |table: &str| -> Result<Vec<(u32, Credits)>> {
        let mut begun = Vec::new();
        for (num, mut spending) in over(tx, table, now, most)? {
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
