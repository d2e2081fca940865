//! Writes accounts in the ledger.

use super::db::{Connection, Transaction, params};
use super::posting::{NewEntry, Posting, refills};
use super::rows::account_state_name;
use super::{leases, read};
use crate::ledger::entry::EntryKind;
use crate::ledger::store::{
    AccountChange, AccountRow, AccountState, Changed, LedgerError, NewAccount, NewFileAccount, Result, Source,
};
use crate::types::{AccountId, AccountNum, Credits, WallTime};

/// The reference of opening grants.
const OPENING: &str = "opening";

pub(super) fn find(tx: &Connection, id: &AccountId) -> Result<Option<AccountRow>> {
    Ok(read::accounts(tx, "WHERE id = ?1", params![id.as_str()])?.pop())
}

fn require(tx: &Connection, id: &AccountId) -> Result<AccountRow> {
    find(tx, id)?.ok_or_else(|| LedgerError::Unknown(format!("there is no account {id}")))
}

/// Registers an account of the configuration file, and books its opening grant if it is new.
pub(super) fn register(
    tx: &Transaction<'_>,
    posting: &mut Posting<'_>,
    NewFileAccount { id, opening, .. }: &NewFileAccount,
    at: WallTime,
) -> Result<AccountRow> {
    if let Some(mut row) = find(tx, id)? {
        if row.state == AccountState::Closed {
            return Err(LedgerError::Refused(format!("account {id} was deleted; choose another id")));
        }
        if row.source == Source::Store {
            let sql = "UPDATE accounts SET source = 'file' WHERE num = ?1";
            tx.run(sql, params![row.num.0])?;
            row.source = Source::File;
            leases::account_changed(tx, id, &[])?;
        }
        return Ok(row);
    }
    let insert = "INSERT INTO accounts (id, source, opening, created) VALUES (?1, 'file', ?2, ?3)";
    let amount = opening.map(Credits::millionths);
    let num = tx.add(insert, "num", params![id.as_str(), amount, at.0])?;
    let num =
        AccountNum(u32::try_from(num).map_err(|_| LedgerError::Failed("too many accounts".to_owned()))?);
    if let Some(amount) = opening.filter(|amount| !amount.is_zero()) {
        posting.add(num, at, &NewEntry::booking(EntryKind::Grant, amount, Some(OPENING), "file"))?;
    }
    leases::account_changed(tx, id, &[])?;
    find(tx, id)?.ok_or_else(|| LedgerError::Failed("the new account is not there".to_owned()))
}

pub(super) fn create(tx: &Transaction<'_>, new: &[NewAccount], at: WallTime) -> Result<Vec<AccountRow>> {
    let insert = "INSERT INTO accounts (id, name, plan, source, opening, created)
                  VALUES (?1, ?2, ?3, 'store', ?4, ?5)";
    let mut posting = Posting::start(tx)?;
    for NewAccount { id, name, plan, opening } in new {
        if find(tx, id)?.is_some() {
            return Err(LedgerError::Taken(format!("account {id} exists already")));
        }
        let amount = opening.as_ref().map(|(amount, _)| amount.millionths());
        let values = params![id.as_str(), name, plan, amount, at.0];
        let num = tx.add(insert, "num", values)?;
        let num = u32::try_from(num).map_err(|_| LedgerError::Failed("too many accounts".to_owned()))?;
        refills::put_on(tx, AccountNum(num), plan.as_deref())?;
        if let Some((amount, actor)) = opening.as_ref().filter(|(amount, _)| !amount.is_zero()) {
            let grant = NewEntry::booking(EntryKind::Grant, *amount, Some(OPENING), actor);
            posting.add(AccountNum(num), at, &grant)?;
        }
        leases::account_changed(tx, id, &[])?;
    }
    posting.finish()?;
    new.iter().map(|new| require(tx, &new.id)).collect()
}

pub(super) fn change(
    tx: &Transaction<'_>,
    id: &AccountId,
    change: &AccountChange,
    at: WallTime,
) -> Result<Changed<AccountRow>> {
    let before = require(tx, id)?;
    if before.state == AccountState::Closed {
        return Err(LedgerError::Refused(format!("account {id} was deleted")));
    }
    if change.version.is_some_and(|version| version != before.version) {
        return Err(LedgerError::Stale(format!("account {id} was changed in the meantime; read it again")));
    }
    let is_closed = change.state == Some(AccountState::Closed);
    if before.source == Source::File && (is_closed || change.plan.is_some() || change.name.is_some()) {
        let message = format!("account {id} is defined in the configuration file: change it there");
        return Err(LedgerError::Refused(message));
    }
    let state = account_state_name(change.state.filter(|_| !is_closed).unwrap_or(before.state));
    let name = change.name.as_ref().unwrap_or(&before.name);
    let plan = change.plan.as_ref().unwrap_or(&before.plan);
    let sql = "UPDATE accounts SET name = ?2, plan = ?3, state = ?4, closed = ?5, version = version + 1 WHERE num = ?1";
    let values = params![before.num.0, name, plan, state, is_closed.then_some(at.0)];
    tx.run(sql, values)?;
    let gone = if is_closed { leases::secrets_of(tx, before.num)? } else { Vec::new() };
    leases::account_changed(tx, id, &gone)?;
    if is_closed {
        let sql = "DELETE FROM secrets WHERE key IN (SELECT num FROM keys WHERE account = ?1)";
        tx.run(sql, params![before.num.0])?;
        let sql = "UPDATE keys SET state = 'revoked', version = version + 1 WHERE account = ?1";
        tx.run(sql, params![before.num.0])?;
        for table in ["refills", "renewals", "awaiting_approval", "members", "sessions", "links"] {
            tx.run(&format!("DELETE FROM {table} WHERE account = ?1"), params![before.num.0])?;
        }
    }
    if change.plan.is_some() && !is_closed {
        refills::put_on(tx, before.num, plan.as_deref())?;
    }
    Ok(Changed { after: require(tx, id)?, before })
}
