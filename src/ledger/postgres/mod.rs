//! Stores a ledger in a PostgreSQL database, and its journal there, too, or in two files of this machine.
//!
//! One gateway serves the database, or those of a fleet, each with a name. A gateway holds advisory locks of its name while it is
//! connected, so that no two have the same.

mod dial;
mod fence;
mod journal;
mod leases;
mod nodes;
mod server;
#[cfg(test)]
mod simulation;

use std::path::PathBuf;
use std::sync::Arc;

use super::sql::db::{Connection, Connections, Seat, params};
use super::sql::{SqlBooks, Upkeep};
use super::sqlite::{Lock, canonical};
use super::store::{Journal, Leases, LedgerError, Result, Storage};
pub(super) use dial::place;
use dial::{MAX_STATEMENT, Role, connect, network};
use fence::Fence;
use journal::{LocalJournal, SharedJournal};
use leases::SqlLeases;
pub use server::{JournalAt, Server};

/// Changes the tables to a version.
struct Migration {
    sql: &'static str,
    /// The earliest version whose programs can use the tables then: the same as before, if the migration only adds.
    usable_by: usize,
}

/// One migration per version, in order. There are none to earlier versions.
const MIGRATIONS: [Migration; 4] = [
    Migration { sql: include_str!("0001_ledger.sql"), usable_by: 1 },
    Migration { sql: include_str!("0002_usable_by.sql"), usable_by: 1 },
    Migration { sql: include_str!("0003_jobs_and_claims.sql"), usable_by: 1 },
    Migration { sql: include_str!("0004_limited_owners.sql"), usable_by: 1 },
];
/// Tables of gateways.
const OF_NODES: [&str; 9] =
    ["nodes", "beats", "batches", "leases", "spends", "calls", "changes", "open_jobs", "claims"];
/// Opens or creates a ledger in a database, and migrates its tables to this version.
///
/// # Errors
/// A message that names the problem and its remedy.
pub(super) fn open(server: &Server, at: &JournalAt) -> Result<Storage> {
    // Before the server's, so that a second process on this machine learns who has it.
    let local = match at {
        JournalAt::Local(path) => {
            let path = canonical(path);
            let lock = Lock::take(&path)?;
            Some((path, lock))
        }
        JournalAt::Shared => None,
    };
    open_on(server, local).map_err(unusable)
}

/// As [`open`], without a journal.
pub(super) fn open_books(server: &Server) -> Result<SqlBooks> {
    let open = || {
        let mut serving = connect(server, register(server)?, Role::Serves, &Arc::default())?;
        serving.transaction(nodes::begin)?;
        nodes::check(&serving)?;
        books(server, serving)
    };
    open().map_err(unusable)
}

fn unusable(error: LedgerError) -> LedgerError {
    let why = match error {
        LedgerError::Failed(why) => why,
        other => other.to_string(),
    };
    LedgerError::Unusable(format!("ledger in PostgreSQL: {why}"))
}

fn open_on(server: &Server, local: Option<(PathBuf, Lock)>) -> Result<Storage> {
    let seat = register(server)?;
    let fence = Arc::new(Fence::default());
    let mut serving = connect(server, seat, Role::Serves, &fence)?;
    nodes::check(&serving)?;
    // Those that need a lock connect now, so that all are held when the generation begins.
    let journal: Box<dyn Journal> = match local {
        Some((path, lock)) => {
            let connection = connect(server, seat, Role::Writes, &fence)?;
            Box::new(LocalJournal::open(&path, lock, &mut serving, connection, Arc::clone(&fence))?)
        }
        None => Box::new(SharedJournal::open(&serving, connect(server, seat, Role::Journals, &fence)?)?),
    };
    let leases = match seat.is_of_fleet {
        true => Some(Box::new(SqlLeases::open(server, seat, &fence)?) as Box<dyn Leases>),
        false => None,
    };
    fence.begin(serving.transaction(nodes::begin)?);
    serving.transaction(nodes::take_jobs)?;
    Ok(Storage { books: Box::new(books(server, serving)?), journal, leases })
}

/// Migrates the tables to this version, and finds the number of the gateway, or gives it one.
fn register(server: &Server) -> Result<Seat> {
    let seat = Seat { node: 0, is_of_fleet: false };
    let mut connection = connect(server, seat, Role::Writes, &Arc::default())?;
    migrate(&mut connection)?;
    let node =
        connection.transaction(|tx| nodes::number(tx, server.node.as_deref().unwrap_or(nodes::ALONE)))?;
    Ok(Seat { node, is_of_fleet: server.node.is_some() })
}

fn books(server: &Server, serving: Connection) -> Result<SqlBooks> {
    let (readers, seat) = (network(server, serving.seat(), Role::Reads, &Arc::default())?, serving.seat());
    let open = move || Ok(Connection::postgres(Arc::clone(&readers), seat, MAX_STATEMENT));
    Ok(SqlBooks::new(serving, Connections::new(open), Box::new(NoUpkeep)))
}

/// The tables that have a ledger, such that each refers to earlier ones only. Without those of gateways, which have folded
/// their journals and returned their leases when a ledger is copied.
pub(super) fn tables() -> Vec<&'static str> {
    let made = MIGRATIONS.iter().flat_map(|migration| migration.sql.lines());
    let named = made.filter_map(|line| line.strip_prefix("CREATE TABLE ")?.split([' ', '(']).next());
    named.filter(|table| !OF_NODES.contains(table)).collect()
}

/// Migrates the tables of a ledger to this version. With `abandons_journal`, a journal on a machine that is lost is given
/// up. Returns the version.
///
/// # Errors
/// A message that names the problem and its remedy.
pub(super) fn migrate_only(server: &Server, abandons_journal: bool) -> Result<usize> {
    let migrated = || {
        let seat = register(server)?;
        if abandons_journal {
            let forget = "UPDATE nodes SET mark = NULL WHERE num = ?1";
            let mut serving = connect(server, seat, Role::Serves, &Arc::default())?;
            serving.transaction(|tx| {
                nodes::begin(tx)?; // what the machine writes if it comes back is refused
                tx.run(forget, params![seat.node])
            })?;
        }
        Ok(MIGRATIONS.len())
    };
    migrated().map_err(unusable)
}

/// The server does its own upkeep.
#[derive(Debug)]
struct NoUpkeep;

impl Upkeep for NoUpkeep {
    fn checkpoint(&mut self, _: &Connection) {}
}

/// Migrates the tables to this version, one process at a time, while gateways of the version before may use them. Tables of a
/// later version are left as they are, if this one can use them.
fn migrate(connection: &mut Connection) -> Result<()> {
    connection.transaction(|tx| {
        tx.batch("CREATE TABLE IF NOT EXISTS ledger_version (version BIGINT NOT NULL)")?;
        let known = tx.find("SELECT version FROM ledger_version", params![], |row| row.get::<usize>(0))?;
        let version = known.unwrap_or(0);
        if version > MIGRATIONS.len() {
            let usable_by = "SELECT usable_by FROM ledger_version";
            let usable_by = tx.find(usable_by, params![], |row| row.get::<usize>(0))?.unwrap_or(version);
            let message = "a newer Tollgate wrote this ledger; use that version";
            return match usable_by <= MIGRATIONS.len() {
                true => Ok(()),
                false => Err(LedgerError::Refused(message.to_owned())),
            };
        }
        for migration in &MIGRATIONS[version..] {
            tx.batch(migration.sql)?;
        }
        if version == MIGRATIONS.len() {
            return Ok(());
        }
        let usable_by = MIGRATIONS.iter().map(|migration| migration.usable_by).max().unwrap_or(1);
        let change = match known {
            Some(_) => "UPDATE ledger_version SET version = ?1, usable_by = ?2",
            None => "INSERT INTO ledger_version (version, usable_by) VALUES (?1, ?2)",
        };
        tx.run(change, params![MIGRATIONS.len(), usable_by])
    })
}
