//! Promises 1 to 7 over a fleet whose gateways, database and store of limits are lost in any order: killed, paused, or cut off.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::crash::{StopAtEnd, client};
use crate::network::{Mode, Network};
use crate::redis_server::Redis;
use crate::support::audit::{Books, Line, Round};
use crate::support::{Gateway, Upstream};

use super::limits::{WINDOW, installed, judge, judged_limit, try_status};
use super::{Fleet, NAMES, ledger};

/// Clients of each gateway whose requests are charged.
const CLIENTS: usize = 2;
/// Longest time until a gateway serves again once an engine is back, on a busy machine.
const MAX_BACK: Duration = Duration::from_secs(60);

/// Number of losses with `TOLLGATE_LONG=1`.
const MANY: usize = 200;

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

/// What is lost: a few things, or all of them again and again, in a random order.
fn losses(random: &mut fastrand::Rng) -> Vec<(What, How)> {
    if std::env::var_os("TOLLGATE_LONG").is_none() {
        return vec![
            (What::Database, How::Killed),
            (What::Gateway(0), How::CutOff),
            (What::Store, How::Killed),
            (What::Database, How::CutOff),
            (What::Gateway(1), How::Killed),
            (What::Database, How::Paused),
        ];
    }
    let gateways = (0..NAMES.len()).map(What::Gateway);
    let whats: Vec<What> = gateways.chain([What::Database, What::Store]).collect();
    let each = |what| [How::Killed, How::Paused, How::CutOff].map(|how| (what, how));
    let all: Vec<(What, How)> = whats.into_iter().flat_map(each).collect();
    let again = std::iter::repeat_with(|| {
        let mut all = all.clone();
        random.shuffle(&mut all);
        all
    });
    again.flatten().take(MANY).collect()
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
                self.networks_of(what).iter().for_each(|network| network.set(Mode::Silent));
                wait();
                self.networks_of(what).iter().for_each(|network| network.set(Mode::Up));
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

/// Promise 7: no log has a key, or a part of a body.
fn judge_logs(gateways: &[Gateway]) {
    let lines = gateways.iter().flat_map(Gateway::lines);
    let told =
        lines.filter(|line| ["good-key", "the response to"].iter().any(|secret| line.contains(secret)));
    assert_eq!(told.count(), 0);
}

/// Loses something under load. Returns how long it took until all gateways served again.
fn lose_under_load(
    place: &mut Place,
    (what, how, time): (What, How, Duration),
    next: &AtomicU64,
    served: &[Served; NAMES.len()],
) -> Duration {
    let stop = AtomicBool::new(false);
    let addresses: Vec<_> = place.fleet.gateways.iter().map(|gateway| gateway.public).collect();
    std::thread::scope(|scope| {
        for (address, Served { lines, decided }) in addresses.iter().zip(served) {
            let stop = &stop;
            for _ in 0..CLIENTS {
                scope.spawn(move || client(*address, next, lines, stop));
            }
            scope.spawn(move || limited(*address, decided, stop));
        }
        let _stop = StopAtEnd(&stop);
        until_served(served);
        place.lose(what, how, time);
        match (how, what) {
            // Its clients have the address of before.
            (How::Killed, What::Gateway(at)) => {
                let start = Instant::now();
                let decides = |address| matches!(try_status(address), Some(200 | 429));
                while !decides(place.fleet.gateways[at].public) {
                    assert!(start.elapsed() < MAX_BACK, "it does not serve again");
                }
                let others = served.iter().enumerate().filter(|(other, _)| *other != at);
                others.for_each(|(_, one)| {
                    until_served(std::slice::from_ref(one));
                });
                start.elapsed()
            }
            _ => until_served(served),
        }
    })
}

#[test]
fn whatever_is_lost_in_any_order_nothing_is_lost_or_doubled() {
    let Some(mut place) = Place::start() else { return };
    let mut random = fastrand::Rng::with_seed(1);
    let (next, mut requests, mut slowest, mut admitted) = (AtomicU64::new(1), 0, Duration::ZERO, 0);
    // Admitted requests since the store last lost its counts.
    let (mut counted, mut before) = (Vec::new(), Books::read(&place.fleet.gateways[0], "acme"));
    let losses = losses(&mut random);
    for (what, how) in &losses {
        place.fleet.upstream.clear();
        let (served, time) =
            (<[Served; NAMES.len()]>::default(), Duration::from_millis(random.u64(200..3_000)));
        let back = lose_under_load(&mut place, (*what, *how, time), &next, &served);
        println!("{what:?} {how:?} for {time:?}: served after {back:?}");
        slowest = slowest.max(back);
        judge_logs(&place.fleet.gateways);
        place.fleet.restart();
        let after = Books::read(&place.fleet.gateways[0], "acme");
        let mut lines = Vec::new();
        if (*what, *how) == (What::Store, How::Killed) {
            judge(std::mem::take(&mut counted));
            std::thread::sleep(WINDOW); // for one window the fleet may admit more
        }
        for Served { lines: some, decided } in served {
            lines.extend(some.into_inner().unwrap());
            let decided = decided.into_inner().unwrap().into_iter();
            let some: Vec<_> =
                decided.filter(|one| one.2).map(|(sent, answered, _)| (sent, answered)).collect();
            admitted += some.len();
            if (*what, *how) != (What::Store, How::Killed) {
                counted.extend(some);
            }
        }
        let seen = place.fleet.upstream.seen().into_iter();
        let seen: Vec<_> = seen.filter(|seen| !seen.target().starts_with("/free")).collect();
        Round { seen: &seen, lines: &lines, before: &before, after: &after, whole: false }.judge();
        requests += lines.len();
        before = after;
    }
    judge(counted);
    println!(
        "{} losses, {requests} requests, {} holds in doubt, {admitted} admitted by the limit; served again after at most \
         {slowest:?}",
        losses.len(),
        before.doubts.len()
    );
    assert_eq!(place.fleet.gateways[1].json(&["ledger", "verify"])["found"], 0);
}
