//! Promise 6 over a fleet: gateways that count a limit together in a real Redis never admit more than its algorithm allows,
//! whatever gets lost, comes late or twice, and however differently their clocks run. Time is virtual.

use std::time::Duration;

use proptest::prelude::*;
use tokio::runtime::Runtime;
use tollgate::limit_store::{Script, Servers};
use tollgate::policy::limit::share::{Answer, Ask, Peeked};
use tollgate::policy::limit::{Algorithm, Counter, LimitState, Numbers, Rate};
use tollgate::snapshot::LimitServers;
use tollgate::types::Moment;

use crate::engine::Redis;
use crate::skips::missing;

/// When the store's clock begins, in microseconds since 1970.
const BEGINNING: u64 = 1_800_000_000_000_000;
const GATEWAYS: usize = 3;

/// A message to the store, as it was sent.
type Message = (usize, Ask, Vec<(Duration, u32)>);

/// Gateways that count one limit together.
struct Fleet<'a> {
    runtime: &'a Runtime,
    servers: Servers,
    scripts: Vec<Script>,
    counters: Vec<Counter>,
    /// When each gateway's clock began, and how much faster than the store's it runs, in thousandths.
    clocks: Vec<(u64, i64)>,
    rate: Rate,
    name: String,
    /// Nanoseconds since the beginning.
    now: u64,
    /// When requests were admitted.
    admitted: Vec<u64>,
    /// Messages that arrive late, or again.
    late: Vec<Message>,
    shares: u64,
}

/// What happens to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    /// It arrives, but its answer does not.
    AnswerLost,
    Lost,
    /// It arrives again later.
    Repeated,
    /// It arrives only later, and its answer does not.
    Late,
}

#[derive(Clone, Debug)]
enum Event {
    /// Time passes, in thousandths of the window.
    Passes(u64),
    /// About as much time passes as a share lives, in milliseconds.
    Lasts(u64),
    /// Requests arrive at a gateway.
    Requests(usize, u32, Fate),
    /// A gateway looks what it must tell.
    Looks(usize, Fate),
    /// A gateway crashes, and has forgotten everything.
    Crashes(usize),
    /// A gateway stops, and gives everything back.
    Stops(usize),
    /// The oldest late message arrives.
    Arrives,
    /// A gateway forgets a counter that has no effect any more.
    Forgets(usize),
}

impl<'a> Fleet<'a> {
    fn new(runtime: &'a Runtime, redis: &Redis, rate: Rate, clocks: Vec<(u64, i64)>, name: &str) -> Self {
        let client = redis::Client::open(redis.url()).unwrap();
        let servers =
            runtime.block_on(async { Servers::connect(&LimitServers::One(Box::new(client))).unwrap() });
        Self {
            runtime,
            servers,
            scripts: (0..clocks.len()).map(|at| Script::new("test", &format!("gateway-{at}"))).collect(),
            counters: vec![LimitState::fresh(&rate).into(); clocks.len()],
            clocks,
            rate,
            name: name.to_owned(),
            now: 0,
            admitted: Vec::new(),
            late: Vec::new(),
            shares: 0,
        }
    }

    /// The time at a gateway.
    fn at(&self, gateway: usize) -> Moment {
        let (origin, faster) = self.clocks[gateway];
        let passed = i128::from(self.now) * i128::from(1000 + faster) / 1000;
        Moment(origin + u64::try_from(passed).unwrap())
    }

    fn deliver(&mut self, (gateway, ask, history): &Message) -> Answer {
        let name = (self.name.as_str(), "limit");
        let at = Some(BEGINNING + self.now / 1000);
        let script = &self.scripts[*gateway];
        let call = script.call(&mut self.servers, name, &self.rate, (ask, history), at);
        self.runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(5), call).await.unwrap() })
            .unwrap()
    }

    /// A gateway sends a message.
    fn send(&mut self, gateway: usize, gives_up: bool, fate: Fate) {
        let now = self.at(gateway);
        let Some((ask, history)) = self.counters[gateway].ask(&self.rate, gives_up, now) else { return };
        let message = (gateway, ask, history);
        let answer = match fate {
            Fate::Lost => None,
            Fate::Late => {
                self.late.push(message.clone());
                None
            }
            Fate::AnswerLost => {
                self.deliver(&message);
                None
            }
            Fate::Answered => Some(self.deliver(&message)),
            Fate::Repeated => {
                self.late.push(message.clone());
                Some(self.deliver(&message))
            }
        };
        match answer {
            Some(answer) => self.counters[gateway].answered(&message.1, answer, now),
            None => self.counters[gateway].unanswered(now),
        }
    }

    /// A request arrives. Returns true if it is admitted.
    fn request(&mut self, gateway: usize, fate: Fate) -> bool {
        for is_last in [false, true] {
            let now = self.at(gateway);
            self.shares += 1 << 32;
            let id = self.shares;
            match self.counters[gateway].peek_share(|| id, now) {
                Peeked::Decided(status) if status.admitted => {
                    self.admitted.push(self.now);
                    if self.counters[gateway].take_shared(&self.rate, 1, now) {
                        self.send(gateway, false, fate);
                    }
                    return true;
                }
                Peeked::Decided(_) => return false,
                Peeked::Unknown if !is_last && self.counters[gateway].wait() => {
                    self.send(gateway, false, fate);
                }
                Peeked::Unknown => return false,
                Peeked::Silent => {
                    if self.counters[gateway].probe(now) {
                        self.send(gateway, false, fate);
                    }
                    return false; // as with `outage = "closed"`
                }
            }
        }
        false
    }

    fn happens(&mut self, event: &Event) {
        match *event {
            Event::Passes(parts) => self.now += window(&self.rate) / 1000 * parts,
            Event::Lasts(millis) => self.now += millis * 1_000_000,
            Event::Requests(gateway, n, fate) => {
                for _ in 0..n {
                    self.request(gateway, fate);
                }
            }
            Event::Looks(gateway, fate) => {
                let now = self.at(gateway);
                if self.counters[gateway].must_ask(now) == Some(true) {
                    self.send(gateway, false, fate);
                }
            }
            Event::Crashes(gateway) => self.counters[gateway] = LimitState::fresh(&self.rate).into(),
            Event::Forgets(gateway) if self.counters[gateway].is_fresh(self.at(gateway)) => {
                self.counters[gateway] = LimitState::fresh(&self.rate).into();
            }
            Event::Forgets(_) => {}
            Event::Stops(gateway) => self.send(gateway, true, Fate::Answered),
            Event::Arrives if self.late.is_empty() => {}
            Event::Arrives => {
                let message = self.late.remove(0);
                self.deliver(&message);
            }
        }
    }

    /// Checks what was admitted against the definition of the algorithm.
    fn judge(&self) {
        for (first, from) in self.admitted.iter().enumerate() {
            for (last, to) in self.admitted.iter().enumerate().skip(first) {
                let (n, span) = ((last - first + 1) as u64, to - from);
                let most = match self.rate.algorithm {
                    Algorithm::SlidingWindow if span >= window(&self.rate) => break,
                    Algorithm::SlidingWindow => u64::from(self.rate.requests),
                    // To a microsecond, in which the store counts.
                    Algorithm::Gcra => u64::from(self.rate.burst) + (span + 1000) / self.rate.interval,
                };
                assert!(n <= most, "{n} requests within {span} ns: {:?}", self.rate);
            }
        }
    }
}

fn window(rate: &Rate) -> u64 {
    rate.interval * u64::from(rate.requests)
}

fn rate(algorithm: Algorithm, requests: u32, burst: u32, window: Duration) -> Rate {
    let limit = tollgate::policy::limit::Limit {
        name: "test".into(),
        id: tollgate::types::NameId(1),
        requests,
        window,
        burst,
        algorithm,
        scope: tollgate::policy::limit::Scope::Key,
        routes: Vec::new(),
        except: Vec::new(),
        methods: tollgate::policy::route::Methods::All,
        shadow: false,
        adds: false,
        outage: None,
        numbers: Numbers::of("test", requests, window),
    };
    limit.rate()
}

fn rates() -> impl Strategy<Value = Rate> {
    let windows = prop_oneof![Just(500), Just(1000), Just(10_000), Just(60_000)];
    (any::<bool>(), 1u32..200, 1u32..50, windows).prop_map(|(is_gcra, requests, burst, window)| {
        let algorithm = if is_gcra { Algorithm::Gcra } else { Algorithm::SlidingWindow };
        rate(algorithm, requests, burst, Duration::from_millis(window))
    })
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let fate = prop_oneof![
        8 => Just(Fate::Answered),
        1 => Just(Fate::AnswerLost),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Repeated),
        1 => Just(Fate::Late),
    ];
    let event = prop_oneof![
        10 => (0..GATEWAYS, 1u32..40, fate.clone()).prop_map(|(at, n, fate)| Event::Requests(at, n, fate)),
        6 => (1u64..50).prop_map(Event::Passes),
        2 => (50u64..1200).prop_map(Event::Passes),
        1 => (7_000u64..14_000).prop_map(Event::Lasts),
        5 => (0..GATEWAYS, fate).prop_map(|(at, fate)| Event::Looks(at, fate)),
        1 => (0..GATEWAYS).prop_map(Event::Crashes),
        1 => (0..GATEWAYS).prop_map(Event::Stops),
        2 => Just(Event::Arrives),
        3 => (0..GATEWAYS).prop_map(Event::Forgets),
    ];
    proptest::collection::vec(event, 1..120)
}

fn clocks() -> impl Strategy<Value = Vec<(u64, i64)>> {
    proptest::collection::vec((0u64..1 << 50, -9i64..=9), GATEWAYS)
}

/// Number of random sequences: some; `TOLLGATE_LONG=1` makes many.
fn cases() -> u32 {
    if std::env::var_os("TOLLGATE_LONG").is_some() { 20_000 } else { 150 }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_fleet_never_admits_more_than_a_limit_allows() {
    let Some(redis) = Redis::start() else { return missing("Redis", "Debian's package redis-server") };
    let (runtime, case) = (runtime(), std::cell::Cell::new(0));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let ran = runner.run(&(rates(), clocks(), events()), |(rate, clocks, events)| {
        case.set(case.get() + 1);
        let mut fleet = Fleet::new(&runtime, &redis, rate, clocks, &case.get().to_string());
        events.iter().for_each(|event| fleet.happens(event));
        fleet.judge();
        Ok(())
    });
    ran.unwrap();
}

/// The share that is admitted after the first window, of what a limit allows or of what is asked for: so many hundredths of the
/// limit. `of`: how many of the gateways get requests.
fn admitted(redis: &Redis, runtime: &Runtime, rate: Rate, of: usize, percent: u64) -> f64 {
    let name = format!("{rate:?} {of} {percent}");
    let clocks = vec![(1 << 40, 0); GATEWAYS];
    let mut fleet = Fleet::new(runtime, redis, rate, clocks, &name);
    let (step, windows) = (window(&rate) / 1000, 4);
    let mut asked = 0;
    for at in 0..1000 * (windows + 1) {
        fleet.now = at * step;
        while asked < at * percent * u64::from(rate.requests) / 100_000 {
            fleet.request(asked as usize % of, Fate::Answered);
            asked += 1;
        }
        for gateway in 0..GATEWAYS {
            if at % 10 == 0 {
                fleet.happens(&Event::Looks(gateway, Fate::Answered));
                fleet.happens(&Event::Forgets(gateway));
            }
        }
    }
    fleet.judge();
    let first = window(&rate);
    let counted = fleet.admitted.iter().filter(|at| **at >= first).count();
    counted as f64 * 100.0 / (windows * u64::from(rate.requests) * percent.min(100)) as f64
}

#[test]
fn a_fleet_admits_nearly_what_a_limit_allows() {
    let Some(redis) = Redis::start() else { return missing("Redis", "Debian's package redis-server") };
    let runtime = runtime();
    for algorithm in [Algorithm::SlidingWindow, Algorithm::Gcra] {
        for (requests, window) in [(60, 60_000), (100, 10_000), (300, 1000), (30, 1000), (3, 1000)] {
            let rate = rate(algorithm, requests, requests, Duration::from_millis(window));
            for percent in [95, 300] {
                let even = admitted(&redis, &runtime, rate, GATEWAYS, percent);
                let one = admitted(&redis, &runtime, rate, 1, percent);
                println!(
                    "{algorithm:?} {requests} per {window} ms, {percent} %: {even:.3}, at one gateway {one:.3}"
                );
                assert!(even >= 0.95 && one >= 0.9, "{rate:?}, {percent} %: {even}, at one gateway {one}");
            }
        }
    }
}
