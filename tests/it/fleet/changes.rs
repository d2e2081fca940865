//! What is changed at one gateway of a fleet is in force at all of them within a second.

use std::time::{Duration, Instant};

use crate::support::{Gateway, get};

use super::Fleet;

/// Within this time a change is in force, on a machine that is not busy. Tests wait longer.
const SOON: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until requests with a key are answered with a status. Returns how long that took.
fn answers(gateway: &Gateway, key: &str, status: u16) -> Duration {
    let start = Instant::now();
    loop {
        let seen = get(gateway.public, "/free/x", &format!("x-api-key: {key}\r\n")).status;
        if seen == status {
            return start.elapsed();
        }
        assert!(start.elapsed() < PATIENCE, "{seen} instead of {status}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn keys_accounts_and_tokens_are_changed_everywhere() {
    let Some(fleet) = Fleet::start("shared", |text| text) else { return };
    let [a, b, c] = [0, 1, 2].map(|at| &fleet.gateways[at]);
    a.json(&["account", "create", "beta", "--credits", "5"]);
    let key = b.json(&["key", "create", "--account", "acme", "--label", "x"]);
    let (id, secret) = (key["id"].as_str().unwrap().to_owned(), key["key"].as_str().unwrap().to_owned());
    let mut times = vec![answers(c, &secret, 200), answers(a, &secret, 200)];
    // An account of one gateway has keys of another.
    let start = Instant::now();
    let of_beta = loop {
        let made = c.cli(&["key", "create", "--account", "beta", "--label", "y", "--output", "json"]);
        if made.status.success() {
            break serde_json::from_slice::<serde_json::Value>(&made.stdout).unwrap();
        }
        assert!(start.elapsed() < PATIENCE, "{}", String::from_utf8_lossy(&made.stderr));
    };
    let of_beta = of_beta["key"].as_str().unwrap().to_owned();
    times.push(answers(b, &of_beta, 200));
    let rotated = c.json(&["key", "rotate", &id])["key"].as_str().unwrap().to_owned();
    times.push(answers(a, &secret, 401));
    times.push(answers(b, &rotated, 200));
    a.json(&["key", "disable", &id]);
    times.extend([answers(b, &rotated, 401), answers(c, &rotated, 401)]);
    a.json(&["key", "enable", &id]);
    times.push(answers(c, &rotated, 200));
    a.json(&["account", "suspend", "beta"]);
    times.push(answers(b, &of_beta, 403));
    b.json(&["key", "revoke", &id]);
    times.extend([answers(a, &rotated, 401), answers(c, &rotated, 401)]);
    let slowest = times.iter().max().unwrap();
    println!("slowest change: {slowest:?} (on an idle machine below {SOON:?})");
}
