//! Writes keys in the SQLite ledger.

use rusqlite::{OptionalExtension, Transaction, params};

use super::rows::{changed_one, failed, key_id, key_state, key_state_name};
use crate::ledger::store::{KeyChange, KeyRow, LedgerError, Result, Source};
use crate::policy::key::KeyState;
use crate::types::{AccountId, KeyHash, KeyId, KeyNum, WallTime};

fn state_of(tx: &Transaction<'_>, id: KeyId) -> Result<Option<(KeyNum, KeyState, Source)>> {
    let sql = "SELECT num, state, source FROM keys WHERE id = ?1";
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    let found = statement.query_row([key_id(id)], |row| {
        let state: String = row.get(1)?;
        let source: String = row.get(2)?;
        let source = if source == "file" { Source::File } else { Source::Store };
        Ok((KeyNum(row.get(0)?), key_state(&state).unwrap_or(KeyState::Disabled), source))
    });
    found.optional().map_err(failed)
}

/// Registers keys of the configuration file: returns their numbers, and their states, which commands may have changed.
/// Tries to insert first, because most of the given keys are new. Uses no `RETURNING`, which would build a temporary
/// table for each row.
pub(super) fn register(
    tx: &Transaction<'_>,
    keys: &[(KeyId, AccountId, String)],
    at: WallTime,
) -> Result<Vec<(KeyNum, KeyState)>> {
    let sql = "INSERT INTO keys (id, account, source, label, created)
               VALUES (?1, (SELECT num FROM accounts WHERE id = ?2), 'file', ?3, ?4) ON CONFLICT (id) DO NOTHING";
    let mut insert = tx.prepare_cached(sql).map_err(failed)?;
    let mut numbers = Vec::with_capacity(keys.len());
    for (id, account, label) in keys {
        let values = params![key_id(*id), account.as_str(), label, at.0];
        if insert.execute(values).map_err(failed)? == 0 {
            numbers.push(renew(tx, *id, account, label)?);
            continue;
        }
        let num = u32::try_from(tx.last_insert_rowid());
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
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    statement.execute(params![num.0, label, account.as_str()]).map_err(failed)?;
    Ok((num, state))
}

pub(super) fn create(tx: &Transaction<'_>, row: &KeyRow) -> Result<KeyNum> {
    let json = |failure: serde_json::Error| LedgerError::Failed(failure.to_string());
    let scopes = row.scopes.as_ref().map(serde_json::to_string).transpose().map_err(json)?;
    let networks = row.allow_from.as_ref().map(serde_json::to_string).transpose().map_err(json)?;
    let sql = "INSERT INTO keys (id, account, source, state, label, environment, hint, scopes, allow_from, expires, created)
               VALUES (?1, ?2, 'store', ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) RETURNING num";
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
        row.created.0
    ];
    let mut insert = tx.prepare_cached(sql).map_err(failed)?;
    let num = insert.query_row(values, |row| row.get(0)).map_err(failed)?;
    for secret in &row.secrets {
        add_secret(tx, KeyNum(num), &secret.hash, secret.until)?;
    }
    Ok(KeyNum(num))
}

fn add_secret(tx: &Transaction<'_>, key: KeyNum, hash: &KeyHash, until: Option<WallTime>) -> Result<()> {
    let mut known = tx.prepare_cached("SELECT key FROM secrets WHERE hash = ?1").map_err(failed)?;
    if known.exists([hash.0]).map_err(failed)? {
        return Err(LedgerError::Refused("a key with this hash exists already".to_owned()));
    }
    let sql = "INSERT INTO secrets (hash, key, until) VALUES (?1, ?2, ?3)";
    let mut insert = tx.prepare_cached(sql).map_err(failed)?;
    insert.execute(params![hash.0, key.0, until.map(|until| until.0)]).map_err(failed)?;
    Ok(())
}

pub(super) fn change(tx: &Transaction<'_>, id: KeyId, change: &KeyChange) -> Result<()> {
    let unknown = || LedgerError::Refused(format!("there is no key {id}"));
    let (num, state, source) = state_of(tx, id)?.ok_or_else(unknown)?;
    if state == KeyState::Revoked {
        return Err(LedgerError::Refused(format!("{id} is revoked; make a new key")));
    }
    match change {
        KeyChange::State(new) => {
            if source == Source::File && *new == KeyState::Revoked {
                let message =
                    format!("{id} is defined in the configuration file: remove it there, or disable it");
                return Err(LedgerError::Refused(message));
            }
            let sql = "UPDATE keys SET state = ?2 WHERE num = ?1";
            let changed = tx.execute(sql, params![num.0, key_state_name(*new)]).map_err(failed)?;
            if *new == KeyState::Revoked {
                // A revoked key is never accepted again, so its hashes are deleted.
                tx.execute("DELETE FROM secrets WHERE key = ?1", [num.0]).map_err(failed)?;
            }
            changed_one(changed, || format!("there is no key {id}"))
        }
        KeyChange::Rotate { hash, hint, overlap_until } => {
            if source == Source::File {
                let message = format!("{id} is defined in the configuration file: replace its hash there");
                return Err(LedgerError::Refused(message));
            }
            let sql = if overlap_until.is_some() {
                // Only the current secret stays valid during the overlap; a secret that was replaced earlier is
                // deleted.
                tx.execute("DELETE FROM secrets WHERE key = ?1 AND until IS NOT NULL", [num.0])
                    .map_err(failed)?;
                "UPDATE secrets SET until = ?2 WHERE key = ?1"
            } else {
                "DELETE FROM secrets WHERE key = ?1 AND ?2 IS NULL"
            };
            tx.execute(sql, params![num.0, overlap_until.map(|until| until.0)]).map_err(failed)?;
            add_secret(tx, num, hash, None)?;
            let sql = "UPDATE keys SET hint = ?2 WHERE num = ?1";
            let changed = tx.execute(sql, params![num.0, hint]).map_err(failed)?;
            changed_one(changed, || format!("there is no key {id}"))
        }
    }
}
