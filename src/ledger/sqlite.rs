//! The ledger in one SQLite file, and its journal in a pair of files beside it: the writing side.
//!
//! Charges go to the journal, see [`journal`]; entries, accounts and keys to SQLite, in WAL mode
//! with synchronous=FULL. Its checkpoints are passive, on a connection and a thread of their own, so
//! that they never make a commit wait.

mod carry_over;
mod file;
mod folding;
mod journal;
mod keys;
mod posting;
mod read;
mod rows;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::entry::{Entry, EntryKind};
use super::fold::Fold;
use super::store::{
    AccountRow, AccountState, Booked, Booking, Books, KeyChange, KeyRow, LedgerError, Reader, Registered,
    Registration, Result, Store,
};
use crate::types::{AccountId, AccountNum, Credits, KeyId, KeyNum, RequestId, RouteNum, WallTime};
use file::{Checkpointer, Lock};
use journal::Journal;
use posting::{NewEntry, Posting};
use rows::{account_row, credits, entry_row, failed, id_blob};

/// A ledger in a file that this process has locked.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    path: PathBuf,
    checkpointer: Checkpointer,
    journal: Journal,
    /// The last commit of SQLite's failed.
    unsure: bool,
    _lock: Lock,
}

impl SqliteStore {
    /// Opens or makes the file, takes its lock, and brings its tables up to date.
    ///
    /// # Errors
    /// Says what is wrong with the path or the file, and what to do.
    pub fn open(path: &Path) -> Result<Self> {
        let path = &file::canonical(path); // two names of one file are one ledger
        let lock = Lock::take(path)?;
        let connection = file::open(path).inspect_err(|_| lock.discard())?;
        let checkpointer = Checkpointer::start(path)?;
        let mark = connection.query_row("SELECT mark FROM journal", [], |row| row.get(0)).map_err(failed)?;
        let journal = Journal::open(path, mark)?;
        Ok(Self { connection, path: path.to_owned(), checkpointer, journal, unsure: false, _lock: lock })
    }

    /// Runs a transaction, all or nothing.
    fn write<T>(&mut self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let immediate = TransactionBehavior::Immediate;
        let tx = self.connection.transaction_with_behavior(immediate).map_err(failed)?;
        let done = work(&tx)?;
        let committed = tx.commit().map_err(failed);
        self.unsure = committed.is_err();
        committed.map(|()| done)
    }

    /// After a commit that failed nobody knows what a crash would find of it. Nothing is built on that:
    /// the next commit takes its place in the log, and comes before any batch.
    fn be_sure(&mut self) -> Result<()> {
        if self.unsure {
            self.write(|tx| tx.execute("UPDATE journal SET folded = folded", []).map_err(failed))?;
        }
        Ok(())
    }
}

fn find_account(tx: &Connection, id: &AccountId) -> Result<Option<AccountRow>> {
    let sql = format!("{} WHERE id = ?1", read::ACCOUNTS);
    let mut statement = tx.prepare_cached(&sql).map_err(failed)?;
    statement.query_row([id.as_str()], account_row).optional().map_err(failed)
}

impl Store for SqliteStore {
    fn load(&mut self) -> Result<Books> {
        let mut books = read::books(&self.connection)?;
        books.journal.extend(self.journal.read(books.folded.upto)?);
        Ok(books)
    }

    fn append(&mut self, seq: u64, at: WallTime, records: &[u8]) -> Result<()> {
        self.be_sure()?;
        self.journal.append(seq, at, records)
    }

    fn fold(&mut self, fold: &Fold, at: WallTime) -> Result<()> {
        self.write(|tx| folding::fold(tx, fold, at))?;
        if fold.through.is_none() {
            self.journal.folded(fold.upto);
        }
        Ok(())
    }

    fn register(&mut self, wanted: &Registration, at: WallTime) -> Result<Registered> {
        self.write(|tx| {
            let mut registered = Registered::default();
            let mut posting = Posting::begin(tx)?;
            for (id, opening) in &wanted.accounts {
                registered.accounts.push(register_account(tx, &mut posting, id, *opening, at)?);
            }
            posting.finish()?;
            registered.keys = keys::register(tx, &wanted.keys, at)?;
            for name in &wanted.routes {
                let sql = "INSERT INTO routes (name) VALUES (?1) ON CONFLICT (name) DO UPDATE SET name = name RETURNING num";
                let mut statement = tx.prepare_cached(sql).map_err(failed)?;
                let num = statement.query_row([name.as_str()], |row| row.get(0)).map_err(failed)?;
                registered.routes.push(RouteNum(num));
            }
            Ok(registered)
        })
    }

    fn create_account(&mut self, id: &AccountId, plan: Option<&str>, at: WallTime) -> Result<AccountRow> {
        self.write(|tx| {
            if find_account(tx, id)?.is_some() {
                return Err(LedgerError::Refused(format!("account {id} exists already")));
            }
            let insert = "INSERT INTO accounts (id, plan, source, created) VALUES (?1, ?2, 'store', ?3)";
            tx.execute(insert, params![id.as_str(), plan, at.0]).map_err(failed)?;
            let made = find_account(tx, id)?;
            made.ok_or_else(|| LedgerError::Failed("the new account is not there".to_owned()))
        })
    }

    fn set_account_state(&mut self, id: &AccountId, state: AccountState) -> Result<()> {
        self.write(|tx| {
            let name = rows::account_state_name(state);
            let sql = "UPDATE accounts SET state = ?2 WHERE id = ?1";
            let changed = tx.execute(sql, params![id.as_str(), name]).map_err(failed)?;
            rows::changed_one(changed, || format!("there is no account {id}"))
        })
    }

    fn account(&mut self, id: &AccountId) -> Result<Option<AccountRow>> {
        find_account(&self.connection, id)
    }

    fn find_booking(&mut self, account: AccountNum, booking: &Booking) -> Result<Option<Entry>> {
        let sql = format!("{} WHERE e.account = ?1 AND e.kind = ?2 AND e.reference = ?3", read::ENTRIES);
        let mut statement = self.connection.prepare_cached(&sql).map_err(failed)?;
        let wanted = params![account.0, booking.kind.name(), booking.reference];
        statement.query_row(wanted, entry_row).optional().map_err(failed)
    }

    fn book(&mut self, account: &AccountRow, booking: &Booking, at: WallTime) -> Result<Entry> {
        let new = NewEntry {
            kind: booking.kind,
            amount: booking.amount,
            route: None,
            requests: 0,
            reference: Some(&booking.reference),
            actor: booking.actor,
        };
        self.write(|tx| {
            let mut posting = Posting::begin(tx)?;
            let entry = posting.add(account.num, at, &new)?;
            posting.finish()?;
            Ok(entry)
        })
    }

    fn create_keys(&mut self, rows: &[KeyRow]) -> Result<Vec<KeyNum>> {
        self.write(|tx| rows.iter().map(|row| keys::create(tx, row)).collect())
    }

    fn change_key(&mut self, id: KeyId, change: &KeyChange) -> Result<()> {
        self.write(|tx| keys::change(tx, id, change))
    }

    fn give_back(&mut self, id: RequestId, at: WallTime) -> Result<Booked> {
        self.write(|tx| give_back(tx, id, at))
    }

    fn save_limits(&mut self, states: &[(Vec<u8>, Vec<u8>)], at: WallTime) -> Result<()> {
        self.write(|tx| {
            for (owner, state) in states {
                let sql = if state.is_empty() {
                    "DELETE FROM limits WHERE owner = ?1 AND ?2 IS NOT NULL AND ?3 IS NOT NULL"
                } else {
                    "INSERT INTO limits (owner, state, saved) VALUES (?1, ?2, ?3)
                     ON CONFLICT (owner) DO UPDATE SET state = excluded.state, saved = excluded.saved"
                };
                let mut statement = tx.prepare_cached(sql).map_err(failed)?;
                statement.execute(params![owner, state, at.0]).map_err(failed)?;
            }
            Ok(())
        })
    }

    fn tidy(&mut self) {
        if self.checkpointer.request() {
            // The log outgrew what passive checkpoints keep up with: start it over here, where
            // nobody else writes. Never waits: with a reader in the way it is tried again.
            let _ = self.connection.busy_timeout(std::time::Duration::ZERO);
            let restart = self.connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()));
            let _ = self.connection.busy_timeout(file::BUSY);
            if let Err(error) = restart {
                tracing::debug!(%error, "the ledger's log could not be started over yet");
            }
        }
    }

    fn reader(&self) -> Result<Box<dyn Reader>> {
        read::SqliteReader::open(&self.path).map(|reader| Box::new(reader) as Box<dyn Reader>)
    }
}

fn register_account(
    tx: &Transaction<'_>,
    posting: &mut Posting<'_>,
    id: &AccountId,
    opening: Option<Credits>,
    at: WallTime,
) -> Result<AccountRow> {
    if let Some(mut row) = find_account(tx, id)? {
        if row.source == super::store::Source::Store {
            let sql = "UPDATE accounts SET source = 'file' WHERE num = ?1";
            tx.execute(sql, [row.num.0]).map_err(failed)?;
            row.source = super::store::Source::File;
        }
        return Ok(row);
    }
    let insert = "INSERT INTO accounts (id, source, opening, created) VALUES (?1, 'file', ?2, ?3)";
    let amount = opening.map(Credits::millionths);
    let num = tx
        .prepare_cached(insert)
        .and_then(|mut statement| statement.insert(params![id.as_str(), amount, at.0]))
        .map_err(failed)?;
    let num =
        AccountNum(u32::try_from(num).map_err(|_| LedgerError::Failed("too many accounts".to_owned()))?);
    if let Some(amount) = opening.filter(|amount| !amount.is_zero()) {
        let (kind, reference) = (EntryKind::Grant, Some("opening"));
        let new = NewEntry { kind, amount, route: None, requests: 0, reference, actor: "file" };
        posting.add(num, at, &new)?;
    }
    find_account(tx, id)?.ok_or_else(|| LedgerError::Failed("the new account is not there".to_owned()))
}

fn give_back(tx: &Transaction<'_>, id: RequestId, at: WallTime) -> Result<Booked> {
    let sql = "SELECT account, route, given_back FROM in_doubt WHERE id = ?1";
    let found = tx.query_row(sql, [id_blob(id)], |row| {
        Ok((AccountNum(row.get(0)?), RouteNum(row.get(1)?), row.get::<_, Option<i64>>(2)?))
    });
    let found = found.optional().map_err(failed)?;
    let unknown = || LedgerError::Refused(format!("no hold in doubt has the id {id}"));
    let (account, route, given_back) = found.ok_or_else(unknown)?;
    let reference = id.to_string();
    // What was charged for it, as the chained entry says.
    let sql = "SELECT -amount FROM entries WHERE account = ?1 AND kind = 'in_doubt' AND reference = ?2";
    let charged =
        tx.query_row(sql, params![account.0, reference], |row| credits(row, 0)).optional().map_err(failed)?;
    let amount = charged.ok_or_else(|| LedgerError::Damaged(format!("no entry charges {id}")))?;
    if given_back.is_some() {
        let sql =
            format!("{} WHERE e.account = ?1 AND e.kind = 'given_back' AND e.reference = ?2", read::ENTRIES);
        let entry = tx.query_row(&sql, params![account.0, reference], entry_row).map_err(failed)?;
        return Ok(Booked { entry, repeated: true });
    }
    let (kind, reference) = (EntryKind::GivenBack, Some(reference.as_str()));
    let new = NewEntry { kind, amount, route: Some(route), requests: 1, reference, actor: "command" };
    let mut posting = Posting::begin(tx)?;
    let entry = posting.add(account, at, &new)?;
    posting.finish()?;
    let sql = "UPDATE in_doubt SET given_back = ?2 WHERE id = ?1";
    tx.execute(sql, params![id_blob(id), at.0]).map_err(failed)?;
    Ok(Booked { entry, repeated: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A commit that failed may be found by a crash: no batch is built on its not being there.
    #[test]
    fn nothing_is_appended_before_it_is_known_what_the_last_commit_did() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(&folder.path().join("ledger.db")).unwrap();
        store.load().unwrap();
        store.append(1, WallTime(1), b"one").unwrap();
        store.unsure = true; // as after an error of the commit's sync
        store.connection.execute_batch("PRAGMA query_only = ON").unwrap();
        assert!(matches!(store.append(2, WallTime(2), b"two"), Err(LedgerError::Failed(_))));
        store.connection.execute_batch("PRAGMA query_only = OFF").unwrap();
        store.append(2, WallTime(2), b"two").unwrap();
        assert!(!store.unsure);
        let rows = store.load().unwrap().journal;
        assert_eq!(rows.iter().map(|(seq, ..)| *seq).collect::<Vec<_>>(), [1, 2]);
    }

    /// Its rest stands in a journal that no copy has: requests would be charged by it, and again by their
    /// holds, which are open in it.
    #[test]
    fn no_backup_is_made_of_a_fold_in_part() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(&folder.path().join("ledger.db")).unwrap();
        let copy = folder.path().join("copy.db");
        let through = Some((AccountNum(1), RouteNum(1)));
        store.fold(&Fold { upto: 1, through, ..Fold::default() }, WallTime(1)).unwrap();
        assert!(!store.reader().unwrap().backup(&copy).unwrap());
        assert!(!copy.exists());
        store.fold(&Fold { upto: 1, ..Fold::default() }, WallTime(1)).unwrap();
        assert!(store.reader().unwrap().backup(&copy).unwrap());
        let files: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert!(!files.iter().any(|name| name.to_string_lossy().starts_with("copy.db-")), "{files:?}");
        drop(store);
        SqliteStore::open(&copy).unwrap();
    }
}
