//! Writes and reads groups of keys that have a spending limit together.

use super::limits;
use crate::ledger::sql::db::{Connection, Row, Transaction, params};
use crate::ledger::sql::events::number_of;
use crate::ledger::sql::leases;
use crate::ledger::sql::rows::{group_name, spending};
use crate::ledger::store::{Changed, GroupId, GroupRow, LedgerError, MAX_GROUPS, Result};
use crate::policy::credit::{SpendLimit, Spending};
use crate::types::{AccountId, AccountNum, GroupName, KeyNum, WallTime};

const GROUPS: &str =
    "SELECT g.account, g.name, g.spend_limit, g.spent, g.spend_every, g.spent_before, g.spend_period,
         (SELECT count(*) FROM keys k WHERE k.spend_group = g.num AND k.state <> 'revoked'), g.num
     FROM spend_groups g";

fn group_row(row: &Row<'_>) -> Result<GroupRow> {
    let id = (AccountNum(row.get(0)?), group_name(row, 1)?);
    Ok(GroupRow { id, num: row.get(8)?, spending: spending(row, 2)?, keys: row.get(7)? })
}

/// Calls `each` for the groups of an account, or of all.
pub(in crate::ledger::sql) fn each(
    connection: &Connection,
    account: Option<AccountNum>,
    each: &mut dyn FnMut(GroupRow),
) -> Result<()> {
    let sql = match account {
        Some(_) => format!("{GROUPS} WHERE g.account = ?1 ORDER BY g.name"),
        None => format!("{GROUPS} WHERE CAST(?1 AS BIGINT) IS NULL ORDER BY g.account, g.name"),
    };
    connection.each(&sql, params![account.map(|account| account.0)], |row| {
        each(group_row(row)?);
        Ok(())
    })
}

/// Calls `each` for every key that has a spending limit, or is in a group.
pub(in crate::ledger::sql) fn each_cap(
    connection: &Connection,
    each: &mut dyn FnMut(KeyNum, Spending, Option<GroupId>),
) -> Result<()> {
    let sql = "SELECT k.num, k.spend_limit, k.spent, k.spend_every, k.spent_before, k.spend_period, g.account, g.name
               FROM keys k LEFT JOIN spend_groups g ON g.num = k.spend_group
               WHERE k.spend_limit IS NOT NULL OR k.spend_group IS NOT NULL";
    let columns = |row: &Row<'_>| {
        let account = row.get::<Option<u32>>(6)?.map(AccountNum);
        let group = match account {
            Some(account) => Some((account, group_name(row, 7)?)),
            None => None,
        };
        Ok((KeyNum(row.get(0)?), spending(row, 1)?, group))
    };
    connection.each(sql, params![], |row| {
        let (key, spending, group) = columns(row)?;
        each(key, spending, group);
        Ok(())
    })
}

/// What identifies the group with a number.
pub(super) fn id(tx: &Transaction<'_>, num: u32) -> Result<GroupId> {
    tx.one("SELECT account, name FROM spend_groups WHERE num = ?1", params![num], |row| {
        Ok((AccountNum(row.get(0)?), group_name(row, 1)?))
    })
}

/// True if there is a group.
pub(super) fn exist(tx: &Transaction<'_>) -> Result<bool> {
    tx.exists("SELECT 1 FROM spend_groups LIMIT 1", params![])
}

/// Puts a key in a group of its account, or in none.
pub(in crate::ledger::sql) fn put_key(
    tx: &Transaction<'_>,
    key: u32,
    group: Option<&GroupName>,
) -> Result<()> {
    let sql = "UPDATE keys SET spend_group =
                   (SELECT num FROM spend_groups WHERE account = keys.account AND name = ?2)
               WHERE num = ?1 RETURNING spend_group";
    let values = params![key, group.map(GroupName::as_str)];
    let found: Option<u32> = tx.one(sql, values, |row| row.get(0))?;
    match group {
        Some(name) if found.is_none() => {
            Err(LedgerError::Refused(format!("the account has no group {name}")))
        }
        _ => Ok(()),
    }
}

/// Sets the limit of a group, which is created if there is none; deletes it if the limit is `None`.
pub(in crate::ledger::sql) fn change(
    tx: &Transaction<'_>,
    account: &AccountId,
    name: &GroupName,
    limit: Option<SpendLimit>,
    at: WallTime,
) -> Result<Changed<Option<GroupRow>>> {
    let account = number_of(tx, Some(account))?;
    let before = find(tx, account, name)?;
    let Some(limit) = limit else {
        let Some((num, row)) = before else {
            return Err(LedgerError::Unknown(format!("the account has no group {name}")));
        };
        row.check_unused()?;
        // Revoked keys may still name it.
        tx.run("UPDATE keys SET spend_group = NULL WHERE spend_group = ?1", params![num])?;
        tx.run("DELETE FROM spend_groups WHERE num = ?1", params![num])?;
        leases::changed_account(tx, account)?;
        return Ok(Changed { before: Some(row), after: None });
    };
    let num = match &before {
        Some((num, _)) => *num,
        None => create(tx, account, name)?,
    };
    let before = before.map(|(_, row)| row);
    let mut spending = before.as_ref().map(|row| row.spending).unwrap_or_default();
    spending.set_limit(Some(limit), at);
    limits::store(tx, "spend_groups", num, &spending)?;
    leases::changed_account(tx, account)?;
    let after = find(tx, account, name)?.map(|(_, row)| row);
    Ok(Changed { before, after })
}

fn find(tx: &Transaction<'_>, account: AccountNum, name: &GroupName) -> Result<Option<(u32, GroupRow)>> {
    let sql = format!("{GROUPS} WHERE g.account = ?1 AND g.name = ?2");
    let columns = |row: &Row<'_>| Ok((row.get(8)?, group_row(row)?));
    tx.find(&sql, params![account.0, name.as_str()], columns)
}

fn create(tx: &Transaction<'_>, account: AccountNum, name: &GroupName) -> Result<u32> {
    let sql = "SELECT count(*) FROM spend_groups WHERE account = ?1";
    let count: usize = tx.one(sql, params![account.0], |row| row.get(0))?;
    if count >= MAX_GROUPS {
        return Err(LedgerError::Refused(format!("an account has at most {MAX_GROUPS} groups")));
    }
    let sql = "INSERT INTO spend_groups (account, name) VALUES (?1, ?2)";
    let num = u32::try_from(tx.add(sql, "num", params![account.0, name.as_str()])?);
    num.map_err(|_| LedgerError::Failed("too many groups".to_owned()))
}
