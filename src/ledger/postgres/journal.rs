//! The journal of a ledger in PostgreSQL: in two files of this machine, or in the database itself.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fence::Fence;
use crate::ledger::sql::db::{Connection, Row, params};
use crate::ledger::sqlite::{FileJournal, Lock, create_private};
use crate::ledger::store::{Journal, JournalRow, LedgerError, Result};
use crate::types::WallTime;

/// Reads the number of a gateway's journal in files.
const MARK: &str = "SELECT mark FROM nodes WHERE num = ?1";
/// Most bytes of the file with the number of a journal.
const MAX_MARK: u64 = 32;

/// A journal in two files of this machine. The database knows it by a number, which is also in a third file, so that no
/// other machine folds without what is in these files. A clean stop, after which they have nothing that is not folded,
/// removes the number and the files.
pub(super) struct LocalJournal {
    /// `None` once it is dropped.
    files: Option<FileJournal>,
    connection: Connection,
    mark: i64,
    mark_file: PathBuf,
    fence: Arc<Fence>,
}

impl LocalJournal {
    /// Opens the files `PATH.journal-0` and `-1`. `serving` is a connection that has the lock of the gateway that serves;
    /// `connection` is any other.
    pub(super) fn open(
        path: &Path,
        lock: Lock,
        serving: &mut Connection,
        connection: Connection,
        fence: Arc<Fence>,
    ) -> Result<Self> {
        let mut mark_file = path.as_os_str().to_owned();
        mark_file.push(".journal-mark");
        let mark_file = PathBuf::from(mark_file);
        let known: Option<i64> = serving.one(MARK, params![serving.node()], |row| row.get(0))?;
        let mark = match (known, read_mark(&mark_file)?) {
            (Some(known), Some(own)) if known == own => known,
            (Some(_), _) => return Err(elsewhere(path)),
            (None, _) => {
                let unfolded = "SELECT 1 FROM batches
                    WHERE node = ?1 AND seq > (SELECT folded FROM nodes WHERE num = ?1)";
                if serving.exists(unfolded, params![serving.node()])? {
                    return Err(LedgerError::Refused(
                        "its journal is in the database: start and stop a gateway with `journal = \"shared\"` first"
                            .to_owned(),
                    ));
                }
                let random = "SELECT CAST(floor(random() * 9e18) AS BIGINT)";
                let mark = serving.one(random, params![], |row| row.get(0))?;
                write_mark(&mark_file, mark).map_err(|error| failed(&mark_file, &error))?;
                let set = "UPDATE nodes SET mark = ?2 WHERE num = ?1";
                serving.transaction(|tx| tx.run(set, params![tx.node(), mark]))?;
                mark
            }
        };
        let files = FileJournal::open(path, mark, Some(Arc::new(lock)))?;
        Ok(Self { files: Some(files), connection, mark, mark_file, fence })
    }

    fn files(&mut self) -> Result<&mut FileJournal> {
        self.files.as_mut().ok_or(LedgerError::Closed)
    }
}

impl Journal for LocalJournal {
    fn read(&mut self, folded: u64) -> Result<Vec<JournalRow>> {
        self.files()?.read(folded)
    }

    fn append(&mut self, seq: u64, at: WallTime, records: &[u8]) -> Result<()> {
        if self.fence.has_fallen() {
            return Err(LedgerError::Failed(
                "another process has served as this gateway: restart it".to_owned(),
            ));
        }
        self.files()?.append(seq, at, records)
    }

    fn reset(&mut self, upto: u64) {
        self.files.iter_mut().for_each(|files| files.reset(upto));
    }
}

impl Drop for LocalJournal {
    /// If every batch is folded, another machine may go on.
    fn drop(&mut self) {
        if !self.files.take().is_some_and(|files| files.is_folded()) {
            return;
        }
        let forget = "UPDATE nodes SET mark = NULL WHERE num = ?1 AND mark = ?2";
        match self.connection.transaction(|tx| tx.run(forget, params![tx.node(), self.mark])) {
            Ok(()) => drop(std::fs::remove_file(&self.mark_file)), // one that remains does no harm
            Err(error) => tracing::warn!(%error, "the ledger stays bound to the journal of this machine"),
        }
    }
}

fn elsewhere(path: &Path) -> LedgerError {
    LedgerError::Refused(format!(
        "its journal is not {}.journal-0 and -1, but with the gateway that served it last: start it there, or move its \
         files `….journal-*` here. If they are lost, `tollgate ledger migrate --abandon-journal` goes on without the \
         charges that were only there",
        path.display()
    ))
}

fn failed(path: &Path, error: &std::io::Error) -> LedgerError {
    LedgerError::Unusable(format!("{}: {error}", path.display()))
}

fn read_mark(path: &Path) -> Result<Option<i64>> {
    use std::io::Read;
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(MAX_MARK).read_to_string(&mut text)) {
        Ok(_) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, &error)),
    }
}

/// Writes the number, so that it is on disk before the database has it.
fn write_mark(path: &Path, mark: i64) -> std::io::Result<()> {
    create_private(path).map_err(std::io::Error::other)?;
    let mut file = File::create(path)?;
    writeln!(file, "{mark}")?;
    file.sync_all()?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// A journal in the database. Its connection has a lock of its own, and a gateway that lost it appends nothing once another
/// process has served in its place.
pub(super) struct SharedJournal {
    connection: Connection,
}

impl SharedJournal {
    /// `serving` is a connection that has the lock of the gateway that serves; `connection` has that of its journal.
    pub(super) fn open(serving: &Connection, connection: Connection) -> Result<Self> {
        if serving.one(MARK, params![serving.node()], |row| row.get::<Option<i64>>(0))?.is_some() {
            return Err(LedgerError::Refused(
                "its journal is on the machine that served it last: start and stop the gateway there, with `journal = \
                 \"local\"`, first. If that machine is lost, `tollgate ledger migrate --abandon-journal` goes on \
                 without the charges that were only there"
                    .to_owned(),
            ));
        }
        connection.exists("SELECT 1", params![])?; // connects, and takes its lock
        Ok(Self { connection })
    }
}

impl Journal for SharedJournal {
    fn read(&mut self, folded: u64) -> Result<Vec<JournalRow>> {
        let (db, node) = (&self.connection, self.connection.node());
        let sql = "SELECT seq, at, records FROM batches WHERE node = ?1 AND seq > ?2 ORDER BY seq";
        let row = |row: &Row<'_>| Ok((row.get(0)?, WallTime(row.get(1)?), row.get(2)?));
        let rows: Vec<JournalRow> = db.all(sql, params![node, folded], row)?;
        match (folded + 1..).zip(&rows).find(|(expected, row)| row.0 != *expected) {
            Some((expected, row)) => Err(LedgerError::Damaged(format!(
                "batch {expected} is missing in the journal before batch {}",
                row.0
            ))),
            None => Ok(rows),
        }
    }

    fn append(&mut self, seq: u64, at: WallTime, records: &[u8]) -> Result<()> {
        // The batch may be there already, if the answer to an earlier attempt was lost.
        let sql = "INSERT INTO batches (node, seq, at, records) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (node, seq) DO UPDATE SET at = excluded.at, records = excluded.records";
        self.connection.write_one(sql, params![self.connection.node(), seq, at.0, records])
    }

    fn reset(&mut self, upto: u64) {
        let (sql, node) = ("DELETE FROM batches WHERE node = ?1 AND seq <= ?2", self.connection.node());
        if let Err(error) = self.connection.write_one(sql, params![node, upto]) {
            tracing::debug!(%error, "folded batches stay in the journal until the next fold");
        }
    }
}
