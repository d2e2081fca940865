//! Read-only connections to the books, which are used again.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Connection;
use crate::ledger::store::{LedgerError, Result};

/// Most connections that are kept while they are not used.
const MAX_IDLE: usize = 4;

/// Opens a connection that cannot write.
type Open = dyn Fn() -> Result<Connection> + Send + Sync;

/// The idle connections of a ledger. They are closed with it.
pub(in crate::ledger) struct Connections {
    open: Box<Open>,
    idle: Mutex<Vec<Connection>>,
}

impl Connections {
    pub(in crate::ledger) fn new(open: impl Fn() -> Result<Connection> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { open: Box::new(open), idle: Mutex::default() })
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

/// A connection that reads the books.
pub(in crate::ledger::sql) struct SqlReader {
    connection: Option<Connection>,
    home: Weak<Connections>,
}

impl SqlReader {
    /// Takes an idle connection, or opens one.
    pub(in crate::ledger::sql) fn take(home: &Arc<Connections>) -> Result<Self> {
        let idle = home.idle.lock().pop();
        let connection = Some(idle.map_or_else(|| (home.open)(), Ok)?);
        Ok(Self { connection, home: Arc::downgrade(home) })
    }

    pub(in crate::ledger::sql) fn db(&self) -> Result<&Connection> {
        self.connection.as_ref().ok_or(LedgerError::Closed) // it has one until it is dropped
    }
}

impl Drop for SqlReader {
    fn drop(&mut self) {
        let (Some(home), Some(connection)) = (self.home.upgrade(), self.connection.take()) else { return };
        let is_free = connection.thaw();
        let mut idle = home.idle.lock();
        if is_free && idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }
}
