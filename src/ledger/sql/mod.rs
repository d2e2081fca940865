//! Stores the books in a database: entries, accounts, keys, and all that belongs to them. Every statement is written
//! once, for all engines ([`db`]).

mod accounts;
pub(in crate::ledger) mod copy;
pub(in crate::ledger) mod db;
mod events;
pub(in crate::ledger) mod folding;
mod keys;
pub(in crate::ledger) mod leases;
mod notes;
pub(in crate::ledger) mod posting;
pub(in crate::ledger) mod read;
mod registration;
mod renewals;
pub(in crate::ledger) mod rows;
pub(in crate::ledger) mod usage;
mod users;
mod webhooks;

use std::sync::Arc;

use super::entry::{Entry, EntryKind};
use super::store::{
    AccountChange, AccountRow, Begun, Booked, Booking, Books, BooksReader, Changed, GroupRow, KeyEdit,
    KeyRow, LeaseOf, LedgerError, LoadedBooks, LotEnd, NewAccount, Note, Notes, OwnedKey, Place, Readers,
    RefillBooking, Registered, Registration, Result, TakenJobs, TokenRow, UsageRetention, Webhooks,
};
use super::tally::Fold;
use crate::policy::credit::{LotId, SpendLimit, Spending, Wallet};
use crate::policy::outcome::usage::UsagePart;
use crate::types::{AccountId, AccountNum, Credits, GroupName, KeyId, KeyNum, RequestId, RouteNum, WallTime};
pub(super) use folding::repeats;
pub(super) use folding::shared_jobs::FLEET;

use db::{Connection, Connections, SqlReader, Transaction, params};
use posting::{NewEntry, Posting, groups, limits, refills};
use rows::{credits, entry_row, id_blob};

/// What an engine needs while the books are open.
pub(super) trait Upkeep: Send + std::fmt::Debug {
    /// Is called after a fold.
    fn checkpoint(&mut self, connection: &Connection);
}

/// The books of a ledger, in a database.
#[derive(Debug)]
pub(super) struct SqlBooks {
    // Closed before the one that writes, since only this removes SQLite's write-ahead log.
    connections: Arc<Connections>,
    connection: Connection,
    upkeep: Box<dyn Upkeep>,
    /// True if it is not known if the last fold was written.
    is_uncertain: bool,
    /// The last batch of the last fold.
    folded: u64,
}

impl SqlBooks {
    /// The books that a connection writes. Readers use other connections.
    pub(super) fn new(
        connection: Connection,
        connections: Arc<Connections>,
        upkeep: Box<dyn Upkeep>,
    ) -> Self {
        Self { connections, connection, upkeep, is_uncertain: false, folded: 0 }
    }

    /// Runs a function in a transaction, which is rolled back if the function fails.
    fn write<T>(&mut self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.connection.transaction(work)
    }

    /// Makes a change and writes its notes, in one transaction.
    fn change<T>(
        &mut self,
        notes: &Notes<T>,
        at: WallTime,
        work: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.write(|tx| {
            let done = work(tx)?;
            notes::write(tx, &notes(&done), at)?;
            Ok(done)
        })
    }
}

impl Books for SqlBooks {
    fn load(&mut self, at: WallTime) -> Result<LoadedBooks> {
        // The epoch is at least the seconds of the wall clock, so that a restored backup does not repeat an epoch
        // either.
        let seconds = at.0.div_euclid(1000).clamp(0, u32::MAX.into());
        let next =
            "UPDATE journal SET epoch = CASE WHEN epoch >= ?1 THEN epoch + 1 ELSE ?1 END RETURNING epoch";
        let epoch = self.write(|tx| tx.one(next, params![seconds], |row| row.get(0)))?;
        let loaded = read::loaded(&self.connection, epoch)?;
        self.folded = loaded.folded;
        Ok(loaded)
    }

    fn fold(&mut self, fold: &Fold, at: WallTime) -> Result<()> {
        let was_uncertain = std::mem::take(&mut self.is_uncertain);
        // One without new batches, that gives jobs to the fleet, can be written again.
        let has_batches = fold.upto > self.folded || !fold.doubts.is_empty();
        if was_uncertain && has_batches && folding::is_folded(&self.connection, fold)? {
            self.folded = fold.upto;
            return Ok(()); // the commit whose answer was lost
        }
        let folded = self.connection.shared_transaction(|tx| folding::fold(tx, fold, at));
        self.is_uncertain = matches!(folded, Err(LedgerError::Uncertain(_)));
        if folded.is_ok() {
            self.folded = fold.upto;
        }
        folded
    }

    fn confirm(&mut self) -> Result<()> {
        // This commit overwrites the part of the write-ahead log that a failed commit may have written.
        self.write(|tx| tx.run("UPDATE nodes SET folded = folded WHERE num = ?1", params![tx.node()]))
    }

    fn register(&mut self, wanted: &Registration, at: WallTime) -> Result<Registered> {
        self.write(|tx| registration::register(tx, wanted, at))
    }

    fn create_accounts(
        &mut self,
        new: &[NewAccount],
        notes: &Notes<Vec<AccountRow>>,
        at: WallTime,
    ) -> Result<Vec<AccountRow>> {
        self.change(notes, at, |tx| accounts::create(tx, new, at))
    }

    fn change_account(
        &mut self,
        id: &AccountId,
        change: &AccountChange,
        notes: &Notes<Changed<AccountRow>>,
        at: WallTime,
    ) -> Result<Changed<AccountRow>> {
        self.change(notes, at, |tx| accounts::change(tx, id, change, at))
    }

    fn account(&mut self, id: &AccountId) -> Result<Option<AccountRow>> {
        accounts::find(&self.connection, id)
    }

    fn find_booking(&mut self, account: AccountNum, booking: &Booking) -> Result<Option<Entry>> {
        let sql = format!("{} WHERE e.account = ?1 AND e.kind = ?2 AND e.reference = ?3", read::ENTRIES);
        let wanted = params![account.0, booking.kind.name(), booking.reference];
        self.connection.find(&sql, wanted, entry_row)
    }

    fn book(
        &mut self,
        account: &AccountRow,
        booking: &Booking,
        notes: &Notes<Booked>,
        at: WallTime,
    ) -> Result<Entry> {
        let new = NewEntry::of(booking);
        let booked = self.change(notes, at, |tx| {
            let mut posting = Posting::start(tx)?;
            let entry = posting.add(account.num, at, &new)?;
            posting.finish()?;
            Ok(Booked { entry, repeated: false })
        });
        booked.map(|booked| booked.entry)
    }

    fn wallet(&mut self, account: AccountNum) -> Result<Wallet> {
        let sql = "SELECT balance FROM accounts WHERE num = ?1";
        let balance = self.connection.one(sql, params![account.0], |row| credits(row, 0))?;
        posting::load(&self.connection, account, balance)
    }

    fn due_lots(&mut self, now: WallTime, most: usize) -> Result<Vec<(AccountNum, LotId)>> {
        posting::due(&self.connection, now, most)
    }

    fn leased_elsewhere(&mut self, account: AccountNum) -> Result<Credits> {
        leases::elsewhere(&self.connection, account)
    }

    fn end_lease(&mut self, of: LeaseOf) -> Result<()> {
        self.connection.shared_transaction(|tx| leases::end(tx, of))
    }

    fn take_jobs(&mut self, ids: &[RequestId]) -> Result<Vec<TakenJobs>> {
        self.connection.shared_transaction(|tx| folding::shared_jobs::take(tx, ids))
    }

    fn release_claims(&mut self) -> Result<()> {
        self.connection.shared_transaction(|tx| match tx.is_shared() {
            true => tx.run("DELETE FROM claims WHERE node = ?1", params![tx.node()]),
            false => Ok(()),
        })
    }

    fn due_jobs(&mut self, now: WallTime, most: usize) -> Result<Vec<(RequestId, Credits)>> {
        folding::shared_jobs::due(&self.connection, now, most)
    }

    fn ended_lots(&mut self) -> Result<Vec<(AccountNum, WallTime)>> {
        posting::ended(&self.connection)
    }

    fn limit_accounts(
        &mut self,
        limits: &[(AccountNum, Option<SpendLimit>)],
        at: WallTime,
    ) -> Result<Vec<(AccountNum, Spending, Spending)>> {
        self.write(|tx| limits::limit_accounts(tx, limits, at))
    }

    fn change_group(
        &mut self,
        account: &AccountId,
        name: &GroupName,
        limit: Option<SpendLimit>,
        notes: &Notes<Changed<Option<GroupRow>>>,
        at: WallTime,
    ) -> Result<Changed<Option<GroupRow>>> {
        self.change(notes, at, |tx| groups::change(tx, account, name, limit, at))
    }

    fn begin_periods(&mut self, now: WallTime, most: usize) -> Result<Begun> {
        if !limits::are_over(&self.connection, now)? {
            return Ok(Begun::default()); // so that an idle gateway writes nothing
        }
        self.write(|tx| limits::begin(tx, now, most))
    }

    fn end_lots(&mut self, ends: &[LotEnd], at: WallTime) -> Result<()> {
        self.write(|tx| {
            let mut posting = Posting::start(tx)?;
            refills::end_lots(&mut posting, ends, at)?;
            posting.finish()
        })
    }

    fn refill(&mut self, refills: &[RefillBooking], at: WallTime) -> Result<()> {
        self.write(|tx| refills::refill(tx, refills, at))
    }

    fn create_keys(
        &mut self,
        rows: &[KeyRow],
        notes: &Notes<Vec<KeyNum>>,
        at: WallTime,
    ) -> Result<Vec<KeyNum>> {
        self.change(notes, at, |tx| rows.iter().map(|row| keys::create(tx, row)).collect())
    }

    fn change_key(
        &mut self,
        id: KeyId,
        edit: &KeyEdit,
        notes: &Notes<Changed<OwnedKey>>,
        at: WallTime,
    ) -> Result<Changed<OwnedKey>> {
        self.change(notes, at, |tx| keys::change(tx, id, edit, at))
    }

    fn give_back(
        &mut self,
        id: RequestId,
        actor: &str,
        notes: &Notes<Booked>,
        at: WallTime,
    ) -> Result<Booked> {
        self.change(notes, at, |tx| give_back(tx, id, actor, at))
    }

    fn put_token(&mut self, token: &TokenRow, notes: &Notes<TokenRow>, at: WallTime) -> Result<()> {
        self.change(notes, at, |tx| notes::put_token(tx, token).map(|()| token.clone())).map(drop)
    }

    fn note(&mut self, notes: &[Note], at: WallTime) -> Result<()> {
        self.write(|tx| notes::write(tx, notes, at))
    }

    fn prune_jobs(&mut self, before: WallTime) -> Result<()> {
        self.write(|tx| folding::jobs::prune(tx, before))
    }

    fn prune_repeats(&mut self, now: WallTime, most: usize) -> Result<bool> {
        Ok(self.write(|tx| repeats::prune(tx, now, most))? == most)
    }

    fn prune_requests(&mut self, before: WallTime, most: usize) -> Result<bool> {
        Ok(self.write(|tx| folding::requests::prune(tx, before, most))? == most)
    }

    fn prune_answers(&mut self, before: WallTime) -> Result<()> {
        self.write(|tx| tx.run("DELETE FROM answers WHERE at < ?1", params![before.0]))
    }

    fn save_limits(&mut self, states: &[(Vec<u8>, Vec<u8>)], at: WallTime) -> Result<()> {
        self.write(|tx| {
            for (owner, state) in states {
                if state.is_empty() {
                    tx.run("DELETE FROM limits WHERE node = ?1 AND owner = ?2", params![tx.node(), owner])?;
                    continue;
                }
                let sql = "INSERT INTO limits (node, owner, state, saved) VALUES (?1, ?2, ?3, ?4)
                           ON CONFLICT (node, owner) DO UPDATE SET state = excluded.state, saved = excluded.saved";
                tx.run(sql, params![tx.node(), owner, state, at.0])?;
            }
            Ok(())
        })
    }

    fn count_usage(&mut self, parts: &[UsagePart]) -> Result<()> {
        if parts.is_empty() && !usage::has_uncounted(&self.connection)? {
            return Ok(()); // so that an idle gateway writes nothing
        }
        self.write(|tx| {
            usage::count(tx, parts)?;
            events::refused(tx, parts.iter().flat_map(|part| &part.refusals))
        })
    }

    fn prune_usage(&mut self, keep: &UsageRetention, most: usize) -> Result<bool> {
        if !usage::has_old(&self.connection, keep)? {
            return Ok(false);
        }
        self.write(|tx| usage::prune(tx, keep, most))
    }

    fn webhooks(&mut self) -> Option<&mut dyn Webhooks> {
        Some(self)
    }

    fn checkpoint(&mut self) {
        self.upkeep.checkpoint(&self.connection);
    }

    fn readers(&self) -> Readers {
        let connections = Arc::downgrade(&self.connections);
        Readers::new(move || {
            let connections = connections.upgrade().ok_or(LedgerError::Closed)?;
            Ok(Box::new(SqlReader::take(&connections)?) as Box<dyn BooksReader>)
        })
    }
}

fn give_back(tx: &Transaction<'_>, id: RequestId, actor: &str, at: WallTime) -> Result<Booked> {
    let sql = "SELECT account, key, route, given_back FROM in_doubt WHERE id = ?1";
    let found = tx.find(sql, params![id_blob(id)], |row| {
        let (account, key) = (AccountNum(row.get(0)?), KeyNum(row.get(1)?));
        Ok((account, key, RouteNum(row.get(2)?), row.get::<Option<i64>>(3)?))
    })?;
    let unknown = || LedgerError::Unknown(format!("no hold in doubt has the id {id}"));
    let (account, key, route, given_back) = found.ok_or_else(unknown)?;
    let reference = id.to_string();
    // The amount is that of the chained entry, not that of the list of holds in doubt.
    let sql = format!("{} WHERE e.account = ?1 AND e.kind = 'in_doubt' AND e.reference = ?2", read::ENTRIES);
    let charged = tx.find(&sql, params![account.0, reference], entry_row)?;
    let charged = charged.ok_or_else(|| LedgerError::Damaged(format!("no entry charges {id}")))?;
    let amount = Credits::ZERO.checked_sub(charged.amount).unwrap_or_default();
    let back = charged.split.negated();
    if given_back.is_some() {
        let sql =
            format!("{} WHERE e.account = ?1 AND e.kind = 'given_back' AND e.reference = ?2", read::ENTRIES);
        let entry = tx.one(&sql, params![account.0, reference], entry_row)?;
        return Ok(Booked { entry, repeated: true });
    }
    let new = NewEntry {
        key: Some(key),
        route: Some(route),
        requests: 1,
        place: Place::Back(&back),
        ..NewEntry::booking(EntryKind::GivenBack, amount, Some(&reference), actor)
    };
    let mut posting = Posting::start(tx)?;
    let entry = posting.add(account, at, &new)?;
    posting.finish()?;
    let sql = "UPDATE in_doubt SET given_back = ?2 WHERE id = ?1";
    tx.run(sql, params![id_blob(id), at.0])?;
    Ok(Booked { entry, repeated: false })
}
