//! Writes and reads requests with an idempotency key, and their answers.

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

/// Claims the idempotency key of a request for the fleet. Returns the request that did so before.
pub(in crate::ledger) fn claim(
    tx: &Transaction<'_>,
    wanted: &RepeatRow,
    now: WallTime,
) -> Result<Option<RepeatRow>> {
    let insert = "INSERT INTO claims (id, request, hold, until, node) VALUES (?1, ?2, ?3, ?4, ?5)
                  ON CONFLICT (id) DO NOTHING";
    let values = params![wanted.id.0, wanted.request.0, id_blob(wanted.hold), wanted.until.0, tx.node()];
    let is_claimed = tx.execute(insert, values)? > 0;
    // After the claim: what another gateway folded before that is seen.
    if let Some(known) = find(tx, &wanted.id)?.filter(|row| row.until > now) {
        if is_claimed {
            forget(tx, &wanted.id, wanted.hold)?;
        }
        return Ok(Some(known));
    }
    if is_claimed {
        return Ok(None);
    }
    let in_progress = "SELECT id, request, hold, until, NULL FROM claims WHERE id = ?1";
    let in_progress = tx.find(in_progress, params![wanted.id.0], row)?;
    // If it was given up just now, the request is told that it is in progress, and is repeated later.
    Ok(Some(in_progress.unwrap_or_else(|| wanted.clone())))
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
    let sql =
        "DELETE FROM repeats WHERE id IN (SELECT id FROM repeats WHERE until <= ?1 ORDER BY until LIMIT ?2)";
    tx.execute(sql, params![now.0, most])
}
