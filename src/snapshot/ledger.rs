//! Where the ledger of a gateway is.

use std::path::PathBuf;

use crate::tls::client::ClientTls;

/// Where the ledger of a gateway is. Takes effect at a restart.
#[derive(Clone, Debug, PartialEq)]
pub enum LedgerPlace {
    /// In a SQLite file of this machine.
    Sqlite(PathBuf),
    /// In a PostgreSQL database.
    Postgres(Box<PostgresPlace>),
}

/// A ledger in a PostgreSQL database.
#[derive(Clone, Debug)]
pub struct PostgresPlace {
    /// Hosts, database, user and password.
    pub config: tokio_postgres::Config,
    /// `None` for connections without TLS.
    pub tls: Option<ClientTls>,
    /// The name of this gateway among those of a fleet; `None` if it is the only one.
    pub node: Option<String>,
    /// The path of the journal's files, without their endings; `None` if the journal is in the database.
    pub journal: Option<PathBuf>,
}

impl PartialEq for PostgresPlace {
    fn eq(&self, other: &Self) -> bool {
        let tls = |place: &Self| place.tls.as_ref().map(|tls| tls.made_from);
        self.config == other.config
            && tls(self) == tls(other)
            && self.journal == other.journal
            && self.node == other.node
    }
}
