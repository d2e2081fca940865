//! Tests requests with an `Idempotency-Key` through crashes, upgrades and slow disks (promises 2 to 5). `TOLLGATE_LONG`
//! selects the long run.

use std::sync::Barrier;
use std::time::Duration;

use serde_json::json;

use super::repeats::{ask, config};
use crate::disk::can_trace;
use crate::support::{Client, Gateway, Response, Upstream, eventually, get};

#[test]
fn an_upgrade_keeps_responses_of_requests_in_flight() {
    let upstream = Upstream::start();
    let text = config("").replacen("response_timeout = \"5s\"", "response_timeout = \"60s\"", 1);
    let gateway = Gateway::start(&text, &upstream);
    // One whose head comes later, and one whose body does.
    let slow = ("/one", "x-response-delay: 8000\r\n", "a");
    let streaming = ("/one", "x-response-chunks: aa|bb\r\nx-response-pause: 8000\r\n", "a");
    let mut gateway = std::thread::scope(|scope| {
        let old = &gateway;
        let first = scope.spawn(move || ask(old, "good-key", "slow", slow));
        let second = scope.spawn(move || ask(old, "good-key", "streaming", streaming));
        eventually("the upstream has them", || upstream.seen().len() == 2);
        eventually("one is charged", || old.available("acme") == "998");
        let next = Gateway::upgrade(old);
        for (id, request) in [("slow", slow), ("streaming", streaming)] {
            let refused = ask(&next, "good-key", id, request);
            assert!(refused.text().contains("idempotency_in_progress"), "{id}: {}", refused.text());
        }
        assert_eq!(first.join().unwrap().status, 200);
        assert_eq!(second.join().unwrap().text(), "aabb");
        next
    });
    for _ in 0..2 {
        for (id, request) in [("slow", slow), ("streaming", streaming)] {
            let again = ask(&gateway, "good-key", id, request);
            assert_eq!(again.header("idempotency-replayed"), Some("true"), "{id}: {}", again.text());
        }
        gateway = Gateway::start_in(gateway.crash());
    }
    assert_eq!((upstream.seen().len(), gateway.available("acme")), (2, "998".to_owned()));
    assert_eq!(gateway.rows(&["ledger", "in-doubt"]).len(), 0);
}

/// A charge that the head names is settled there, although the rest of the response is kept.
#[test]
fn charges_at_the_head_are_settled_there() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(""), &upstream);
    let mut client = Client::connect(gateway.public);
    let head = "POST /header HTTP/1.1\r\nhost: a\r\nx-api-key: good-key\r\nidempotency-key: id\r\n\
                x-response-header: x-cost: 1\r\nx-response-chunks: aaa|bbb|ccc\r\nx-response-pause: 5000\r\n\r\n";
    client.send(head).unwrap();
    let begun = client.head().unwrap();
    assert_eq!((begun.charged(), begun.header("x-credits-remaining")), (Some("1"), Some("999")));
    assert_eq!(gateway.available("acme"), "999", "the rest of the hold is free again");
    let gateway = Gateway::start_in(gateway.crash());
    let again = Client::connect(gateway.public).ask(head).unwrap();
    assert!(again.text().contains("response_not_kept"), "{}", again.text());
    assert_eq!((upstream.seen().len(), gateway.available("acme")), (1, "999".to_owned()));
    assert_eq!(gateway.rows(&["ledger", "in-doubt"]).len(), 0);
}

/// A charge of nothing at the head releases the key there: the request may be made again, also after a crash.
#[test]
fn what_costs_nothing_does_not_keep_the_key() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(""), &upstream);
    let head = |pause: u32| {
        format!(
            "POST /header HTTP/1.1\r\nhost: a\r\nx-api-key: good-key\r\nidempotency-key: id\r\nx-response-pause: {pause}\r\n\
             x-response-header: x-cost: 0\r\nx-response-chunks: aaa|bbb|ccc\r\n\r\n"
        )
    };
    let mut client = Client::connect(gateway.public);
    client.send(head(5000)).unwrap();
    assert_eq!(client.head().unwrap().charged(), Some("0"));
    let again = Client::connect(gateway.public).ask(head(0)).unwrap();
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, None));
    let gateway = Gateway::start_in(gateway.crash());
    let again = Client::connect(gateway.public).ask(head(0)).unwrap();
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, None));
    assert_eq!((upstream.seen().len(), gateway.available("acme")), (3, "1000".to_owned()));
}

/// Promise 4: a request with an idempotency key is not forwarded before its claim is on disk.
#[test]
fn nothing_is_forwarded_before_its_claim_is_on_disk() {
    if !can_trace() {
        return;
    }
    let upstream = Upstream::start();
    let (_, folder) = Gateway::start(&config(""), &upstream).stop();
    // From its hundredth sync on, each thread waits two seconds in each.
    let inject = "inject=fdatasync:delay_enter=2000000:when=100+";
    let traced =
        ["strace", "-D", "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", inject];
    let gateway = Gateway::restart_by(&traced, folder);
    let is_slow = (0..300).any(|_| {
        let start = std::time::Instant::now();
        let response = get(gateway.public, "/one", "x-api-key: good-key\r\n");
        assert!(response.status == 200 || response.status == 503);
        start.elapsed() > Duration::from_secs(1)
    });
    assert!(is_slow, "the disk is slow by now");
    upstream.take();
    let refused = ask(&gateway, "good-key", "id", ("/one", "", "a"));
    assert!(refused.status == 503 && refused.text().contains("ledger_unavailable"), "{}", refused.text());
    assert_eq!(upstream.seen().len(), 0, "it was not forwarded");
}

/// 100 clients repeat one request at once, again and again, while the gateway is killed: it is forwarded once at most and
/// charged once at most, and all get the same answer. `TOLLGATE_LONG` does it 1,000 times, with 100 kills.
#[test]
fn repeats_at_once_through_kills() {
    let is_long = std::env::var_os("TOLLGATE_LONG").is_some();
    let (rounds, clients, kill_every) = if is_long { (1_000, 100, 10) } else { (20, 20, 5) };
    let upstream = Upstream::start();
    let text = config("").replacen("credits = 1000\n", "credits = 100000\n", 1);
    let mut gateway = Gateway::start(&text, &upstream);
    let (mut answered, mut interrupted) = (0, 0);
    for round in 0..rounds {
        let (id, body, barrier) =
            (format!("round-{round}"), format!("body {round}"), Barrier::new(clients + 1));
        let headers = format!("x-response-delay: {}\r\nx-response-echo: 1\r\n", round % 4);
        let repeat = |address| -> Option<Response> {
            let head = format!(
                "POST /one HTTP/1.1\r\nhost: a\r\nx-api-key: good-key\r\nidempotency-key: {id}\r\n{headers}content-length: {}\r\n\r\n{body}",
                body.len()
            );
            loop {
                let response = Client::try_connect(address)?.ask(&head).ok()?;
                if !response.text().contains("idempotency_in_progress") {
                    return Some(response);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        };
        let address = gateway.public;
        let mut responses: Vec<Response> = std::thread::scope(|scope| {
            let one = || {
                barrier.wait();
                repeat(address)
            };
            let asked: Vec<_> = (0..clients).map(|_| scope.spawn(one)).collect();
            barrier.wait();
            if round % kill_every == kill_every - 1 {
                std::thread::sleep(Duration::from_micros(300 * (round as u64 % 37)));
                gateway.signal("KILL");
            }
            asked.into_iter().filter_map(|client| client.join().unwrap()).collect()
        });
        if round % kill_every == kill_every - 1 {
            gateway = Gateway::start_in(gateway.crash());
        }
        responses.extend((0..3).map(|_| repeat(gateway.public).expect("a response")));
        let forwarded =
            upstream.take().iter().filter(|seen| seen.header("idempotency-key") == Some(&id)).count();
        let is_answer = |response: &&Response| response.status == 200 && response.text() == body;
        let answers = responses.iter().filter(is_answer).count();
        if answers == 0 {
            interrupted += 1;
            assert!(forwarded <= 1, "{id} is forwarded once at most");
            assert!(responses.iter().all(|response| response.text().contains("response_not_kept")), "{id}");
        } else {
            answered += 1;
            assert_eq!(forwarded, 1, "{id} is forwarded once");
            assert_eq!(answers, responses.len(), "{id}: all are answered alike");
        }
    }
    assert!(gateway.rows(&["ledger", "in-doubt"]).len() <= interrupted);
    assert_eq!(gateway.available("acme"), (100_000 - rounds).to_string(), "each is charged once");
    assert_eq!(gateway.json(&["ledger", "verify"])["differences"], json!([]));
    println!("{answered} answered, {interrupted} interrupted by a kill");
}
