//! Tests limits against an oracle that remembers every admitted request, on one thread and on several. If a request has
//! several limits, either all of them count it or none.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use proptest::prelude::*;
use tollgate::config;
use tollgate::directory::{AccountSpec, Directory, Key, KeySpec};
use tollgate::gateway::limits::{Limits, ResponseHeaders, Subject};
use tollgate::ledger::KeyCaps;
use tollgate::ledger::Ledger;
use tollgate::ledger::memory::MemoryStore;
use tollgate::ledger::store::{NewFileAccount, Registration, Source};
use tollgate::policy::key::KeyRules;
use tollgate::policy::limit::{Algorithm, Limit, Scope};
use tollgate::snapshot::Snapshot;
use tollgate::types::{KeyHash, KeyId, KeyNum, Moment, NameId, RouteNum, WallTime};

const START: u64 = 1 << 60;

/// A configuration with these limits on its only plan, and two keys of one account on it.
struct Bench {
    snapshot: Snapshot,
    keys: Vec<Arc<Key>>,
    limits: Limits,
    _ledger: Ledger,
}

impl Bench {
    fn new(limits: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let routes = ["a", "b"]
            .map(|name| format!("[[routes]]\nname = \"{name}\"\npath = \"/{name}\"\nupstream = \"u\"\n"))
            .concat();
        let text = format!(
            "[upstreams.u]\nservers = [\"http://127.0.0.1:1\"]\n{routes}[plans.p]\nlimits = [{limits}]\n"
        );
        std::fs::write(&path, text).unwrap();
        let snapshot = config::load(&path).unwrap().snapshot.numbered(&[RouteNum(1), RouteNum(2)]);
        let (ledger, _) = Ledger::open(
            MemoryStore::default().storage(),
            1,
            Duration::from_millis(1),
            tollgate::clock::Clock::system(),
        )
        .unwrap();
        let directory = Directory::default();
        let books = ledger.bookkeeper();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let wanted = Registration {
            accounts: vec![NewFileAccount::new("acc".parse().unwrap(), None)],
            ..Registration::default()
        };
        let row = runtime.block_on(books.register(wanted)).unwrap().accounts.remove(0);
        let account = directory.put_account(AccountSpec {
            id: row.id.clone(),
            num: row.num,
            purse: books.purse(row.num).unwrap(),
            plan: Some(NameId::of("p")),
            suspended: false,
            webhooks: Vec::new(),
            source: Source::File,
        });
        let keys = [1_u8, 2].map(|number| {
            let hash = KeyHash::of(&[number]);
            directory.put_key(KeySpec {
                caps: KeyCaps::NONE,
                hash,
                id: KeyId(u64::from(number)),
                num: KeyNum(u32::from(number)),
                account: Arc::clone(&account),
                rules: KeyRules::default(),
                limits: None,
                source: Source::File,
            });
            directory.find(&hash).unwrap()
        });
        Self { snapshot, keys: keys.to_vec(), limits: Limits::default(), _ledger: ledger }
    }

    fn plan_limits(&self) -> &[Limit] {
        &self.snapshot.plans[&NameId::of("p")].limits
    }

    /// Returns `Ok` if a request is admitted, or else the number of seconds after which it would be.
    fn ask(&self, key: usize, route: usize, address: u8, now: u64) -> Result<(), u64> {
        let ask = Subject {
            key: Some(&self.keys[key]),
            plan: self.snapshot.plans.get(&NameId::of("p")),
            route: &self.snapshot.routes[route],
            method: &Method::GET,
            address: IpAddr::from([127, 0, 0, address]),
            now: Moment(now),
            is_repeatable: false,
        };
        let admitted = self.limits.admit(
            &ask,
            &self.snapshot.settings,
            WallTime(0),
            false,
            &mut ResponseHeaders::default(),
        );
        admitted.map(drop).map_err(|refusal| refusal.retry_after.unwrap())
    }
}

/// One admitted request, as the oracle remembers it.
#[derive(Clone, Copy)]
struct Admitted {
    at: u64,
    key: usize,
    route: usize,
    address: u8,
}

fn counts(limit: &Limit, one: &Admitted, other: &Admitted) -> bool {
    match limit.scope {
        Scope::Key => one.key == other.key,
        Scope::KeyRoute => one.key == other.key && one.route == other.route,
        Scope::Account => true,
        Scope::Address => one.address == other.address,
    }
}

/// True if each limit admits the next request by its definition. With `slack`, sliding windows are longer by a
/// sixtieth.
fn oracle(limits: &[Limit], history: &[Admitted], next: &Admitted, slack: bool) -> bool {
    limits.iter().all(|limit| {
        let same: Vec<u64> =
            history.iter().filter(|past| counts(limit, past, next)).map(|past| past.at).collect();
        let window = u64::try_from(limit.window.as_nanos()).unwrap();
        match limit.algorithm {
            Algorithm::SlidingWindow => {
                let span = if slack { window + window / 60 + 122 } else { window };
                let within = same.iter().filter(|&&at| at > next.at.saturating_sub(span)).count();
                within < limit.requests as usize
            }
            Algorithm::Gcra => {
                let interval = window.div_ceil(u64::from(limit.requests));
                let arrival = same.iter().fold(0_u64, |arrival, &at| arrival.max(at) + interval);
                arrival.saturating_sub(next.at) <= interval * u64::from(limit.burst - 1)
            }
        }
    })
}

fn limits() -> impl Strategy<Value = String> {
    let scope = prop_oneof![Just("key"), Just("key+route"), Just("account"), Just("address")];
    let limit = (1_u32..8, 1_u64..2_000, 1_u32..8, any::<bool>(), scope).prop_map(|(requests, window, burst, sliding, scope)| {
        match sliding {
            true => format!("requests = {requests}, window = \"{window}ms\", algorithm = \"sliding-window\", scope = \"{scope}\""),
            false => format!("requests = {requests}, window = \"{window}ms\", burst = {burst}, scope = \"{scope}\""),
        }
    });
    prop::collection::vec(limit, 1..4).prop_map(|list| {
        let named = list.iter().enumerate().map(|(at, limit)| format!("{{ name = \"l{at}\", {limit} }}"));
        named.collect::<Vec<_>>().join(", ")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn several_limits_are_taken_together_or_not_at_all(
        text in limits(),
        asks in prop::collection::vec((0_usize..2, 0_usize..2, 0_u8..2, prop_oneof![Just(0_u64), 0_u64..30, 0_u64..2_500]), 1..120),
    ) {
        let bench = Bench::new(&text);
        let mut history: Vec<Admitted> = Vec::new();
        let mut now = START;
        for (key, route, address, gap) in asks {
            now += gap * 1_000_000;
            let next = Admitted { at: now, key, route, address };
            let strict = oracle(bench.plan_limits(), &history, &next, false);
            let wider = oracle(bench.plan_limits(), &history, &next, true);
            match bench.ask(key, route, address, now) {
                Ok(()) => {
                    prop_assert!(strict, "admitted against the definition");
                    history.push(next);
                }
                Err(seconds) => {
                    prop_assert!(!wider, "refused although every limit admits it");
                    let later = now + seconds * 1_000_000_000;
                    let then = Admitted { at: later, ..next };
                    prop_assert!(oracle(bench.plan_limits(), &history, &then, false), "Retry-After is too early");
                    let sooner = Admitted { at: later.saturating_sub(1_000_000_000).max(now), ..next };
                    prop_assert!(!oracle(bench.plan_limits(), &history, &sooner, true), "Retry-After is over a second late");
                }
            }
        }
    }
}

/// On several threads a request is decided at some time between two reads of the clock. Of the requests for which both
/// reads are within one window, at most N may be admitted.
#[test]
fn several_threads_share_one_limit_exactly() {
    for (text, most) in [
        (
            r#"{ name = "s", requests = 100, window = "50ms", algorithm = "sliding-window", scope = "account" }"#,
            100,
        ),
        (r#"{ name = "g", requests = 100, window = "50ms", burst = 40, scope = "account" }"#, 140),
    ] {
        let bench = Bench::new(text);
        let clock = AtomicU64::new(START);
        let mut admitted: Vec<(u64, u64)> = std::thread::scope(|scope| {
            let (bench, clock) = (&bench, &clock);
            let ask = move |thread: usize| {
                let mut mine = Vec::new();
                for _ in 0..20_000 {
                    let now = clock.fetch_add(10_000, Ordering::SeqCst);
                    if bench.ask(thread % 2, thread / 2, 1, now).is_ok() {
                        mine.push((now, clock.load(Ordering::SeqCst)));
                    }
                }
                mine
            };
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || ask(thread))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        admitted.sort_unstable();
        let window = u64::try_from(Duration::from_millis(50).as_nanos()).unwrap();
        for (at, (first, _)) in admitted.iter().enumerate() {
            let begun = admitted[at..].iter().take_while(|(from, _)| *from < first + window);
            let within = begun.filter(|(_, to)| *to < first + window).count();
            assert!(within <= most, "{within} in a window");
        }
        assert!(admitted.len() > 1_000, "{}", admitted.len());
    }
}
