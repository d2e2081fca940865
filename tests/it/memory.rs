//! Tests that memory does not grow over a long time with mixed load, reloads, and keys that are created and revoked.
//!
//! Resident memory is sampled from outside. After the warm-up the gateway has all the memory that it needs, and only
//! noise may be added. At the end all charges must be exact, although some clients disconnected during a request.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Client, Gateway, Upstream, config, get, sha256};

/// Bytes that the allocator may still add after the warm-up. It takes and returns memory in steps of about 2 MiB; up to
/// three steps were seen at the same time.
const NOISE: u64 = 12 << 20;
/// Bytes that each request may leave behind in addition. The expected number is 0, but a leak of one byte per request
/// would take long to show.
const BYTES_PER_REQUEST: u64 = 8;
const CLIENTS: u64 = 3;
/// Credits of each account, more than any run spends.
const GRANTED: u64 = 1_000_000_000;
/// How often the configuration is rewritten, and a key is created and revoked.
const CONTROL_EVERY: Duration = Duration::from_millis(400);

/// Duration of the run: twenty seconds; two minutes with `TOLLGATE_LONG=1`; with a larger number, that many seconds.
fn duration() -> Duration {
    let long = std::env::var("TOLLGATE_LONG").ok();
    match long.map(|text| text.parse::<u64>().unwrap_or(1)) {
        None => Duration::from_secs(20),
        Some(0 | 1) => Duration::from_secs(120),
        Some(seconds) => Duration::from_secs(seconds),
    }
}

fn text() -> String {
    let account = |name: &str, plan: &str| {
        let hash = sha256(&format!("{name}-key"));
        format!(
            "[accounts.{name}]\n{plan}credits = {GRANTED}\n[[accounts.{name}.keys]]\nlabel = \"k\"\nsha256 = \"{hash}\"\n"
        )
    };
    let plan = "[plans.tight]\nlimits = [{ name = \"l\", requests = 20, window = \"1s\" }, { name = \"w\", requests = 900, window = \"60s\", algorithm = \"sliding-window\", scope = \"account\" }]\n";
    // All unknown keys come from one address in this test.
    let plan = format!("{plan}[auth]\nfailed_keys_per_minute = 0\n");
    let more = [&*plan, &account("tight", "plan = \"tight\"\n"), &account("gone", "")].concat();
    config(&more).replace("credits = 1000\n", &format!("credits = {GRANTED}\n"))
}

/// The number of requests sent, and the charges that are expected for them.
#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    acme: AtomicU64,
    tight: AtomicU64,
    limited: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::SeqCst);
}

/// Sends one client's requests, one kind after the other. Every round ends with connections that are cut off.
fn client(address: SocketAddr, counts: &Counts, stop: &AtomicBool) {
    let body = "x".repeat(8192);
    let get = |key: &str| format!("GET /one HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\n\r\n");
    let post = format!(
        "POST /free/a?b=c HTTP/1.1\r\nhost: a\r\nx-api-key: good-key\r\nx-response-echo: 1\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    while !stop.load(Ordering::SeqCst) {
        let mut client = Client::connect(address);
        for round in 0..20 {
            let response = client.ask(get("good-key")).unwrap();
            assert_eq!((response.status, response.charged()), (200, Some("1")));
            count(&counts.acme);
            assert_eq!(client.ask(get(&format!("unknown-{round}"))).unwrap().status, 401);
            match client.ask(get("tight-key")).unwrap().status {
                200 => count(&counts.tight),
                429 => count(&counts.limited),
                other => panic!("{other}"),
            }
            assert_eq!(client.ask(&post).unwrap().body.len(), body.len());
            assert_eq!(client.ask("GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n").unwrap().status, 404);
            counts.requests.fetch_add(5, Ordering::SeqCst);
        }
        // Connections that are cut off in the head, in the body, and while the response is pending.
        client.send("GET /one HTTP/1.1\r\nhost: a\r\nx-api").unwrap();
        Client::connect(address).send(&post[..post.len() - 100]).unwrap();
        let delayed = get("gone-key").replace("\r\n\r\n", "\r\nx-response-delay: 20\r\n\r\n");
        let mut gone = Client::connect(address);
        gone.send(delayed).unwrap();
        std::thread::sleep(Duration::from_millis(5)); // without this, the request might not be read at all
        drop(gone);
        counts.requests.fetch_add(3, Ordering::SeqCst);
    }
}

/// Reloads the configuration; creates, uses, rotates and revokes a key.
fn control(gateway: &Gateway, round: u64, counts: &Counts) {
    let text = gateway.config();
    let text = text.split("# round").next().unwrap();
    gateway.write_config(&format!("{text}# round {round}\n"));
    gateway.json(&["reload"]);
    let made = gateway.json(&["key", "create", "--account", "acme", "--label", "passing"]);
    let id = made["id"].as_str().unwrap();
    let rotated = gateway.json(&["key", "rotate", id, "--overlap", "1h"]);
    for key in [&made, &rotated] {
        let header = format!("x-api-key: {}\r\n", key["key"].as_str().unwrap());
        assert_eq!(get(gateway.public, "/one", &header).status, 200);
        count(&counts.acme);
    }
    gateway.json(&["key", "revoke", id]);
}

/// Resident bytes of a process.
fn resident(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// The median of the samples taken in a part of the run, with the requests served by its middle.
fn median(samples: &[(u64, u64)]) -> (u64, u64) {
    let mut bytes: Vec<u64> = samples.iter().map(|(bytes, _)| *bytes).collect();
    bytes.sort_unstable();
    (bytes[bytes.len() / 2], samples[samples.len() / 2].1)
}

/// Requests of the account `gone` that reached the upstream. Each got a 200, so each costs 1.
fn take_gone(upstream: &Upstream) -> u64 {
    let gone = |seen: &crate::support::Seen| seen.header("x-tollgate-account") == Some("gone");
    upstream.take().iter().filter(|seen| gone(seen)).count() as u64
}

#[test]
fn mixed_load_leaves_nothing_behind_and_costs_exactly_what_it_should() {
    let (upstream, duration) = (Upstream::start(), duration());
    let gateway = Gateway::start(&text(), &upstream);
    let (counts, stop) = (Counts::default(), AtomicBool::new(false));
    let (mut gone, mut samples) = (0, Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| client(gateway.public, &counts, &stop));
        }
        let controlling = scope.spawn(|| {
            let mut round = 0;
            while !stop.load(Ordering::SeqCst) {
                control(&gateway, round, &counts);
                round += 1;
                std::thread::sleep(CONTROL_EVERY);
            }
        });
        let start = Instant::now();
        while start.elapsed() < duration && !controlling.is_finished() {
            std::thread::sleep(duration / 200);
            gone += take_gone(&upstream);
            samples.push((resident(gateway.id()), counts.requests.load(Ordering::SeqCst)));
        }
        stop.store(true, Ordering::SeqCst);
    });
    // The first quarter is the warm-up. The first and the last third of the rest are compared.
    let rest = &samples[samples.len() / 4..];
    let (early, late) = (median(&rest[..rest.len() / 3]), median(&rest[2 * rest.len() / 3..]));
    let (grown, requests) = (late.0.saturating_sub(early.0), late.1 - early.1);
    println!("{requests} requests between {} and {} bytes resident", early.0, late.0);
    assert!(grown <= NOISE + requests * BYTES_PER_REQUEST, "{grown} bytes more after {requests} requests");
    assert!(counts.limited.load(Ordering::SeqCst) > 0, "the limit was reached");

    let settled = Instant::now();
    let spent = |account: &str| GRANTED - gateway.available(account).parse::<u64>().unwrap();
    while spent("gone") != gone && settled.elapsed() < Duration::from_secs(5) {
        gone += take_gone(&upstream); // requests in flight are completed
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(gone > 0, "some went while their response was made");
    assert_eq!(spent("gone"), gone, "what the upstream answered is charged, also if the client is gone");
    assert_eq!(spent("acme"), counts.acme.load(Ordering::SeqCst));
    assert_eq!(spent("tight"), counts.tight.load(Ordering::SeqCst));
    assert_eq!(gateway.json(&["ledger", "verify"])["differences"], serde_json::json!([]));
}

/// A connection's buffers take small pages, so that they cost only the memory that is used, not a huge page.
#[test]
fn connections_get_small_pages() {
    let gateway = Gateway::start(&config(""), &Upstream::start());
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    assert!(status.contains("THP_enabled:\t0"), "{status}");
}
