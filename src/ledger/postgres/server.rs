//! Defines where a ledger in PostgreSQL and its journal are.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use tokio_postgres::Config;

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
