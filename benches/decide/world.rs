//! Builds the input of a decision: routes, keys and limits.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tollgate::clock::Clock;
use tollgate::directory::{AccountSpec, Directory, Key, KeySpec};
use tollgate::gateway::limits::{Limits, ResponseHeaders, Subject};
use tollgate::ledger::KeyCaps;
use tollgate::ledger::Ledger;
use tollgate::ledger::memory::MemoryStore;
use tollgate::ledger::store::{NewFileAccount, Registration, Source};
use tollgate::policy::key::{KeyRules, Scopes};
use tollgate::policy::path::normalise;
use tollgate::policy::price::AtHead;
use tollgate::policy::route::Lookup;
use tollgate::snapshot::{Route, Snapshot};
use tollgate::types::{AccountId, Credits, KeyHash, KeyId, KeyNum, NameId};

pub const ACCOUNTS: usize = 100;
pub const PATH: &str = "/api/v1/people/enrich";
pub const HOST: &str = "api.example.com";
pub const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A configuration with a dozen routes, as a small API has. Its limits are so high that they never refuse a request.
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

pub struct World {
    pub view: Snapshot,
    directory: Directory,
    limits: Limits,
    pub clock: Clock,
    /// The headers of every request. They stay in the CPU cache, as the headers of a request that was just parsed do.
    head: HeaderMap,
    /// Secrets in the order of their use: shuffled, so that the gateway's own memory is not in the CPU cache. Their
    /// texts are close together in memory, so that reading them costs little.
    secrets: Vec<String>,
    next: usize,
}

pub fn key_text(number: usize) -> String {
    format!("ak_live_{number:032x}")
}

pub fn snapshot() -> Snapshot {
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

/// Shuffles a list in a repeatable way, with splitmix64.
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
    pub fn new(keys: usize, plan: &str) -> Self {
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

    pub fn turn(&mut self) -> usize {
        self.next = (self.next + 1) % self.secrets.len();
        self.next
    }

    pub fn secret(&self, at: usize) -> &[u8] {
        self.secrets[at].as_bytes()
    }

    pub fn read_key(&self) -> &[u8] {
        self.view.keys.read(black_box(&self.head), None).expect("a key")
    }

    /// The only route with a price, without the cost of a route look-up.
    pub fn priced_route(&self) -> &Route {
        &self.view.routes[0]
    }

    pub fn key(&self, hash: &KeyHash) -> Arc<Key> {
        self.directory.find(hash).expect("a known key")
    }

    pub fn permit(&self, key: &Key, route: &Route) {
        assert!(key.rules().is_usable(self.clock.wall()) && !key.account.is_suspended());
        key.rules().permit(route.name.as_str(), CLIENT).expect("a permitted key");
    }

    pub fn admit(&self, key: &Key, route: &Route) {
        let plan = self.view.plans.values().next();
        let ask = Subject {
            key: Some(key),
            plan,
            route,
            method: &Method::POST,
            address: CLIENT,
            now: self.clock.now(),
            is_repeatable: false,
        };
        let mut said = ResponseHeaders::default();
        let pass = self.limits.admit(&ask, &self.view.settings, self.clock.wall(), false, &mut said);
        pass.expect("below the limit");
        black_box(said);
    }

    pub fn price(&self, route: &Route, response: &HeaderMap) -> Credits {
        match route.price.at_head(StatusCode::OK, response, false) {
            AtHead::Known(charged) => charged.amount,
            AtHead::InBody => panic!("a fixed price"),
        }
    }

    /// Runs the same steps in the same order as `gateway/request/handler.rs`, except hold and settle, which
    /// `benches/ledger.rs` measures.
    pub fn decide(&self, at: usize, response: &HeaderMap) -> Credits {
        let path = normalise(black_box(PATH), false).expect("a sound path");
        let Lookup::Route(index) = self.view.table.find(Some(HOST), path.as_str(), &Method::POST) else {
            panic!("no route");
        };
        let route = &self.view.routes[index];
        black_box(self.read_key());
        let key = self.key(&KeyHash::of(self.secret(at)));
        self.permit(&key, route);
        self.admit(&key, route);
        self.price(route, response)
    }
}

/// Fills a directory with accounts and keys. Only a ledger can create purses, so a ledger in memory creates them.
pub fn fill(directory: &Directory, keys: usize, plan: &str, clock: &Clock) {
    let account = |number: usize| format!("a{number}").parse::<AccountId>().expect("an id");
    let (ledger, _) =
        Ledger::open(MemoryStore::default().storage(), 0, std::time::Duration::from_millis(5), clock.clone())
            .expect("a ledger");
    let books = ledger.bookkeeper();
    let credits = Some(Credits::from_millionths(1 << 50));
    let wanted = Registration {
        accounts: (0..ACCOUNTS).map(|n| NewFileAccount::new(account(n), credits)).collect(),
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
            caps: KeyCaps::NONE,
            hash,
            id: KeyId::of_hash(&hash),
            num: KeyNum(u32::try_from(number + 1).expect("few keys")),
            account: directory.account(&account(number % ACCOUNTS)).expect("a known account"),
            rules: KeyRules { scopes: Some(Scopes::of(vec!["people.*".to_owned()])), ..KeyRules::default() },
            limits: None,
            source: Source::File,
        });
    }
    drop(books);
    ledger.close().expect("a closed ledger");
}
