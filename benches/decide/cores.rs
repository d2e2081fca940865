//! Benchmarks the whole decision with its hold and settlement, on one core and on two cores at the same time. No
//! account is used by both cores, so a ratio above 1 shows the cost of state that the cores share.
//!
//! The CPU time of the thread is measured, not wall time, because the ledger's threads run on one of these cores too.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use rustix::time::{ClockId, clock_gettime};
use tollgate::clock::{Clock, CoarseClock};
use tollgate::directory::{AccountSpec, Directory, KeySpec};
use tollgate::gateway::limits::{Limits, ResponseHeaders, Subject};
use tollgate::ledger::KeyCaps;
use tollgate::ledger::memory::MemoryStore;
use tollgate::ledger::store::{NewFileAccount, Registration, Source};
use tollgate::ledger::{Ledger, Spender};
use tollgate::policy::key::KeyRules;
use tollgate::policy::path::normalise;
use tollgate::policy::price::AtHead;
use tollgate::policy::route::Lookup;
use tollgate::snapshot::{AccountStatus, SnapshotReader, Views, channel};
use tollgate::types::{AccountId, Credits, KeyHash, KeyId, KeyNum, NameId, RequestId, StatusClass};

use crate::world::{ACCOUNTS, CLIENT, HOST, PATH, key_text, snapshot};

const CORES: usize = 2;
const KEYS: usize = 1_000;
const ROUNDS: usize = 11;
/// Bursts in a round. One burst of requests fits into the ledger's outbox.
const BURSTS: usize = 10;
const BURST: usize = 20_000;
/// Pause after a burst, long enough for the ledger's thread to take its records.
const REST: Duration = Duration::from_millis(60);

/// State that both cores share.
struct Shared {
    reader: SnapshotReader,
    directory: Directory,
    limits: Limits,
    clock: Clock,
}

/// State of one core. Each core uses the keys of every second account, so that no account is shared.
struct Core<'a> {
    shared: &'a Shared,
    views: Views,
    time: CoarseClock,
    spender: Spender,
    number: usize,
    secrets: Vec<String>,
    head: HeaderMap,
    count: u64,
}

pub fn compare() {
    let clock = Clock::system();
    let (ledger, _) =
        Ledger::open(MemoryStore::default().storage(), CORES, Duration::from_millis(5), clock.clone())
            .expect("a ledger");
    let (_publisher, reader) = channel(snapshot());
    let shared = Shared { reader, directory: Directory::default(), limits: Limits::default(), clock };
    fill(&shared.directory, &ledger);
    let one = |numbers: &[usize]| -> f64 {
        let barrier = Barrier::new(numbers.len());
        std::thread::scope(|scope| {
            let run = |number: usize| {
                let (seed, shared, barrier) = (ledger.spender(number).expect("a place"), &shared, &barrier);
                scope.spawn(move || Core::new(shared, seed.start(), number).run(barrier))
            };
            let running: Vec<_> = numbers.iter().map(|&number| run(number)).collect();
            let times: Vec<f64> = running.into_iter().map(|core| core.join().expect("a core")).collect();
            times.iter().sum::<f64>() / times.len() as f64
        })
    };
    one(&[0, 1]); // warm-up, not counted
    let mut rounds: Vec<(f64, f64)> = (0..ROUNDS).map(|_| (one(&[0]), one(&[0, 1]))).collect();
    rounds.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
    let median = |mut list: Vec<f64>| {
        list.sort_by(f64::total_cmp);
        list[list.len() / 2]
    };
    let ratios: Vec<f64> = rounds.iter().map(|(one, two)| two / one).collect();
    println!(
        "\ndecide, hold and settle: {:.0} ns on one core, {:.0} ns on each of two (CPU time, medians of {ROUNDS} rounds); ratio min/median/max {:.2}/{:.2}/{:.2}",
        median(rounds.iter().map(|round| round.0).collect()),
        median(rounds.iter().map(|round| round.1).collect()),
        ratios[0],
        ratios[ROUNDS / 2],
        ratios[ROUNDS - 1],
    );
    drop(shared);
    ledger.close().expect("a closed ledger");
}

fn fill(directory: &Directory, ledger: &Ledger) {
    let id = |number: usize| format!("a{number}").parse::<AccountId>().expect("an id");
    let credits = Some(Credits::from_millionths(i64::MAX / 4));
    let accounts = (0..ACCOUNTS).map(|number| NewFileAccount::new(id(number), credits)).collect();
    let books = ledger.bookkeeper();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let wanted = Registration { accounts, ..Registration::default() };
    for row in runtime.block_on(books.register(wanted)).expect("registered accounts").accounts {
        let purse = books.purse(row.num).expect("a purse");
        directory.put_account(AccountSpec {
            id: row.id,
            num: row.num,
            purse,
            plan: Some(NameId::of("gcra")),
            suspended: false,
            webhooks: Vec::new(),
            source: Source::Store,
        });
    }
    for number in 0..KEYS {
        let hash = KeyHash::of(key_text(number).as_bytes());
        directory.put_key(KeySpec {
            caps: KeyCaps::NONE,
            hash,
            id: KeyId::of_hash(&hash),
            num: KeyNum(u32::try_from(number + 1).expect("few keys")),
            account: directory.account(&id(number % ACCOUNTS)).expect("a known account"),
            rules: KeyRules::default(),
            limits: None,
            source: Source::Store,
        });
    }
}

impl<'a> Core<'a> {
    fn new(shared: &'a Shared, spender: Spender, number: usize) -> Self {
        let mut head = HeaderMap::new();
        head.insert("host", HeaderValue::from_static(HOST));
        head.insert("x-api-key", key_text(0).parse().expect("a header value"));
        let own = (0..KEYS).filter(|key| key % ACCOUNTS % CORES == number);
        Self {
            views: shared.reader.views(),
            time: CoarseClock::new(shared.clock.clone()),
            secrets: own.map(key_text).collect(),
            shared,
            spender,
            number,
            head,
            count: shared.clock.now().0 & 0xff_ffff_ffff, // ids of earlier rounds are not used again
        }
    }

    /// Runs all bursts. Returns the CPU time per request in nanoseconds.
    fn run(mut self, barrier: &Barrier) -> f64 {
        let mut spent = 0.0;
        for _ in 0..BURSTS {
            barrier.wait();
            let before = cpu();
            for at in 0..BURST {
                self.request(at);
            }
            spent += cpu() - before;
            std::thread::sleep(REST);
        }
        spent / (BURSTS * BURST) as f64
    }

    /// Runs the steps of `gateway/request/handler.rs`, from the path to the charge.
    fn request(&mut self, at: usize) {
        let Shared { directory, limits, .. } = self.shared;
        let now = self.time.refresh();
        let view = self.views.load();
        let path = normalise(black_box(PATH), false).expect("a sound path");
        let Lookup::Route(index) = view.table.find(Some(HOST), path.as_str(), &Method::POST) else {
            panic!("no route");
        };
        let route = &*view.routes[index];
        black_box(view.keys.read(&self.head, None).expect("a key"));
        let hash = KeyHash::of(self.secrets[at % self.secrets.len()].as_bytes());
        let key = directory.find(&hash).expect("a known key");
        assert!(key.rules().is_usable(self.time.wall()) && !key.account.is_suspended());
        let AccountStatus::Served(plan) = view.account_status(key.account.num, key.account.stored_plan())
        else {
            panic!("an unknown account");
        };
        key.rules().permit(route.name.as_str(), CLIENT).expect("a permitted key");
        let ask = Subject {
            key: Some(&key),
            plan,
            route,
            method: &Method::POST,
            address: CLIENT,
            now,
            is_repeatable: false,
        };
        let mut said = ResponseHeaders::default();
        let pass =
            limits.admit(&ask, &view.settings, self.time.wall(), false, &mut said).expect("below the limit");
        let price = view.price(route, plan);
        self.count += 1;
        let id = RequestId((self.number as u128) << 64 | u128::from(self.count));
        let hold = self.spender.hold(&key.account.purse, key.num, route.num, price.hold, id).expect("a hold");
        let AtHead::Known(charged) = price.at_head(StatusCode::OK, &self.head, false) else {
            panic!("a fixed price");
        };
        black_box(hold.settle(charged.amount, StatusClass::Success));
        drop((pass, said));
    }
}

/// CPU time of this thread in nanoseconds.
fn cpu() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}
