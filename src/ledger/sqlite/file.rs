//! Opens a ledger's SQLite file: locks, checks, migrates and checkpoints it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{migrate_entries, migrate_usage};
use crate::ledger::sql::db::Connection;
use crate::ledger::store::{LedgerError, Result};

/// `TGLD`: SQLite's `application_id` of a ledger's file.
const APPLICATION_ID: i64 = 0x5447_4c44;
/// The version of the tables.
pub(in crate::ledger) const VERSION: usize = MIGRATIONS.len();
/// One migration per version, in order. There are none to earlier versions.
const MIGRATIONS: [&str; 19] = [
    include_str!("../migrations/0001_books.sql"),
    include_str!("../migrations/0002_secrets_in_key_order.sql"),
    include_str!("../migrations/0003_journal_file.sql"),
    include_str!("../migrations/0004_double_entry.sql"),
    include_str!("../migrations/0005_entries_per_account.sql"),
    include_str!("../migrations/0006_control_plane.sql"),
    include_str!("../migrations/0007_usage.sql"),
    include_str!("../migrations/0008_webhooks.sql"),
    include_str!("../migrations/0009_operations.sql"),
    include_str!("../migrations/0010_users.sql"),
    include_str!("../migrations/0011_usage_of_each_step.sql"),
    include_str!("../migrations/0012_jobs.sql"),
    include_str!("../migrations/0013_buckets.sql"),
    include_str!("../migrations/0014_repeats.sql"),
    include_str!("../migrations/0015_requests.sql"),
    include_str!("../migrations/0016_spend_groups.sql"),
    include_str!("../migrations/0017_payments.sql"),
    include_str!("../migrations/0018_names_for_every_engine.sql"),
    include_str!("../migrations/0019_nodes.sql"),
];
/// The version from which on entries are chained.
const CHAINED: usize = 4;
/// The version from which on entries are numbered per account.
const NUMBERED_PER_ACCOUNT: usize = 5;
/// The version from which on usage is counted in an interval of each length.
const USAGE_OF_EACH_STEP: usize = 11;
/// The oldest SQLite version that is accepted. Earlier ones can lose a committed transaction when the write-ahead log
/// is restarted.
const MIN_SQLITE: i32 = 3_051_003;
/// Pages of the write-ahead log, of 4 KiB each, above which the writer restarts it: 32 MiB.
const MAX_LOG_PAGES: u64 = 8_192;
/// Longest time that a statement waits for another connection of this process.
pub(super) const BUSY: Duration = Duration::from_secs(5);

pub(super) fn unusable(path: &Path, what: impl std::fmt::Display) -> LedgerError {
    LedgerError::Unusable(format!("ledger {}: {what}", path.display()))
}

/// Resolves symbolic links in a path, so that each ledger has one path. If the file does not exist yet, the links of
/// its folder are resolved.
pub(in crate::ledger) fn canonical(path: &Path) -> PathBuf {
    if let Ok(canonical) = std::fs::canonicalize(path) {
        return canonical;
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (std::fs::canonicalize(folder), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}

/// An operating-system lock that makes this process the only writer of a ledger. It is released when the process ends.
#[derive(Debug)]
pub(in crate::ledger) struct Lock {
    file: File,
    path: PathBuf,
    /// True if this process created the lock file, so that the file is removed again if the ledger cannot be opened.
    made: bool,
}

impl Lock {
    pub(in crate::ledger) fn take(ledger: &Path) -> Result<Self> {
        if let Some(folder) = ledger.parent().filter(|folder| !folder.as_os_str().is_empty())
            && !folder.is_dir()
        {
            let message = format!("the folder {} does not exist; make it first", folder.display());
            return Err(unusable(ledger, message));
        }
        // The lock is on a file beside the ledger: closing a second descriptor of the ledger itself would drop SQLite's
        // own locks.
        let mut path = ledger.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let made = !path.exists();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let open = options.custom_flags(no_links()).open(&path);
        let mut file = open.map_err(|error| unusable(ledger, why(&error, &path)))?;
        check_owner(ledger)?;
        check_owner(&path)?;
        match file.try_lock() {
            Ok(()) => {
                let _ = file
                    .set_len(0)
                    .and_then(|()| file.rewind())
                    .and_then(|()| writeln!(file, "{}", std::process::id()));
                Ok(Self { file, path, made })
            }
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = file.read_to_string(&mut owner); // only for the message
                let owner = owner.trim();
                let message = format!("process {owner} serves it already; a ledger has one writer");
                Err(unusable(ledger, message))
            }
            Err(TryLockError::Error(error)) => Err(unusable(ledger, why(&error, &path))),
        }
    }
}

impl Drop for Lock {
    /// Unlocks explicitly instead of only closing the file: a child process that is being started has copies of all
    /// open files.
    fn drop(&mut self) {
        let _ = self.file.unlock(); // if it fails, closing the file unlocks it
    }
}

impl Lock {
    /// Removes the lock file if this process created it, after the ledger could not be opened.
    pub(super) fn discard(&self) {
        if self.made {
            let _ = std::fs::remove_file(&self.path); // a lock file that remains does no harm
        }
    }
}

fn no_links() -> i32 {
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default()
}

/// Refuses a file that another user may write, so that nothing is written to it or read from it.
fn check_owner(path: &Path) -> Result<()> {
    let Ok(data) = path.symlink_metadata() else { return Ok(()) }; // the file does not exist yet
    let user = rustix::process::getuid();
    if !data.is_file() || data.mode() & 0o022 != 0 || !(data.uid() == user.as_raw() || user.is_root()) {
        let message = "is not a regular file that only this user may write (chown it, and chmod go-w)";
        return Err(unusable(path, message));
    }
    Ok(())
}

fn why(error: &std::io::Error, path: &Path) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => format!("no permission to write {}", path.display()),
        ErrorKind::ReadOnlyFilesystem => format!("{} is on a read-only file system", path.display()),
        _ => format!("{}: {error}", path.display()),
    }
}

/// Creates an empty file with mode 0600, unless it exists. SQLite gives its log the same mode.
pub(in crate::ledger) fn create_private(path: &Path) -> Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(unusable(path, why(&error, path))),
    }
}

/// Opens the file for writing, checks it and migrates it to this version.
pub(super) fn open(path: &Path) -> Result<Connection> {
    if rusqlite::version_number() < MIN_SQLITE {
        return Err(unusable(path, format!("SQLite {} is too old", rusqlite::version())));
    }
    create_private(path)?;
    let connection = rusqlite::Connection::open(path).map_err(|error| unusable(path, error))?;
    connection.busy_timeout(BUSY).map_err(|error| unusable(path, error))?;
    let connection = Connection::sqlite(connection);
    let sqlite = connection.raw()?;
    let checked = check(sqlite).and_then(|version| {
        configure(sqlite)?;
        migrate(&connection, version)?;
        check_tables(sqlite)
    });
    match checked {
        Ok(()) => Ok(connection),
        Err(Checked::Sqlite(error)) => Err(unusable(path, explain(&error))),
        Err(Checked::Other(message)) => Err(unusable(path, message)),
    }
}

#[derive(Debug)]
enum Checked {
    Sqlite(rusqlite::Error),
    Other(String),
}

impl From<rusqlite::Error> for Checked {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn explain(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => {
            "this is not a Tollgate ledger (no SQLite file); if it was one, restore a backup: see the README"
                .to_owned()
        }
        Some(rusqlite::ErrorCode::ReadOnly) => "the file is read-only".to_owned(),
        Some(rusqlite::ErrorCode::DiskFull) => "the disk is full".to_owned(),
        Some(rusqlite::ErrorCode::DatabaseCorrupt) => damaged(&error.to_string()),
        _ => error.to_string(),
    }
}

fn damaged(how: &str) -> String {
    format!("the file is damaged ({how}); restore a backup: see the README")
}

/// Checks the tables that a start depends on for damage. Keys are not checked, since a start reads all of them;
/// entries, of which there may be millions, are checked by `ledger verify`.
fn check_tables(connection: &rusqlite::Connection) -> Result<(), Checked> {
    for table in ["accounts", "routes", "operator_accounts", "journal", "open_holds", "in_doubt", "lots"] {
        let sql = format!("PRAGMA quick_check('{table}')");
        let found: String = connection.query_row(&sql, [], |row| row.get(0))?;
        if found != "ok" {
            return Err(Checked::Other(damaged(found.lines().next().unwrap_or(table))));
        }
    }
    Ok(())
}

/// The file's version; an error if it is not a ledger or was written by a newer version.
fn check(connection: &rusqlite::Connection) -> Result<usize, Checked> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    if tables > 0 && number("PRAGMA application_id")? != APPLICATION_ID {
        return Err(Checked::Other("this is another program's SQLite file".to_owned()));
    }
    let version = usize::try_from(number("PRAGMA user_version")?).unwrap_or(usize::MAX);
    if version > MIGRATIONS.len() {
        let message = "a newer Tollgate wrote this ledger; use that version".to_owned();
        return Err(Checked::Other(message));
    }
    Ok(version)
}

fn configure(connection: &rusqlite::Connection) -> Result<(), Checked> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(Checked::Other(format!("its file system allows no write-ahead log (mode {mode})")));
    }
    connection.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;",
    )?;
    Ok(())
}

/// Migrates the tables to this version. Writes in any case, so that a file that cannot be written is found now instead
/// of at the first charge.
fn migrate(connection: &Connection, version: usize) -> Result<(), Checked> {
    migrate_upto(connection, version, MIGRATIONS.len())
}

/// Migrates the tables to version `upto`, in one transaction: a file that cannot be migrated is left unchanged.
fn migrate_upto(connection: &Connection, version: usize, upto: usize) -> Result<(), Checked> {
    let other = |error: LedgerError| Checked::Other(error.to_string());
    let tx = connection.raw().map_err(other)?.unchecked_transaction()?;
    let open = &connection.open_transaction();
    for (at, sql) in MIGRATIONS.iter().enumerate().take(upto).skip(version) {
        tx.execute_batch(sql)?;
        if at + 1 == CHAINED {
            tx.execute_batch(migrate_entries::UNCHAINED)?;
        }
        if at + 1 == NUMBERED_PER_ACCOUNT {
            migrate_entries::move_entries(open, version >= CHAINED).map_err(other)?;
        }
        if at + 1 == USAGE_OF_EACH_STEP {
            migrate_usage::count_anew(open).map_err(other)?;
        }
    }
    tx.execute_batch(&format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {upto};"))?;
    tx.commit()?;
    Ok(())
}

/// Copies the write-ahead log into the file, on its own thread, when requested. Dropping it waits for that thread, so
/// that nothing accesses the ledger after its lock is released.
#[derive(Debug)]
pub(super) struct Checkpointer {
    requests: Option<SyncSender<()>>,
    log_pages: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.requests = None; // ends the thread's loop
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic of the thread has been logged
        }
    }
}

impl Checkpointer {
    pub(super) fn start(path: &Path) -> Result<Self> {
        let connection = rusqlite::Connection::open(path).map_err(|error| unusable(path, error))?;
        connection.busy_timeout(BUSY).map_err(|error| unusable(path, error))?;
        let (requests, queue) = sync_channel::<()>(1);
        let log_pages = Arc::new(AtomicU64::new(0));
        let pages = Arc::clone(&log_pages);
        let run = move || {
            while queue.recv().is_ok() {
                let passive = "PRAGMA wal_checkpoint(PASSIVE)";
                match connection.query_row(passive, [], |row| row.get::<_, i64>(1)) {
                    Ok(count) => pages.store(u64::try_from(count).unwrap_or(0), Ordering::Relaxed),
                    Err(error) => tracing::warn!(%error, "SQLite's WAL could not be checkpointed"),
                }
            }
        };
        let thread = std::thread::Builder::new().name("tollgate-checkpoint".to_owned()).spawn(run);
        let thread = thread.map_err(|error| unusable(path, error))?;
        Ok(Self { requests: Some(requests), log_pages, thread: Some(thread) })
    }

    /// Requests a checkpoint. True if the write-ahead log is longer than [`MAX_LOG_PAGES`], so that the caller must
    /// restart it.
    pub(super) fn request(&self) -> bool {
        match self.requests.as_ref().map(|requests| requests.try_send(())) {
            Some(Err(TrySendError::Disconnected(()))) => tracing::warn!("the checkpoint thread has ended"),
            Some(Ok(()) | Err(TrySendError::Full(()))) | None => {}
        }
        self.log_pages.swap(0, Ordering::Relaxed) > MAX_LOG_PAGES
    }
}

#[cfg(test)]
mod tests;
