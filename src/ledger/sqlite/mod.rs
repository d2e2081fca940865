//! Stores a ledger in one SQLite file, and its journal in two files beside it.
//!
//! Entries, accounts and keys are in SQLite, in WAL mode with synchronous=FULL. Passive checkpoints run on their own
//! connection and thread, so that no write waits for a checkpoint. The journal is in [`journal_files`].

mod file;
mod journal_files;
mod migrate_entries;
mod migrate_journal;
mod migrate_usage;

use std::path::Path;
use std::sync::Arc;

use rusqlite::OpenFlags;

use super::sql::db::{Connection, Connections, failed, params};
use super::sql::{SqlBooks, Upkeep};
use super::store::{Result, Storage};
use file::Checkpointer;
pub(super) use file::{Lock, VERSION, canonical, create_private};
pub(super) use journal_files::FileJournal;

/// Opens or creates a ledger's file, locks it, and migrates its tables and its journal to this version.
///
/// # Errors
/// A message that names the problem with the path or the file, and its remedy.
pub fn open(path: &Path) -> Result<Storage> {
    let (books, journal) = open_parts(path)?;
    Ok(Storage { books: Box::new(books), journal: Box::new(journal), leases: None })
}

pub(super) fn open_parts(path: &Path) -> Result<(SqlBooks, FileJournal)> {
    let path = &canonical(path); // so that different paths to one file take the same lock
    let lock = Arc::new(Lock::take(path)?);
    let mut connection = file::open(path).inspect_err(|_| lock.discard())?;
    let mark = connection.one("SELECT mark FROM nodes", params![], |row| row.get(0))?;
    migrate_journal::fold_old_journal(&mut connection, path, mark)?;
    let checkpointer = Checkpointer::start(path)?;
    let journal = FileJournal::open(path, mark, Some(Arc::clone(&lock)))?;
    let file = path.clone();
    let connections = Connections::new(move || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = rusqlite::Connection::open_with_flags(&file, flags).map_err(failed)?;
        Ok(Connection::sqlite(connection))
    });
    let upkeep = FileUpkeep { checkpointer, _lock: lock };
    Ok((SqlBooks::new(connection, connections, Box::new(upkeep)), journal))
}

/// What a file needs while it is open.
#[derive(Debug)]
struct FileUpkeep {
    checkpointer: Checkpointer,
    _lock: Arc<Lock>,
}

impl Upkeep for FileUpkeep {
    fn checkpoint(&mut self, connection: &Connection) {
        if self.checkpointer.request() {
            // The write-ahead log is longer than passive checkpoints can keep up with: restart it here, on the only
            // writer. This never waits: if a reader still uses the log, the next call tries again.
            let Ok(sqlite) = connection.raw() else { return };
            let _ = sqlite.busy_timeout(std::time::Duration::ZERO);
            let restart = sqlite.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()));
            let _ = sqlite.busy_timeout(file::BUSY);
            if let Err(error) = restart {
                tracing::debug!(%error, "SQLite's WAL cannot be restarted yet");
            }
        }
    }
}
