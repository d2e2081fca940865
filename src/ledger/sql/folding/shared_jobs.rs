//! Jobs of a fleet: their holds belong to no gateway, until one takes them to settle them.
//!
//! A gateway that opens a job gives it to the fleet in its next fold. With it goes the lease that its hold is of, so that what
//! the gateway has leased is still what it may spend.

use std::collections::{HashMap, HashSet};

use super::write_hold;
use crate::ledger::record::ExternalId;
use crate::ledger::sql::db::{Connection, Transaction, params};
use crate::ledger::sql::posting;
use crate::ledger::sql::rows::{credits, hold_row, id_blob, request_id};
use crate::ledger::store::{AccountRow, FleetJob, Result, TakenJobs};
use crate::ledger::tally::OpenHold;
use crate::types::{AccountNum, Credits, RequestId, WallTime};

/// The node number of what belongs to the fleet, and to none of its gateways.
pub(in crate::ledger) const FLEET: i64 = 0;
const COLUMNS: &str = "id, account, key, route, amount, at, external_id, deadline, charge_at_deadline";
/// Most jobs with one external id that are read, or taken at once.
const MAX_SAME: usize = 100;

/// Gives kept holds of this gateway to the fleet.
pub(super) fn share(tx: &Transaction<'_>, holds: &[OpenHold]) -> Result<()> {
    if holds.is_empty() {
        return Ok(());
    }
    // A transaction whose outcome was not known may have done so.
    let shared = format!(
        "SELECT id FROM open_holds WHERE node = {FLEET}
             AND id = ANY (ARRAY(SELECT decode(hex, 'hex') FROM unnest(string_to_array(?1, ',')) AS hex))"
    );
    let hex: Vec<String> = holds.iter().map(|hold| hex::encode(id_blob(hold.id))).collect();
    let shared: HashSet<RequestId> =
        tx.all(&shared, params![hex.join(",")], |row| request_id(row, 0))?.into_iter().collect();
    for hold in holds.iter().filter(|hold| !shared.contains(&hold.id)) {
        write_hold(tx, hold, FLEET)?;
        passed_on(tx, hold, (tx.node(), FLEET))?;
    }
    Ok(())
}

/// Takes open jobs of the fleet, each with others of its account that have the same external id: the upstream has one job of that
/// name, and one of the holds pays for it. Without those that another gateway settles.
pub(in crate::ledger::sql) fn take(tx: &Transaction<'_>, ids: &[RequestId]) -> Result<Vec<TakenJobs>> {
    // All gateways lock them in the same order, before they change what several holds share.
    let lock = "SELECT id FROM open_holds WHERE (account, external_id) IN (
                    SELECT account, external_id FROM open_holds WHERE external_id IS NOT NULL AND id = ANY (
                        ARRAY(SELECT decode(hex, 'hex') FROM unnest(string_to_array(?1, ',')) AS hex)))
                ORDER BY id FOR UPDATE";
    let hex: Vec<String> = ids.iter().map(|id| hex::encode(id_blob(*id))).collect();
    tx.exists(lock, params![hex.join(",")])?;
    let mut wanted = Vec::new();
    for id in ids {
        let sql = "SELECT account, external_id FROM open_holds WHERE id = ?1 AND external_id IS NOT NULL";
        let found = tx.find(sql, params![id_blob(*id)], |row| Ok((row.get(0)?, row.get::<String>(1)?)))?;
        wanted.extend(found.map(|(account, external_id): (u32, String)| (account, external_id, *id)));
    }
    wanted.sort(); // accounts in the same order, too
    wanted.into_iter().map(|(account, external_id, id)| take_one(tx, id, account, &external_id)).collect()
}

fn take_one(tx: &Transaction<'_>, id: RequestId, account: u32, external_id: &str) -> Result<TakenJobs> {
    let same = format!(
        "SELECT {COLUMNS}, node FROM open_holds WHERE account = ?1 AND external_id = ?2 AND node IN ({FLEET}, ?3)
         ORDER BY id <> ?4, at, id LIMIT ?5"
    );
    let values = params![account, external_id, tx.node(), id_blob(id), MAX_SAME];
    let same: Vec<(OpenHold, i64)> = tx.all(&same, values, |row| Ok((hold_row(row)?, row.get(9)?)))?;
    if same.first().is_none_or(|(hold, _)| hold.id != id) {
        return Ok(TakenJobs { id, holds: Vec::new() });
    }
    for (hold, _) in same.iter().filter(|(_, node)| *node == FLEET) {
        let sql = "UPDATE open_holds SET node = ?2 WHERE id = ?1";
        tx.run(sql, params![id_blob(hold.id), tx.node()])?;
        passed_on(tx, hold, (FLEET, tx.node()))?;
    }
    Ok(TakenJobs { id, holds: same.into_iter().map(|(hold, _)| hold).collect() })
}

/// Moves the lease that a hold is of, and counts the job.
fn passed_on(tx: &Transaction<'_>, hold: &OpenHold, (from, to): (i64, i64)) -> Result<()> {
    let lease = "INSERT INTO spends (account, node, spent) VALUES (?1, ?2, ?3)
                 ON CONFLICT (account, node) DO UPDATE SET spent = spends.spent + excluded.spent";
    let amount = hold.amount.millionths();
    tx.run(lease, params![hold.account.0, from, amount])?;
    tx.run(lease, params![hold.account.0, to, -amount])?;
    // What a spending limit leaves is less what the fleet's jobs hold: no lease of it is the fleet's.
    let (node, spent) = if to == FLEET { (from, amount) } else { (to, -amount) };
    posting::pay_limits(tx, (hold.account, hold.key), node, spent)?;
    if to != FLEET {
        // Every gateway that has something leased has a row.
        let row = "INSERT INTO leases (account, node, granted) VALUES (?1, ?2, 0) ON CONFLICT (account, node) DO NOTHING";
        tx.run(row, params![hold.account.0, to])?;
    }
    let count = "INSERT INTO open_jobs (account, jobs) VALUES (?1, ?2)
                 ON CONFLICT (account) DO UPDATE SET jobs = open_jobs.jobs + excluded.jobs";
    let more: i64 = if to == FLEET { 1 } else { -1 };
    tx.run(count, params![hold.account.0, more])
}

/// What became of the fleet's job with an external id, of one account or of all.
pub(in crate::ledger::sql) fn find(
    connection: &Connection,
    account: Option<AccountNum>,
    external_id: &ExternalId,
) -> Result<FleetJob> {
    let account = account.map(|account| account.0);
    let open = format!(
        "SELECT {COLUMNS}, node FROM open_holds WHERE external_id = ?1 AND (account = ?2 OR ?2 IS NULL)
         ORDER BY node, at, id LIMIT ?3"
    );
    let open: Vec<(OpenHold, i64)> =
        connection.all(&open, params![external_id.as_str(), account, MAX_SAME], |row| {
            Ok((hold_row(row)?, row.get(9)?))
        })?;
    if let Some((first, node)) = open.first() {
        let is_of_one = open.iter().all(|(hold, _)| hold.account == first.account);
        return Ok(match (is_of_one, *node == FLEET) {
            (false, _) => FleetJob::Unknown,
            (true, true) => FleetJob::Open(first.clone()),
            (true, false) => FleetJob::BeingSettled,
        });
    }
    let settled = "SELECT 1 FROM jobs WHERE external_id = ?1 AND (account = ?2 OR ?2 IS NULL)";
    let is_settled = connection.exists(settled, params![external_id.as_str(), account])?;
    Ok(if is_settled { FleetJob::Settled } else { FleetJob::Unknown })
}

/// Jobs of the fleet whose deadline has passed, the first ones, and what each is charged then.
pub(in crate::ledger::sql) fn due(
    connection: &Connection,
    now: WallTime,
    most: usize,
) -> Result<Vec<(RequestId, Credits)>> {
    let sql = format!(
        "SELECT id, charge_at_deadline FROM open_holds WHERE external_id IS NOT NULL AND node = {FLEET} AND deadline <= ?1
         ORDER BY deadline, id LIMIT ?2"
    );
    connection.all(&sql, params![now.0, most], |row| Ok((request_id(row, 0)?, credits(row, 1)?)))
}

/// Reads what the fleet's jobs hold of accounts.
pub(in crate::ledger::sql) fn add_held(connection: &Connection, rows: &mut [AccountRow]) -> Result<()> {
    if !connection.is_shared() || rows.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "SELECT account, -spent FROM spends WHERE node = {FLEET} AND spent <> 0
             AND account = ANY (CAST(string_to_array(?1, ',') AS BIGINT[]))"
    );
    let accounts: Vec<String> = rows.iter().map(|row| row.num.0.to_string()).collect();
    let held = connection
        .all(&sql, params![accounts.join(",")], |row| Ok((AccountNum(row.get(0)?), credits(row, 1)?)))?;
    let held: HashMap<AccountNum, Credits> = held.into_iter().collect();
    rows.iter_mut().for_each(|row| row.held = held.get(&row.num).copied().unwrap_or_default());
    Ok(())
}
