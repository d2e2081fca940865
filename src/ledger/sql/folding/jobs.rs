//! Writes and reads jobs: kept holds while they are open, and what became of them.

use crate::ledger::jobs::MAX_SETTLED_JOBS;
use crate::ledger::record::ExternalId;
use crate::ledger::sql::db::{Connection, Row, Transaction, params};
use crate::ledger::sql::rows::{account_id, credits, id_blob, request_id, to_key_id};
use crate::ledger::store::{JobFilter, JobPlace, JobRow, Result, SettledJobRow};
use crate::ledger::tally::SettledJob;
use crate::types::{AccountNum, WallTime};

/// Most jobs that are deleted at once.
const PRUNED_AT_ONCE: usize = 10_000;

/// Writes what became of jobs.
pub(super) fn write(tx: &Transaction<'_>, jobs: &[SettledJob]) -> Result<()> {
    let sql = "INSERT INTO jobs (id, account, key, route, external_id, amount, charge, opened, settled)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    for SettledJob { hold, external_id, charge, at } in jobs {
        let values = params![
            id_blob(hold.id),
            hold.account.0,
            hold.key.0,
            hold.route.0,
            external_id.as_str(),
            hold.amount.millionths(),
            charge.millionths(),
            hold.at.0,
            at.0
        ];
        tx.run(sql, values)?;
    }
    Ok(())
}

/// The accounts and external ids of the newest settled jobs, the oldest first.
pub(in crate::ledger::sql) fn settled(connection: &Connection) -> Result<Vec<(AccountNum, ExternalId)>> {
    let sql = "SELECT account, external_id FROM jobs ORDER BY number DESC LIMIT ?1";
    let columns = |row: &Row<'_>| Ok((AccountNum(row.get(0)?), row.get::<String>(1)?));
    let rows = connection.all(sql, params![MAX_SETTLED_JOBS], columns)?;
    Ok(rows.into_iter().rev().filter_map(|(num, id)| Some((num, ExternalId::new(&id)?))).collect())
}

/// The open jobs, then the settled ones, in the order of [`JobPlace`].
pub(in crate::ledger::sql) fn read(
    connection: &Connection,
    filter: &JobFilter,
    most: usize,
) -> Result<Vec<JobRow>> {
    // Columns: id, account, key, route, external_id, amount, opened, deadline, charge at deadline, charge, settled, number.
    let open = "SELECT o.id, a.id, k.id, r.name, o.external_id, o.amount, o.at, o.deadline, o.charge_at_deadline,
                    NULL, NULL, NULL
                FROM open_holds o JOIN accounts a ON a.num = o.account JOIN routes r ON r.num = o.route
                    LEFT JOIN keys k ON k.num = o.key
                WHERE o.external_id IS NOT NULL AND (a.id = ?1 OR ?1 IS NULL) AND (o.external_id = ?2 OR ?2 IS NULL)
                    AND (o.id < ?3 OR ?3 IS NULL)
                ORDER BY o.id DESC LIMIT ?4";
    let settled = "SELECT j.id, a.id, k.id, r.name, j.external_id, j.amount, j.opened, NULL, NULL,
                       j.charge, j.settled, j.number
                   FROM jobs j JOIN accounts a ON a.num = j.account JOIN routes r ON r.num = j.route
                       LEFT JOIN keys k ON k.num = j.key
                   WHERE (a.id = ?1 OR ?1 IS NULL) AND (j.external_id = ?2 OR ?2 IS NULL)
                       AND (j.number < ?3 OR ?3 IS NULL)
                   ORDER BY j.number DESC LIMIT ?4";
    let account = filter.account.as_ref().map(|id| id.as_str());
    let mut found = Vec::new();
    let (mut after_open, mut after_settled) = (None, None);
    match filter.after {
        Some(JobPlace::Open(id)) => after_open = Some(id_blob(id)),
        Some(JobPlace::Settled(number)) => after_settled = Some(number),
        None => {}
    }
    if after_settled.is_none() {
        found = connection.all(open, params![account, filter.external_id, after_open, most], row)?;
    }
    let values = params![account, filter.external_id, after_settled, most - found.len()];
    found.extend(connection.all(settled, values, row)?);
    Ok(found)
}

fn row(row: &Row<'_>) -> Result<JobRow> {
    let settled = match row.get::<Option<i64>>(10)? {
        None => None,
        Some(at) => Some(SettledJobRow { charge: credits(row, 9)?, at: WallTime(at), number: row.get(11)? }),
    };
    Ok(JobRow {
        id: request_id(row, 0)?,
        account: account_id(row, 1)?,
        key: row.get::<Option<i64>>(2)?.map(to_key_id),
        route: row.get(3)?,
        external_id: row.get(4)?,
        amount: credits(row, 5)?,
        opened: WallTime(row.get(6)?),
        deadline: row.get::<Option<i64>>(7)?.map(WallTime),
        settled,
    })
}

/// Deletes jobs that were settled before a time; the rest at the next call, if they are many.
pub(in crate::ledger::sql) fn prune(tx: &Transaction<'_>, before: WallTime) -> Result<()> {
    let sql = "DELETE FROM jobs WHERE number IN (SELECT number FROM jobs WHERE settled < ?1 LIMIT ?2)";
    tx.run(sql, params![before.0, PRUNED_AT_ONCE])
}
