//! Read-only connections to the ledger, which are used again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};

use crate::ledger::sqlite::rows::failed;
use crate::ledger::store::{LedgerError, Result};

/// Most connections that are kept while they are not used.
const MAX_IDLE: usize = 4;
/// Statements that each of them keeps prepared.
const PREPARED: usize = 64;

/// The idle connections of a ledger. They are closed with it.
#[derive(Debug)]
pub(in crate::ledger::sqlite) struct Connections {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Connections {
    pub(in crate::ledger::sqlite) fn new(path: &Path) -> Arc<Self> {
        Arc::new(Self { path: path.to_owned(), idle: Mutex::default() })
    }

    fn open(&self) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).map_err(failed)?;
        connection.set_prepared_statement_cache_capacity(PREPARED);
        Ok(connection)
    }
}

/// A read-only connection to the ledger.
pub(in crate::ledger::sqlite) struct SqliteReader {
    connection: Option<Connection>,
    home: Weak<Connections>,
}

impl SqliteReader {
    /// Takes an idle connection, or opens one.
    pub(in crate::ledger::sqlite) fn take(home: &Arc<Connections>) -> Result<Self> {
        let idle = home.idle.lock().pop();
        let connection = Some(idle.map_or_else(|| home.open(), Ok)?);
        Ok(Self { connection, home: Arc::downgrade(home) })
    }

    pub(in crate::ledger::sqlite) fn db(&self) -> Result<&Connection> {
        self.connection.as_ref().ok_or(LedgerError::Closed) // it has one until it is dropped
    }
}

impl Drop for SqliteReader {
    fn drop(&mut self) {
        let (Some(home), Some(connection)) = (self.home.upgrade(), self.connection.take()) else { return };
        let is_free = connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok();
        let mut idle = home.idle.lock();
        if is_free && idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }
}
