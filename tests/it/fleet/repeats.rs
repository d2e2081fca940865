//! Requests with an `Idempotency-Key` at several gateways: of all, one is forwarded and charged (promises 2, 3 and 5).

use std::net::SocketAddr;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::Fleet;
use crate::billing::repeats::ask;
use crate::support::{Client, Gateway, Response};

fn start(change: impl Fn(String) -> String) -> Option<Fleet> {
    Fleet::start("shared", |text| {
        change(text.replace("[accounts.acme]\n", "[idempotency]\n[accounts.acme]\n"))
    })
}

/// Sends a request again until it is not in progress any more.
fn repeat(gateway: &Gateway, id: &str, request: (&str, &str, &str)) -> Response {
    let start = Instant::now();
    loop {
        let response = ask(gateway, "good-key", id, request);
        if !response.text().contains("idempotency_in_progress") {
            return response;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "in progress forever");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_repeated_request_is_answered_at_every_gateway() {
    let Some(mut fleet) = start(|text| text) else { return };
    let request = ("/one", "x-response-status: 201\r\n", "body");
    let first = repeat(&fleet.gateways[0], "id", request);
    assert_eq!((first.status, first.header("idempotency-replayed")), (201, None));
    for gateway in &fleet.gateways {
        let again = repeat(gateway, "id", request);
        assert_eq!((again.status, again.header("idempotency-replayed")), (201, Some("true")));
        assert_eq!(again.text(), first.text());
        let other = repeat(gateway, "id", ("/one", "", "another body"));
        assert!(other.text().contains("idempotency_key_reused"), "{}", other.text());
    }
    // Also when all were restarted, and while the first one is in progress.
    fleet.restart();
    assert_eq!(repeat(&fleet.gateways[2], "id", request).header("idempotency-replayed"), Some("true"));
    let [a, b, _] = [0, 1, 2].map(|at| &fleet.gateways[at]);
    std::thread::scope(|scope| {
        let slow = ("/one", "x-response-delay: 700\r\n", "slow");
        let first = scope.spawn(move || ask(a, "good-key", "slow", slow));
        std::thread::sleep(Duration::from_millis(300));
        let second = ask(b, "good-key", "slow", slow);
        assert_eq!((second.status, second.header("retry-after")), (409, Some("1")), "{}", second.text());
        assert_eq!(first.join().unwrap().status, 200);
        assert_eq!(repeat(b, "slow", slow).header("idempotency-replayed"), Some("true"));
    });
    assert_eq!(fleet.upstream.seen().len(), 2);
    fleet.restart();
    assert_eq!(fleet.gateways[0].available("acme"), "998");
}

/// A request that cost nothing, or was not forwarded, does not keep its key.
#[test]
fn what_costs_nothing_can_be_repeated_at_every_gateway() {
    let Some(fleet) = start(|text| text.replace("credits = 1000\n", "credits = 5\n")) else { return };
    for (round, gateway) in fleet.gateways.iter().enumerate() {
        let failed = repeat(gateway, "failed", ("/one", "x-response-status: 500\r\n", ""));
        assert_eq!((failed.status, fleet.upstream.seen().len()), (500, round + 1));
        let poor = repeat(gateway, "poor", ("/header", "", ""));
        assert_eq!(poor.status, 402, "{}", poor.text());
    }
    let grant = ["account", "grant", "acme", "20", "--reference", "more"];
    fleet.gateways[0].json(&grant);
    let paid = repeat(&fleet.gateways[1], "poor", ("/header", "", ""));
    assert_eq!((paid.status, paid.header("idempotency-replayed")), (200, None));
    assert_eq!(
        repeat(&fleet.gateways[2], "poor", ("/header", "", "")).header("idempotency-replayed"),
        Some("true")
    );
}

/// Sends a request again until it is answered, at most for two seconds: one that a lost gateway left in progress is so until
/// that gateway is back.
fn until_answered(address: SocketAddr, head: &str) -> Option<Response> {
    let start = Instant::now();
    loop {
        let response = Client::try_connect(address)?.ask(head).ok()?;
        let text = response.text();
        if !text.contains("idempotency_in_progress") && !text.contains("ledger_unavailable") {
            return Some(response);
        }
        if start.elapsed() > Duration::from_secs(2) {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Clients repeat one request at all gateways at once, while one of them is killed now and then: it is forwarded once at most,
/// charged once at most, and all get the same answer. `TOLLGATE_LONG` does it 300 times.
#[test]
fn repeats_at_once_through_kills_of_gateways() {
    let rounds = if std::env::var_os("TOLLGATE_LONG").is_some() { 300 } else { 12 };
    let Some(mut fleet) = start(|text| text.replace("credits = 1000\n", "credits = 100000\n")) else {
        return;
    };
    let (mut answered, mut interrupted) = (0, 0);
    for round in 0..rounds {
        let (id, body) = (format!("round-{round}"), format!("body {round}"));
        let headers = format!("x-response-delay: {}\r\nx-response-echo: 1\r\n", round % 4);
        let head = format!(
            "POST /one HTTP/1.1\r\nhost: a\r\nx-api-key: good-key\r\nidempotency-key: {id}\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let until_answered = |address| until_answered(address, &head);
        let (kills, lost) = (round % 3 == 2, round / 3 % 3);
        let addresses: Vec<_> = fleet.gateways.iter().flat_map(|gateway| [gateway.public; 3]).collect();
        let barrier = Barrier::new(addresses.len() + 1);
        let mut responses: Vec<Response> = std::thread::scope(|scope| {
            let asked: Vec<_> = addresses
                .iter()
                .map(|address| {
                    let (barrier, until_answered) = (&barrier, &until_answered);
                    scope.spawn(move || {
                        barrier.wait();
                        until_answered(*address)
                    })
                })
                .collect();
            barrier.wait();
            if kills {
                std::thread::sleep(Duration::from_micros(900 * (round as u64 % 37)));
                fleet.gateways[lost].signal("KILL");
            }
            asked.into_iter().filter_map(|client| client.join().unwrap()).collect()
        });
        if kills {
            let folder = fleet.gateways.remove(lost).crash();
            fleet.gateways.insert(lost, Gateway::start_in(folder));
        }
        responses
            .extend(fleet.gateways.iter().map(|gateway| until_answered(gateway.public).expect("an answer")));
        let seen = fleet.upstream.take();
        let forwarded = seen.iter().filter(|seen| seen.header("idempotency-key") == Some(&id)).count();
        let is_answer = |response: &&Response| response.status == 200 && response.text() == body;
        let answers = responses.iter().filter(is_answer).count();
        if answers == 0 {
            interrupted += 1;
            assert!(forwarded <= 1, "{id} is forwarded once at most");
            let lost = |response: &Response| response.text().contains("response_not_kept");
            assert!(
                responses.iter().all(lost),
                "{id}: {:?}",
                responses.iter().map(Response::text).collect::<Vec<_>>()
            );
        } else {
            answered += 1;
            assert_eq!(forwarded, 1, "{id} is forwarded once");
            assert_eq!(answers, responses.len(), "{id}: all are answered alike");
        }
    }
    fleet.restart();
    assert!(fleet.gateways[0].rows(&["ledger", "in-doubt"]).len() <= interrupted);
    assert_eq!(fleet.gateways[0].available("acme"), (100_000 - rounds).to_string(), "each is charged once");
    assert_eq!(fleet.gateways[0].json(&["ledger", "verify"])["found"], 0);
    println!("{answered} answered, {interrupted} interrupted by a kill");
}
