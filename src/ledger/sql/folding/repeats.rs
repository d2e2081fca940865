//! Writes and reads requests with an idempotency key, and their answers.

use std::collections::{HashMap, HashSet};

use crate::ledger::ClaimChange;
use crate::ledger::sql::db::{Connection, Row, Transaction, params};
use crate::ledger::sql::rows::{id_blob, request_id};
use crate::ledger::store::{RepeatRow, Result};
use crate::types::{KeyHash, RequestId, WallTime};

const MADE: &str = "INSERT INTO repeats (id, request, hold, until, answer)
    SELECT ?1, ?2, ?3, ?4, ?5 WHERE ?6 IS NOT NULL
    ON CONFLICT (id) DO UPDATE SET request = excluded.request, hold = excluded.hold,
        until = excluded.until, answer = excluded.answer";
const MADE_BY_NODE: &str = "INSERT INTO repeats (id, request, hold, until, answer, node)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT (id) DO UPDATE SET request = excluded.request, hold = excluded.hold,
        until = excluded.until, answer = excluded.answer, node = excluded.node";

/// Writes what happened to claims.
pub(super) fn write(tx: &Transaction<'_>, changes: &[(KeyHash, ClaimChange)]) -> Result<()> {
    for (id, change) in changes {
        let written = match change {
            ClaimChange::Made(row) => {
                tx.run(
                    tx.dialect(MADE, MADE_BY_NODE),
                    params![id.0, row.request.0, id_blob(row.hold), row.until.0, row.answer, tx.node()],
                )?;
                forget(tx, id, row.hold)
            }
            ClaimChange::Answered(hold, answer) => tx.run(
                "UPDATE repeats SET answer = ?3 WHERE id = ?1 AND hold = ?2",
                params![id.0, id_blob(*hold), answer],
            ),
            ClaimChange::Released(hold) => {
                tx.run("DELETE FROM repeats WHERE id = ?1 AND hold = ?2", params![id.0, id_blob(*hold)])?;
                forget(tx, id, *hold)
            }
        };
        written?;
    }
    Ok(())
}

/// The claim is decided, or stored.
fn forget(tx: &Transaction<'_>, id: &KeyHash, hold: RequestId) -> Result<()> {
    if !tx.is_shared() {
        return Ok(());
    }
    tx.run("DELETE FROM claims WHERE id = ?1 AND hold = ?2", params![id.0, id_blob(hold)])
}

/// Claims the idempotency keys of requests for the fleet. Returns for each the request that did so before, if there is one.
///
/// Looks first, which waits for no other transaction. Looks again at what was stored of those that were claimed: another gateway
/// may have claimed and folded one meanwhile.
pub(in crate::ledger) fn claim(
    tx: &Transaction<'_>,
    wanted: &[RepeatRow],
    now: WallTime,
) -> Result<Vec<Option<RepeatRow>>> {
    let mut known = known(tx, wanted, now)?;
    let insert = "INSERT INTO claims (id, request, hold, until, node) VALUES (?1, ?2, ?3, ?4, ?5)
                  ON CONFLICT (id) DO UPDATE SET request = excluded.request, hold = excluded.hold,
                      until = excluded.until, node = excluded.node WHERE claims.until <= ?6";
    let mut new: Vec<&RepeatRow> = wanted.iter().filter(|row| !known.contains_key(&row.id)).collect();
    new.sort_by_key(|row| row.id.0); // all gateways lock them in the same order
    for row in &new {
        let values = params![row.id.0, row.request.0, id_blob(row.hold), row.until.0, tx.node(), now.0];
        tx.run(insert, values)?;
    }
    if !new.is_empty() {
        let new: Vec<RepeatRow> = new.into_iter().cloned().collect();
        for (id, row) in self::known(tx, &new, now)? {
            let own = wanted.iter().find(|wanted| wanted.id == id && wanted.hold == row.hold);
            if own.is_none() {
                let claimed = wanted.iter().filter(|wanted| wanted.id == id);
                claimed.into_iter().try_for_each(|wanted| forget(tx, &id, wanted.hold))?;
                known.insert(id, row);
            }
        }
    }
    let mut firsts = HashSet::new();
    let told = |row: &RepeatRow| match known.get(&row.id) {
        Some(known) => Some(known.clone()),
        None if firsts.insert(row.id) => None,
        None => Some(row.clone()), // another one of these is the first
    };
    Ok(wanted.iter().map(told).collect())
}

/// What is stored of requests: their answer, or who claimed their key.
fn known(tx: &Transaction<'_>, wanted: &[RepeatRow], now: WallTime) -> Result<HashMap<KeyHash, RepeatRow>> {
    const HEX: &str = "ARRAY(SELECT decode(hex, 'hex') FROM unnest(string_to_array(?1, ',')) AS hex)";
    let ids: Vec<String> = wanted.iter().map(|row| hex::encode(row.id.0)).collect();
    let sql = format!(
        "SELECT id, request, hold, until, answer, 0 AS place FROM repeats WHERE id = ANY ({HEX}) AND until > ?2
         UNION ALL SELECT id, request, hold, until, NULL, 1 FROM claims WHERE id = ANY ({HEX}) AND until > ?2
         ORDER BY place"
    );
    let rows = tx.all(&sql, params![ids.join(","), now.0], row)?;
    let mut known = HashMap::new();
    for row in rows {
        known.entry(row.id).or_insert(row); // what a fold stored comes first
    }
    Ok(known)
}

/// Gives up claims.
pub(in crate::ledger) fn give_up(tx: &Transaction<'_>, claims: &[(KeyHash, RequestId)]) -> Result<()> {
    claims.iter().try_for_each(|(id, hold)| forget(tx, id, *hold))
}

/// Finds a request.
pub(in crate::ledger::sql) fn find(connection: &Connection, id: &KeyHash) -> Result<Option<RepeatRow>> {
    let sql = "SELECT id, request, hold, until, answer FROM repeats WHERE id = ?1";
    connection.find(sql, params![id.0], row)
}

/// The requests of this gateway without an answer.
pub(in crate::ledger::sql) fn unanswered(connection: &Connection, most: usize) -> Result<Vec<RepeatRow>> {
    let sql = connection.dialect(
        "SELECT id, request, hold, until, answer FROM repeats
         WHERE answer IS NULL AND ?2 IS NOT NULL ORDER BY until DESC, id LIMIT ?1",
        "SELECT id, request, hold, until, answer FROM repeats
         WHERE answer IS NULL AND (node = ?2 OR node IS NULL) ORDER BY until DESC, id LIMIT ?1",
    );
    connection.all(sql, params![most, connection.node()], row)
}

fn row(row: &Row<'_>) -> Result<RepeatRow> {
    Ok(RepeatRow {
        id: KeyHash(row.get(0)?),
        request: KeyHash(row.get(1)?),
        hold: request_id(row, 2)?,
        until: WallTime(row.get(3)?),
        answer: row.get(4)?,
    })
}

/// Deletes requests whose time is over. Returns how many.
pub(in crate::ledger::sql) fn prune(tx: &Transaction<'_>, now: WallTime, most: usize) -> Result<usize> {
    let sql = "DELETE FROM repeats
               WHERE id IN (SELECT id FROM repeats WHERE until <= ?1 ORDER BY until LIMIT ?2) AND until <= ?1";
    if tx.is_shared() {
        tx.run("DELETE FROM claims WHERE until <= ?1", params![now.0])?;
    }
    tx.execute(sql, params![now.0, most])
}
