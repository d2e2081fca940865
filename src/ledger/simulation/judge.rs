//! Computes what the ledger must contain, from sums over the records that reached the disk.

use std::collections::{BTreeMap, BTreeSet};

use super::limits::Spent;
use crate::ledger::entry::{Entry, EntryKind};
use crate::ledger::memory::MemoryStore;
use crate::ledger::record::Record;
use crate::ledger::store::{Books, BooksReader, JobFilter, Journal};
use crate::ledger::verify::verify;
use crate::types::{AccountNum, Credits, RequestId, WallTime};

/// More rows than any run creates.
const ALL: usize = 1_000_000;

/// A hold that reached the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    account: AccountNum,
    amount: i64,
    /// The charge, if the settlement reached the disk too.
    pub(super) charge: Option<i64>,
    /// True if the hold is kept beyond its request.
    is_kept: bool,
}

/// The sums over everything that has reached the disk since the first start.
#[derive(Clone, Debug, Default)]
pub(super) struct Durable {
    pub(super) holds: BTreeMap<RequestId, Held>,
    /// For each account: bookings minus charges minus open holds.
    left: BTreeMap<AccountNum, i64>,
    /// Number of bookings that are included in `left`.
    counted: usize,
    /// Holds that a start after a crash charged in full.
    doubts: BTreeSet<RequestId>,
    /// Requests with an idempotency key.
    pub(super) repeats: Known,
    /// What counts against spending limits.
    pub(super) spent: Spent,
}

impl Durable {
    /// Adds the records of a batch that reached the disk.
    pub(super) fn batch(&mut self, mut bytes: &[u8]) {
        while let Some(record) = Record::read(&mut bytes) {
            match record {
                Record::Claim { .. } | Record::Answer { .. } | Record::Unclaim { .. } => {}
                Record::Hold { id, account, amount, .. } => {
                    let amount = amount.millionths();
                    let before =
                        self.holds.insert(id, Held { account, amount, charge: None, is_kept: false });
                    assert!(before.is_none(), "{id} is held twice");
                    *self.left.entry(account).or_default() -= amount;
                    self.spent.add(account, amount);
                }
                Record::Keep { id, .. } => {
                    let held = self.holds.get_mut(&id).expect("what is kept was held");
                    assert!(held.charge.is_none(), "{id} was settled before it was kept");
                    held.is_kept = true;
                }
                Record::Settle { id, charge, .. } => {
                    let held = self.holds.get_mut(&id).expect("what is settled was held");
                    assert!(held.charge.is_none(), "{id} is settled twice");
                    let charge = charge.millionths().clamp(0, held.amount);
                    held.charge = Some(charge);
                    *self.left.entry(held.account).or_default() += held.amount - charge;
                    self.spent.add(held.account, charge - held.amount);
                }
            }
        }
        self.promise_2();
    }

    /// Adds the bookings that reached the disk since the last call.
    pub(super) fn bookings(&mut self, books: &mut MemoryStore) {
        let entries = entries_of(books);
        let booked = |entry: &&Entry| {
            matches!(
                entry.kind,
                EntryKind::Grant | EntryKind::Adjustment | EntryKind::GivenBack | EntryKind::Expiry
            )
        };
        let entries: Vec<_> = entries.iter().filter(booked).collect();
        for entry in &entries[self.counted..] {
            let account = Books::account(books, &entry.account).expect("books").expect("its account");
            *self.left.entry(account.num).or_default() += entry.amount.millionths();
            if entry.key.is_some() {
                self.spent.add(account.num, -entry.amount.millionths());
            }
        }
        self.counted = entries.len();
        self.promise_2();
    }

    /// Promise 2: the sum of charges never exceeds what was granted. It must hold for the disk's content at any time,
    /// since the power may be cut at any time.
    fn promise_2(&self) {
        assert!(self.left.values().all(|left| *left >= 0), "overspent: {:?}", self.left);
        self.spent.is_within_limits();
    }

    /// Models a start after a crash: a hold that is open and not kept becomes a hold in doubt.
    pub(super) fn crash(&mut self) {
        for (id, held) in &mut self.holds {
            if held.charge.is_none() && !held.is_kept {
                held.charge = Some(held.amount);
                self.doubts.insert(*id);
            }
        }
    }

    /// The kept holds that are open.
    pub(super) fn kept(&self) -> Vec<(AccountNum, RequestId)> {
        let open = self.holds.iter().filter(|(_, held)| held.is_kept && held.charge.is_none());
        open.map(|(id, held)| (held.account, *id)).collect()
    }

    fn kept_credits(&self, account: AccountNum) -> i64 {
        let open = self.holds.values().filter(|held| held.charge.is_none() && held.account == account);
        open.map(|held| held.amount).sum()
    }

    /// The ids of all holds in doubt, including those given back.
    pub(super) fn doubts(&self) -> Vec<RequestId> {
        self.doubts.iter().copied().collect()
    }

    /// The credits that an account can spend, computed only from what is on the disk.
    pub(super) fn left(&self, account: AccountNum) -> i64 {
        self.left.get(&account).copied().unwrap_or_default()
    }

    /// Checks the ledger after a start or a clean stop: everything is folded, every balance is exact, and the accounts
    /// balance.
    pub(super) fn agree(&self, books: &mut MemoryStore) {
        let folded = books.load(WallTime(0)).expect("books").folded;
        assert_eq!(Journal::read(books, folded).expect("a journal"), [], "all is folded");
        let rows = books.accounts(None, ALL).expect("accounts");
        for row in &rows {
            let balance = self.left(row.num) + self.kept_credits(row.num);
            assert_eq!(row.balance.millionths(), balance, "the balance of {}", row.id);
            if let Some(wallet) = &row.wallet {
                assert!(
                    !wallet.rest.is_negative(),
                    "the buckets of {} have no more than its balance",
                    row.id
                );
            }
        }
        let entries = entries_of(books);
        let booked = entries
            .iter()
            .filter_map(|entry| Some((&entry.account, entry.kind.name(), entry.reference.as_ref()?)));
        let booked: Vec<_> = booked.collect();
        let unique: BTreeSet<_> = booked.iter().collect();
        assert_eq!(unique.len(), booked.len(), "each reference is booked once");
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
        let jobs = books.jobs(&JobFilter::default(), ALL).expect("jobs").into_iter();
        let mut jobs: Vec<_> =
            jobs.filter_map(|job| job.settled.map(|settled| (job.id, settled.charge.millionths()))).collect();
        jobs.sort_unstable();
        let kept = self.holds.iter().filter(|(_, held)| held.is_kept);
        let kept: Vec<_> = kept.filter_map(|(id, held)| Some((*id, held.charge?))).collect();
        assert_eq!(jobs, kept, "each job that is settled is listed once, with its charge");
        self.lists_each_request_once(books);
        let mut view = books.clone();
        assert_eq!(verify(&mut view).expect("books").differences, []);
    }

    /// Each request is listed once, with its charge.
    fn lists_each_request_once(&self, books: &mut MemoryStore) {
        let given_back = |books: &mut MemoryStore| -> BTreeSet<RequestId> {
            let doubts = books.in_doubt().expect("doubts").into_iter();
            doubts.filter(|doubt| doubt.given_back.is_some()).map(|doubt| doubt.id).collect()
        };
        let given_back = given_back(books);
        let start = (WallTime(i64::MIN), RequestId(0));
        let listed = books.requests(start, WallTime(i64::MAX), ALL).expect("requests");
        let mut listed: Vec<_> = listed.iter().map(|row| (row.id, row.charge.millionths())).collect();
        listed.sort_unstable();
        let charge = |id: &RequestId, charge: i64| if given_back.contains(id) { 0 } else { charge };
        let settled = self.holds.iter().filter_map(|(id, held)| Some((*id, charge(id, held.charge?))));
        assert_eq!(listed, settled.collect::<Vec<_>>(), "each request is listed once, with its charge");
    }

    /// Promise 3: no byte of a charged response is sent before its hold is on disk.
    pub(super) fn knows(&self, id: RequestId) {
        assert!(self.holds.contains_key(&id), "{id} was acknowledged before its hold was on disk");
    }

    /// A response that reports a kept hold is sent only after the record that keeps the hold is on disk.
    pub(super) fn knows_kept(&self, id: RequestId) {
        assert!(
            self.holds.get(&id).is_some_and(|held| held.is_kept),
            "{id} was acknowledged before it was kept"
        );
    }

    /// The last byte of a response whose charge is below its hold is sent only after the charge is on disk.
    pub(super) fn knows_charge(&self, id: RequestId, charge: Credits) {
        let known = self.holds.get(&id).and_then(|held| held.charge);
        assert_eq!(known, Some(charge.millionths()), "{id} was acknowledged before its charge was on disk");
    }
}

fn entries_of(books: &mut MemoryStore) -> Vec<Entry> {
    let entries = books.entries(None, 0, ALL).expect("entries");
    entries.into_iter().map(|(_, entry)| entry).collect()
}

/// What the clients know of the requests with each key, whatever crashes.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The requests that were forwarded and not released, and whether an answer was seen.
    forwarded: BTreeMap<u64, (RequestId, bool)>,
    /// Number of answers that were given again.
    pub(super) replayed: u64,
    /// Number of attempts that were told that the answer is lost.
    pub(super) lost: u64,
}

impl Known {
    pub(super) fn forward(&mut self, key: u64, id: RequestId) {
        let before = self.forwarded.insert(key, (id, false));
        assert_eq!(before, None, "the request with key {key} is forwarded twice");
    }

    pub(super) fn release(&mut self, key: u64) {
        self.forwarded.remove(&key);
    }

    pub(super) fn is_first(&self, key: u64) {
        assert_eq!(self.forwarded.get(&key), None, "the request with key {key} was forwarded before");
    }

    pub(super) fn see(&mut self, key: u64, answer: &[u8]) {
        let (id, is_seen) = self.forwarded.get_mut(&key).expect("what is answered was forwarded");
        assert_eq!(answer, &answer_of(*id), "the answer with key {key} is another request's");
        *is_seen = true;
    }

    pub(super) fn lose(&mut self, key: u64) {
        assert!(
            !self.forwarded.get(&key).is_some_and(|(_, is_seen)| *is_seen),
            "the answer of {key} is lost"
        );
        self.lost += 1;
    }
}

/// An answer, which has more than one part.
pub(super) fn answer_of(id: RequestId) -> Vec<u8> {
    id.0.to_le_bytes().repeat(160)
}
