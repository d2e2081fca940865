//! Benchmarks the ledger: a hold and its settlement in memory, a commit, and a fold.
//!
//! Each runs with SQLite in a temporary folder, as in production, and with the model in memory; wide folds also with PostgreSQL.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    unreachable_pub,
    missing_docs,
    reason = "a bench that meets the unexpected ends, and reads the real clock"
)]

#[path = "../tests/engines/postgres.rs"]
mod postgres;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use postgres::Postgres;
use tempfile::TempDir;
use tokio::task::LocalSet;
use tollgate::app::find_ledger;
use tollgate::clock::Clock;
use tollgate::ledger::memory::MemoryStore;
use tollgate::ledger::record::Record;
use tollgate::ledger::sqlite;
use tollgate::ledger::store::{NewFileAccount, Registration, Storage};
use tollgate::ledger::tally::{ChargeKey, ChargeSum, Fold, Tally};
use tollgate::ledger::{Ledger, Purse, Spender};
use tollgate::types::{
    AccountId, AccountNum, Credits, KeyId, KeyNum, RequestId, RouteNum, StatusClass, WallTime,
};

/// The allocator that the gateway runs with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ACCOUNTS: u32 = 100;
const STORES: [&str; 2] = ["sqlite", "memory"];
/// A price of one credit.
const ONE: Credits = Credits::from_millionths(1_000_000);
/// Holds with settlements between two waits for the disk, where only the worker's time counts.
const BURST: u64 = 1_000;
/// Holds with settlements between two waits, where the ledger's thread is to be the bottleneck. They fit into the
/// outbox.
const LONG_BURST: u64 = 20_000;
/// Commits between two folds, where only commits are measured.
const COMMITS_PER_FOLD: u64 = 1_000;

fn store(kind: &str, folder: &TempDir) -> Storage {
    match kind {
        "sqlite" => sqlite::open(&folder.path().join("bench.db")).expect("a ledger file"),
        _ => MemoryStore::default().storage(),
    }
}

fn registration() -> Registration {
    let account = |number: u32| format!("a{number}").parse::<AccountId>().expect("an id");
    let credits = Some(Credits::from_millionths(i64::MAX / 4));
    Registration {
        accounts: (0..ACCOUNTS).map(|number| NewFileAccount::new(account(number), credits)).collect(),
        keys: (0..ACCOUNTS)
            .map(|number| (KeyId(u64::from(number)), account(number), "bench".to_owned()))
            .collect(),
        routes: vec!["people.enrich".parse().expect("a name")],
        ..Registration::default()
    }
}

/// A ledger with its threads, and the spender of one worker.
struct Running {
    ledger: Ledger,
    spender: Spender,
    purses: Vec<Arc<Purse>>,
    runtime: tokio::runtime::Runtime,
    local: LocalSet,
    count: u64,
    _folder: TempDir,
}

impl Running {
    fn new(kind: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (ledger, _) = Ledger::open(store(kind, &folder), 1, DELAY, Clock::system()).expect("a ledger");
        let (spender, books) = (ledger.spender(0).expect("a place").start(), ledger.bookkeeper());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let local = LocalSet::new();
        let pump = spender.clone();
        local.spawn_local(async move { pump.pump().await });
        let registered = runtime.block_on(books.register(registration())).expect("registered accounts");
        let purses = registered.accounts.iter().map(|row| books.purse(row.num).expect("a purse")).collect();
        Self { ledger, spender, purses, runtime, local, count: 0, _folder: folder }
    }

    fn hold(&mut self) -> tollgate::ledger::Hold {
        self.count += 1;
        let number = u32::try_from(self.count % u64::from(ACCOUNTS)).expect("few accounts");
        let id = RequestId(u128::from(self.count));
        self.spender
            .hold(&self.purses[number as usize], KeyNum(number + 1), RouteNum(1), ONE, id)
            .expect("a hold")
    }

    /// Waits until all records so far are on disk.
    fn wait(&mut self) {
        let hold = self.hold();
        self.local.block_on(&self.runtime, hold.committed()).expect("a commit");
        hold.settle(ONE, StatusClass::Success);
    }

    /// Returns the time of `pairs` holds with their settlements. The waits between bursts keep the outbox from filling.
    /// They are included in the time only if `with_waits` is true.
    fn spend(&mut self, pairs: u64, with_waits: bool) -> Duration {
        let begun = Instant::now();
        let (mut busy, mut left) = (Duration::ZERO, pairs);
        while left > 0 {
            let burst = left.min(if with_waits { LONG_BURST } else { BURST });
            let start = Instant::now();
            for _ in 0..burst {
                black_box(self.hold().settle(ONE, StatusClass::Success));
            }
            busy += start.elapsed();
            self.wait();
            left -= burst;
        }
        if with_waits { begun.elapsed() } else { busy }
    }

    fn close(self) {
        drop((self.local, self.spender));
        self.ledger.close().expect("a closed ledger");
    }
}

fn spending(criterion: &mut Criterion) {
    for kind in STORES {
        let mut running = Running::new(kind);
        let mut group = criterion.benchmark_group("ledger");
        group.bench_function(BenchmarkId::new("hold_settle", kind), |bencher| {
            bencher.iter_custom(|pairs| running.spend(pairs, false));
        });
        group.bench_function(BenchmarkId::new("hold_settle_sustained", kind), |bencher| {
            bencher.iter_custom(|pairs| running.spend(pairs, true));
        });
        group.bench_function(BenchmarkId::new("hold_until_durable", kind), |bencher| {
            bencher.iter(|| running.wait());
        });
        group.finish();
        running.close();
    }
}

/// Records of `pairs` requests, all settled.
fn records(first: u64, pairs: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in first..first + pairs {
        let id = RequestId(u128::from(number));
        let account = u32::try_from(number % u64::from(ACCOUNTS)).expect("few accounts") + 1;
        let (account, key) = (AccountNum(account), KeyNum(account));
        Record::Hold { id, account, key, route: RouteNum(1), amount: ONE }.write(&mut bytes);
        Record::Settle { id, charge: ONE, outcome: StatusClass::Success }.write(&mut bytes);
    }
    bytes
}

/// A storage without the ledger's threads.
struct Bare {
    store: Storage,
    tally: Tally,
    seq: u64,
    requests: u64,
    _folder: TempDir,
}

const DELAY: Duration = Duration::from_millis(5);
const NOW: WallTime = WallTime(1_800_000_000_000);

impl Bare {
    fn new(kind: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut store = store(kind, &folder);
        let loaded = store.books.load(NOW).expect("books");
        store.journal.read(loaded.folded).expect("a journal");
        store.books.register(&registration(), NOW).expect("registered accounts");
        Self { store, tally: Tally::default(), seq: 0, requests: 0, _folder: folder }
    }

    /// Appends one batch to the journal. Returns how long that took.
    fn append(&mut self, pairs: u64) -> Duration {
        let bytes = records(self.requests, pairs);
        self.requests += pairs;
        self.seq += 1;
        let start = Instant::now();
        self.store.journal.append(self.seq, NOW, &bytes).expect("a commit");
        let took = start.elapsed();
        self.tally.apply(self.seq, NOW, &bytes).expect("sound records");
        took
    }

    /// Writes one fold. Returns how long that took.
    fn fold(&mut self) -> Duration {
        let start = Instant::now();
        let fold = self.tally.fold();
        self.store.books.fold(&fold, NOW).expect("a fold");
        let took = start.elapsed();
        self.store.journal.reset(fold.upto);
        self.store.books.checkpoint();
        took
    }
}

fn commits(criterion: &mut Criterion) {
    for kind in STORES {
        let mut bare = Bare::new(kind);
        let mut group = criterion.benchmark_group("ledger");
        for pairs in [1, 16, 100, 1_000] {
            group.bench_function(BenchmarkId::new(format!("commit_{kind}"), pairs), |bencher| {
                bencher.iter_custom(|commits| {
                    let mut took = Duration::ZERO;
                    for number in 0..commits {
                        took += bare.append(pairs);
                        if number % COMMITS_PER_FOLD == COMMITS_PER_FOLD - 1 {
                            bare.fold();
                        }
                    }
                    took
                });
            });
            bare.fold();
        }
        group.finish();
    }
}

/// Benchmarks the fold that the books thread writes for one second with 20,000 requests in 250 commits.
fn folds(criterion: &mut Criterion) {
    const COMMITS: u64 = 250;
    const PAIRS: u64 = 80;
    let mut group = criterion.benchmark_group("ledger");
    group.sample_size(10);
    for kind in STORES {
        let mut bare = Bare::new(kind);
        group.bench_function(BenchmarkId::new("fold_20000_requests", kind), |bencher| {
            bencher.iter_custom(|folds| {
                let mut took = Duration::ZERO;
                for _ in 0..folds {
                    for _ in 0..COMMITS {
                        bare.append(PAIRS);
                    }
                    took += bare.fold();
                }
                took
            });
        });
    }
    let bytes = records(0, PAIRS);
    group.throughput(Throughput::Elements(PAIRS));
    group.bench_function("tally_80_requests", |bencher| {
        let (mut tally, mut seq) = (Tally::default(), 0);
        bencher.iter(|| {
            seq += 1;
            tally.apply(seq, NOW, black_box(&bytes)).expect("sound records");
        });
    });
    group.finish();
}

/// Benchmarks folds over many accounts, per entry, which limits how many accounts can be charged in a second.
fn wide_folds(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    wide_fold(criterion, "sqlite", store("sqlite", &folder), 100_000);
    let Some(server) = Postgres::start() else { return };
    let url = format!("{}?sslmode=disable", server.database("ledger"));
    let place = find_ledger(&url).expect("the URL of a ledger");
    wide_fold(criterion, "postgres", place.open().expect("a ledger"), 10_000);
}

fn wide_fold(criterion: &mut Criterion, kind: &str, mut store: Storage, accounts: u32) {
    store.books.load(NOW).expect("books");
    let account = |number: u32| format!("a{number}").parse::<AccountId>().expect("an id");
    let new_account = |number: u32| NewFileAccount::new(account(number), Some(ONE));
    let key = |number: u32| (KeyId(u64::from(number)), account(number), "bench".to_owned());
    let routes = vec!["people.enrich".parse().expect("a name")];
    let (all, keys) = ((0..accounts).map(new_account).collect(), (0..accounts).map(key).collect());
    let wanted = Registration { accounts: all, keys, routes, ..Registration::default() };
    store.books.register(&wanted, NOW).expect("registered accounts");
    store.books.checkpoint();
    let sum = ChargeSum { amount: Credits::from_millionths(1), requests: 1, released: 0 };
    let mut upto = 0;
    let mut group = criterion.benchmark_group("ledger");
    group.sample_size(10).throughput(Throughput::Elements(u64::from(accounts)));
    group.bench_function(BenchmarkId::new(format!("fold_{accounts}_accounts"), kind), |bencher| {
        bencher.iter_custom(|folds| {
            let mut took = Duration::ZERO;
            for _ in 0..folds {
                upto += 1;
                let charge = |num| {
                    let (account, key, route) = (AccountNum(num), KeyNum(num), RouteNum(1));
                    (ChargeKey { account, key, route, outcome: StatusClass::Success, held: None }, sum)
                };
                let fold = Fold { upto, charges: (1..=accounts).map(charge).collect(), ..Fold::default() };
                let start = Instant::now();
                store.books.fold(&fold, NOW).expect("a fold");
                took += start.elapsed();
                store.books.checkpoint();
            }
            took
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    targets = spending, commits, folds, wide_folds
}
criterion_main!(benches);
