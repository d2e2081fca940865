//! Writes and reads what single requests were charged.

use crate::ledger::sql::db::{Connection, Row, Transaction, params};
use crate::ledger::sql::rows::{account_id, credits, id_blob, request_id, to_key_id};
use crate::ledger::store::{ChargedRequest, RequestRow, Result};
use crate::types::{RequestId, WallTime};

/// Writes what requests were charged.
pub(super) fn write(tx: &Transaction<'_>, requests: &[ChargedRequest]) -> Result<()> {
    let sql = "INSERT INTO requests (id, account, key, route, charge, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
               ON CONFLICT (id) DO UPDATE SET account = excluded.account, key = excluded.key,
                   route = excluded.route, charge = excluded.charge, at = excluded.at";
    for ChargedRequest { id, account, key, route, charge, at } in requests {
        let values = params![id_blob(*id), account.0, key.0, route.0, charge.millionths(), at.0];
        tx.run(sql, values)?;
    }
    Ok(())
}

/// Reads requests of a time in the order of their time, those after a place, at most `most`.
pub(in crate::ledger::sql) fn read(
    connection: &Connection,
    (after, until): ((WallTime, RequestId), WallTime),
    most: usize,
) -> Result<Vec<RequestRow>> {
    let sql = "SELECT q.id, a.id, k.id, r.name, CASE WHEN d.given_back IS NULL THEN q.charge ELSE 0 END, q.at
               FROM requests q JOIN accounts a ON a.num = q.account JOIN routes r ON r.num = q.route
                   LEFT JOIN keys k ON k.num = q.key LEFT JOIN in_doubt d ON d.id = q.id
               WHERE (q.at, q.id) > (?1, ?2) AND q.at < ?3 ORDER BY q.at, q.id LIMIT ?4";
    let values = params![after.0.0, id_blob(after.1), until.0, most];
    connection.all(sql, values, row)
}

fn row(row: &Row<'_>) -> Result<RequestRow> {
    Ok(RequestRow {
        id: request_id(row, 0)?,
        account: account_id(row, 1)?,
        key: row.get::<Option<i64>>(2)?.map(to_key_id),
        route: row.get(3)?,
        charge: credits(row, 4)?,
        at: WallTime(row.get(5)?),
    })
}

/// Deletes requests before a time. Returns how many.
pub(in crate::ledger::sql) fn prune(tx: &Transaction<'_>, before: WallTime, most: usize) -> Result<usize> {
    let sql =
        "DELETE FROM requests WHERE id IN (SELECT id FROM requests WHERE at < ?1 ORDER BY at, id LIMIT ?2)";
    tx.execute(sql, params![before.0, most])
}
