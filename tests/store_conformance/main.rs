//! Tests every store with one suite: SQLite is compared with the model in memory, call by call.

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
mod credits;
mod driver;
#[path = "../engines/postgres.rs"]
mod engine;
mod engines;
mod fleet;
mod folds;
mod migration;
mod orders;
mod postgres;
mod power;
mod repeats;
#[path = "../skips.rs"]
mod skips;

use std::collections::BTreeMap;

use proptest::prelude::*;
use tollgate::ledger::entry::Entry;
use tollgate::ledger::memory::MemoryStore;
use tollgate::ledger::sqlite;
use tollgate::ledger::store::{
    AccountRow, AuditFilter, Audited, BooksReader, JobFilter, JobRow, KeyRow, LoadedBooks, OwnedKey,
    RefusalRow, Storage, UsageDetail, UsageFilter, UsageRow, UsageStep,
};
use tollgate::ledger::tally::OpenHold;
use tollgate::ledger::verify::verify;
use tollgate::policy::key::KeyState;
use tollgate::policy::outcome::usage::Durations;
use tollgate::types::{AccountId, KeyHash, KeyNum, WallTime};

use driver::driver;

/// More rows than any test creates.
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
    ChangeAccount(u8, u8),
    Note(u8),
    PruneAnswers,
    Token(u8),
    /// Counts of workers: account, key, route, number of requests.
    CountUsage(Vec<(u8, u8, u8, u8)>),
    PruneUsage(u8),
    Book {
        account: u8,
        adjustment: bool,
        amount: i64,
        reference: u8,
    },
    EndLots,
    Refill,
    Limit(u8, u8),
    Group(u8, u8, u8),
    BeginPeriods(u8),
    Holds(Vec<(u8, i64, Option<i64>)>),
    /// Keeps a hold beyond its request, then settles the one that was kept before it.
    Keep(u8),
    /// Claims an idempotency key, answers the last claim or releases it.
    Claim(u8, repeats::What),
    PruneRepeats,
    Fold,
    Recover,
    GiveBack(u8),
    CreateKey(u8, u8),
    ChangeKey(u8, u8),
    Limits(Vec<(u8, Vec<u8>)>),
    /// Copies the write-ahead log into the file, on another thread.
    Checkpoint,
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
        1 => (small.clone(), 0_u8..6).prop_map(|(account, change)| Call::ChangeAccount(account, change)),
        1 => small.clone().prop_map(Call::Note),
        1 => Just(Call::PruneAnswers),
        1 => small.clone().prop_map(Call::Token),
        2 => prop::collection::vec((small.clone(), small.clone(), small.clone(), small.clone()), 0..4).prop_map(Call::CountUsage),
        1 => small.clone().prop_map(Call::PruneUsage),
        3 => (small.clone(), any::<bool>(), -50_i64..500, small.clone())
            .prop_map(|(account, adjustment, amount, reference)| Call::Book { account, adjustment, amount, reference }),
        4 => prop::collection::vec((small.clone(), 0_i64..100, prop::option::of(0_i64..100)), 1..6).prop_map(Call::Holds),
        1 => Just(Call::EndLots),
        1 => Just(Call::Refill),
        1 => (small.clone(), small.clone()).prop_map(|(account, every)| Call::Limit(account, every)),
        3 => (small.clone(), small.clone(), small.clone())
            .prop_map(|(account, number, every)| Call::Group(account, number, every)),
        1 => (0_u8..60).prop_map(Call::BeginPeriods),
        2 => (small.clone(), repeats::what()).prop_map(|(key, what)| Call::Claim(key, what)),
        1 => Just(Call::PruneRepeats),
        2 => Just(Call::Fold),
        1 => Just(Call::Recover),
        1 => small.clone().prop_map(Call::GiveBack),
        1 => (small.clone(), small.clone()).prop_map(|(account, key)| Call::CreateKey(account, key)),
        1 => (small.clone(), 0_u8..6).prop_map(|(key, change)| Call::ChangeKey(key, change)),
        1 => prop::collection::vec((small.clone(), prop::collection::vec(any::<u8>(), 0..4)), 0..3).prop_map(Call::Limits),
        1 => small.prop_map(Call::Keep),
        1 => Just(Call::Checkpoint),
    ];
    // Holds and folds refer to an account, a key and a route, so these are registered first.
    let first = Call::Register { accounts: vec![(0, None)], keys: vec![(0, 0)], routes: vec![0] };
    prop::collection::vec(call, 1..40).prop_map(move |calls| [vec![first.clone()], calls].concat())
}

/// Everything that can be read back from a store.
fn state(store: &mut Storage) -> (String, Vec<Entry>, String) {
    let LoadedBooks { mut open_holds, folded, settled_jobs, ended, .. } =
        store.books.load(WallTime(0)).unwrap();
    open_holds.sort_by_key(|hold: &OpenHold| hold.id);
    let journal = store.journal.read(folded).unwrap();
    let mut reader = store.books.reader().unwrap();
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
    let entries: Vec<Entry> = entries.into_iter().map(|(_, entry)| entry).collect();
    spending_is_that_of_the_entries(&mut *reader, &keys, &entries);
    let operator = reader.operator_accounts().unwrap();
    let balances: i128 = accounts.iter().map(|row| i128::from(row.balance.millionths())).sum();
    assert_eq!(balances + operator.sum(), 0, "the books balance");
    let mut doubts = reader.in_doubt().unwrap();
    doubts.sort_by_key(|doubt| doubt.id);
    let jobs = jobs_are_found(&mut *reader, settled_jobs.len());
    let audit = notes_are_found(&mut *reader);
    let usage = usage_is_found(&mut *reader, &accounts);
    let answers: Vec<_> = (0..31_u64).map(|id| reader.answer(&KeyHash::of(&id.to_le_bytes()))).collect();
    (
        format!("{audit:?} {answers:?} {usage:?} {:?} ", reader.tokens().unwrap())
            + &format!(
                "{open_holds:?} {folded} {journal:?} {accounts:?} {operator:?} {keys:?} {secrets:?} {limits:?}"
            ),
        entries,
        format!("{doubts:?} {jobs:?} {settled_jobs:?} {ended:?}")
            + &format!("{:?} {:?}", reader.buckets(), reader.due_refills(WallTime(i64::MAX), ALL))
            + &groups_are_found(&mut *reader, &accounts, &keys)
            + &repeats::all(&mut *reader),
    )
}

/// Groups are listed by account as at once, with the number of their keys.
fn groups_are_found(reader: &mut dyn BooksReader, accounts: &[AccountRow], keys: &[OwnedKey]) -> String {
    let (mut all, mut by_account) = (Vec::new(), Vec::new());
    reader.each_group(None, &mut |group| all.push(group)).unwrap();
    for account in accounts {
        reader.each_group(Some(account.num), &mut |group| by_account.push(group)).unwrap();
    }
    by_account.sort_by_key(|group| group.id.clone());
    assert_eq!(by_account, all);
    for group in &all {
        let is_in = |(row, _): &&OwnedKey| {
            row.state != KeyState::Revoked
                && (row.account, row.group.as_ref()) == (group.id.0, Some(&group.id.1))
        };
        assert_eq!(group.keys, keys.iter().filter(is_in).count());
    }
    format!("{all:?}")
}

/// Jobs are listed page by page as at once, and those of an account and of an id are found.
fn jobs_are_found(reader: &mut dyn BooksReader, settled: usize) -> Vec<JobRow> {
    let all = reader.jobs(&JobFilter::default(), ALL).unwrap();
    assert_eq!(all.iter().filter(|job| job.settled.is_some()).count(), settled);
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = reader.jobs(&JobFilter { after, ..JobFilter::default() }, 2).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.place());
        pages.extend(page);
    }
    assert_eq!(pages, all);
    for job in all.iter().take(3) {
        let (account, external_id) = (Some(job.account.clone()), Some(job.external_id.clone()));
        let filter = JobFilter { account, external_id, after: None };
        let of = |other: &&JobRow| other.account == job.account && other.external_id == job.external_id;
        let wanted: Vec<JobRow> = all.iter().filter(of).cloned().collect();
        assert_eq!(reader.jobs(&filter, ALL).unwrap(), wanted);
    }
    all
}

/// What keys have spent is the sum of their entries, and a cap is what their limit leaves. Idle keys are found.
fn spending_is_that_of_the_entries(reader: &mut dyn BooksReader, keys: &[OwnedKey], entries: &[Entry]) {
    let mut caps = Vec::new();
    for (row, _) in keys {
        let of_key = entries.iter().filter(|entry| entry.key == Some(row.id));
        let spent: i64 = of_key.map(|entry| -entry.amount.millionths()).sum();
        assert_eq!(row.spending.spent.millionths(), spent, "{row:?}");
        let group = row.group.clone().map(|name| (row.account, name));
        if row.spending.limit.is_some() || group.is_some() {
            caps.push((row.num, row.spending, group));
        }
    }
    let mut read = Vec::new();
    reader.each_cap(&mut |key, spending, group| read.push((key, spending, group))).unwrap();
    read.sort_by_key(|(key, ..)| *key);
    assert_eq!(read, caps);
    for since in [0, 5, i64::MAX] {
        let is_idle = |(row, _): &&OwnedKey| {
            row.state != KeyState::Revoked && row.last_used.unwrap_or(row.created).0 < since
        };
        let idle: Vec<KeyNum> = keys.iter().filter(is_idle).map(|(row, _)| row.num).collect();
        let found = reader.idle_keys(None, WallTime(since), KeyNum(0), ALL).unwrap();
        assert_eq!(found.iter().map(|(row, _)| row.num).collect::<Vec<_>>(), idle);
    }
}

/// All usage and refusals. Checks that the filters select among them, and that the credits are those of the entries that
/// are counted.
fn usage_is_found(reader: &mut dyn BooksReader, accounts: &[AccountRow]) -> (Vec<String>, Vec<RefusalRow>) {
    let mut read = |filter: UsageFilter| {
        let mut rows = Vec::new();
        reader.usage(&filter, &mut |row| rows.push(row)).unwrap();
        rows
    };
    let whole = UsageFilter { from: i64::MIN / 4, to: i64::MAX / 4, ..UsageFilter::default() };
    let all = read(whole.clone());
    let mut parts = all.iter().filter(|row| row.account.is_none()).count();
    for account in accounts {
        parts += read(UsageFilter { account: Some(account.id.clone()), ..whole.clone() }).len();
    }
    assert_eq!(parts, all.len());
    let mut from = |from: i64, to: i64| read(UsageFilter { from, to, ..whole.clone() }).len();
    assert!(from(0, 1) <= all.len() && from(i64::MIN / 4, 0) == 0);
    let refusals = accounts.iter().flat_map(|account| reader.refusals(&account.id, None, ALL).unwrap());
    let refusals = refusals.collect();
    sums_are_those_of_the_rows(reader, accounts, &all);
    let mut rows: Vec<String> = all.iter().map(|row| format!("{row:?}")).collect();
    rows.sort();
    (rows, refusals)
}

/// Route, if routes are told apart, and outcome.
type SumOf = (Option<String>, String);

/// Requests, millionths, bytes of request bodies and durations of the usage that a filter selects.
fn sums(reader: &mut dyn BooksReader, filter: &UsageFilter) -> BTreeMap<SumOf, (u64, i64, u64, Durations)> {
    let tells_routes = filter.detail != UsageDetail::Sums;
    let mut sums = BTreeMap::new();
    let mut add = |row: UsageRow| {
        let of = (row.route.filter(|_| tells_routes), row.outcome);
        let sum: &mut (u64, i64, u64, Durations) = sums.entry(of).or_default();
        sum.0 += row.requests;
        sum.1 += row.credits.millionths();
        sum.2 += row.bytes_in;
        sum.3.merge(&row.durations);
    };
    reader.usage(filter, &mut add).unwrap();
    sums
}

/// Checks that with longer intervals and with less detail, usage has the same sums as its shortest intervals.
fn sums_are_those_of_the_rows(reader: &mut dyn BooksReader, accounts: &[AccountRow], all: &[UsageRow]) {
    let Some(first) = all.iter().map(|row| row.at).min() else { return };
    let last = all.iter().map(|row| row.at).max().unwrap_or(first);
    let key = all.iter().find_map(|row| row.key);
    let route = all.iter().find_map(|row| row.route.clone());
    for account in [None, accounts.first().map(|account| account.id.clone())] {
        for (key, route, detail) in [
            (None, None, UsageDetail::Sums),
            (key, None, UsageDetail::Sums),
            (None, route.clone(), UsageDetail::Routes),
        ] {
            let (from, to) = (first + 1, last + 90);
            let account = account.clone();
            let shortest = UsageFilter { account, key, route, from, to, detail, ..UsageFilter::default() };
            let expected = sums(reader, &shortest);
            for longest in [UsageStep::Hour, UsageStep::Day] {
                assert_eq!(
                    sums(reader, &UsageFilter { longest, ..shortest.clone() }),
                    expected,
                    "{shortest:?}"
                );
            }
        }
    }
}

/// All audit entries. Checks that the filters select among them.
fn notes_are_found(reader: &mut dyn BooksReader) -> Vec<Audited> {
    let all = reader.audit(&AuditFilter::default(), ALL).unwrap();
    assert!(all.is_sorted_by(|newer, older| newer.number > older.number));
    let object = Some("object/1".to_owned());
    for filter in [
        AuditFilter { object, ..AuditFilter::default() },
        AuditFilter { before: Some(5), ..AuditFilter::default() },
    ] {
        let mut expected = all.clone();
        expected.retain(|entry| filter.before.is_none_or(|before| entry.number < before));
        expected.retain(|entry| filter.object.is_none() || entry.row.object == "object/1");
        assert_eq!(reader.audit(&filter, ALL).unwrap(), expected);
    }
    all
}

/// Checks that reading in pages of two, or one by one, returns the same rows.
fn pages_are_the_whole(reader: &mut dyn BooksReader, accounts: &[AccountRow], keys: &[(KeyRow, AccountId)]) {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn sqlite_does_what_the_model_does(calls in calls()) {
        let folder = tempfile::tempdir().unwrap();
        let mut sqlite = sqlite::open(&folder.path().join("ledger.db")).unwrap();
        let mut memory = MemoryStore::default().storage();
        let (mut real, mut model) = (driver(&mut sqlite), driver(&mut memory));
        for call in &calls {
            prop_assert_eq!(real.run(call), model.run(call), "{:?}", call);
        }
        prop_assert_eq!(state(real.store), state(model.store));
        let mut reader: Box<dyn BooksReader> = sqlite.books.reader().unwrap();
        prop_assert_eq!(verify(&mut *reader).unwrap().differences, []);
    }

    #[test]
    fn everything_written_is_there_after_a_reopening(calls in calls()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let mut store = sqlite::open(&path).unwrap();
        let before = {
            let mut driver = driver(&mut store);
            calls.iter().for_each(|call| { driver.run(call); });
            state(driver.store)
        };
        drop(store);
        let mut store = sqlite::open(&path).unwrap();
        prop_assert_eq!(state(&mut store), before);
    }
}
