//! Promises 3 and 4 through `kill -9`: under load, at random moments, line by line.
//!
//! Every request has a price of its own, so the ledger's sums say which requests were charged.
//! After each crash the books, the upstream's journal and the clients' journals must agree.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{Client, Gateway, Upstream, config};

/// Crashes; `TOLLGATE_LONG=1` makes twenty times as many.
fn rounds() -> usize {
    if std::env::var_os("TOLLGATE_LONG").is_some() { 1000 } else { 50 }
}

const CLIENTS: usize = 6;
/// The hold of the route, in millionths.
const HOLD: u64 = 10_000_000;

/// What a client saw of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Saw {
    /// Nothing, or a part of the head.
    Nothing,
    /// The head, which says what was charged; not the end.
    Head(String),
    /// All of it.
    Whole(String),
}

/// A request: what it should cost, and what its client saw. Prices below the hold are all
/// different; every fourth request costs its hold exactly.
#[derive(Clone, Debug)]
struct Line {
    price: u64,
    saw: Saw,
}

fn price_of(number: u64) -> u64 {
    if number.is_multiple_of(4) { HOLD } else { 1_000_000 + number }
}

fn decimal(millionths: u64) -> String {
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}

fn millionths(value: &serde_json::Value) -> i64 {
    value.to_string().parse::<tollgate::types::Credits>().unwrap().millionths()
}

/// Sends requests until the gateway is gone, and journals what came back.
fn client(address: SocketAddr, next: &AtomicU64, journal: &Mutex<Vec<Line>>, stop: &AtomicBool) {
    let Ok(stream) = std::net::TcpStream::connect(address) else { return };
    drop(stream);
    let mut client = Client::connect(address);
    while !stop.load(Ordering::SeqCst) {
        let price = price_of(next.fetch_add(1, Ordering::SeqCst));
        let request = format!(
            "GET /header HTTP/1.1\r\nhost: a\r\nx-api-key: good-key\r\nx-answer-header: x-cost: {}\r\nx-answer-body: 0123456789\r\n\r\n",
            decimal(price)
        );
        let saw = match client.send(request).and_then(|()| client.head()) {
            Err(_) => Saw::Nothing,
            Ok(head) => {
                assert_eq!(head.status, 200);
                let id = head.header("x-request-id").unwrap().to_owned();
                assert_eq!(
                    head.charged().unwrap().parse::<tollgate::types::Credits>().unwrap().millionths(),
                    price as i64
                );
                match client.exactly(10) {
                    Ok(_) => Saw::Whole(id),
                    Err(_) => Saw::Head(id),
                }
            }
        };
        let broken = !matches!(saw, Saw::Whole(_));
        journal.lock().unwrap().push(Line { price, saw });
        if broken {
            return;
        }
    }
}

/// The sum of the charges, as the books say, and the holds in doubt by id.
fn books(gateway: &Gateway) -> (i64, HashMap<String, i64>) {
    let entries = gateway.rows(&["account", "statement", "acme"]);
    let charges = entries.iter().filter(|entry| entry["kind"] == "charge");
    let charged = -charges.map(|entry| millionths(&entry["amount"])).sum::<i64>();
    let doubts = gateway.rows(&["ledger", "in-doubt"]);
    let doubts =
        doubts.iter().map(|doubt| (doubt["id"].as_str().unwrap().to_owned(), millionths(&doubt["amount"])));
    (charged, doubts.collect())
}

/// Whether some of these add up to a sum, all of `must` among them.
fn adds_up(sum: i64, must: &[i64], may: &[i64]) -> bool {
    let left = sum - must.iter().sum::<i64>();
    (0..1_u32 << may.len()).any(|chosen| {
        let picked = may.iter().enumerate().filter(|(at, _)| chosen >> at & 1 == 1);
        picked.map(|(_, amount)| amount).sum::<i64>() == left
    })
}

#[test]
fn what_was_answered_is_charged_once_and_what_was_not_is_free_or_in_doubt() {
    let upstream = Upstream::start();
    let text = config("").replace("credits = 1000\n", "credits = 1000000000\n");
    let mut gateway = Gateway::start(&text, &upstream);
    let next = AtomicU64::new(1);
    let (mut charged, mut doubted): (i64, HashSet<String>) = (0, HashSet::new());
    let (mut requests, mut in_doubt) = (0, 0);
    for round in 0..rounds() {
        upstream.clear();
        let journal = Arc::new(Mutex::new(Vec::new()));
        let (stop, address) = (AtomicBool::new(false), gateway.public);
        let folder = std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| client(address, &next, &journal, &stop));
            }
            // Not random numbers, but no two rounds alike: 20 to 220 ms.
            std::thread::sleep(Duration::from_millis(20 + (round as u64 * 73) % 200));
            let folder = gateway.crash();
            stop.store(true, Ordering::SeqCst);
            folder
        });
        gateway = Gateway::start_in(folder);
        let (charged_now, doubts) = books(&gateway);
        let new_doubts: HashMap<&String, &i64> =
            doubts.iter().filter(|(id, _)| !doubted.contains(*id)).collect();
        assert!(
            new_doubts.values().all(|amount| **amount == HOLD as i64),
            "in doubt means: charged at the hold"
        );
        assert!(
            new_doubts.len() <= CLIENTS * 2,
            "no more than what was in flight or just answered: {}",
            new_doubts.len()
        );
        let lines = journal.lock().unwrap().clone();
        requests += lines.len();
        judge(&upstream, &lines, charged_now - charged, &new_doubts);
        in_doubt += new_doubts.len();
        charged = charged_now;
        doubted.extend(doubts.keys().cloned());
        assert_eq!(gateway.json(&["ledger", "verify"])["differences"], serde_json::json!([]));
        let spent = charged + doubted.len() as i64 * HOLD as i64;
        let left = gateway.available("acme").parse::<tollgate::types::Credits>().unwrap().millionths();
        assert_eq!(left, 1_000_000_000_000_000 - spent, "granted less charged is what is left");
    }
    println!("{} crashes, {requests} requests, {in_doubt} holds in doubt", rounds());
    assert!(requests > rounds() * CLIENTS, "there was load");
    give_all_back(&gateway, &doubted);
}

/// One round: who must have been charged, who may have been, and what the books say.
fn judge(upstream: &Upstream, lines: &[Line], charged: i64, doubts: &HashMap<&String, &i64>) {
    // The id of a request whose client saw nothing is known from the upstream alone.
    let mut answered: HashMap<String, bool> = HashMap::new();
    let mut by_price: HashMap<u64, Vec<String>> = HashMap::new();
    for seen in upstream.seen() {
        let id = seen.header("x-request-id").unwrap().to_owned();
        let price = seen.header("x-answer-header").unwrap().trim_start_matches("x-cost: ");
        let price = price.parse::<tollgate::types::Credits>().unwrap().millionths() as u64;
        by_price.entry(price).or_default().push(id.clone());
        assert_eq!(answered.insert(id, seen.answered), None, "no request reaches the upstream twice");
    }
    let (mut must, mut may) = (Vec::new(), Vec::new());
    let mut known: HashSet<&String> = HashSet::new();
    for line in lines {
        let price = line.price as i64;
        match &line.saw {
            Saw::Whole(id) => {
                assert!(known.insert(id), "each request has an id of its own");
                if doubts.contains_key(id) {
                    assert_eq!(
                        line.price, HOLD,
                        "a charge below its hold is on disk before the last byte leaves"
                    );
                } else {
                    must.push(price);
                }
            }
            // Promise 3: its hold was on disk, so it is charged or in doubt.
            Saw::Head(id) => {
                assert!(known.insert(id));
                if !doubts.contains_key(id) {
                    must.push(price);
                }
            }
            Saw::Nothing => {}
        }
    }
    for line in lines.iter().filter(|line| line.saw == Saw::Nothing) {
        let ids = by_price.get(&line.price).into_iter().flatten();
        for id in ids.filter(|id| !known.contains(id) && !doubts.contains_key(id)) {
            // The upstream answered, the client did not see it: charged or not, but at its price.
            if answered[id] && line.price != HOLD {
                may.push(line.price as i64);
            }
        }
    }
    let of_hold = by_price.get(&HOLD).into_iter().flatten();
    for _ in of_hold.filter(|id| !known.contains(id) && !doubts.contains_key(id) && answered[*id]) {
        may.push(HOLD as i64);
    }
    assert!(may.len() <= CLIENTS * 2, "{} unseen answers", may.len());
    assert!(adds_up(charged, &must, &may), "charged {charged}, answered {must:?}, possible {may:?}");
}

/// Promise 4: given back by one command, once.
fn give_all_back(gateway: &Gateway, doubted: &HashSet<String>) {
    let before = gateway.available("acme").parse::<tollgate::types::Credits>().unwrap().millionths();
    for id in doubted.iter().take(5) {
        assert_eq!(gateway.json(&["ledger", "give-back", id])["repeated"], false);
        assert_eq!(gateway.json(&["ledger", "give-back", id])["repeated"], true);
    }
    let given = doubted.len().min(5) as i64 * HOLD as i64;
    let after = gateway.available("acme").parse::<tollgate::types::Credits>().unwrap().millionths();
    assert_eq!(after - before, given);
    assert_eq!(gateway.json(&["ledger", "verify"])["differences"], serde_json::json!([]));
}
