//! Tests promise 1 (a request costs what its price says, at most its hold) and promise 5 (a client that disconnects
//! changes nothing).

use std::time::Duration;

use crate::support::{Client, Gateway, Upstream, config, get};

const KEY: &str = "x-api-key: good-key\r\n";

fn start() -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    (Gateway::start(&config(""), &upstream), upstream)
}

/// Waits until the account has this many credits available.
fn settles_at(gateway: &Gateway, expected: &str) {
    for _ in 0..100 {
        if gateway.available("acme") == expected {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(gateway.available("acme"), expected);
}

#[test]
fn every_kind_of_price_charges_exactly() {
    let (gateway, _upstream) = start();
    // Path, headers that set the upstream's response, `x-credits-used`, credits left.
    let table = [
        ("/free/a", "", Some("0"), "1000"),
        ("/one", "", Some("1"), "999"),
        ("/one", "x-response-status: 404\r\n", Some("0"), "999"),
        ("/one", "x-response-status: 500\r\n", Some("0"), "999"),
        ("/header", "x-response-header: x-cost: 0.25\r\n", Some("0.25"), "998.75"),
        ("/header", "x-response-header: x-cost: 10\r\n", Some("10"), "988.75"),
        ("/header", "x-response-header: x-cost: 10.5\r\n", Some("10"), "978.75"),
        ("/header", "x-response-header: x-cost: -1\r\n", Some("10"), "968.75"),
        ("/header", "x-response-header: x-cost: 0.0000001\r\n", Some("10"), "958.75"),
        ("/header", "", Some("10"), "948.75"),
        ("/header", "x-response-status: 404\r\n", Some("1"), "947.75"),
        ("/header", "x-response-status: 302\r\n", Some("0"), "947.75"),
        ("/json", "x-response-body: {\"cost\":0.3}\r\n", None, "947.45"),
        ("/json", "x-response-body: {\"cost\":\"2\"}\r\n", None, "945.45"),
        ("/json", "x-response-body: {\"cost\":11}\r\n", None, "935.45"),
        ("/json", "x-response-body: not json\r\n", None, "925.45"),
        ("/json", "x-response-status: 404\r\n", Some("0"), "925.45"),
    ];
    for (path, headers, used, left) in table {
        let response = get(gateway.public, path, &format!("{KEY}{headers}"));
        assert_eq!(response.charged(), used, "{path} {headers}");
        assert_eq!(gateway.available("acme"), left, "{path} {headers}");
        if used.is_some() {
            assert_eq!(response.header("x-credits-remaining"), Some(left));
        }
    }
    let status = gateway.json(&["status"]);
    assert_eq!(
        (status["charges_capped"].as_u64(), status["charges_unreadable"].as_u64()),
        (Some(2), Some(4))
    );
    assert_eq!(gateway.json(&["ledger", "verify"])["differences"], serde_json::json!([]));
}

#[test]
fn a_json_price_is_read_from_what_can_be_decoded_and_bounded() {
    let (gateway, upstream) = start();
    let accepts =
        |coding: &str| format!("{KEY}accept-encoding: {coding}\r\nx-response-body: {{\"cost\":1}}\r\n");
    get(gateway.public, "/json", &accepts("compress, *"));
    assert_eq!(upstream.last().header("accept-encoding"), Some("identity"));
    let headers = accepts("gzip");
    get(gateway.public, "/json", &headers);
    assert_eq!(upstream.last().header("accept-encoding"), Some("gzip"));
    get(gateway.public, "/one", &headers);
    assert_eq!(upstream.last().header("accept-encoding"), Some("gzip"));
    // Past the size bound the hold is charged, and the response still arrives completely.
    let body = format!("{{\"cost\":1,\"x\":\"{}\"}}", "y".repeat(tollgate::policy::price::MAX_PRICED_JSON));
    let mut client = Client::connect(gateway.public);
    client
        .send(format!(
            "POST /json HTTP/1.1\r\nhost: a\r\n{KEY}x-response-echo: 1\r\ncontent-length: {}\r\n\r\n",
            body.len()
        ))
        .unwrap();
    let response = client.ask(&body).unwrap();
    assert_eq!(response.body.len(), body.len());
    settles_at(&gateway, "987");
}

#[test]
fn a_plan_changes_a_routes_price() {
    let upstream = Upstream::start();
    let hash = crate::support::sha256("planned");
    let more = format!(
        "[plans.cheap]\nprices = {{ one = {{ credits = 0.5 }}, header = {{ hold = 2 }} }}\n\
         [accounts.planned]\nplan = \"cheap\"\ncredits = 10\n[[accounts.planned.keys]]\nlabel = \"k\"\nsha256 = \"{hash}\"\n"
    );
    let gateway = Gateway::start(&config(&more), &upstream);
    assert_eq!(get(gateway.public, "/one", "x-api-key: planned\r\n").charged(), Some("0.5"));
    let capped = get(gateway.public, "/header", "x-api-key: planned\r\nx-response-header: x-cost: 9\r\n");
    assert_eq!(capped.charged(), Some("2"));
    assert_eq!(get(gateway.public, "/one", KEY).charged(), Some("1"));
    assert_eq!(gateway.available("planned"), "7.5");
}

#[test]
fn a_vanished_client_is_charged_by_the_upstreams_response() {
    let (gateway, upstream) = start();
    // Path, headers that set the upstream's response, credits left. The client disconnects while the upstream works, or
    // within the response.
    let table = [
        ("/one", "x-response-delay: 300\r\n", "999"),
        ("/one", "x-response-delay: 300\r\nx-response-status: 404\r\n", "999"),
        ("/header", "x-response-delay: 300\r\nx-response-header: x-cost: 2.5\r\n", "996.5"),
        ("/json", "x-response-delay: 300\r\nx-response-body: {\"cost\":1.5}\r\n", "995"),
        ("/json", "x-response-chunks: {\"cost\"|:|3|}\r\n", "992"),
    ];
    for (path, headers, left) in table {
        upstream.clear();
        let mut client = Client::connect(gateway.public);
        client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n{KEY}{headers}\r\n")).unwrap();
        while upstream.seen().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        if headers.contains("chunks") {
            client.head().unwrap();
        }
        // Not a graceful close: the kernel resets the connection, whether or not there are unread bytes.
        socket2::SockRef::from(&*client.socket()).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        settles_at(&gateway, left);
        std::thread::sleep(Duration::from_millis(400));
        settles_at(&gateway, left);
    }
    let rows = gateway.rows(&["account", "statement", "acme"]);
    let requests = |kind: &str| -> u64 {
        let of_kind = rows.iter().filter(|row| row["kind"] == kind);
        of_kind.map(|row| row["requests"].as_u64().unwrap()).sum()
    };
    assert_eq!(
        (requests("charge"), requests("release")),
        (4, 1),
        "each was charged once, the 404 not at all"
    );
}

/// Promises 1 and 5: a response body that keeps arriving is read to its end, however long that takes. A body that is
/// silent for longer than the route's timeout is cut off. Both hold whether or not the client is still connected.
#[test]
fn a_slow_json_response_costs_the_same_with_and_without_its_client() {
    let upstream = Upstream::start();
    let text = config("").replace("response_timeout = \"5s\"", "response_timeout = \"1s\"");
    let gateway = Gateway::start(&text, &upstream);
    let steady = "x-response-pause: 600\r\nx-response-chunks: {\"cost\"|:|3|}\r\n";
    let silent = "x-response-stall: 5\r\nx-response-body: {\"cost\":3}\r\n";
    let mut left = 1000;
    for (headers, whole, cost) in [(steady, true, 3), (silent, false, 10)] {
        for stays in [true, false] {
            let mut client = Client::connect(gateway.public);
            client.send(format!("GET /json HTTP/1.1\r\nhost: a\r\n{KEY}{headers}\r\n")).unwrap();
            if stays {
                assert_eq!(client.read(false).is_ok(), whole, "{headers}");
            } else {
                client.head().unwrap();
                socket2::SockRef::from(&*client.socket()).set_linger(Some(Duration::ZERO)).unwrap();
                drop(client);
            }
            left -= cost;
            settles_at(&gateway, &left.to_string());
        }
    }
}

/// Promise 1: a HEAD costs at most what its GET would. A response that has no body costs nothing if its price would be
/// in the body.
#[test]
fn what_has_no_body_costs_nothing_by_a_json_price() {
    let (gateway, _upstream) = start();
    let mut left = 1000;
    let table = [
        ("GET", "/json", "x-response-body: {\"cost\":2}\r\n", 2),
        ("HEAD", "/json", "x-response-body: {\"cost\":2}\r\n", 0),
        ("GET", "/json", "x-response-status: 204\r\n", 0),
        ("GET", "/json", "x-response-status: 304\r\n", 0),
        ("HEAD", "/header", "x-response-header: x-cost: 2\r\n", 2),
        ("HEAD", "/header", "", 0),
        ("GET", "/header", "", 10),
        ("HEAD", "/one", "", 1),
    ];
    for (method, path, headers, cost) in table {
        let mut client = Client::connect(gateway.public);
        client.ask(format!("{method} {path} HTTP/1.1\r\nhost: a\r\n{KEY}{headers}\r\n")).unwrap();
        left -= cost;
        settles_at(&gateway, &left.to_string());
    }
    assert_eq!(gateway.json(&["status"])["charges_unreadable"], 1, "the GET without a price");
}
