//! Writes and reads requests with an idempotency key, and their answers.

use crate::ledger::ClaimChange;
use crate::ledger::sql::db::{Connection, Row, Transaction, params};
use crate::ledger::sql::rows::{id_blob, request_id};
use crate::ledger::store::{RepeatRow, Result};
use crate::types::{KeyHash, WallTime};

/// Writes what happened to claims.
pub(super) fn write(tx: &Transaction<'_>, changes: &[(KeyHash, ClaimChange)]) -> Result<()> {
    for (id, change) in changes {
        let written = match change {
            ClaimChange::Made(row) => tx.execute(
                "INSERT INTO repeats (id, request, hold, until, answer) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (id) DO UPDATE SET request = excluded.request, hold = excluded.hold,
                     until = excluded.until, answer = excluded.answer",
                params![id.0, row.request.0, id_blob(row.hold), row.until.0, row.answer],
            ),
            ClaimChange::Answered(hold, answer) => tx.execute(
                "UPDATE repeats SET answer = ?3 WHERE id = ?1 AND hold = ?2",
                params![id.0, id_blob(*hold), answer],
            ),
            ClaimChange::Released(hold) => {
                tx.execute("DELETE FROM repeats WHERE id = ?1 AND hold = ?2", params![id.0, id_blob(*hold)])
            }
        };
        written?;
    }
    Ok(())
}

/// Finds a request.
pub(in crate::ledger::sql) fn find(connection: &Connection, id: &KeyHash) -> Result<Option<RepeatRow>> {
    let sql = "SELECT id, request, hold, until, answer FROM repeats WHERE id = ?1";
    connection.find(sql, params![id.0], row)
}

/// The requests without an answer.
pub(in crate::ledger::sql) fn unanswered(connection: &Connection, most: usize) -> Result<Vec<RepeatRow>> {
    let sql = "SELECT id, request, hold, until, answer FROM repeats WHERE answer IS NULL ORDER BY until DESC, id LIMIT ?1";
    connection.all(sql, params![most], row)
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
