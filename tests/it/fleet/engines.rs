//! Promises 1 to 6 over a fleet whose gateways, database and store of limits are lost in any order: killed, paused, or cut off.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::crash::client;
use crate::network::{Mode, Network};
use crate::redis_server::Redis;
use crate::support::audit::{Books, Line, Round};
use crate::support::{Gateway, Upstream};

use super::faults::StopAtEnd;
use super::limits::{installed, judge, judged_limit, try_status};
use super::{Fleet, NAMES, ledger};

/// Clients of each gateway whose requests are charged.
const CLIENTS: usize = 2;
/// Longest time until a gateway serves again once an engine is back, on a busy machine.
const MAX_BACK: Duration = Duration::from_secs(60);
/// As in [`MAX_BACK`], on an idle machine.
const BACK: Duration = Duration::from_secs(2);

/// Number of losses: a few; `TOLLGATE_LONG=1` makes 200.
fn rounds() -> usize {
    if std::env::var_os("TOLLGATE_LONG").is_some() { 200 } else { 6 }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Gateway(usize),
    Database,
    Store,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Killed,
    Paused,
    /// Nothing arrives, in no direction.
    CutOff,
}

/// All losses, as often as it takes, in a random order.
fn losses(random: &mut fastrand::Rng) -> impl Iterator<Item = (What, How)> {
    let gateways = (0..NAMES.len()).map(What::Gateway);
    let whats: Vec<What> = gateways.chain([What::Database, What::Store]).collect();
    let each = |what| [How::Killed, How::Paused, How::CutOff].map(|how| (what, how));
    let all: Vec<(What, How)> = whats.into_iter().flat_map(each).collect();
    std::iter::repeat_with(move || {
        let mut all = all.clone();
        random.shuffle(&mut all);
        all
    })
    .flatten()
}

/// A fleet with a network of each gateway to each engine.
struct Place {
    fleet: Fleet,
    redis: Redis,
    to_database: Vec<Network>,
    to_store: Vec<Network>,
}

/// The port in a URL.
fn port(url: &str) -> u16 {
    let rest = url.rsplit_once("127.0.0.1:").unwrap().1;
    rest.split(|byte: char| !byte.is_ascii_digit()).next().unwrap().parse().unwrap()
}

impl Place {
    fn start() -> Option<Self> {
        let redis = installed(Redis::start())?;
        let (server, text) = ledger("node = \"NAME\"\njournal = \"JOURNAL\"\n")?;
        let upstream = Upstream::start();
        let limit = judged_limit().replace(" }", ", routes = [\"free\"] }");
        let text = text
            .replace("credits = 1000\n", "plan = \"p\"\ncredits = 1000000000\n")
            .replace("[upstreams.api]\n", &format!(
                "[limits]\nstore = \"STORE\"\noutage = \"closed\"\n[plans.p]\nlimits = [{limit}]\n[upstreams.api]\n"
            ));
        let (database, store) = (port(&text), port(&redis.url()));
        let networks = |engine| -> Vec<Network> { NAMES.map(|_| Network::start(engine)).into() };
        let (to_database, to_store) = (networks(database), networks(store));
        let start = |at: usize| {
            let text = text
                .replace(&format!(":{database}/"), &format!(":{}/", to_database[at].port))
                .replace("STORE", &redis.url().replace(&store.to_string(), &to_store[at].port.to_string()))
                .replace("NAME", NAMES[at])
                .replace("JOURNAL", if at == 2 { "local" } else { "shared" });
            Gateway::start(&text, &upstream)
        };
        let gateways = (0..NAMES.len()).map(start).collect();
        Some(Self { fleet: Fleet { gateways, upstream, server }, redis, to_database, to_store })
    }

    fn networks_of(&self, what: What) -> Vec<&Network> {
        match what {
            What::Gateway(at) => vec![&self.to_database[at], &self.to_store[at]],
            What::Database => self.to_database.iter().collect(),
            What::Store => self.to_store.iter().collect(),
        }
    }

    /// Loses something for some time.
    fn lose(&mut self, what: What, how: How, time: Duration) {
        let wait = || std::thread::sleep(time);
        match (how, what) {
            (How::CutOff, what) => {
                self.networks_of(what).iter().for_each(|network| network.set(Mode::IsSilent));
                wait();
                self.networks_of(what).iter().for_each(|network| network.set(Mode::Carries));
            }
            (How::Killed, What::Gateway(at)) => {
                let folder = self.fleet.gateways.remove(at).crash();
                wait();
                self.fleet.gateways.insert(at, Gateway::start_in(folder));
            }
            (How::Killed, What::Database) => {
                self.fleet.server.kill();
                wait();
                self.fleet.server.run();
            }
            (How::Killed, What::Store) => {
                self.redis.kill();
                wait();
                self.redis.run();
            }
            (How::Paused, What::Gateway(at)) => {
                self.fleet.gateways[at].signal("STOP");
                wait();
                self.fleet.gateways[at].signal("CONT");
            }
            (How::Paused, What::Database) => {
                self.fleet.server.pause(true);
                wait();
                self.fleet.server.pause(false);
            }
            (How::Paused, What::Store) => {
                self.redis.pause(true);
                wait();
                self.redis.pause(false);
            }
        }
    }
}

/// A request of the limited route: when it was sent, when it was answered, and whether it was admitted.
type Decided = (Instant, Instant, bool);

/// Makes requests that one limit counts. Those that it cannot decide are tried again.
fn limited(address: SocketAddr, decided: &Mutex<Vec<Decided>>, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        let sent = Instant::now();
        match try_status(address) {
            Some(status @ (200 | 429)) => decided.lock().unwrap().push((sent, Instant::now(), status == 200)),
            Some(503) | None => {}
            Some(other) => panic!("{other}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What clients of one gateway saw.
#[derive(Default)]
struct Served {
    lines: Mutex<Vec<Line>>,
    decided: Mutex<Vec<Decided>>,
}

impl Served {
    fn charged(&self) -> usize {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter(|line| line.price > 0 && !line.received.is_empty()).count()
    }
}

/// Waits until each gateway charges and decides again. Returns how long that took at most.
fn until_served(served: &[Served]) -> Duration {
    let start = Instant::now();
    let charged: Vec<usize> = served.iter().map(Served::charged).collect();
    let is_back = |(served, charged): (&Served, &usize)| {
        served.charged() > *charged && served.decided.lock().unwrap().iter().any(|one| one.0 > start)
    };
    while !served.iter().zip(&charged).all(is_back) {
        assert!(start.elapsed() < MAX_BACK, "a gateway does not serve again");
        std::thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

#[test]
fn whatever_is_lost_in_any_order_nothing_is_lost_or_doubled() {
    let Some(mut place) = Place::start() else { return };
    let mut random = fastrand::Rng::with_seed(rounds() as u64);
    let mut times = random.fork();
    let (next, mut requests, mut slowest) = (AtomicU64::new(1), 0, Duration::ZERO);
    let (mut all, mut before) = (Vec::new(), Books::read(&place.fleet.gateways[0], "acme"));
    for (what, how) in losses(&mut random).take(rounds()) {
        place.fleet.upstream.clear();
        let (stop, served): (_, [Served; NAMES.len()]) = (AtomicBool::new(false), Default::default());
        let addresses: Vec<_> = place.fleet.gateways.iter().map(|gateway| gateway.public).collect();
        let time = Duration::from_millis(times.u64(200..3_000));
        std::thread::scope(|scope| {
            for (address, Served { lines, decided }) in addresses.iter().zip(&served) {
                let (next, stop) = (&next, &stop);
                for _ in 0..CLIENTS {
                    scope.spawn(move || client(*address, next, lines, stop));
                }
                scope.spawn(move || limited(*address, decided, stop));
            }
            let _stop = StopAtEnd(&stop);
            until_served(&served);
            place.lose(what, how, time);
            if !matches!((how, what), (How::Killed, What::Gateway(_))) {
                let back = until_served(&served);
                println!("{what:?} {how:?} for {time:?}: served after {back:?}");
                slowest = slowest.max(back);
            }
        });
        place.fleet.restart();
        let after = Books::read(&place.fleet.gateways[0], "acme");
        let (seen, mut lines) = (place.fleet.upstream.seen(), Vec::new());
        for Served { lines: some, decided } in served {
            lines.extend(some.into_inner().unwrap());
            all.extend(decided.into_inner().unwrap().into_iter().filter(|(.., is_admitted)| *is_admitted));
        }
        let seen: Vec<_> = seen.into_iter().filter(|seen| !seen.target().starts_with("/free")).collect();
        Round { seen: &seen, lines: &lines, before: &before, after: &after, whole: false }.judge();
        requests += lines.len();
        before = after;
    }
    let (admitted, doubts) = (all.len(), before.doubts.len());
    judge(all.into_iter().map(|(sent, answered, _)| (sent, answered)).collect());
    println!(
        "{} losses, {requests} requests, {doubts} holds in doubt, {admitted} admitted by the limit; served again after at \
         most {slowest:?} (on an idle machine below {BACK:?})",
        rounds()
    );
    assert_eq!(place.fleet.gateways[1].json(&["ledger", "verify"])["found"], 0);
}
