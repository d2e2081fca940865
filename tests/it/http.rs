//! Tests how a request is processed over HTTP/1.1 (section 4 of the contract).

use std::time::{Duration, Instant};

use crate::support::{Client, Gateway, Upstream, config, get, post, send};

const KEY: &str = "x-api-key: good-key\r\n";

fn start(more: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    (Gateway::start(&config(more), &upstream), upstream)
}

#[test]
fn what_goes_upstream_is_what_was_judged() {
    let (gateway, upstream) = start("");
    let headers = "x-api-key: good-key\r\nx-tollgate-account: victim\r\nx_api_key: twin\r\nexpect: 100-continue\r\nconnection: x-gone, keep-alive\r\nx-gone: 1\r\nx-kept: 2\r\n";
    let response = post(gateway.public, "/free/%61/b%3Bc?q=%61&q", headers, "body");
    assert_eq!(response.status, 200);
    let seen = upstream.last();
    assert_eq!(seen.line, "POST /free/a/b%3Bc?q=%61&q HTTP/1.1");
    assert_eq!(seen.body, b"body");
    assert_eq!(seen.header("x-tollgate-account"), Some("acme"));
    assert_eq!(seen.header("host"), Some("gw.test"));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-host"), Some("gw.test"));
    assert_eq!(seen.header("via"), Some("1.1 tollgate"));
    assert_eq!(seen.header("x-kept"), Some("2"));
    assert_eq!(seen.header("x-request-id"), response.header("x-request-id"));
    for gone in ["x-api-key", "x_api_key", "x-gone", "expect", "connection"] {
        assert_eq!(seen.header(gone), None, "{gone}");
    }
    assert_eq!(response.header("via"), Some("1.1 tollgate"));
    assert_eq!(response.header("x-upstream"), Some("yes"));
}

#[test]
fn strip_prefix_host_and_set_headers_are_the_operators() {
    let more = r#"
[upstreams.other]
servers = ["http://{upstream}"]
host = "upstream"
set_headers = { authorization = "Bearer ours", x-a = "1" }
[[routes]]
name = "stripped"
path = "/api/v1/{*rest}"
upstream = "other"
public = true
strip_prefix = "/api/v1"
set_headers = { x-a = "2" }
"#;
    let (gateway, upstream) = start(more);
    get(gateway.public, "/api/v1/people?x=1", "authorization: Bearer theirs\r\n");
    let seen = upstream.last();
    assert_eq!(seen.target(), "/people?x=1");
    assert_eq!(seen.header("host"), Some(&*upstream.address.to_string()));
    assert_eq!(seen.header("authorization"), Some("Bearer ours"));
    assert_eq!(seen.header("x-a"), Some("2"));
    get(gateway.public, "/api/v1/", "");
    assert_eq!(upstream.last().target(), "/");
}

#[test]
fn bodies_stream_both_ways_with_trailers() {
    let (gateway, upstream) = start("");
    let mut client = Client::connect(gateway.public);
    let head = "POST /free/a HTTP/1.1\r\nhost: a\r\nx-api-key: good-key\r\ntransfer-encoding: chunked\r\ntrailer: x-check\r\nte: trailers\r\nx-response-chunks: data: 1|data: 2\r\n\r\n";
    client.send(head).unwrap();
    client.send("3\r\nabc\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    client.send("2\r\nde\r\n0\r\nx-check: 5\r\n\r\n").unwrap();
    let response = client.read(false).unwrap();
    assert_eq!(response.text(), "data: 1data: 2");
    assert_eq!(response.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    let seen = upstream.last();
    assert_eq!(seen.body, b"abcde");
    assert_eq!(seen.trailers, [("x-check".to_owned(), "5".to_owned())]);
}

#[test]
fn server_sent_events_are_not_buffered() {
    let (gateway, _upstream) = start("");
    let mut client = Client::connect(gateway.public);
    let head = "GET /one HTTP/1.1\r\nhost: a\r\nx-api-key: good-key\r\nx-response-header: content-type: text/event-stream\r\nx-response-chunks: data: 1|data: 2|data: 3|data: 4|data: 5|data: 6|data: 7|data: 8\r\n\r\n";
    let start = Instant::now();
    client.send(head).unwrap();
    client.head().unwrap();
    assert_eq!(client.chunk().unwrap(), b"data: 1");
    let first = start.elapsed();
    for event in 2..=8 {
        assert_eq!(client.chunk().unwrap(), format!("data: {event}").as_bytes());
    }
    assert!(
        start.elapsed() > first + Duration::from_millis(200),
        "the first event came before the last was made"
    );
}

#[test]
fn a_hundred_continue_comes_only_once_a_request_is_admitted() {
    let (gateway, upstream) = start("");
    let head = |key: &str| {
        format!(
            "POST /free/a HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n"
        )
    };
    let mut client = Client::connect(gateway.public);
    client.send(head("good-key")).unwrap();
    assert_eq!(client.head().unwrap().status, 100);
    client.send("body").unwrap();
    assert_eq!(client.read(false).unwrap().status, 200);
    upstream.clear();
    let mut client = Client::connect(gateway.public);
    client.send(head("bad-key")).unwrap();
    assert_eq!(client.head().unwrap().status, 401);
    assert!(upstream.seen().is_empty());
}

#[test]
fn upgrades_tunnel_bytes_and_are_settled_at_their_head() {
    let (gateway, _upstream) = start("");
    let mut client = Client::connect(gateway.public);
    let head = "GET /header HTTP/1.1\r\nhost: a\r\nx-api-key: good-key\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    let response = client.ask(head).unwrap();
    assert_eq!(response.status, 101);
    assert_eq!(response.header("upgrade"), Some("echo"));
    assert_eq!(response.charged(), Some("3"));
    assert_eq!(gateway.available("acme"), "997");
    for word in ["hello", "again"] {
        client.send(word).unwrap();
        assert_eq!(client.exactly(5).unwrap(), word.as_bytes());
    }
    // An upgrade to h2c is not forwarded: the request continues as plain HTTP/1.1.
    let h2c = "GET /free/a HTTP/1.1\r\nhost: a\r\nx-api-key: good-key\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n\r\n";
    assert_eq!(send(gateway.public, h2c).status, 200);
}

/// Bytes that a client sends after an upgrade request, before the response, pass through the tunnel exactly once and
/// completely, even if they look like another head with many fields.
#[test]
fn what_is_sent_ahead_of_a_tunnel_goes_through_it() {
    let (gateway, _upstream) = start("");
    let head = "GET /free/a HTTP/1.1\r\nhost: a\r\nx-api-key: good-key\r\nx-response-delay: 300\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    for lines in [5, 99, 100, 150] {
        let ahead = format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(lines));
        for cut in [0, 3, ahead.len() / 2, ahead.len()] {
            let mut client = Client::connect(gateway.public);
            client.send([head, &ahead[..cut]].concat()).unwrap();
            std::thread::sleep(Duration::from_millis(50));
            client.send(&ahead[cut..]).unwrap();
            assert_eq!(client.head().unwrap().status, 101, "{lines} lines, cut at {cut}");
            client.send("more").unwrap();
            let came = client.exactly(ahead.len() + 4).expect("all of it");
            assert!(came == [&ahead, "more"].concat().as_bytes(), "{lines} lines, cut at {cut}");
        }
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_and_each_shows_its_key() {
    let (gateway, _upstream) = start("");
    let one = |key: &str, delay: u32| {
        format!(
            "GET /free/a HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\nx-response-delay: {delay}\r\nx-response-body: {delay}\r\n\r\n"
        )
    };
    let mut client = Client::connect(gateway.public);
    client.send([one("good-key", 60), one("bad-key", 0), one("good-key", 1)].concat()).unwrap();
    assert_eq!(client.read(false).unwrap().text(), "60");
    assert_eq!(client.read(false).unwrap().status, 401);
    assert_eq!(client.read(false).unwrap().text(), "1");
}

#[test]
fn bodies_are_bounded_and_cost_nothing_past_their_bound() {
    let more = "[[routes]]\nname = \"small\"\npath = \"/small\"\nupstream = \"api\"\ncredits = 1\nmax_body_size = \"10B\"\n";
    let (gateway, upstream) = start(more);
    let refused = post(gateway.public, "/small", KEY, "01234567890");
    assert_eq!((refused.status, refused.json()["code"].as_str()), (413, Some("body_too_large")));
    assert!(upstream.seen().is_empty());
    let chunked = "POST /small HTTP/1.1\r\nhost: a\r\nx-api-key: good-key\r\ntransfer-encoding: chunked\r\n\r\n8\r\n01234567\r\n8\r\n01234567\r\n0\r\n\r\n";
    assert_eq!(send(gateway.public, chunked).status, 413);
    assert_eq!(post(gateway.public, "/small", KEY, "0123456789").charged(), Some("1"));
    assert_eq!(gateway.available("acme"), "999");
}

#[test]
fn head_and_empty_answers_have_no_body() {
    let (gateway, _upstream) = start("");
    let mut client = Client::connect(gateway.public);
    let ask = |method: &str, status: &str| {
        format!(
            "{method} /one HTTP/1.1\r\nhost: a\r\nx-api-key: good-key\r\nx-response-status: {status}\r\nx-response-body: 12345\r\n\r\n"
        )
    };
    let head = client.ask(ask("HEAD", "200")).unwrap();
    assert_eq!((head.header("content-length"), head.charged()), (Some("5"), Some("1")));
    assert_eq!(client.ask(ask("GET", "204")).unwrap().charged(), Some("1"));
    assert_eq!(client.ask(ask("GET", "304")).unwrap().charged(), Some("0"));
    assert_eq!(client.ask(ask("GET", "404")).unwrap().text(), "12345");
    assert_eq!(gateway.available("acme"), "998");
}

#[test]
fn an_upstream_that_fails_costs_nothing() {
    let more = "[upstreams.dead]\nservers = [\"http://127.0.0.1:1\"]\n[[routes]]\nname = \"dead\"\npath = \"/dead\"\nupstream = \"dead\"\ncredits = 1\n";
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(more).replace("\"5s\"", "\"300ms\""), &upstream);
    let slow = format!("{KEY}x-response-delay: 1000\r\n");
    let garbage = format!("{KEY}x-response-raw: SMTP ready\\n\\n\r\n");
    let silent = format!("{KEY}x-response-raw: \r\n");
    let table = [
        ("/dead", KEY, 502, "upstream_unreachable"),
        ("/one", &*slow, 504, "upstream_timeout"),
        ("/one", &*garbage, 502, "upstream_unreachable"),
        ("/one", &*silent, 502, "upstream_unreachable"),
    ];
    for (path, headers, status, code) in table {
        let response = get(gateway.public, path, headers);
        assert_eq!(
            (response.status, response.json()["code"].as_str().unwrap()),
            (status, code),
            "{path} {headers}"
        );
        assert_eq!(response.charged(), Some("0"));
    }
    assert_eq!(gateway.available("acme"), "1000");
    // If the upstream closes after its head, the price applies, and the client sees a response that is cut off.
    let cut = format!(
        "GET /one HTTP/1.1\r\nhost: a\r\n{KEY}x-response-body: 0123456789\r\nx-response-cut: 5\r\n\r\n"
    );
    assert!(Client::connect(gateway.public).ask(cut).is_err());
    assert_eq!(gateway.available("acme"), "999");
}

#[test]
fn a_stale_connection_is_replaced_without_the_client_noticing() {
    let (gateway, upstream) = start("");
    let mut client = Client::connect(gateway.public);
    let plain = format!("GET /one HTTP/1.1\r\nhost: a\r\n{KEY}\r\n");
    for _ in 0..5 {
        assert_eq!(client.ask(&plain).unwrap().status, 200);
    }
    assert_eq!(upstream.connections(), 1, "connections are kept");
    let closing = format!(
        "GET /one HTTP/1.1\r\nhost: a\r\n{KEY}x-response-raw: HTTP/1.1 200 OK\\ncontent-length: 0\\n\\n\r\n\r\n"
    );
    for _ in 0..5 {
        assert_eq!(client.ask(&closing).unwrap().status, 200);
        std::thread::sleep(Duration::from_millis(100)); // the end of the connection has arrived
        assert_eq!(client.ask(&plain).unwrap().status, 200);
    }
    assert_eq!(gateway.available("acme"), "985");
}

#[test]
fn preflights_are_answered_here_and_refusals_can_be_read_by_pages() {
    let more = "[[routes]]\nname = \"pages\"\npath = \"/pages\"\nmethods = [\"PUT\"]\nupstream = \"api\"\ncors = { origins = [\"https://app.example\"] }\n";
    let (gateway, upstream) = start(more);
    let ask = |origin: &str| {
        format!(
            "OPTIONS /pages HTTP/1.1\r\nhost: a\r\norigin: {origin}\r\naccess-control-request-method: PUT\r\n\r\n"
        )
    };
    let response = send(gateway.public, ask("https://app.example"));
    assert_eq!(response.status, 204);
    assert_eq!(response.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(response.header("access-control-allow-headers"), Some("x-api-key, content-type"));
    assert_eq!(response.header("access-control-allow-methods"), Some("PUT"));
    assert_eq!(send(gateway.public, ask("https://evil.example")).header("access-control-allow-origin"), None);
    let refused = send(
        gateway.public,
        "PUT /pages HTTP/1.1\r\nhost: a\r\norigin: https://app.example\r\ncontent-length: 0\r\n\r\n",
    );
    assert_eq!(refused.status, 401);
    assert_eq!(refused.header("access-control-allow-origin"), Some("https://app.example"));
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_stop_waits_for_what_is_in_flight_and_takes_nothing_new() {
    let (gateway, _upstream) = start("");
    let mut busy = Client::connect(gateway.public);
    busy.send(format!("GET /one HTTP/1.1\r\nhost: a\r\n{KEY}x-response-delay: 800\r\n\r\n")).unwrap();
    let mut idle = Client::connect(gateway.public);
    assert_eq!(idle.ask("GET /open/a HTTP/1.1\r\nhost: a\r\n\r\n").unwrap().status, 200);
    std::thread::sleep(Duration::from_millis(200));
    gateway.signal("INT");
    assert!(idle.is_closed(), "an idle connection closes at once");
    let response = busy.read(false).unwrap();
    assert_eq!((response.status, response.charged()), (200, Some("1")));
    assert!(std::net::TcpStream::connect(gateway.public).is_err());
    let mut gateway = gateway;
    assert_eq!(gateway.wait(), Some(0));
}

#[test]
fn health_and_readiness_are_told_to_operators() {
    let (gateway, _upstream) = start("");
    assert_eq!(get(gateway.admin, "/healthz", "").status, 200);
    assert_eq!(get(gateway.admin, "/readyz", "").text(), "{\"status\":\"ready\"}\n");
    assert_eq!(get(gateway.admin, "/v1/accounts", "").status, 401);
    assert_eq!(get(gateway.public, "/healthz", "").status, 404, "the public side has none of it");
}

#[test]
fn connections_whose_answers_had_trailers_are_kept_and_old_versions_stay_upstream() {
    let (gateway, upstream) = start("");
    let mut client = Client::connect(gateway.public);
    for _ in 0..3 {
        let head = format!(
            "GET /header HTTP/1.1\r\nhost: a\r\n{KEY}te: trailers\r\nx-response-header: x-cost: 0.5\r\nx-response-chunks: a|b\r\n\r\n"
        );
        let response = client.ask(head).unwrap();
        assert_eq!((response.text(), response.trailers.len()), ("ab".to_owned(), 1));
    }
    assert_eq!(upstream.connections(), 1);
    assert_eq!(gateway.available("acme"), "998.5");
    client.send(format!("GET /one HTTP/1.1\r\nhost: a\r\n{KEY}x-response-raw: HTTP/1.0 200 OK\\ncontent-length: 2\\n\\nok\r\n\r\n")).unwrap();
    assert!(client.line().unwrap().starts_with("HTTP/1.1 200"), "Tollgate's own version");
}
