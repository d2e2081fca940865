//! Stores a ledger in a PostgreSQL database, and its journal there, too, or in two files of this machine.
//!
//! One gateway serves the database, or those of a fleet, each with a name. A gateway holds advisory locks of its name while it is
//! connected, so that no two have the same.

mod fence;
mod journal;
mod leases;
mod nodes;
#[cfg(test)]
mod simulation;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use rustls::ClientConfig;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::sql::db::{Connection, Connections, Network, Seat, params, postgres_failed};
use super::sql::{SqlBooks, Upkeep};
use super::sqlite::{Lock, canonical};
use super::store::{Journal, Leases, LedgerError, Result, Storage};
use fence::Fence;
use journal::{LocalJournal, SharedJournal};
use leases::SqlLeases;

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
/// Longest time that connecting may take.
const MAX_CONNECT: Duration = Duration::from_secs(3);
/// Attempts to take the lock of the gateway that serves.
const LOCK_ATTEMPTS: u32 = 20;
/// Pause between two attempts to take the lock of the gateway that serves, which the server frees once it has noticed that
/// a connection ended.
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// What each connection sets: the server notices within some seconds that its client is gone, and frees its locks.
const EACH: &str =
    "SET tcp_keepalives_idle = 2; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 3;
     SET tcp_user_timeout = '5s'; SET client_connection_check_interval = '1s'";
/// What a connection that writes sets: commits are on disk, and the server ends what hangs.
const WRITER: &str = "SET synchronous_commit = 'on'; SET statement_timeout = '20s';
     SET idle_in_transaction_session_timeout = '20s'";
const READER: &str = "SET default_transaction_read_only = 'on'";
/// Longest time that a statement may take which requests wait for.
const MAX_SHORT: Duration = Duration::from_secs(3);
/// Longest time that any other statement may take, with what the network adds.
const MAX_STATEMENT: Duration = Duration::from_secs(30);
/// Tables of gateways.
const OF_NODES: [&str; 9] =
    ["nodes", "beats", "batches", "leases", "spends", "calls", "changes", "open_jobs", "claims"];
/// Key of the lock that a gateway takes while it serves: `TGLS`.
const SERVES: i32 = 0x5447_4c53;
/// Key of the lock that it takes to write a journal in the database: `TGLJ`.
const JOURNALS: i32 = 0x5447_4c4a;
/// Key of the lock that a gateway holds that is alone, or all gateways of a fleet: `TGLF`.
const FLEET: i32 = 0x5447_4c46;
/// Key of the lock that it takes to lease credits: `TGLL`.
const LEASES: i32 = 0x5447_4c4c;

/// Where a database is, and how it is connected to.
#[derive(Clone)]
pub struct Server {
    /// Host, database, user and password.
    pub config: Config,
    /// The TLS configuration; `None` for connections without TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// The name of the gateway among those of a fleet; `None` if it is the only one.
    pub node: Option<String>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive() // it has a password
    }
}

/// Where the journal of a ledger in a database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalAt {
    /// In two files of this machine: `PATH.journal-0` and `-1`.
    Local(PathBuf),
    /// In the database.
    Shared,
}

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

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Writes the books. Has the lock of the gateway that serves.
    Serves,
    /// Writes the journal. Has the lock of that.
    Journals,
    /// Leases credits. Has the lock of that.
    Leases,
    /// Writes, now and then, without a lock.
    Writes,
    /// Only reads.
    Reads,
}

impl Role {
    /// A word that operators see in `pg_stat_activity`.
    fn name(self) -> &'static str {
        match self {
            Self::Serves => "books",
            Self::Journals => "journal",
            Self::Leases => "leases",
            Self::Writes => "upkeep",
            Self::Reads => "reads",
        }
    }

    fn lock(self) -> Option<i32> {
        match self {
            Self::Serves => Some(SERVES),
            Self::Journals => Some(JOURNALS),
            Self::Leases => Some(LEASES),
            Self::Writes | Self::Reads => None,
        }
    }
}

fn connect(server: &Server, seat: Seat, role: Role, fence: &Arc<Fence>) -> Result<Connection> {
    let longest = match role {
        Role::Journals | Role::Leases => MAX_SHORT,
        Role::Serves | Role::Writes | Role::Reads => MAX_STATEMENT,
    };
    Ok(Connection::postgres(network(server, seat, role, fence)?, seat, longest))
}

/// What opens the connections of a role.
fn network(server: &Server, seat: Seat, role: Role, fence: &Arc<Fence>) -> Result<Arc<Network>> {
    let (mut server, fence) = (server.clone(), Arc::clone(fence));
    let name = server.node.as_deref().unwrap_or(nodes::ALONE).to_owned();
    server.config.application_name(format!("tollgate {name} {}", role.name()));
    if server.tls.is_some() {
        server.config.ssl_mode(SslMode::Require); // never without, whatever the server offers
    }
    Network::new(move || {
        let (server, fence) = (server.clone(), Arc::clone(&fence));
        async move {
            let late = || LedgerError::Failed(format!("{} does not answer", place(&server.config)));
            tokio::time::timeout(MAX_CONNECT, dial(&server, seat, role, &fence))
                .await
                .unwrap_or_else(|_| Err(late()))
        }
        .boxed()
    })
}

async fn dial(server: &Server, seat: Seat, role: Role, fence: &Fence) -> Result<Client> {
    let client = match &server.tls {
        Some(tls) => start(&server.config, MakeRustlsConnect::new((**tls).clone())).await?,
        None => start(&server.config, NoTls).await?,
    };
    let settings = format!("{EACH}; {}", if role == Role::Reads { READER } else { WRITER });
    client.batch_execute(&settings).await.map_err(|error| postgres_failed(&error))?;
    if let Some(lock) = role.lock() {
        let node = i32::try_from(seat.node).map_err(|_| LedgerError::Failed("too many nodes".to_owned()))?;
        if !take_lock(&client, "pg_try_advisory_lock", (lock, node)).await? {
            let message = "another gateway with the name of this one serves it already";
            return Err(LedgerError::Refused(message.to_owned()));
        }
    }
    if role.lock().is_some()
        && let Some(begun) = fence.generation()
    {
        let sql = "SELECT generation FROM nodes WHERE num = $1";
        let row = client.query_one(sql, &[&seat.node]).await;
        let generation: i64 = row.and_then(|row| row.try_get(0)).map_err(|error| postgres_failed(&error))?;
        if generation != begun {
            fence.fall();
            let message = "another process has served as this gateway meanwhile: restart it";
            return Err(LedgerError::Refused(message.to_owned()));
        }
    }
    if role == Role::Serves {
        let kind = if seat.is_of_fleet { "pg_try_advisory_lock_shared" } else { "pg_try_advisory_lock" };
        if !take_lock(&client, kind, (FLEET, 0)).await? {
            return Err(nodes::in_the_way(seat, "they are running"));
        }
    }
    Ok(client)
}

/// The hosts and the database, for messages.
pub(super) fn place(config: &Config) -> String {
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    });
    let ports =
        config.get_ports().iter().map(|port| format!(":{port}")).chain(std::iter::repeat(String::new()));
    let hosts: Vec<String> = hosts.zip(ports).map(|(host, port)| host + &port).collect();
    format!("postgres://{}/{}", hosts.join(","), config.get_dbname().unwrap_or_default())
}

async fn start<T>(config: &Config, tls: T) -> Result<Client>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let refused = |error: tokio_postgres::Error| {
        let cause = std::error::Error::source(&error).filter(|_| error.as_db_error().is_none());
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        let LedgerError::Failed(message) = postgres_failed(&error) else { return LedgerError::Closed };
        let has_none = cause.contains("does not support TLS");
        let help = if has_none { "; the URL of such a server ends with `?sslmode=disable`" } else { "" };
        LedgerError::Failed(format!("{}: {message}{cause}{help}", place(config)))
    };
    let (client, connection) = config.connect(tls).await.map_err(refused)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to PostgreSQL ended");
        }
    });
    Ok(client)
}

/// Takes a lock, which the server frees once it has noticed that a former connection ended. False if another has it.
async fn take_lock(client: &Client, function: &str, (lock, node): (i32, i32)) -> Result<bool> {
    for _ in 0..LOCK_ATTEMPTS {
        let row = client.query_one(&format!("SELECT {function}($1, $2)"), &[&lock, &node]).await;
        if row.and_then(|row| row.try_get(0)).map_err(|error| postgres_failed(&error))? {
            return Ok(true);
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    Ok(false)
}
