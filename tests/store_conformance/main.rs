//! One suite for every store: SQLite is compared with the model in memory, call by call.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    unreachable_pub,
    reason = "a test that meets the unexpected ends, and looks at the real clock"
)]

mod acknowledging;
mod audit;
mod folds;
mod orders;
mod power;
#[path = "../skips.rs"]
mod skips;

use proptest::prelude::*;
use tollgate::ledger::entry::{Entry, EntryKind};
use tollgate::ledger::fold::{Fold, OpenHold, Tally};
use tollgate::ledger::journal::Record;
use tollgate::ledger::memory::MemoryStore;
use tollgate::ledger::sqlite::SqliteStore;
use tollgate::ledger::store::{
    AccountRow, AccountState, Booking, KeyChange, KeyRow, LedgerError, Reader, Registration, SecretRow,
    Source, Store,
};
use tollgate::ledger::verify::verify;
use tollgate::policy::key::KeyState;
use tollgate::types::{
    AccountId, AccountNum, Credits, KeyHash, KeyId, KeyNum, RequestId, RouteNum, WallTime,
};

/// More rows than any test makes.
const ALL: usize = 1_000_000;

/// A call to a store.
#[derive(Clone, Debug)]
enum Call {
    Register {
        accounts: Vec<(u8, Option<i64>)>,
        keys: Vec<(u8, u8)>,
        routes: Vec<u8>,
    },
    CreateAccount(u8),
    SetState(u8, bool),
    Book {
        account: u8,
        adjustment: bool,
        amount: i64,
        reference: u8,
    },
    Holds(Vec<(u8, i64, Option<i64>)>),
    Fold,
    Recover,
    GiveBack(u8),
    CreateKey(u8, u8),
    ChangeKey(u8, u8),
    Limits(Vec<(u8, Vec<u8>)>),
    /// Housekeeping: the log is copied into the file, on another thread.
    Tidy,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let small = 0_u8..4;
    let call = prop_oneof![
        2 => (
            prop::collection::vec((small.clone(), prop::option::of(0_i64..1000)), 0..3),
            prop::collection::vec((small.clone(), small.clone()), 0..3),
            prop::collection::vec(small.clone(), 1..4),
        ).prop_map(|(accounts, keys, routes)| Call::Register { accounts, keys, routes }),
        1 => small.clone().prop_map(Call::CreateAccount),
        1 => (small.clone(), any::<bool>()).prop_map(|(account, suspended)| Call::SetState(account, suspended)),
        3 => (small.clone(), any::<bool>(), -50_i64..500, small.clone())
            .prop_map(|(account, adjustment, amount, reference)| Call::Book { account, adjustment, amount, reference }),
        4 => prop::collection::vec((small.clone(), 0_i64..100, prop::option::of(0_i64..100)), 1..6).prop_map(Call::Holds),
        2 => Just(Call::Fold),
        1 => Just(Call::Recover),
        1 => small.clone().prop_map(Call::GiveBack),
        1 => (small.clone(), small.clone()).prop_map(|(account, key)| Call::CreateKey(account, key)),
        1 => (small.clone(), 0_u8..5).prop_map(|(key, change)| Call::ChangeKey(key, change)),
        1 => prop::collection::vec((small, prop::collection::vec(any::<u8>(), 0..4)), 0..3).prop_map(Call::Limits),
        1 => Just(Call::Tidy),
    ];
    // What is held and folded refers to an account, a key and a route: they are there first.
    let first = Call::Register { accounts: vec![(0, None)], keys: vec![(0, 0)], routes: vec![0] };
    prop::collection::vec(call, 1..40).prop_map(move |calls| [vec![first.clone()], calls].concat())
}

/// Charges written at once.
const PART: usize = 2;

/// A store under test, with the journal as its user keeps it.
struct Driver<'a> {
    store: &'a mut dyn Store,
    tally: Tally,
    seq: u64,
    ids: u64,
    at: i64,
}

/// What a call answered, comparable between stores: texts of errors may differ.
fn outcome<T: std::fmt::Debug>(result: Result<T, LedgerError>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(LedgerError::Refused(_)) => "refused".to_owned(),
        Err(other) => panic!("{other}"),
    }
}

fn name(prefix: &str, number: u8) -> String {
    format!("{prefix}{number}")
}

impl Driver<'_> {
    fn run(&mut self, call: &Call) -> String {
        self.at += 1;
        let at = WallTime(self.at);
        match call {
            Call::Register { accounts, keys, routes } => {
                let id = |number: u8| name("a", number).parse().unwrap();
                let credits = |amount: &Option<i64>| amount.map(Credits::from_millionths);
                let wanted = Registration {
                    accounts: accounts
                        .iter()
                        .map(|(number, amount)| (id(*number), credits(amount)))
                        .collect(),
                    keys: keys
                        .iter()
                        .map(|(key, account)| (KeyId(u64::from(*key)), id(*account), name("label", *account)))
                        .collect(),
                    routes: routes.iter().map(|number| name("r", *number).parse().unwrap()).collect(),
                };
                // A key of an account that is not there is the caller's mistake.
                let known = |account: u8| accounts.iter().any(|(number, _)| *number == account);
                if !keys.iter().all(|(_, account)| known(*account)) {
                    return String::new();
                }
                outcome(self.store.register(&wanted, at))
            }
            Call::CreateAccount(number) => {
                outcome(self.store.create_account(&name("a", *number).parse().unwrap(), Some("plan"), at))
            }
            Call::SetState(number, suspended) => {
                let state = if *suspended { AccountState::Suspended } else { AccountState::Active };
                outcome(self.store.set_account_state(&name("a", *number).parse().unwrap(), state))
            }
            Call::Book { account, adjustment, amount, reference } => {
                self.book(*account, *adjustment, *amount, *reference, at)
            }
            Call::Holds(holds) => self.hold(holds, at),
            Call::Tidy => {
                self.store.tidy();
                String::new()
            }
            Call::Fold => {
                let fold = self.tally.fold();
                self.fold(fold, at)
            }
            Call::Recover => {
                let fold = self.tally.recover();
                self.fold(fold, at)
            }
            Call::GiveBack(number) => outcome(self.store.give_back(RequestId(u128::from(*number)), at)),
            Call::CreateKey(account, key) => self.create_key(*account, *key, at),
            Call::ChangeKey(key, change) => self.change_key(*key, *change),
            Call::Limits(states) => {
                let states: Vec<_> =
                    states.iter().map(|(owner, state)| (vec![*owner], state.clone())).collect();
                outcome(self.store.save_limits(&states, at))
            }
        }
    }

    fn book(&mut self, account: u8, adjustment: bool, amount: i64, reference: u8, at: WallTime) -> String {
        let kind = if adjustment { EntryKind::Adjustment } else { EntryKind::Grant };
        let (amount, reference) = (Credits::from_millionths(amount), name("ref", reference));
        let booking =
            Booking { account: name("a", account).parse().unwrap(), kind, amount, reference, actor: "test" };
        let Some(row) = self.store.account(&booking.account).unwrap() else { return "unknown".to_owned() };
        match self.store.find_booking(row.num, &booking).unwrap() {
            Some(entry) => format!("{entry:?}"),
            None => outcome(self.store.book(&row, &booking, at)),
        }
    }

    /// Holds, each settled at once or left open; one journal row for all.
    fn hold(&mut self, holds: &[(u8, i64, Option<i64>)], at: WallTime) -> String {
        let accounts = self.accounts();
        let mut records = Vec::new();
        for (account, amount, charge) in holds {
            let id = RequestId(u128::from(self.ids));
            self.ids += 1;
            let (account, key) = (AccountNum(u32::from(*account) % accounts + 1), KeyNum(1));
            let amount = Credits::from_millionths(*amount);
            Record::Hold { id, account, key, route: RouteNum(1), amount }.write(&mut records);
            if let Some(charge) = charge {
                Record::Settle { id, charge: Credits::from_millionths(*charge) }.write(&mut records);
            }
        }
        self.seq += 1;
        self.tally.apply(self.seq, at, &records).unwrap();
        outcome(self.store.append(self.seq, at, &records))
    }

    fn fold(&mut self, fold: Fold, at: WallTime) -> String {
        let (mut said, mut left) = (String::new(), Some(fold));
        while let Some(fold) = left {
            let part = fold.part(PART);
            said += &outcome(self.store.fold(&part, at));
            left = fold.written(&part);
        }
        said
    }

    fn create_key(&mut self, account: u8, key: u8, at: WallTime) -> String {
        let accounts = self.accounts();
        if self.store.reader().unwrap().key(KeyId(100 + u64::from(key))).unwrap().is_some() {
            return String::new();
        }
        let row = KeyRow {
            id: KeyId(100 + u64::from(key)),
            num: KeyNum(0),
            account: AccountNum(u32::from(account) % accounts + 1),
            source: Source::Store,
            state: KeyState::Active,
            label: name("k", key),
            environment: "live".to_owned(),
            hint: "ak_live_0123…4567".to_owned(),
            scopes: (key > 1).then(|| vec!["r*".to_owned()]),
            allow_from: (key > 2).then(|| vec!["10.0.0.0/8".parse().unwrap()]),
            expires: (key > 0).then_some(WallTime(9)),
            created: at,
            secrets: vec![SecretRow { hash: KeyHash::of(&[key]), until: None }],
        };
        outcome(self.store.create_keys(&[row]))
    }

    fn accounts(&mut self) -> u32 {
        self.store.reader().unwrap().accounts(None, ALL).unwrap().len() as u32
    }

    fn change_key(&mut self, key: u8, change: u8) -> String {
        let change = match change {
            0 => KeyChange::State(KeyState::Disabled),
            1 => KeyChange::State(KeyState::Active),
            2 => KeyChange::State(KeyState::Revoked),
            other => {
                self.ids += 1;
                let hash = KeyHash::of(&self.ids.to_le_bytes());
                KeyChange::Rotate {
                    hash,
                    hint: name("h", other),
                    overlap_until: (other == 4).then_some(WallTime(self.at)),
                }
            }
        };
        outcome(self.store.change_key(KeyId(100 + u64::from(key)), &change))
    }
}

/// Everything that can be read back.
fn state(store: &mut dyn Store) -> (String, Vec<Entry>, String) {
    let mut books = store.load().unwrap();
    books.open_holds.sort_by_key(|hold: &OpenHold| hold.id);
    let mut reader = store.reader().unwrap();
    let accounts = reader.accounts(None, ALL).unwrap();
    let mut keys = reader.keys(None, KeyNum(0), ALL).unwrap();
    keys.iter_mut()
        .for_each(|(row, _)| row.secrets.sort_by_key(|secret| (secret.until.is_some(), secret.hash)));
    let (mut secrets, mut limits) = (Vec::new(), Vec::new());
    reader.each_secret(&mut |secret| secrets.push(secret)).unwrap();
    secrets.sort_by_key(|secret| (secret.num, secret.hash));
    assert_eq!(reader.counts().unwrap(), (accounts.len(), secrets.len()));
    reader.each_limit(&mut |owner, state, at| limits.push((owner.to_vec(), state.to_vec(), at))).unwrap();
    limits.sort();
    pages_are_the_whole(&mut *reader, &accounts, &keys);
    let entries = reader.entries(None, 0, ALL).unwrap();
    let sides = reader.sides().unwrap();
    let balances: i128 = accounts.iter().map(|row| i128::from(row.balance.millionths())).sum();
    assert_eq!(balances + sides.sum(), 0, "the books balance");
    let mut doubts = reader.in_doubt().unwrap();
    doubts.sort_by_key(|doubt| doubt.id);
    (
        format!("{books:?} {accounts:?} {sides:?} {keys:?} {secrets:?} {limits:?}"),
        entries,
        format!("{doubts:?}"),
    )
}

/// Read in pages of two, or one by one, the same rows come.
fn pages_are_the_whole(reader: &mut dyn Reader, accounts: &[AccountRow], keys: &[(KeyRow, AccountId)]) {
    let mut after = None;
    for rows in accounts.chunks(2) {
        assert_eq!(reader.accounts(after.as_ref(), 2).unwrap(), rows);
        after = rows.last().map(|row| row.id.clone());
    }
    for account in accounts {
        assert_eq!(reader.account(&account.id).unwrap().as_ref(), Some(account));
        let mut after = KeyNum(0);
        let own: Vec<KeyNum> =
            keys.iter().filter(|(_, owner)| *owner == account.id).map(|(row, _)| row.num).collect();
        for nums in own.chunks(2) {
            let page = reader.keys(Some(&account.id), after, 2).unwrap();
            assert_eq!(page.iter().map(|(row, _)| row.num).collect::<Vec<_>>(), nums);
            after = nums[nums.len() - 1];
        }
    }
    for (row, owner) in keys {
        let (one, its) = reader.key(row.id).unwrap().unwrap();
        assert_eq!((one.num, one.secrets.len(), &its), (row.num, row.secrets.len(), owner));
    }
}

/// What a start does: what is left of the journal is folded in one, and what it left open is in doubt.
fn start(store: &mut dyn Store, at: WallTime) -> Tally {
    let books = store.load().unwrap();
    let mut tally = Tally::new(books.open_holds, books.folded);
    for (seq, at, records) in books.journal {
        tally.apply(seq, at, &records).unwrap();
    }
    store.fold(&tally.recover(), at).unwrap();
    tally
}

/// A store in use again after a crash.
fn recovered(store: &mut dyn Store) -> Driver<'_> {
    let tally = start(store, WallTime(5_000));
    Driver { store, seq: tally.upto(), tally, ids: 1_000_000, at: 6_000 }
}

fn driver(store: &mut dyn Store) -> Driver<'_> {
    store.load().unwrap(); // as every user does before the first batch
    Driver { store, tally: Tally::default(), seq: 0, ids: 0, at: 1_000 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn sqlite_answers_as_the_model_does(calls in calls()) {
        let folder = tempfile::tempdir().unwrap();
        let mut sqlite = SqliteStore::open(&folder.path().join("ledger.db")).unwrap();
        let mut memory = MemoryStore::default();
        let (mut real, mut model) = (driver(&mut sqlite), driver(&mut memory));
        for call in &calls {
            prop_assert_eq!(real.run(call), model.run(call), "{:?}", call);
        }
        prop_assert_eq!(state(real.store), state(model.store));
        let mut reader: Box<dyn Reader> = sqlite.reader().unwrap();
        prop_assert_eq!(verify(&mut *reader).unwrap().differences, []);
    }

    #[test]
    fn what_was_written_is_there_after_opening_again(calls in calls()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let mut store = SqliteStore::open(&path).unwrap();
        let before = {
            let mut driver = driver(&mut store);
            calls.iter().for_each(|call| { driver.run(call); });
            state(driver.store)
        };
        drop(store);
        let mut store = SqliteStore::open(&path).unwrap();
        prop_assert_eq!(state(&mut store), before);
    }
}
