//! Where a ledger is, and how it is opened, migrated and copied there.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::handle::Ledger;
use super::postgres::{self, JournalAt, Server};
use super::sql::{SqlBooks, copy};
use super::sqlite;
use super::store::{Books, LedgerError, Result, Storage, unbalanced};
use super::verify::verify;
use crate::clock::Clock;

/// Where a ledger is.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a SQLite file of this machine.
    Sqlite(PathBuf),
    /// In a PostgreSQL database.
    Postgres(Box<Server>, JournalAt),
}

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Each table, and the number of its rows.
    pub tables: Vec<(&'static str, u64)>,
    /// The number of entries, which were verified in both ledgers.
    pub entries: u64,
    /// Holds that a crash had left open, which were charged in full before, and are listed as in doubt.
    pub doubts: usize,
}

/// Without user and password.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            Self::Postgres(server, _) => write!(f, "{}", postgres::place(&server.config)),
        }
    }
}

impl Place {
    /// Opens or creates the ledger, takes its lock, and migrates its tables to this version.
    ///
    /// # Errors
    /// A message that names the problem and its remedy.
    pub fn open(&self) -> Result<Storage> {
        match self {
            Self::Sqlite(path) => sqlite::open(path),
            Self::Postgres(server, at) => postgres::open(server, at),
        }
    }

    /// The place as a gateway alone opens it, which no gateway of a fleet may serve then.
    fn alone(&self) -> Self {
        match self {
            Self::Postgres(server, _) if server.node.is_some() => {
                Self::Postgres(Box::new(Server { node: None, ..(**server).clone() }), JournalAt::Shared)
            }
            other => other.clone(),
        }
    }

    /// Opens the books alone. No gateway serves them until they are dropped.
    fn open_books(&self) -> Result<SqlBooks> {
        match self {
            Self::Sqlite(path) => sqlite::open_parts(path).map(|(books, _)| books),
            Self::Postgres(server, _) => postgres::open_books(server),
        }
    }

    /// Migrates the tables to this version, or creates them. Returns their version. `abandons_journal`: gives up the journal
    /// of a machine that is lost.
    ///
    /// # Errors
    /// A message that names the problem and its remedy.
    pub fn migrate(&self, abandons_journal: bool) -> Result<usize> {
        match self {
            Self::Sqlite(_) if abandons_journal => Err(LedgerError::Refused(
                "the journal of a ledger in SQLite is beside its file: without it, restore a backup"
                    .to_owned(),
            )),
            Self::Sqlite(path) => sqlite::open(path).map(|_| sqlite::VERSION),
            Self::Postgres(server, _) => postgres::migrate_only(server, abandons_journal),
        }
    }

    /// Copies a whole ledger to a place that has none, in one transaction, and verifies both.
    ///
    /// # Errors
    /// If a gateway serves one of them, the other place has a ledger already, or they differ afterwards.
    pub fn copy(&self, to: &Self, clock: Clock) -> Result<Copied> {
        let (from, to) = (self.alone(), to.alone());
        let (ledger, opened) = Ledger::open(from.open()?, 0, Duration::ZERO, clock)?; // folds its journal
        ledger.close()?;
        if opened.off_by != 0 {
            return Err(LedgerError::Refused(unbalanced(opened.off_by)));
        }
        let (from, mut to) = (from.open_books()?, to.open_books()?);
        let tables = copy::copy(&from, &mut to, &postgres::tables())?;
        let mut entries = 0;
        for (books, name) in [(&from, "first"), (&to, "second")] {
            let verified = verify(&mut *books.reader()?)?;
            if verified.found > 0 {
                let message = format!("{} differences were found in the {name} ledger", verified.found);
                return Err(LedgerError::Refused(message));
            }
            entries = verified.entries;
        }
        Ok(Copied { tables, entries, doubts: opened.doubts })
    }
}
