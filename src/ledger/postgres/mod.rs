//! Stores a ledger in a PostgreSQL database, and its journal in two files of this machine.
//!
//! One gateway at a time serves the database: it holds an advisory lock while it is connected.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::runtime::Runtime;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::sql::db::{Connection, Connections, Dial, params, postgres_failed};
use super::sql::{SqlBooks, Upkeep};
use super::sqlite::{FileJournal, Lock};
use super::store::{LedgerError, Result, Storage};

/// One migration per version, in order. There are none to earlier versions.
const MIGRATIONS: [&str; 1] = [include_str!("0001_ledger.sql")];
/// Longest time that connecting may take.
const MAX_CONNECT: Duration = Duration::from_secs(3);
/// Attempts to take the lock of the gateway that serves.
const LOCK_ATTEMPTS: u32 = 20;
/// Pause between two attempts to take the lock of the gateway that serves, which the server frees once it has noticed that
/// a connection ended.
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// What a connection that writes sets: commits are on disk, and the server ends what hangs.
const WRITER: &str = "SET synchronous_commit = 'on'; SET statement_timeout = '20s';
     SET idle_in_transaction_session_timeout = '20s'; SET client_connection_check_interval = '1s'";
const READER: &str = "SET default_transaction_read_only = 'on'";
/// Key of the lock that a gateway takes while it serves: `TGLS`.
const SERVES: i64 = 0x5447_4c53;

/// Where a database is, and how it is connected to.
#[derive(Clone)]
pub struct Server {
    /// Host, database, user and password.
    pub config: Config,
    /// The TLS configuration; `None` for connections without TLS.
    pub tls: Option<Arc<ClientConfig>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive() // it has a password
    }
}

/// Opens or creates a ledger in a database, and migrates its tables to this version. `journal`: where its journal's files
/// are, as `JOURNAL.journal-0` and `-1`.
///
/// # Errors
/// A message that names the problem and its remedy.
pub fn open(server: &Server, journal: &Path) -> Result<Storage> {
    let unusable = |error: LedgerError| LedgerError::Unusable(format!("ledger in PostgreSQL: {error}"));
    let lock = Arc::new(Lock::take(journal)?);
    let mut connection = Connection::postgres(dial(server.clone(), true)).map_err(unusable)?;
    let mark = migrate(&mut connection).map_err(unusable)?;
    let readers = dial(server.clone(), false);
    let connections = Connections::new(move || Connection::postgres(Arc::clone(&readers)));
    let journal = FileJournal::open(journal, mark, Some(lock))?;
    let books = SqlBooks::new(connection, connections, Box::new(NoUpkeep));
    Ok(Storage { books: Box::new(books), journal: Box::new(journal) })
}

/// The server does its own upkeep.
#[derive(Debug)]
struct NoUpkeep;

impl Upkeep for NoUpkeep {
    fn checkpoint(&mut self, _: &Connection) {}
}

/// Migrates the tables to this version, alone, as the one gateway that serves. Returns the number that identifies the ledger.
fn migrate(connection: &mut Connection) -> Result<i64> {
    connection.transaction(|tx| {
        tx.batch("CREATE TABLE IF NOT EXISTS ledger_version (version BIGINT NOT NULL)")?;
        let known = tx.find("SELECT version FROM ledger_version", params![], |row| row.get::<usize>(0))?;
        let version = known.unwrap_or(0);
        if version > MIGRATIONS.len() {
            return Err(LedgerError::Failed(
                "a newer Tollgate wrote this ledger; use that version".to_owned(),
            ));
        }
        for sql in &MIGRATIONS[version..] {
            tx.batch(sql)?;
        }
        match known {
            Some(_) => tx.run("UPDATE ledger_version SET version = ?1", params![MIGRATIONS.len()])?,
            None => tx.run("INSERT INTO ledger_version VALUES (?1)", params![MIGRATIONS.len()])?,
        }
        tx.one("SELECT mark FROM journal", params![], |row| row.get(0))
    })
}

/// Connects to a server, and takes the lock of the gateway that serves if it `serves`.
fn dial(server: Server, serves: bool) -> Arc<Dial> {
    let mut server = server;
    if server.tls.is_some() {
        server.config.ssl_mode(SslMode::Require); // never without, whatever the server offers
    }
    Arc::new(move |runtime: &Runtime| {
        let connecting = async {
            let client = match &server.tls {
                Some(tls) => connect(&server.config, MakeRustlsConnect::new((**tls).clone())).await?,
                None => connect(&server.config, NoTls).await?,
            };
            let settings = if serves { WRITER } else { READER };
            client.batch_execute(settings).await.map_err(|error| postgres_failed(&error))?;
            if serves {
                take_lock(&client).await?;
            }
            Ok(client)
        };
        let late = || LedgerError::Failed("PostgreSQL does not answer".to_owned());
        runtime.block_on(async { tokio::time::timeout(MAX_CONNECT, connecting).await.map_err(|_| late())? })
    })
}

async fn connect<T>(config: &Config, tls: T) -> Result<Client>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config.connect(tls).await.map_err(|error| postgres_failed(&error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to PostgreSQL ended");
        }
    });
    Ok(client)
}

async fn take_lock(client: &Client) -> Result<()> {
    for _ in 0..LOCK_ATTEMPTS {
        let row = client.query_one("SELECT pg_try_advisory_lock($1)", &[&SERVES]).await;
        if row.and_then(|row| row.try_get(0)).map_err(|error| postgres_failed(&error))? {
            return Ok(());
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    Err(LedgerError::Failed("another gateway serves it already; it has one writer".to_owned()))
}
