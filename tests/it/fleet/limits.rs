//! Promise 6 over a fleet: limits that its gateways count together in Redis.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::redis_server::Redis;

use crate::support::{Authority, Gateway, eventually, get, missing};

use super::{Fleet, NAMES};

/// Requests per window of the limit that is judged.
const REQUESTS: usize = 200;
pub(super) const WINDOW: Duration = Duration::from_secs(2);
/// Longest time that a request may take whose gateway must ask a store that does not answer, on a busy machine.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// Within this time a store that is back is used again.
const BACK: Duration = Duration::from_secs(2);

/// A request that was admitted: when it was sent, and when it was answered.
type Admitted = (Instant, Instant);

/// Three gateways that count limits together. `more`: what else stands in `[limits]`.
fn fleet(urls: &[String], limits: &str, more: &str) -> Option<Fleet> {
    let store = format!("[limits]\nstore = {urls:?}\n{more}\n");
    Fleet::start("shared", |text| {
        let text = text.replace("[accounts.acme]\n", "[accounts.acme]\nplan = \"p\"\n");
        let text = text.replace("[admin]\n", "[admin]\nopen = [\"/metrics\"]\n");
        text.replace(
            "[upstreams.api]\n",
            &format!("{store}[plans.p]\nlimits = [{limits}]\n[upstreams.api]\n"),
        )
    })
}

fn start(limits: &str, more: &str) -> Option<(Redis, Fleet)> {
    let redis = installed(Redis::start())?;
    let fleet = fleet(&[redis.url()], limits, more)?;
    Some((redis, fleet))
}

/// Says so if Redis is not installed.
pub(super) fn installed<T>(started: Option<T>) -> Option<T> {
    if started.is_none() {
        missing("Redis", "Debian's package redis-server");
    }
    started
}

fn status(address: SocketAddr) -> u16 {
    get(address, "/free/x", "x-api-key: good-key\r\n").status
}

/// As [`status`]; `None` if the gateway ends.
pub(super) fn try_status(address: SocketAddr) -> Option<u16> {
    let mut connection = TcpStream::connect(address).ok()?;
    connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let request = "GET /free/x HTTP/1.1\r\nhost: a\r\nx-api-key: good-key\r\nconnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).ok()?;
    let mut response = Vec::new();
    connection.read_to_end(&mut response).ok()?;
    std::str::from_utf8(response.get(9..12)?).ok()?.parse().ok()
}

/// Makes requests at these gateways, more than are admitted, until `during` has ended.
fn load(addresses: &[SocketAddr], during: impl FnOnce()) -> Vec<Admitted> {
    let (stop, admitted) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for address in addresses {
            let (stop, admitted) = (&stop, &admitted);
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let sent = Instant::now();
                    match try_status(*address) {
                        Some(200) => admitted.lock().unwrap().push((sent, Instant::now())),
                        Some(429 | 503) | None => std::thread::sleep(Duration::from_millis(2)),
                        Some(other) => panic!("{other}"),
                    }
                }
            });
        }
        during();
        stop.store(true, Ordering::SeqCst);
    });
    admitted.into_inner().unwrap()
}

/// Checks that no window has more requests than the limit, whenever each was admitted between its two times.
pub(super) fn judge(mut admitted: Vec<Admitted>) {
    admitted.sort_unstable();
    for (first, (from, _)) in admitted.iter().enumerate() {
        let until = *from + WINDOW;
        let within = admitted[first..].iter().take_while(|(sent, _)| *sent < until);
        let n = within.filter(|(_, answered)| *answered < until).count();
        assert!(n <= REQUESTS, "{n} requests within {WINDOW:?}");
    }
}

/// True if a gateway's metrics have this line.
fn shows(gateway: &Gateway, line: &str) -> bool {
    get(gateway.admin, "/metrics", "").text().lines().any(|shown| shown == line)
}

pub(super) fn judged_limit() -> String {
    format!("{{ name = \"judged\", requests = {REQUESTS}, window = \"2s\", algorithm = \"sliding-window\" }}")
}

#[test]
fn three_gateways_admit_what_one_limit_allows() {
    let Some((_redis, fleet)) = start(&judged_limit(), "") else { return };
    let all: Vec<SocketAddr> = fleet.gateways.iter().map(|gateway| gateway.public).collect();
    for (what, addresses) in [("even", all.clone()), ("at one gateway", vec![all[1]; 3])] {
        std::thread::sleep(WINDOW * 2);
        let start = Instant::now();
        let admitted = load(&addresses, || std::thread::sleep(WINDOW * 5));
        // The first of each window are admitted at once, so that these are four windows.
        let counted = admitted.iter().filter(|(_, answered)| *answered - start < WINDOW * 4).count();
        println!("{what}: {counted} of {}", REQUESTS * 4);
        assert!(counted * 100 >= REQUESTS * 4 * 90, "{what}: {counted} of {}", REQUESTS * 4);
        judge(admitted);
    }
}

/// Number of rounds: a few; `TOLLGATE_LONG=1` makes many.
fn rounds() -> usize {
    if std::env::var_os("TOLLGATE_LONG").is_some() { 100 } else { 4 }
}

/// Gateways crash or are paused, and the store is paused or cut off from its gateways.
#[test]
fn whatever_is_lost_a_limit_never_admits_more() {
    let Some((redis, mut fleet)) = start(&judged_limit(), "outage = \"closed\"") else { return };
    let mut all = Vec::new();
    for round in 0..rounds() {
        let addresses: Vec<SocketAddr> = fleet.gateways.iter().map(|gateway| gateway.public).collect();
        let admitted = load(&[addresses.clone(), addresses].concat(), || {
            let wait = |millis| std::thread::sleep(Duration::from_millis(millis));
            wait(700);
            match round % 4 {
                0 => {
                    redis.pause(true);
                    wait(1500);
                    redis.pause(false);
                }
                1 => {
                    let folder = fleet.gateways.remove(0).crash();
                    fleet.gateways.insert(0, Gateway::start_in(folder));
                }
                2 => {
                    fleet.gateways[1].signal("STOP");
                    wait(1500);
                    fleet.gateways[1].signal("CONT");
                }
                _ => drop(redis.command(&["client", "kill", "type", "normal"])),
            }
            wait(700);
        });
        assert!(admitted.len() > 10, "round {round}: it serves");
        all.extend(admitted);
    }
    println!("{} rounds, {} requests were admitted", rounds(), all.len());
    judge(all);
}

/// While the store is gone, limits do what is set for them, and no request waits for it.
#[test]
fn a_store_that_is_gone_is_not_waited_for() {
    let policies = [("local-share", 20, 429), ("open", 180, 200), ("closed", 0, 503)];
    for (outage, most, then) in policies {
        let limits =
            format!("{{ name = \"hourly\", requests = 60, window = \"1h\", outage = \"{outage}\" }}");
        let Some((mut redis, fleet)) = start(&limits, "outage = \"closed\"") else { return };
        eventually("the gateways know of each other", || shows(&fleet.gateways[0], "tollgate_fleet_nodes 3"));
        redis.kill();
        let (mut admitted, mut last) = (0, 0);
        for _ in 0..=most {
            let start = Instant::now();
            last = status(fleet.gateways[0].public);
            admitted += usize::from(last == 200);
            assert!(start.elapsed() < MAX_WAIT, "{outage}: {:?}", start.elapsed());
        }
        assert_eq!(last, then, "{outage}");
        assert!(outage == "open" || admitted == most, "{outage}: {admitted} of {most}");
        redis.run();
        let start = Instant::now();
        // What was admitted meanwhile counts at all gateways, once it is told.
        let counted = if outage == "open" { 429 } else { 200 };
        eventually("the store is used again", || status(fleet.gateways[0].public) == counted);
        if outage == "open" {
            // However many were admitted, no more counts than the whole burst.
            let refused = get(fleet.gateways[0].public, "/free/x", "x-api-key: good-key\r\n");
            let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
            assert!(wait <= 61, "{wait} s");
        }
        println!("{outage}: used again after {:?} (on an idle machine below {BACK:?})", start.elapsed());
        assert_eq!(status(fleet.gateways[2].public), counted, "{outage}");
    }
}

/// A store that does not answer, although it can be reached, holds up some requests for a moment only.
#[test]
fn a_store_that_hangs_holds_up_a_request_for_a_moment() {
    let Some((redis, fleet)) = start("{ name = \"hourly\", requests = 1000000, window = \"1h\" }", "") else {
        return;
    };
    assert_eq!(status(fleet.gateways[0].public), 200);
    redis.pause(true);
    let longest = (0..200).map(|_| {
        let start = Instant::now();
        assert_eq!(status(fleet.gateways[0].public), 200);
        start.elapsed()
    });
    let longest = longest.max().unwrap();
    redis.pause(false);
    println!("longest: {longest:?}");
    assert!(longest < MAX_WAIT, "{longest:?}");
}

/// Every scope is counted over the fleet, and each limit in a slot of its own in a cluster.
#[test]
fn a_cluster_counts_limits_of_every_scope() {
    let Some(redis) = installed(Redis::start_cluster()) else { return };
    let urls: Vec<String> = redis.iter().map(Redis::url).collect();
    let limits = ["key", "key+route", "account", "address"].map(|scope| {
        let name = scope.replace('+', "-");
        format!(
            "{{ name = \"{name}\", requests = 30, window = \"1h\", scope = \"{scope}\", routes = [\"{}\"] }}",
            if scope == "key+route" { "one" } else { "free" }
        )
    });
    let Some(fleet) = fleet(&urls, &limits.join(", "), "") else { return };
    for path in ["/free/x", "/one"] {
        let admitted = (0..120).filter(|at| {
            let gateway = &fleet.gateways[at % NAMES.len()];
            get(gateway.public, path, "x-api-key: good-key\r\n").status == 200
        });
        let mut admitted = admitted.count();
        assert!((27..=30).contains(&admitted), "{path}: {admitted}");
        // What the others have leased is given back.
        eventually("all are admitted", || {
            admitted +=
                usize::from(get(fleet.gateways[0].public, path, "x-api-key: good-key\r\n").status == 200);
            admitted == 30
        });
        std::thread::sleep(Duration::from_secs(1));
        for gateway in &fleet.gateways {
            assert_eq!(get(gateway.public, path, "x-api-key: good-key\r\n").status, 429, "{path}");
        }
    }
    let keys: usize =
        redis.iter().map(|server| server.command(&["dbsize"]).trim().parse::<usize>().unwrap()).sum();
    assert_eq!(keys, 4);
}

/// With TLS the server's certificate is verified, and the gateways show their own.
#[test]
fn a_store_with_tls_is_verified() {
    let (folder, authority, another) = (tempfile::tempdir().unwrap(), Authority::new(), Authority::new());
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (server, client) = (authority.issue(&["localhost"]), authority.issue(&["gateway"]));
    let (ca, wrong) = (file("ca.pem", &authority.pem), file("another.pem", &another.pem));
    let (certificate, key) = (file("server.pem", &server.certificate), file("server.key", &server.key));
    let Some((_redis, url)) = installed(Redis::start_tls([&ca, &certificate, &key])) else { return };
    let (certificate, key) = (file("client.pem", &client.certificate), file("client.key", &client.key));
    let limit = "{ name = \"hourly\", requests = 3, window = \"1h\" }";
    for (ca, admitted) in [(&ca, 3), (&wrong, 0)] {
        let tls = format!("tls = {{ ca = {ca:?}, certificate = {certificate:?}, private_key = {key:?} }}");
        let Some(fleet) = fleet(std::slice::from_ref(&url), limit, &format!("outage = \"closed\"\n{tls}"))
        else {
            return;
        };
        let (mut seen, mut last) = (0, 0);
        eventually("it is decided", || {
            for gateway in &fleet.gateways {
                last = status(gateway.public);
                seen += usize::from(last == 200);
            }
            seen == admitted && last != 200
        });
        assert_eq!(last, if admitted == 0 { 503 } else { 429 });
        drop(fleet);
    }
}

/// A gateway whose password is refused uses the store again once it is right.
#[test]
fn a_password_that_was_refused_is_tried_again() {
    let Some(redis) = installed(Redis::start()) else { return };
    let allow = |password: &str| {
        redis.command(&["acl", "setuser", "gateway", "reset", "on", password, "~tollgate:*", "+@all"]);
        redis.command(&["client", "kill", "user", "gateway"]);
    };
    allow(">right");
    let url = redis.url().replace("redis://", "redis://gateway:right@");
    let limit = "{ name = \"hourly\", requests = 1000000, window = \"1h\" }";
    let Some(fleet) = fleet(&[url], limit, "outage = \"closed\"") else { return };
    let address = fleet.gateways[0].public;
    eventually("it is used", || status(address) == 200);
    allow(">wrong");
    eventually("it is refused", || status(address) == 503);
    std::thread::sleep(Duration::from_secs(4)); // longer than the client tries again by itself
    allow(">right");
    let start = Instant::now();
    eventually("it is used again", || status(address) == 200);
    println!("used again after {:?} (on an idle machine below {BACK:?})", start.elapsed());
}

/// A gateway that stops gives back what it has not used.
#[test]
fn a_gateway_that_stops_gives_back_its_shares() {
    let Some((_redis, mut fleet)) = start("{ name = \"hourly\", requests = 30, window = \"1h\" }", "") else {
        return;
    };
    for _ in 0..5 {
        assert_eq!(status(fleet.gateways[0].public), 200);
    }
    assert_eq!(fleet.gateways.remove(0).stop().0, Some(0));
    let mut admitted = 0;
    eventually("all others are admitted", || {
        admitted += usize::from(status(fleet.gateways[0].public) == 200);
        admitted == 25
    });
    assert_eq!(status(fleet.gateways[0].public), 429);
    for line in ["tollgate_limit_store_answers 1", "tollgate_limit_shares 0"] {
        eventually(line, || shows(&fleet.gateways[0], line));
    }
}
