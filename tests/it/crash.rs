//! Tests promises 1 to 5 through `kill -9`: under load, at varying moments, with clients that disconnect, reloads and
//! grants meanwhile. After each crash, the records of the clients, the upstream and the ledger must agree.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::audit::{Books, Line, NUMBER, Round, Saw, millionths};
use crate::support::{Client, Gateway, Upstream, config};

/// Number of crashes: 50; `TOLLGATE_LONG=1` makes twenty times as many, a larger number that many.
fn rounds() -> usize {
    match std::env::var("TOLLGATE_LONG").ok().map(|text| text.parse().unwrap_or(1)) {
        None => 50,
        Some(0 | 1) => 1000,
        Some(rounds) => rounds,
    }
}

const CLIENTS: usize = 6;
/// The hold of routes whose price is in the response, in millionths.
const HOLD: i64 = 10_000_000;
/// In one of so many requests, the client disconnects before the response. Each client does so only a few times in a
/// round, because it is uncertain whether such a request was charged.
const LEAVES: u64 = 24;
const LEAVES_OFTEN: usize = 4;

/// True if a response is Tollgate's own, for example while the ledger cannot be written: the request costs nothing.
fn is_unavailable(received: &[u8]) -> bool {
    let text = String::from_utf8_lossy(received);
    text.starts_with("HTTP/1.1 50") && text.contains("application/problem+json")
}

/// A request with its hold and price, in millionths.
struct Wish {
    hold: i64,
    price: i64,
    request: String,
    body: String,
    leaves: bool,
}

/// Builds a request. Most requests have a price of their own; some cost the hold, some have a price by status, some are
/// free.
fn wish(number: u64) -> Wish {
    let own = 1_000_000 + i64::try_from(number).unwrap();
    let mut body = format!("the response to {number}");
    let (path, hold, price, response) = match number % 16 {
        0..4 => ("/header", HOLD, HOLD, "x-response-header: x-cost: 10\r\n".to_owned()),
        4 => ("/header", HOLD, 1_000_000, "x-response-status: 404\r\n".to_owned()),
        5 => ("/header", HOLD, 0, "x-response-status: 500\r\n".to_owned()),
        6 => ("/one", 1_000_000, 1_000_000, String::new()),
        7 => ("/one", 1_000_000, 0, "x-response-status: 503\r\n".to_owned()),
        8..10 => {
            let cost = tollgate::types::Credits::from_millionths(own);
            body = format!("{{\"number\":{number},\"cost\":{cost}}}");
            ("/json", HOLD, own, String::new())
        }
        _ => {
            let cost = tollgate::types::Credits::from_millionths(own);
            ("/header", HOLD, own, format!("x-response-header: x-cost: {cost}\r\n"))
        }
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: a\r\nx-api-key: good-key\r\n{NUMBER}: {number}\r\nx-response-body: {body}\r\n{response}\r\n"
    );
    Wish { hold, price, request, body, leaves: number % LEAVES == 11 }
}

/// Sends requests until the gateway has ended, and records the responses.
pub fn client(address: SocketAddr, next: &AtomicU64, journal: &Mutex<Vec<Line>>, stop: &AtomicBool) {
    let connect = || std::net::TcpStream::connect(address).map(|_| Client::connect(address));
    let Ok(mut client) = connect() else { return };
    let mut left = 0;
    while !stop.load(Ordering::SeqCst) {
        let number = next.fetch_add(1, Ordering::SeqCst);
        let Wish { hold, price, request, body, leaves } = wish(number);
        let leaves = leaves && left < LEAVES_OFTEN;
        left += usize::from(leaves);
        let mut line = Line { number, hold, price, body, received: Vec::new() };
        if client.send(request).is_ok() && !leaves {
            receive(&mut client, &mut line);
        }
        let refused = is_unavailable(&line.received);
        if refused {
            line = Line { price: 0, received: Vec::new(), ..line };
        }
        let broken = !leaves && !refused && !matches!(line.saw(), Saw::Whole(_));
        journal.lock().unwrap().push(line);
        if broken {
            return;
        }
        if leaves || refused {
            let Ok(another) = connect() else { return };
            client = another;
        }
    }
}

/// Reads until the response is complete, or the connection ends.
fn receive(client: &mut Client, line: &mut Line) {
    let mut buffer = [0; 4096];
    while !is_unavailable(&line.received) && !matches!(line.saw(), Saw::Whole(_)) {
        match client.socket().read(&mut buffer) {
            Ok(count) if count > 0 => line.received.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
}

/// Runs one round: load, with a reload and a grant meanwhile, then a crash.
fn load_and_crash(
    gateway: Gateway,
    number: usize,
    next: &AtomicU64,
    lines: &Mutex<Vec<Line>>,
) -> Arc<tempfile::TempDir> {
    let (stop, address, text) = (AtomicBool::new(false), gateway.public, gateway.config());
    let folder = Arc::clone(&gateway.folder);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| client(address, next, lines, &stop));
        }
        scope.spawn(|| {
            // The crash may come before the reload or the grant, or interrupt them.
            std::fs::write(folder.path().join(".next"), format!("{text}\n# {number}\n")).unwrap();
            std::fs::rename(folder.path().join(".next"), folder.path().join("config.toml")).unwrap();
            crate::support::cli(folder.path(), &grant(number));
        });
        // The delay is not random, but varies from round to round: 20 to 220 ms.
        std::thread::sleep(Duration::from_millis(20 + (number as u64 * 73) % 200));
        let folder = gateway.crash();
        stop.store(true, Ordering::SeqCst);
        folder
    })
}

fn grant(number: usize) -> [&'static str; 6] {
    let reference: &'static str = format!("round-{number}").leak();
    ["account", "grant", "acme", "7", "--reference", reference]
}

#[test]
fn what_was_answered_is_charged_once_and_what_was_not_is_free_or_in_doubt() {
    crash_and_judge(&config(""), rounds(), |folder| folder);
}

/// Crashes a gateway under load, and judges what its ledger has after each restart, in the folder that `moved` returns.
pub fn crash_and_judge(
    text: &str,
    rounds: usize,
    moved: impl Fn(Arc<tempfile::TempDir>) -> Arc<tempfile::TempDir>,
) {
    let upstream = Upstream::start();
    let text = text.replace("credits = 1000\n", "credits = 1000000000\n");
    let mut gateway = Gateway::start(&text, &upstream);
    let next = AtomicU64::new(1);
    let mut before = Books::read(&gateway, "acme");
    let (mut requests, mut under_load, mut slowest) = (0, Duration::ZERO, Duration::ZERO);
    for number in 0..rounds {
        upstream.clear();
        let (lines, start) = (Mutex::new(Vec::new()), Instant::now());
        let folder = load_and_crash(gateway, number, &next, &lines);
        under_load += start.elapsed();
        let start = Instant::now();
        gateway = Gateway::start_in(moved(folder));
        slowest = slowest.max(start.elapsed());
        // The grant may have been booked before the crash or not. After this command it is booked exactly once.
        assert!(gateway.cli(&grant(number)).status.success());
        let after = Books::read(&gateway, "acme");
        assert_eq!(after.granted - before.granted, 7_000_000, "a grant with one reference is one grant");
        let (seen, lines) = (upstream.seen(), lines.into_inner().unwrap());
        let round = Round { seen: &seen, lines: &lines, before: &before, after: &after, whole: false };
        assert!(round.doubts().len() <= CLIENTS * 4, "no more than was in flight or just answered");
        round.judge();
        requests += lines.len();
        before = after;
    }
    let rate = requests as f64 / under_load.as_secs_f64();
    println!(
        "{rounds} crashes, {requests} requests ({rate:.0} a second), {} holds in doubt, slowest start {slowest:?}",
        before.doubts.len()
    );
    assert!(requests > rounds * CLIENTS, "there was load");
    give_all_back(&gateway, &before);
    a_round_without_a_crash(&gateway, &upstream, &next);
    assert!(crate::usage::equals_the_entries(&gateway, "acme") > 0);
}

/// Promise 5 under the same load: a client that disconnects is charged like every other client.
fn a_round_without_a_crash(gateway: &Gateway, upstream: &Upstream, next: &AtomicU64) {
    load_and_judge(gateway, upstream, next, || std::thread::sleep(Duration::from_millis(300)));
}

/// Stops the clients, also if the test fails.
pub struct StopAtEnd<'a>(pub &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Judges the requests that are made while something is done.
pub fn load_and_judge(
    gateway: &Gateway,
    upstream: &Upstream,
    next: &AtomicU64,
    done: impl FnOnce(),
) -> Vec<Line> {
    upstream.clear();
    let before = Books::read(gateway, "acme");
    let (stop, lines) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| client(gateway.public, next, &lines, &stop));
        }
        let _stop = StopAtEnd(&stop);
        done();
    });
    let account = || gateway.json(&["account", "show", "acme"]);
    while account()["available"] != account()["balance"] {
        std::thread::sleep(Duration::from_millis(20)); // requests of disconnected clients are still in flight
    }
    let (seen, lines, after) = (upstream.seen(), lines.into_inner().unwrap(), Books::read(gateway, "acme"));
    Round { seen: &seen, lines: &lines, before: &before, after: &after, whole: true }.judge();
    lines
}

/// Promise 4: one command gives a hold in doubt back, once.
fn give_all_back(gateway: &Gateway, books: &Books) {
    let mut given = 0;
    for (id, amount) in books.doubts.iter().take(5) {
        let response = gateway.json(&["ledger", "give-back", id]);
        assert_eq!(
            (&response["repeated"], millionths(&response["amount"])),
            (&serde_json::json!(false), *amount)
        );
        assert_eq!(gateway.json(&["ledger", "give-back", id])["repeated"], true);
        given += amount;
    }
    let before = books.granted - books.charged - books.doubts.values().sum::<i64>();
    let after = gateway.available("acme").parse::<tollgate::types::Credits>().unwrap().millionths();
    assert_eq!(after - before, given);
    Books::read(gateway, "acme");
}
