//! Measures the response time of rejected keys, to show whether it reveals why a key was rejected.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tollgate::types::KeyHash;

use crate::gateway::{Door, Gateway, KEY};

/// Responses at the start of a connection that are not counted, because CPU caches are cold.
const WARM_UP: usize = 200;

/// Sends each kind of key in turn, in an order that is shuffled each time, and prints the median times.
pub fn run(upstream: SocketAddr, samples: usize) {
    let gateway = Gateway::start(upstream, Door::Plain, "threads = 1", "failed_keys_per_minute = 0");
    let make = |more: &[&str]| {
        let made =
            gateway.command(&[&["key", "create", "--account", "acme", "--label", "bench"], more].concat());
        let text = |name: &str| made[name].as_str().expect("a key").to_owned();
        (text("id"), text("key"))
    };
    let (disabled, revoked, expired) = (make(&[]), make(&[]), make(&["--expires", "1s"]));
    gateway.command(&["key", "disable", &disabled.0]);
    gateway.command(&["key", "revoke", &revoked.0]);
    std::thread::sleep(Duration::from_secs(2)); // the third key has expired
    let unknown = format!("ak_live_{}", "x".repeat(disabled.1.len() - 8));
    let hash = KeyHash::of(KEY.as_bytes()).to_hex();
    let long = "0".repeat(hash.len());
    let kinds = [
        ("unknown", &unknown),
        ("the same again", &unknown),
        ("malformed", &"!".repeat(unknown.len())),
        ("disabled", &disabled.1),
        ("expired", &expired.1),
        ("revoked", &revoked.1),
        ("unknown, long as a hash", &long),
        ("the same again", &long),
        ("the stored hash", &hash),
    ];
    let requests = kinds.map(|(_, key)| format!("GET /one HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\n\r\n"));
    let mut stream = TcpStream::connect(gateway.address).expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    stream.set_nonblocking(true).expect("a socket that does not block");
    let (mut times, mut bodies) = (kinds.map(|_| Vec::with_capacity(samples)), HashSet::new());
    let mut order: Vec<usize> = (0..kinds.len()).collect();
    for round in 0..samples + WARM_UP {
        fastrand::shuffle(&mut order);
        for &at in &order {
            let (took, response) = ask(&mut stream, requests[at].as_bytes());
            assert!(response.starts_with("HTTP/1.1 401 "), "{response}");
            if round >= WARM_UP {
                times[at].push(took);
            } else {
                bodies.insert(without_id(&response));
            }
        }
    }
    println!("\nrefused keys: {} response(s) but for ids and dates; {samples} samples of each", bodies.len());
    let medians = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2].as_nanos()
    });
    for (at, (name, _)) in kinds.iter().enumerate() {
        let unknown = medians[if at < 6 { 0 } else { 6 }] as f64;
        println!("{name:>24} {:>7} ns {:>+5}", medians[at], medians[at] as f64 - unknown);
    }
}

/// Sends a request and polls for its response without sleeping, because waking a thread takes longer than the
/// differences that are measured.
fn ask(stream: &mut TcpStream, request: &[u8]) -> (Duration, String) {
    let mut buffer = [0; 4096];
    let asked = Instant::now();
    stream.write_all(request).expect("a sent request");
    loop {
        match stream.read(&mut buffer) {
            Ok(count) => return (asked.elapsed(), String::from_utf8_lossy(&buffer[..count]).into_owned()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
}

fn without_id(response: &str) -> String {
    let id =
        response.split("x-request-id: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap_or("?");
    let lines = response.split("\r\n").filter(|line| !line.starts_with("date: "));
    lines.collect::<Vec<_>>().join("\n").replace(id, "")
}
