//! Writes keys in the ledger.

use serde::Serialize;

use super::db::{Transaction, params};
use super::posting::{groups, limits};
use super::rows::{key_id, key_state, key_state_name};
use super::{leases, read};
use crate::ledger::store::{Changed, KeyChange, KeyEdit, KeyRow, LedgerError, OwnedKey, Result, Source};
use crate::policy::key::KeyState;
use crate::types::{AccountId, KeyHash, KeyId, KeyNum, WallTime};

fn state_of(tx: &Transaction<'_>, id: KeyId) -> Result<Option<(KeyNum, KeyState, Source)>> {
    let sql = "SELECT num, state, source FROM keys WHERE id = ?1";
    tx.find(sql, params![key_id(id)], |row| {
        let state: String = row.get(1)?;
        let source: String = row.get(2)?;
        let source = if source == "file" { Source::File } else { Source::Store };
        Ok((KeyNum(row.get(0)?), key_state(&state).unwrap_or(KeyState::Disabled), source))
    })
}

/// Registers keys of the configuration file: returns their numbers, and their states, which commands may have changed.
/// Tries to insert first, because most of the given keys are new.
pub(super) fn register(
    tx: &Transaction<'_>,
    keys: &[(KeyId, AccountId, String)],
    at: WallTime,
) -> Result<Vec<(KeyNum, KeyState)>> {
    let sql = "INSERT INTO keys (id, account, source, label, created)
               VALUES (?1, (SELECT num FROM accounts WHERE id = ?2), 'file', ?3, ?4) ON CONFLICT (id) DO NOTHING";
    let mut numbers = Vec::with_capacity(keys.len());
    for (id, account, label) in keys {
        let values = params![key_id(*id), account.as_str(), label, at.0];
        let Some(num) = tx.insert(sql, "num", values)? else {
            numbers.push(renew(tx, *id, account, label)?);
            continue;
        };
        let num = u32::try_from(num);
        let num = num.map_err(|_| LedgerError::Failed("too many keys".to_owned()))?;
        numbers.push((KeyNum(num), KeyState::Active));
    }
    Ok(numbers)
}

/// Updates label and account of a key that is in the ledger already, and returns its number and state.
fn renew(tx: &Transaction<'_>, id: KeyId, account: &AccountId, label: &str) -> Result<(KeyNum, KeyState)> {
    let known = state_of(tx, id)?.ok_or_else(|| LedgerError::Failed(format!("{id} is gone")))?;
    let (num, state, source) = known;
    if source == Source::Store {
        return Err(LedgerError::Refused(format!("{id} was made by command already")));
    }
    let sql = "UPDATE keys SET label = ?2, account = (SELECT num FROM accounts WHERE id = ?3)
               WHERE num = ?1 AND (label <> ?2 OR account <> (SELECT num FROM accounts WHERE id = ?3))";
    tx.run(sql, params![num.0, label, account.as_str()])?;
    Ok((num, state))
}

fn json<T: Serialize>(list: Option<&T>) -> Result<Option<String>> {
    let text = list.map(serde_json::to_string).transpose();
    text.map_err(|error| LedgerError::Failed(error.to_string()))
}

pub(super) fn create(tx: &Transaction<'_>, row: &KeyRow) -> Result<KeyNum> {
    let (scopes, networks) = (json(row.scopes.as_ref())?, json(row.allow_from.as_ref())?);
    let sql = "INSERT INTO keys (id, account, source, state, label, environment, hint, scopes, allow_from, expires, created, limits)
               VALUES (?1, ?2, 'store', ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) RETURNING num";
    let values = params![
        key_id(row.id),
        row.account.0,
        key_state_name(row.state),
        row.label,
        row.environment,
        row.hint,
        scopes,
        networks,
        row.expires.map(|expires| expires.0),
        row.created.0,
        row.limits
    ];
    let num = tx.one(sql, values, |row| row.get(0))?;
    if row.spending.limit.is_some() {
        limits::store(tx, "keys", num, &row.spending)?;
    }
    if row.group.is_some() {
        groups::put_key(tx, num, row.group.as_ref())?;
    }
    for secret in &row.secrets {
        add_secret(tx, KeyNum(num), &secret.hash, secret.until)?;
    }
    leases::key_changed(tx, &[], row)?;
    Ok(KeyNum(num))
}

fn add_secret(tx: &Transaction<'_>, key: KeyNum, hash: &KeyHash, until: Option<WallTime>) -> Result<()> {
    if tx.exists("SELECT key FROM secrets WHERE hash = ?1", params![hash.0])? {
        return Err(LedgerError::Taken("a key with this hash exists already".to_owned()));
    }
    let sql = "INSERT INTO secrets (hash, key, until) VALUES (?1, ?2, ?3)";
    tx.run(sql, params![hash.0, key.0, until.map(|until| until.0)])?;
    Ok(())
}

/// Reads a key that is about to be changed, or was changed.
fn require(tx: &Transaction<'_>, id: KeyId) -> Result<OwnedKey> {
    let found = read::keys(tx, "WHERE k.id = ?1", params![key_id(id)])?.pop();
    found.ok_or_else(|| LedgerError::Unknown(format!("there is no key {id}")))
}

pub(super) fn change(
    tx: &Transaction<'_>,
    id: KeyId,
    edit: &KeyEdit,
    at: WallTime,
) -> Result<Changed<OwnedKey>> {
    let before = require(tx, id)?;
    let row = &before.0;
    if row.state == KeyState::Revoked {
        return Err(LedgerError::Refused(format!("{id} is revoked; make a new key")));
    }
    if edit.version.is_some_and(|version| version != row.version) {
        return Err(LedgerError::Stale(format!("{id} was changed in the meantime; read it again")));
    }
    if row.source == Source::File {
        let remedy = match &edit.change {
            KeyChange::State(KeyState::Revoked) => "remove it there, or disable it",
            KeyChange::Rotate { .. } | KeyChange::EndOverlap => "replace its hash there",
            KeyChange::Terms(_) => "change it there",
            KeyChange::State(KeyState::Active | KeyState::Disabled) => "",
        };
        if !remedy.is_empty() {
            let message = format!("{id} is defined in the configuration file: {remedy}");
            return Err(LedgerError::Refused(message));
        }
    }
    let num = row.num;
    match &edit.change {
        KeyChange::State(new) => {
            let sql = "UPDATE keys SET state = ?2 WHERE num = ?1";
            tx.run(sql, params![num.0, key_state_name(*new)])?;
            if *new == KeyState::Revoked {
                // A revoked key is never accepted again, so its hashes are deleted.
                tx.run("DELETE FROM secrets WHERE key = ?1", params![num.0])?;
            }
        }
        KeyChange::Terms(terms) => {
            let (scopes, networks) = (json(terms.scopes.as_ref())?, json(terms.allow_from.as_ref())?);
            let expires = terms.expires.map(|expires| expires.0);
            let sql = "UPDATE keys SET label = ?2, scopes = ?3, allow_from = ?4, expires = ?5, limits = ?6
                       WHERE num = ?1";
            let values = params![num.0, terms.label, scopes, networks, expires, terms.limits];
            tx.run(sql, values)?;
            let mut spending = row.spending;
            spending.set_limit(terms.spend_limit, at);
            limits::store(tx, "keys", num.0, &spending)?;
            if terms.group != row.group {
                groups::put_key(tx, num.0, terms.group.as_ref())?;
            }
        }
        KeyChange::Rotate { hash, hint, overlap_until } => rotate(tx, num, hash, hint, *overlap_until)?,
        KeyChange::EndOverlap => {
            let sql = "DELETE FROM secrets WHERE key = ?1 AND until IS NOT NULL";
            tx.run(sql, params![num.0])?;
        }
    }
    tx.run("UPDATE keys SET version = version + 1 WHERE num = ?1", params![num.0])?;
    let after = require(tx, id)?;
    leases::key_changed(tx, &before.0.secrets, &after.0)?;
    Ok(Changed { after, before })
}

fn rotate(
    tx: &Transaction<'_>,
    num: KeyNum,
    hash: &KeyHash,
    hint: &str,
    overlap_until: Option<WallTime>,
) -> Result<()> {
    if let Some(until) = overlap_until {
        // Only the current secret stays valid during the overlap; a secret that was replaced earlier is deleted.
        tx.run("DELETE FROM secrets WHERE key = ?1 AND until IS NOT NULL", params![num.0])?;
        tx.run("UPDATE secrets SET until = ?2 WHERE key = ?1", params![num.0, until.0])?;
    } else {
        tx.run("DELETE FROM secrets WHERE key = ?1", params![num.0])?;
    }
    add_secret(tx, num, hash, None)?;
    tx.run("UPDATE keys SET hint = ?2 WHERE num = ?1", params![num.0, hint])
}
