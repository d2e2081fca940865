//! What the gateways of a fleet share besides the books: what each has leased, and what was changed.

use super::db::{Connection, Transaction, params};
use super::rows::{account_id, credits, key_id};
use crate::ledger::store::{KeyRow, LeaseOf, NodeRow, Result, SecretRow};
use crate::types::{AccountId, AccountNum, Credits, KeyHash, KeyId};

/// The time, by the clock of the server.
pub(in crate::ledger) const NOW: &str = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";

/// The channel on which gateways of a fleet tell others that something was changed, or that they need credits.
pub(in crate::ledger) const CHANNEL: &str = "tollgate";
/// The payload that says that something was changed.
pub(in crate::ledger) const CHANGED: &str = "changed";

/// The gateways of a fleet.
pub(super) fn nodes(connection: &Connection) -> Result<Vec<NodeRow>> {
    if !connection.is_shared() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT n.num, n.name, {NOW} - (SELECT b.seen FROM beats b WHERE b.node = n.num), n.mark IS NOT NULL,
             (SELECT count(*) FROM leases l WHERE l.node = n.num AND l.granted <> 0 AND l.account >> 32 = 0),
             CAST(coalesce((SELECT sum(l.granted) FROM leases l WHERE l.node = n.num AND l.account >> 32 = 0), 0)
                 - coalesce((SELECT sum(s.spent) FROM spends s WHERE s.node = n.num AND s.account >> 32 = 0), 0) AS BIGINT)
         FROM nodes n ORDER BY n.name"
    );
    connection.all(&sql, params![], |row| {
        let seen: Option<i64> = row.get(2)?;
        Ok(NodeRow {
            num: row.get(0)?,
            name: row.get(1)?,
            seen: seen.map(|ago| u64::try_from(ago).unwrap_or_default()),
            is_local: row.get(3)?,
            accounts: row.get(4)?,
            leased: credits(row, 5)?,
        })
    })
}

/// What other gateways have leased of an account, and not spent.
pub(super) fn elsewhere(connection: &Connection, account: AccountNum) -> Result<Credits> {
    if !connection.is_shared() {
        return Ok(Credits::ZERO);
    }
    let sql = "SELECT CAST((SELECT coalesce(sum(granted), 0) FROM leases WHERE account = ?1 AND node <> ?2)
                   - (SELECT coalesce(sum(spent), 0) FROM spends WHERE account = ?1 AND node <> ?2) AS BIGINT)";
    connection.one(sql, params![account.0, connection.node()], |row| credits(row, 0))
}

/// Returns what this gateway has leased of something, or has spent more.
pub(super) fn end(tx: &Transaction<'_>, of: LeaseOf) -> Result<()> {
    if !tx.is_shared() {
        return Ok(());
    }
    let sql = "INSERT INTO leases (account, node, granted)
                   SELECT CAST(?1 AS BIGINT), CAST(?2 AS BIGINT),
                       coalesce((SELECT spent FROM spends WHERE account = ?1 AND node = ?2), 0)
                   WHERE EXISTS (SELECT 1 FROM leases WHERE account = ?1 AND node = ?2)
                       OR EXISTS (SELECT 1 FROM spends WHERE account = ?1 AND node = ?2)
               ON CONFLICT (account, node) DO UPDATE SET granted = excluded.granted";
    tx.run(sql, params![of.number(), tx.node()])
}

/// Tells all gateways that an account was changed, or is new. Secrets of its keys may be `gone`.
pub(super) fn account_changed(tx: &Transaction<'_>, account: &AccountId, gone: &[KeyHash]) -> Result<()> {
    changed(tx, Some(account), None, gone)
}

/// As [`account_changed`], by the account's number.
pub(super) fn changed_account(tx: &Transaction<'_>, account: AccountNum) -> Result<()> {
    if !tx.is_shared() {
        return Ok(());
    }
    let id =
        tx.one("SELECT id FROM accounts WHERE num = ?1", params![account.0], |row| account_id(row, 0))?;
    account_changed(tx, &id, &[])
}

/// Tells all gateways that a key was changed, or is new. Secrets that it had `before` and has no more are gone.
pub(super) fn key_changed(tx: &Transaction<'_>, before: &[SecretRow], row: &KeyRow) -> Result<()> {
    let gone = before.iter().filter(|old| row.secrets.iter().all(|kept| kept.hash != old.hash));
    let gone: Vec<KeyHash> = gone.map(|secret| secret.hash).collect();
    changed(tx, None, Some(row.id), &gone)
}

/// Tells all gateways that a token of the admin API was changed, or is new.
pub(super) fn tokens_changed(tx: &Transaction<'_>) -> Result<()> {
    changed(tx, None, None, &[])
}

fn changed(
    tx: &Transaction<'_>,
    account: Option<&AccountId>,
    key: Option<KeyId>,
    gone: &[KeyHash],
) -> Result<()> {
    if !tx.is_shared() {
        return Ok(());
    }
    // Such transactions follow each other, so no version is skipped.
    let sql = "WITH made AS (
                   INSERT INTO changes (version, account, key, gone)
                   VALUES ((SELECT coalesce(max(version), 0) + 1 FROM changes), ?1, ?2, ?3) RETURNING version)
               SELECT pg_notify(?4, ?5) FROM made";
    tx.run(
        sql,
        params![
            account.map(AccountId::as_str),
            key.map(key_id),
            gone.iter().flat_map(|hash| hash.0).collect::<Vec<u8>>(),
            CHANNEL,
            CHANGED,
        ],
    )
}

/// The secrets of all keys of an account.
pub(super) fn secrets_of(tx: &Transaction<'_>, account: AccountNum) -> Result<Vec<KeyHash>> {
    let sql = "SELECT hash FROM secrets WHERE key IN (SELECT num FROM keys WHERE account = ?1)";
    tx.all(sql, params![account.0], |row| row.get(0).map(KeyHash))
}
