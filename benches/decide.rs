//! What one decision costs in ns, step by step and all together, with few keys and with many.
//!
//! Keys are taken in a shuffled order, so that 100,000 of them meet the caches as clients would.

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

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tollgate::clock::Clock;
use tollgate::directory::{AccountSpec, Directory, Key, KeySpec};
use tollgate::gateway::limits::{Ask, Limits, Said};
use tollgate::ledger::Ledger;
use tollgate::ledger::memory::MemoryStore;
use tollgate::ledger::store::{Registration, Source};
use tollgate::policy::key::KeyRules;
use tollgate::policy::path::normalise;
use tollgate::policy::price::AtHead;
use tollgate::policy::route::Found;
use tollgate::snapshot::{Route, Snapshot};
use tollgate::types::{AccountId, Credits, KeyHash, KeyId, KeyNum, NameId};

/// The allocator that the gateway runs with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ACCOUNTS: usize = 100;
const KEYS: [usize; 2] = [1_000, 100_000];
const PATH: &str = "/api/v1/people/enrich";
const HOST: &str = "api.example.com";
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A dozen routes, as a small API has; limits so high that they never refuse.
const CONFIG: &str = r#"
[upstreams.people]
servers = ["http://127.0.0.1:9000"]
[plans.gcra]
limits = [{ name = "rate", requests = 4000000000, window = "1s" }]
[plans.window]
limits = [{ name = "rate", requests = 4000000000, window = "60s", algorithm = "sliding-window" }]
[[routes]]
name = "people.enrich"
path = "/api/v1/people/enrich"
methods = ["POST"]
upstream = "people"
credits = 1
"#;

struct World {
    view: Snapshot,
    directory: Directory,
    limits: Limits,
    clock: Clock,
    /// One head, as hot as a head is that was just parsed.
    head: HeaderMap,
    /// Keys in the order in which they come: shuffled, and close together, so that only the
    /// gateway's own memory is cold.
    secrets: Vec<String>,
    next: usize,
}

fn key_text(number: usize) -> String {
    format!("ak_live_{number:032x}")
}

fn snapshot() -> Snapshot {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut text = CONFIG.to_owned();
    for number in 0..11 {
        text += &format!(
            "[[routes]]\nname = \"r{number}\"\npath = \"/api/v1/r{number}/{{id}}\"\nupstream = \"people\"\n"
        );
    }
    let file = folder.path().join("config.toml");
    std::fs::write(&file, text).expect("a configuration");
    tollgate::config::load(&file).expect("a sound configuration").snapshot
}

/// A repeatable shuffle: splitmix64.
fn shuffle<T>(list: &mut [T]) {
    let mut state = 1_u64;
    for at in (1..list.len()).rev() {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        list.swap(at, usize::try_from(mixed ^ (mixed >> 31)).expect("64 bits") % (at + 1));
    }
}

impl World {
    fn new(keys: usize, plan: &str) -> Self {
        let clock = Clock::system();
        let directory = Directory::default();
        fill(&directory, keys, plan, &clock);
        let mut head = HeaderMap::new();
        head.insert("host", HeaderValue::from_static(HOST));
        head.insert("x-api-key", key_text(0).parse().expect("a header value"));
        let mut numbers: Vec<_> = (0..keys).collect();
        shuffle(&mut numbers);
        let secrets = numbers.into_iter().map(key_text).collect();
        Self { view: snapshot(), directory, limits: Limits::default(), clock, head, secrets, next: 0 }
    }

    fn turn(&mut self) -> usize {
        self.next = (self.next + 1) % self.secrets.len();
        self.next
    }

    fn secret(&self, at: usize) -> &[u8] {
        self.secrets[at].as_bytes()
    }

    fn read_key(&self) -> &[u8] {
        self.view.keys.read(black_box(&self.head), None).expect("a key")
    }

    /// The one route that has a price, without looking it up.
    fn priced_route(&self) -> &Route {
        &self.view.routes[0]
    }

    fn key(&self, hash: &KeyHash) -> Arc<Key> {
        self.directory.find(hash).expect("a known key")
    }

    fn permit(&self, key: &Key, route: &Route) {
        assert!(key.rules().is_usable(self.clock.wall()) && !key.account.is_suspended());
        key.rules().permit(route.name.as_str(), CLIENT).expect("a permitted key");
    }

    fn admit(&self, key: &Key, route: &Route) {
        let plan = self.view.plans.values().next();
        let ask = Ask {
            key: Some(key),
            plan,
            route,
            method: &Method::POST,
            address: CLIENT,
            now: self.clock.now(),
        };
        let mut said = Said::default();
        let pass = self.limits.admit(&ask, &self.view.settings, self.clock.wall(), &mut said);
        pass.expect("below the limit");
        black_box(said);
    }

    fn price(&self, route: &Route, answer: &HeaderMap) -> Credits {
        match route.price.at_head(StatusCode::OK, answer) {
            AtHead::Known(charged) => charged.amount,
            AtHead::InBody(_) => panic!("a fixed price"),
        }
    }

    /// The same steps in the same order as `gateway/handle.rs`, but for hold and settle: those
    /// are in `ledger.rs`.
    fn decide(&self, at: usize, answer: &HeaderMap) -> Credits {
        let path = normalise(black_box(PATH), false).expect("a sound path");
        let Found::Route(index) = self.view.table.find(Some(HOST), path.as_str(), &Method::POST) else {
            panic!("no route");
        };
        let route = &self.view.routes[index];
        black_box(self.read_key());
        let key = self.key(&KeyHash::of(self.secret(at)));
        self.permit(&key, route);
        self.admit(&key, route);
        self.price(route, answer)
    }
}

/// Purses are a ledger's, so one in memory makes them.
fn fill(directory: &Directory, keys: usize, plan: &str, clock: &Clock) {
    let account = |number: usize| format!("a{number}").parse::<AccountId>().expect("an id");
    let (ledger, _) = Ledger::open(Box::new(MemoryStore::default()), 0, clock.clone()).expect("a ledger");
    let books = ledger.bookkeeper();
    let credits = Some(Credits::from_millionths(1 << 50));
    let wanted = Registration {
        accounts: (0..ACCOUNTS).map(|n| (account(n), credits)).collect(),
        ..Registration::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let registered = runtime.block_on(books.register(wanted)).expect("registered accounts");
    for row in registered.accounts {
        let purse = books.purse(row.num).expect("a purse");
        let plan = Some(NameId::of(plan));
        let (id, num, source) = (row.id, row.num, Source::File);
        directory.put_account(AccountSpec {
            id,
            num,
            purse,
            plan,
            suspended: false,
            webhooks: Vec::new(),
            source,
        });
    }
    for number in 0..keys {
        let hash = KeyHash::of(key_text(number).as_bytes());
        directory.put_key(KeySpec {
            hash,
            id: KeyId::of_hash(&hash),
            num: KeyNum(u32::try_from(number + 1).expect("few keys")),
            account: directory.account(&account(number % ACCOUNTS)).expect("a known account"),
            rules: KeyRules { scopes: Some(Box::new(["people.*".to_owned()])), ..KeyRules::default() },
            limits: None,
            source: Source::File,
        });
    }
    drop(books);
    ledger.close().expect("a closed ledger");
}

/// Steps that do not depend on how many keys there are.
fn steps(criterion: &mut Criterion) {
    let world = World::new(1_000, "gcra");
    let mut group = criterion.benchmark_group("decide");
    group.bench_function("path_normalise", |bencher| {
        bencher.iter(|| black_box(normalise(black_box(PATH), false)));
    });
    group.bench_function("route_find", |bencher| {
        bencher
            .iter(|| black_box(world.view.table.find(Some(black_box(HOST)), black_box(PATH), &Method::POST)));
    });
    group.bench_function("key_read", |bencher| bencher.iter(|| black_box(world.read_key())));
    let text = key_text(7);
    group.bench_function("key_sha256", |bencher| {
        bencher.iter(|| black_box(KeyHash::of(black_box(text.as_bytes()))));
    });
    let (key, route) = (world.key(&KeyHash::of(text.as_bytes())), world.priced_route());
    group.bench_function("key_rules", |bencher| bencher.iter(|| world.permit(black_box(&key), route)));
    let answer = HeaderMap::new();
    group.bench_function("price_at_head", |bencher| {
        bencher.iter(|| black_box(world.price(black_box(route), &answer)));
    });
    group.bench_function("clock_now", |bencher| bencher.iter(|| black_box(world.clock.now())));
    group.bench_function("clock_wall", |bencher| bencher.iter(|| black_box(world.clock.wall())));
    group.finish();
}

/// Steps that do.
fn by_keys(criterion: &mut Criterion) {
    let answer = HeaderMap::new();
    for keys in KEYS {
        for plan in ["gcra", "window"] {
            let mut world = World::new(keys, plan);
            let hashes: Vec<_> = (0..keys).map(|at| KeyHash::of(world.secret(at))).collect();
            let found: Vec<_> = hashes.iter().map(|hash| world.key(hash)).collect();
            let mut group = criterion.benchmark_group("decide");
            if plan == "gcra" {
                group.bench_function(BenchmarkId::new("directory_find", keys), |bencher| {
                    bencher.iter(|| {
                        let at = world.turn();
                        black_box(world.key(&hashes[at]))
                    });
                });
            }
            group.bench_function(BenchmarkId::new(format!("admit_{plan}"), keys), |bencher| {
                bencher.iter(|| {
                    let at = world.turn();
                    world.admit(&found[at], world.priced_route());
                });
            });
            world.view.settings.ietf_headers = false;
            group.bench_function(
                BenchmarkId::new(format!("admit_{plan}_without_headers"), keys),
                |bencher| {
                    bencher.iter(|| {
                        let at = world.turn();
                        world.admit(&found[at], world.priced_route());
                    });
                },
            );
            world.view.settings.ietf_headers = true;
            group.bench_function(BenchmarkId::new(format!("together_{plan}"), keys), |bencher| {
                bencher.iter(|| {
                    let at = world.turn();
                    black_box(world.decide(at, &answer))
                });
            });
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    targets = steps, by_keys
}
criterion_main!(benches);
