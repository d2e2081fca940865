//! What the books must hold: sums over what reached the disk, nothing cleverer.

use std::collections::{BTreeMap, BTreeSet};

use crate::ledger::entry::{Entry, EntryKind};
use crate::ledger::journal::Record;
use crate::ledger::memory::MemoryStore;
use crate::ledger::store::{Reader, Store};
use crate::ledger::verify::verify;
use crate::types::{AccountNum, Credits, RequestId};

/// More rows than any run makes.
const ALL: usize = 1_000_000;

/// A hold that reached the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    account: AccountNum,
    amount: i64,
    /// Its charge, once its settlement is there, too.
    pub(super) charge: Option<i64>,
}

/// Everything that reached the disk since the beginning.
#[derive(Clone, Debug, Default)]
pub(super) struct Durable {
    pub(super) holds: BTreeMap<RequestId, Held>,
    /// By account: bookings less charges less holds that are open.
    left: BTreeMap<AccountNum, i64>,
    /// Bookings that were counted.
    counted: usize,
    /// Holds that a start charged in full.
    doubts: BTreeSet<RequestId>,
}

impl Durable {
    /// A batch that is on the disk.
    pub(super) fn batch(&mut self, mut bytes: &[u8]) {
        while let Some(record) = Record::read(&mut bytes) {
            match record {
                Record::Hold { id, account, amount, .. } => {
                    let amount = amount.millionths();
                    let before = self.holds.insert(id, Held { account, amount, charge: None });
                    assert!(before.is_none(), "{id} is held twice");
                    *self.left.entry(account).or_default() -= amount;
                }
                Record::Settle { id, charge } => {
                    let held = self.holds.get_mut(&id).expect("what is settled was held");
                    assert!(held.charge.is_none(), "{id} is settled twice");
                    let charge = charge.millionths().clamp(0, held.amount);
                    held.charge = Some(charge);
                    *self.left.entry(held.account).or_default() += held.amount - charge;
                }
            }
        }
        self.promise_2();
    }

    /// Bookings that are on the disk.
    pub(super) fn bookings(&mut self, books: &mut MemoryStore) {
        let entries = books.entries(None, 0, ALL).expect("entries");
        let booked = |entry: &&Entry| {
            matches!(entry.kind, EntryKind::Grant | EntryKind::Adjustment | EntryKind::GivenBack)
        };
        let entries: Vec<_> = entries.iter().filter(booked).collect();
        for entry in &entries[self.counted..] {
            let account = Store::account(books, &entry.account).expect("books").expect("its account");
            *self.left.entry(account.num).or_default() += entry.amount.millionths();
        }
        self.counted = entries.len();
        self.promise_2();
    }

    /// The sum of charges never passes what was granted: whatever is on the disk when the power goes.
    fn promise_2(&self) {
        assert!(self.left.values().all(|left| *left >= 0), "overspent: {:?}", self.left);
    }

    /// A start after a crash: what is open is in doubt.
    pub(super) fn crash(&mut self) {
        for (id, held) in &mut self.holds {
            if held.charge.is_none() {
                held.charge = Some(held.amount);
                self.doubts.insert(*id);
            }
        }
    }

    /// Holds in doubt.
    pub(super) fn doubts(&self) -> Vec<RequestId> {
        self.doubts.iter().copied().collect()
    }

    /// What an account can spend, if nothing but the disk is known.
    pub(super) fn left(&self, account: AccountNum) -> i64 {
        self.left.get(&account).copied().unwrap_or_default()
    }

    /// The books after a start, or a clean end: folded to the end, exact, in balance.
    pub(super) fn agree(&self, books: &mut MemoryStore) {
        assert_eq!(books.load().expect("books").journal, [], "all is folded");
        let rows = books.accounts(None, ALL).expect("accounts");
        for row in &rows {
            assert_eq!(row.balance.millionths(), self.left(row.num), "the balance of {}", row.id);
        }
        let entries = books.entries(None, 0, ALL).expect("entries");
        let count =
            |kind| entries.iter().filter(|entry| entry.kind == kind).map(|entry| entry.requests).sum::<u64>();
        let settled = |free: bool| {
            let settled = self.holds.iter().filter(|(id, _)| !self.doubts.contains(id));
            settled.filter(|(_, held)| held.charge.is_some_and(|charge| (charge == 0) == free)).count() as u64
        };
        assert_eq!(count(EntryKind::Charge), settled(false), "each charge is counted once");
        assert_eq!(count(EntryKind::Release), settled(true), "each release is counted once");
        let listed: BTreeSet<RequestId> =
            books.in_doubt().expect("doubts").into_iter().map(|doubt| doubt.id).collect();
        assert_eq!(listed, self.doubts, "the list of holds in doubt is exact");
        let mut view = books.clone();
        assert_eq!(verify(&mut view).expect("books").differences, []);
    }

    /// Promise 3: a byte of a charged answer leaves only once its hold is here.
    pub(super) fn knows(&self, id: RequestId) {
        assert!(self.holds.contains_key(&id), "{id} was acknowledged before its hold was on disk");
    }

    /// And its last byte once its charge is, where that is below the hold.
    pub(super) fn knows_charge(&self, id: RequestId, charge: Credits) {
        let known = self.holds.get(&id).and_then(|held| held.charge);
        assert_eq!(known, Some(charge.millionths()), "{id} was acknowledged before its charge was on disk");
    }
}
