//! Simulates a storage whose calls fail, are interrupted by a power cut, and take time in which other threads continue.

use std::panic::resume_unwind;
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::Mutex;

use super::judge::Durable;
use crate::ledger::entry::Entry;
use crate::ledger::memory::MemoryStore;
use crate::ledger::store::{
    AccountChange, AccountRow, Begun, Booked, Booking, Books, Changed, GroupRow, Journal, JournalRow,
    KeyEdit, KeyRow, LedgerError, LoadedBooks, LotEnd, NewAccount, Note, Notes, OwnedKey, Readers,
    RefillBooking, Registered, Registration, Result, Storage, TokenRow, UsageRetention, no_notes,
};
use crate::ledger::tally::Fold;
use crate::policy::credit::{LotId, SpendLimit, Spending, Wallet};
use crate::policy::outcome::usage::UsagePart;
use crate::types::{AccountId, AccountNum, GroupName, KeyId, KeyNum, RequestId, WallTime};

/// The panic payload of a call that a power cut interrupts.
pub(super) struct PowerCut;

/// A change whose call failed, but which may be on the disk after a crash, since an error of a disk does not tell
/// whether the data was written.
type Ghost = Box<dyn FnOnce(&mut MemoryStore, &mut Durable) + Send>;

/// The data that survives a crash of the process. Clones share it.
#[derive(Clone)]
pub(super) struct Disk(Arc<Mutex<DiskState>>);

struct DiskState {
    books: MemoryStore,
    random: Rng,
    durable: Durable,
    /// The last batch, if its call failed. The next batch overwrites it.
    batch: Option<Ghost>,
    /// The last change of the books, if its call failed. The next change overwrites it.
    change: Option<Ghost>,
    /// Number of calls in a thousand that fail, and number that a power cut interrupts.
    failing: u32,
    cutting: u32,
    /// Lets other threads continue during a call. The argument is true for a call of the journal.
    meanwhile: fn(bool),
}

impl Disk {
    pub(super) fn new(seed: u64, meanwhile: fn(bool)) -> Self {
        Self(Arc::new(Mutex::new(DiskState {
            books: MemoryStore::default(),
            random: Rng::with_seed(seed),
            durable: Durable::default(),
            batch: None,
            change: None,
            failing: 0,
            cutting: 0,
            meanwhile,
        })))
    }

    /// Books and journal on this disk.
    pub(super) fn storage(&self) -> Storage {
        Storage { books: Box::new(self.clone()), journal: Box::new(self.clone()), leases: None }
    }

    pub(super) fn troubles(&self, failing: u32, cutting: u32) {
        let mut state = self.0.lock();
        (state.failing, state.cutting) = (failing, cutting);
    }

    /// Decides, after a crash, whether each failed change is on the disk.
    pub(super) fn power_back(&self) {
        let state = &mut *self.0.lock();
        for ghost in [state.batch.take(), state.change.take()].into_iter().flatten() {
            if state.random.bool() {
                ghost(&mut state.books, &mut state.durable);
            }
        }
    }

    /// Reads the data on the disk, without failures.
    pub(super) fn look<T>(&self, look: impl FnOnce(&mut MemoryStore, &mut Durable) -> T) -> T {
        let state = &mut *self.0.lock();
        look(&mut state.books, &mut state.durable)
    }

    fn fails(&self) -> bool {
        let state = &mut *self.0.lock();
        state.random.u32(..1_000) < state.failing
    }

    fn may_be_cut(&self) {
        let cut = {
            let state = &mut *self.0.lock();
            state.random.u32(..1_000) < state.cutting
        };
        if cut {
            resume_unwind(Box::new(PowerCut));
        }
    }

    /// Runs a call that takes time, and that may fail, or be interrupted before or after its change was written.
    fn call<T>(
        &self,
        is_batch: bool,
        change: impl Fn(&mut MemoryStore, &mut Durable) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let meanwhile = self.0.lock().meanwhile;
        meanwhile(is_batch);
        self.may_be_cut();
        if self.fails() {
            let state = &mut *self.0.lock();
            let ghost: Ghost = Box::new(move |books, durable| drop(change(books, durable)));
            *(if is_batch { &mut state.batch } else { &mut state.change }) = Some(ghost);
            return Err(LedgerError::Failed("simulated".to_owned()));
        }
        let result = {
            let state = &mut *self.0.lock();
            let result = change(&mut state.books, &mut state.durable);
            *(if is_batch { &mut state.batch } else { &mut state.change }) = None;
            result
        };
        self.may_be_cut();
        meanwhile(is_batch);
        result
    }

    /// Runs a read, which may fail.
    fn look_or_fail<T>(&self, read: impl FnOnce(&mut MemoryStore) -> Result<T>) -> Result<T> {
        if self.fails() {
            return Err(LedgerError::Failed("simulated".to_owned()));
        }
        read(&mut self.0.lock().books)
    }
}

impl Journal for Disk {
    fn read(&mut self, folded: u64) -> Result<Vec<JournalRow>> {
        self.look_or_fail(|books| Journal::read(books, folded))
    }

    fn append(&mut self, seq: u64, at: WallTime, records: &[u8]) -> Result<()> {
        let records = records.to_vec();
        self.call(true, move |books, durable| {
            durable.batch(&records);
            books.append(seq, at, &records)
        })
    }

    fn reset(&mut self, upto: u64) {
        self.look(|books, _| books.reset(upto));
    }
}

impl Books for Disk {
    fn load(&mut self, at: WallTime) -> Result<LoadedBooks> {
        self.look_or_fail(|books| books.load(at))
    }

    fn confirm(&mut self) -> Result<()> {
        self.call(false, |_, _| Ok(()))
    }

    fn fold(&mut self, fold: &Fold, at: WallTime) -> Result<()> {
        let fold = fold.clone();
        self.call(false, move |books, _| books.fold(&fold, at))
    }

    fn register(&mut self, wanted: &Registration, at: WallTime) -> Result<Registered> {
        let wanted = wanted.clone();
        self.call(false, move |books, durable| {
            let registered = books.register(&wanted, at)?;
            durable.bookings(books);
            Ok(registered)
        })
    }

    fn create_accounts(
        &mut self,
        new: &[NewAccount],
        notes: &Notes<Vec<AccountRow>>,
        at: WallTime,
    ) -> Result<Vec<AccountRow>> {
        let (new, notes) = (new.to_vec(), Arc::clone(notes));
        self.call(false, move |books, _| books.create_accounts(&new, &notes, at))
    }

    fn change_account(
        &mut self,
        id: &AccountId,
        change: &AccountChange,
        notes: &Notes<Changed<AccountRow>>,
        at: WallTime,
    ) -> Result<Changed<AccountRow>> {
        let (id, change, notes) = (id.clone(), change.clone(), Arc::clone(notes));
        self.call(false, move |books, _| books.change_account(&id, &change, &notes, at))
    }

    fn account(&mut self, id: &AccountId) -> Result<Option<AccountRow>> {
        self.look_or_fail(|books| Books::account(books, id))
    }

    fn find_booking(&mut self, account: AccountNum, booking: &Booking) -> Result<Option<Entry>> {
        self.look_or_fail(|books| books.find_booking(account, booking))
    }

    fn book(
        &mut self,
        account: &AccountRow,
        booking: &Booking,
        notes: &Notes<Booked>,
        at: WallTime,
    ) -> Result<Entry> {
        let (account, booking, notes) = (account.clone(), booking.clone(), Arc::clone(notes));
        self.call(false, move |books, durable| {
            let entry = books.book(&account, &booking, &notes, at)?;
            durable.bookings(books);
            Ok(entry)
        })
    }

    fn wallet(&mut self, account: AccountNum) -> Result<Wallet> {
        self.look_or_fail(|books| Books::wallet(books, account))
    }

    fn due_lots(&mut self, now: WallTime, most: usize) -> Result<Vec<(AccountNum, LotId)>> {
        self.look_or_fail(|books| books.due_lots(now, most))
    }

    fn ended_lots(&mut self) -> Result<Vec<(AccountNum, WallTime)>> {
        self.look_or_fail(|books| books.ended_lots())
    }

    fn limit_accounts(
        &mut self,
        limits: &[(AccountNum, Option<SpendLimit>)],
        at: WallTime,
    ) -> Result<Vec<(AccountNum, Spending, Spending)>> {
        let limits = limits.to_vec();
        self.call(false, move |books, _| books.limit_accounts(&limits, at))
    }

    fn change_group(
        &mut self,
        account: &AccountId,
        name: &GroupName,
        limit: Option<SpendLimit>,
        _: &Notes<Changed<Option<GroupRow>>>,
        at: WallTime,
    ) -> Result<Changed<Option<GroupRow>>> {
        let (account, name) = (account.clone(), name.clone());
        self.call(false, move |books, _| books.change_group(&account, &name, limit, &no_notes(), at))
    }

    fn begin_periods(&mut self, now: WallTime, most: usize) -> Result<Begun> {
        self.call(false, move |books, _| books.begin_periods(now, most))
    }

    fn end_lots(&mut self, ends: &[LotEnd], at: WallTime) -> Result<()> {
        let ends = ends.to_vec();
        self.call(false, move |books, durable| {
            books.end_lots(&ends, at)?;
            durable.bookings(books);
            Ok(())
        })
    }

    fn refill(&mut self, refills: &[RefillBooking], at: WallTime) -> Result<()> {
        let refills = refills.to_vec();
        self.call(false, move |books, durable| {
            books.refill(&refills, at)?;
            durable.bookings(books);
            Ok(())
        })
    }

    fn create_keys(
        &mut self,
        rows: &[KeyRow],
        notes: &Notes<Vec<KeyNum>>,
        at: WallTime,
    ) -> Result<Vec<KeyNum>> {
        let (rows, notes) = (rows.to_vec(), Arc::clone(notes));
        self.call(false, move |books, _| books.create_keys(&rows, &notes, at))
    }

    fn change_key(
        &mut self,
        id: KeyId,
        edit: &KeyEdit,
        notes: &Notes<Changed<OwnedKey>>,
        at: WallTime,
    ) -> Result<Changed<OwnedKey>> {
        let (edit, notes) = (edit.clone(), Arc::clone(notes));
        self.call(false, move |books, _| books.change_key(id, &edit, &notes, at))
    }

    fn give_back(
        &mut self,
        id: RequestId,
        actor: &str,
        notes: &Notes<Booked>,
        at: WallTime,
    ) -> Result<Booked> {
        let (actor, notes) = (actor.to_owned(), Arc::clone(notes));
        self.call(false, move |books, durable| {
            let booked = books.give_back(id, &actor, &notes, at)?;
            durable.bookings(books);
            Ok(booked)
        })
    }

    fn put_token(&mut self, token: &TokenRow, notes: &Notes<TokenRow>, at: WallTime) -> Result<()> {
        let (token, notes) = (token.clone(), Arc::clone(notes));
        self.call(false, move |books, _| books.put_token(&token, &notes, at))
    }

    fn note(&mut self, notes: &[Note], at: WallTime) -> Result<()> {
        let notes = notes.to_vec();
        self.call(false, move |books, _| books.note(&notes, at))
    }

    fn prune_jobs(&mut self, before: WallTime) -> Result<()> {
        self.call(false, move |books, _| books.prune_jobs(before))
    }

    fn prune_repeats(&mut self, now: WallTime, most: usize) -> Result<bool> {
        self.call(false, move |books, _| books.prune_repeats(now, most))
    }

    fn prune_requests(&mut self, before: WallTime, most: usize) -> Result<bool> {
        self.call(false, move |books, _| books.prune_requests(before, most))
    }

    fn prune_answers(&mut self, before: WallTime) -> Result<()> {
        self.call(false, move |books, _| books.prune_answers(before))
    }

    fn save_limits(&mut self, states: &[(Vec<u8>, Vec<u8>)], at: WallTime) -> Result<()> {
        let states = states.to_vec();
        self.call(false, move |books, _| books.save_limits(&states, at))
    }

    fn count_usage(&mut self, parts: &[UsagePart]) -> Result<()> {
        let parts = parts.to_vec();
        self.call(false, move |books, _| books.count_usage(&parts))
    }

    fn prune_usage(&mut self, keep: &UsageRetention, most: usize) -> Result<bool> {
        let keep = *keep;
        self.call(false, move |books, _| books.prune_usage(&keep, most))
    }

    fn readers(&self) -> Readers {
        let disk = self.clone();
        Readers::new(move || disk.look_or_fail(|books| books.reader()))
    }
}
