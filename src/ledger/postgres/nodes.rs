//! The gateways of a database: those of a fleet, which have names, or one alone.

use crate::ledger::sql::FLEET;
use crate::ledger::sql::db::{Connection, Seat, Transaction, params};
use crate::ledger::store::{LedgerError, Result};

/// The name of a gateway that is alone.
pub(super) const ALONE: &str = "main";

/// Finds the number of a gateway, or gives it one.
pub(super) fn number(tx: &Transaction<'_>, name: &str) -> Result<i64> {
    tx.run("INSERT INTO nodes (name) VALUES (?1) ON CONFLICT (name) DO NOTHING", params![name])?;
    tx.one("SELECT num FROM nodes WHERE name = ?1", params![name], |row| row.get(0))
}

/// Begins a generation: a process serves as the gateway. Returns its number.
pub(super) fn begin(tx: &Transaction<'_>) -> Result<i64> {
    let next = "UPDATE nodes SET generation = generation + 1 WHERE num = ?1 RETURNING generation";
    tx.one(next, params![tx.node()], |row| row.get(0))
}

/// Refuses a gateway of a fleet beside one that is alone, and the reverse. A gateway that ended cleanly, with nothing
/// that is not folded or returned, is not in the way.
pub(super) fn check(serving: &Connection) -> Result<()> {
    let seat = serving.seat();
    let others =
        "SELECT n.name FROM nodes n WHERE n.num <> ?1 AND (n.name = ?2) = (?3 = 1) AND (EXISTS (SELECT 1 FROM beats b WHERE b.node = n.num)
            OR n.mark IS NOT NULL OR EXISTS (SELECT 1 FROM open_holds o WHERE o.node = n.num AND o.external_id IS NULL)
            OR EXISTS (SELECT 1 FROM batches b WHERE b.node = n.num AND b.seq > n.folded))
        ORDER BY n.name";
    let others: Vec<String> =
        serving.all(others, params![seat.node, ALONE, seat.is_of_fleet], |row| row.get(0))?;
    if !others.is_empty() {
        return Err(in_the_way(seat, &others.join(", ")));
    }
    Ok(())
}

/// Takes over the open jobs of a gateway that was alone, for the fleet; or of the fleet, for a gateway that is alone now.
pub(super) fn take_jobs(tx: &Transaction<'_>) -> Result<()> {
    if tx.seat().is_of_fleet {
        let alone = tx.find("SELECT num FROM nodes WHERE name = ?1", params![ALONE], |row| row.get(0))?;
        return alone.map_or(Ok(()), |alone| give_jobs_to_fleet(tx, alone));
    }
    // Also those that a gateway of the fleet took and did not settle.
    tx.run(
        "UPDATE open_holds SET node = ?1 WHERE external_id IS NOT NULL AND node <> ?1",
        params![tx.node()],
    )?;
    tx.run(&format!("DELETE FROM spends WHERE node = {FLEET}"), params![])?;
    tx.run("DELETE FROM open_jobs", params![])
}

/// Makes the open jobs of a gateway, which has ended, the fleet's.
pub(super) fn give_jobs_to_fleet(tx: &Transaction<'_>, node: i64) -> Result<()> {
    let sql = format!(
        "WITH moved AS (
             UPDATE open_holds SET node = {FLEET} WHERE external_id IS NOT NULL AND node = ?1
             RETURNING account, amount),
         held AS (SELECT account, CAST(sum(amount) AS BIGINT) AS amount, count(*) AS jobs FROM moved GROUP BY account),
         leased AS (
             INSERT INTO spends (account, node, spent) SELECT account, {FLEET}, -amount FROM held
             ON CONFLICT (account, node) DO UPDATE SET spent = spends.spent + excluded.spent)
         INSERT INTO open_jobs (account, jobs) SELECT account, jobs FROM held
         ON CONFLICT (account) DO UPDATE SET jobs = open_jobs.jobs + excluded.jobs"
    );
    tx.run(&sql, params![node])
}

/// Why a gateway of a fleet, or one alone, cannot serve a database.
pub(super) fn in_the_way(seat: Seat, others: &str) -> LedgerError {
    LedgerError::Refused(match seat.is_of_fleet {
        true => "a gateway without a name serves it alone, or ended without a clean stop: start and stop it, and give \
                 it a name by `[ledger] node`"
            .to_owned(),
        false => format!(
            "the gateways of a fleet serve it, or some ended without a clean stop ({others}): give this one a name by \
             `[ledger] node`, or start and stop all of them"
        ),
    })
}
