//! Servers that fail: health checks, ejection, panic mode, slow start, retries.

use std::time::{Duration, Instant};

use super::{folder, start, with_servers};
use crate::support::{Gateway, Refusing, Upstream, eventually, get, post, send};

const KEY: &str = "x-api-key: good-key\r\n";

fn urls(upstreams: &[Upstream]) -> Vec<String> {
    upstreams.iter().map(|upstream| format!("http://{}", upstream.address)).collect()
}

fn states(gateway: &Gateway) -> Vec<String> {
    let status = gateway.json(&["status"]);
    let rows = status["upstreams"][0]["servers"].as_array().unwrap().clone();
    rows.iter().map(|row| row["state"].as_str().unwrap().to_owned()).collect()
}

/// A server whose checks fail gets no requests, and gets them again when they succeed. Checks are sent once, not by each
/// worker, and cost nothing.
#[test]
fn a_server_whose_checks_fail_is_left_out() {
    let upstreams = [Upstream::start(), Upstream::start()];
    let check = "health = { path = \"/healthz?full\", interval = \"200ms\", down_after = 2, up_after = 2 }";
    let more = format!("{check}\nslow_start = \"0s\"");
    let mut gateway = start(&folder(&[]), &with_servers(&urls(&upstreams), &more));
    let started = Instant::now();
    std::thread::sleep(Duration::from_millis(1000));
    let checks = upstreams[0].seen();
    // As many as fit into the time that has passed, which is longer on a busy machine; twice as many if each worker checked.
    let most = usize::try_from(started.elapsed().as_millis() / 200).unwrap() + 3;
    assert!((3..most).contains(&checks.len()), "{} checks", checks.len());
    let check = checks.last().unwrap();
    assert_eq!(check.line, "GET /healthz?full HTTP/1.1");
    assert!(check.header("user-agent").unwrap().starts_with("tollgate/"), "{check:?}");
    assert_eq!(check.header("x-api-key"), None);
    upstreams[0].set_failing(true);
    let line = gateway.line_with("a server is down");
    assert!(line.contains(&upstreams[0].address.to_string()) && line.contains("health check: "), "{line}");
    assert_eq!(states(&gateway), ["down", "up"]);
    upstreams[0].clear();
    for _ in 0..30 {
        assert_eq!(get(gateway.public, "/one", KEY).status, 200);
    }
    let asked =
        |upstream: &Upstream| upstream.seen().iter().filter(|seen| seen.line.contains("/one")).count();
    assert_eq!(asked(&upstreams[0]), 0);
    upstreams[0].set_failing(false);
    gateway.line_with("a server is up");
    eventually("requests come back", || {
        get(gateway.public, "/one", KEY);
        asked(&upstreams[0]) > 0
    });
    assert_eq!(states(&gateway), ["up", "up"]);
}

/// While no server is available, all of them are tried, and that is visible.
#[test]
fn when_all_are_down_all_are_tried() {
    let upstreams = [Upstream::start(), Upstream::start()];
    let more = "health = { path = \"/\", interval = \"100ms\", status = \"204\", down_after = 1 }";
    let mut gateway = start(&folder(&[]), &with_servers(&urls(&upstreams), more));
    gateway.line_with("no server is available; all of them are tried");
    assert_eq!(gateway.json(&["status"])["upstreams"][0]["panic"], true);
    for _ in 0..20 {
        assert_eq!(get(gateway.public, "/one", KEY).status, 200);
    }
}

/// A server at which requests fail in a row is left out for a while, but not more servers than allowed.
#[test]
fn a_server_that_fails_in_a_row_is_left_out_for_a_while() {
    let upstreams = [Upstream::start(), Upstream::start(), Upstream::start()];
    let more = "ejection = { failures = 3, time = \"2s\", at_most = \"50%\" }\nretries = { most = 0 }\nslow_start = \"1s\"";
    let text = with_servers(&urls(&upstreams), more).replace("threads = 2", "threads = 1");
    let mut gateway = start(&folder(&[]), &text);
    upstreams[0].set_failing(true);
    upstreams[1].set_failing(true);
    let mut failed = 0;
    for _ in 0..200 {
        failed += usize::from(get(gateway.public, "/one", KEY).status == 502);
    }
    let ejected = states(&gateway).iter().filter(|state| *state == "ejected").count();
    assert_eq!(ejected, 1, "half of three is one: {:?}", states(&gateway));
    assert!(failed > 50, "the other one is still asked: {failed}");
    upstreams.iter().for_each(|upstream| upstream.set_failing(false));
    let line = gateway.line_with("a server is left out: requests to it failed");
    assert!(line.contains("\"seconds\":2"), "{line}");
    eventually("slow start", || states(&gateway).iter().any(|state| state == "slow start"));
    eventually("all are up", || states(&gateway).iter().all(|state| state == "up"));
}

#[test]
fn a_server_with_a_high_rate_of_failures_is_left_out() {
    let upstreams = [Upstream::start(), Upstream::start()];
    let more = "ejection = { failures = 0, rate = \"40%\", time = \"60s\" }\nretries = { most = 0 }";
    let gateway = start(&folder(&[]), &with_servers(&urls(&upstreams), more));
    let begun = Instant::now();
    let mut round = 0;
    while !states(&gateway).contains(&"ejected".to_owned()) {
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", states(&gateway));
        for _ in 0..20 {
            round += 1;
            upstreams[1].set_failing(round % 2 == 0); // never two in a row for long
            get(gateway.public, "/one", KEY);
        }
    }
    assert_eq!(states(&gateway), ["up", "ejected"]);
}

/// What may be sent again goes to another server; what must not be is sent once.
#[test]
fn only_harmless_requests_are_sent_again() {
    let upstreams = [Upstream::start(), Upstream::start()];
    upstreams[0].set_failing(true);
    let more = "ejection = { failures = 0 }\nbalance = \"round-robin\"";
    let gateway = start(&folder(&[]), &with_servers(&urls(&upstreams), more));
    let request = |method: &str, body: &str| {
        let length = body.len();
        let head = format!("{method} /one HTTP/1.1\r\nhost: a\r\n{KEY}connection: close\r\n");
        send(gateway.public, format!("{head}content-length: {length}\r\n\r\n{body}"))
    };
    for (method, body, retried) in [
        ("GET", "", true),
        ("DELETE", "", true),
        ("PUT", "a small body", true),
        ("POST", "a small body", false),
        ("PATCH", "", false),
        ("PUT", &*"x".repeat(200_000), false),
    ] {
        std::thread::sleep(Duration::from_millis(1200)); // the budget of retries is renewed each second
        upstreams.iter().for_each(Upstream::clear);
        let statuses: Vec<u16> = (0..10).map(|_| request(method, body).status).collect();
        let failed = statuses.iter().filter(|status| **status == 502).count();
        assert_eq!(failed, if retried { 0 } else { 5 }, "{method}: {statuses:?}");
        assert!(upstreams[1].seen().iter().all(|seen| seen.body == body.as_bytes()), "{method}");
        let wanted = if retried { 10 } else { 5 };
        assert_eq!(upstreams[1].seen().len(), wanted, "{method}");
    }
    let spent = 1000 - gateway.available("acme").parse::<usize>().unwrap();
    assert_eq!(spent, 45, "each response that arrived was charged once, and nothing else");
}

/// A connection that cannot be established is no reason to refuse a request, whatever its method is.
#[test]
fn requests_that_were_not_sent_go_elsewhere() {
    let upstream = Upstream::start();
    let away = Refusing::bind();
    let servers = [format!("http://{}", away.address), format!("http://{}", upstream.address)];
    let more = "ejection = { failures = 0 }\nbalance = \"round-robin\"";
    let gateway = start(&folder(&[]), &with_servers(&servers, more));
    let large = "x".repeat(300_000);
    for _ in 0..8 {
        assert_eq!(post(gateway.public, "/one", KEY, &large).status, 200);
    }
    assert_eq!(upstream.seen().len(), 8);
    assert!(upstream.seen().iter().all(|seen| seen.body.len() == large.len()));
}

/// Retries are limited: when everything fails, they do not double the load.
#[test]
fn retries_have_a_budget() {
    let upstreams = [Upstream::start(), Upstream::start()];
    upstreams.iter().for_each(|upstream| upstream.set_failing(true));
    let more = "ejection = { failures = 0 }\nretries = { most = 5, budget = \"10%\" }";
    let gateway = start(&folder(&[]), &with_servers(&urls(&upstreams), more));
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    let (mut asked, before) = (0_u64, tries(&gateway));
    while begun.elapsed() < Duration::from_secs(4) {
        assert_eq!(get(gateway.public, "/free/x", KEY).status, 502);
        asked += 1;
    }
    let retried = tries(&gateway) - before - asked;
    let seconds = begun.elapsed().as_secs() + 2;
    let most = seconds * (10 + asked / seconds / 5);
    assert!(retried > 0 && retried <= most, "{retried} retries of {asked} requests; at most {most}");
}

fn tries(gateway: &Gateway) -> u64 {
    let status = gateway.json(&["status"]);
    let rows = status["upstreams"][0]["servers"].as_array().unwrap().clone();
    rows.iter().map(|row| row["requests"].as_u64().unwrap()).sum()
}

/// A body in whose middle the upstream falls silent ends after `body_timeout`, and costs what the price says.
#[test]
fn a_silent_body_ends() {
    let upstream = Upstream::start();
    let address = format!("http://{}", upstream.address);
    for (timeout, ends) in [("\"1s\"", true), ("\"0s\"", false)] {
        let gateway = start(
            &folder(&[]),
            &with_servers(std::slice::from_ref(&address), &format!("body_timeout = {timeout}")),
        );
        let begun = Instant::now();
        let mut client = crate::support::Client::connect(gateway.public);
        let headers = format!("{KEY}x-response-body: 0123456789\r\nx-response-stall: 4\r\n");
        client.send(format!("GET /one HTTP/1.1\r\nhost: a\r\n{headers}\r\n")).unwrap();
        assert_eq!(client.head().unwrap().status, 200);
        assert_eq!(client.exactly(4).unwrap(), b"0123");
        client.socket().set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        assert_eq!(client.is_closed(), ends, "{timeout} after {:?}", begun.elapsed());
        assert_eq!(gateway.available("acme"), "999");
    }
}
