//! Tests promise 1 for prices that are sums, that depend on what was found, on the items of a request, or on how much
//! passes; and promise 8 for long streams.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::{Client, Gateway, Response, Upstream, config, eventually};

const KEY: &str = "x-api-key: good-key\r\n";

/// Routes in the shape of the seed systems, and of a language model.
const ROUTES: &str = r#"
[[routes]]
name = "chat"
path = "/chat"
upstream = "api"
hold = 2
charge = [{ credits = [
  { from = "json:/usage/prompt_tokens", each = "0.0000025" },
  { from = "json:/usage/completion_tokens", each = 0.00001 },
] }]
[[routes]]
name = "find"
path = "/find"
upstream = "api"
hold = 4
charge = [
  { status = "2xx", when = { "json:/qualification" = "found" }, credits = 4 },
  { status = "404", credits = 1 },
]
[[routes]]
name = "bulk"
path = "/bulk"
methods = ["POST"]
upstream = "api"
credits = { each = 0.25, of = "/records", max_items = 5000 }
max_body_size = "2MiB"
[[routes]]
name = "stream"
path = "/stream"
upstream = "api"
hold = 100
charge = [{ credits = [0.5, { from = "MiB", each = 0.125 }] }]
[[routes]]
name = "timed"
path = "/timed"
upstream = "api"
hold = 100
charge = [{ credits = [{ from = "seconds", each = 10 }] }]
on_disconnect = "abandon"
[[routes]]
name = "left"
path = "/left"
upstream = "api"
hold = 10
charge = [{ from = "json:/cost" }]
on_disconnect = "abandon"
"#;

fn start() -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    (Gateway::start(&config(ROUTES), &upstream), upstream)
}

/// Sends a body that the upstream sends back, with these headers of the response.
fn echo(gateway: &Gateway, path: &str, headers: &str, body: &[u8]) -> Response {
    let mut client = Client::connect(gateway.public);
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\n{KEY}x-response-echo: 1\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    client.send(head).unwrap();
    client.ask(body).unwrap()
}

fn leaves(gateway: &Gateway, left: &str) {
    eventually(left, || gateway.available("acme") == left);
}

#[test]
fn a_language_model_is_billed_by_the_tokens_that_it_names() {
    let (gateway, upstream) = start();
    let usage = r#"{"usage":{"prompt_tokens":1001,"completion_tokens":33}}"#; // 2832.5 millionths
    let answered = echo(&gateway, "/chat", "", usage.as_bytes());
    assert_eq!((answered.status, answered.charged(), answered.text()), (200, None, usage.to_owned()));
    leaves(&gateway, "999.997167");
    let chunk = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}],\"usage\":null}\n\n";
    let stream = format!("{}data: {usage}\n\ndata: [DONE]\n\n", chunk.repeat(50));
    let events = "x-response-header: content-type: text/event-stream\r\n";
    assert_eq!(echo(&gateway, "/chat", events, stream.as_bytes()).text(), stream);
    leaves(&gateway, "999.994334");
    // Compressed, because the client accepts that; but not in a way that cannot be read.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(stream.as_bytes()).unwrap();
    let compressed = encoder.finish().unwrap();
    let headers = "accept-encoding: dcb, gzip;q=0.5, zstd\r\n\
        x-response-header: content-type: text/event-stream|content-encoding: gzip\r\n";
    assert_eq!(echo(&gateway, "/chat", headers, &compressed).body, compressed);
    leaves(&gateway, "999.991501");
    assert_eq!(upstream.last().header("accept-encoding"), Some("gzip;q=0.5, zstd"));
    // Without the numbers the hold is charged, and counted.
    echo(&gateway, "/chat", events, chunk.as_bytes());
    leaves(&gateway, "997.991501");
    assert_eq!(gateway.json(&["status"])["charges_unreadable"], 1);
    assert_eq!(gateway.json(&["ledger", "verify"])["differences"], serde_json::json!([]));
}

#[test]
fn what_was_not_found_costs_nothing() {
    let (gateway, _upstream) = start();
    let table = [
        ("", r#"{"qualification":"found"}"#, "996"),
        ("", r#"{"qualification":"not_found"}"#, "996"),
        ("x-response-status: 404\r\n", "{}", "995"),
        ("x-response-status: 500\r\n", "{}", "995"),
        ("", r#"{"qualification":"fou"#, "991"),
    ];
    for (headers, body, left) in table {
        echo(&gateway, "/find", headers, body.as_bytes());
        leaves(&gateway, left);
    }
}

#[test]
fn a_bulk_request_costs_each_of_its_items() {
    let (gateway, upstream) = start();
    let records = |count: usize| format!("{{\"records\":[{}]}}", vec!["{\"name\":\"x\"}"; count].join(","));
    let answered = echo(&gateway, "/bulk", "", records(3).as_bytes());
    assert_eq!((answered.charged(), answered.text()), (Some("0.75"), records(3)));
    leaves(&gateway, "999.25");
    assert_eq!(
        echo(&gateway, "/bulk", "x-response-status: 500\r\n", records(3).as_bytes()).charged(),
        Some("0")
    );
    assert_eq!(echo(&gateway, "/bulk", "", records(0).as_bytes()).charged(), Some("0"));
    // Large bodies are counted on another thread.
    assert!(records(3000).len() > 16 * 1024);
    assert_eq!(echo(&gateway, "/bulk", "", records(3000).as_bytes()).charged(), Some("750"));
    leaves(&gateway, "249.25");
    // No byte of what is refused is forwarded.
    upstream.clear();
    let pad = "x".repeat(3 * 1024 * 1024);
    let table = [
        (records(5001), "", 400, "more than 5000 items"),
        (r#"{"records":[1],"records":[1,2]}"#.to_owned(), "", 400, "one array at /records"),
        (r#"{"records":[1],"Records":[1,2]}"#.to_owned(), "", 400, "one array at /records"),
        (r#"{"records":{"a":1}}"#.to_owned(), "", 400, "one array at /records"),
        ("records=1".to_owned(), "", 400, "one array at /records"),
        (records(1), "content-encoding: gzip\r\n", 400, "must not be compressed"),
        (format!("{{\"records\":[\"{pad}\"]}}"), "", 413, "too large"),
        (records(1000), "", 402, "credits"),
    ];
    for (body, headers, status, text) in table {
        let refused = echo(&gateway, "/bulk", headers, body.as_bytes());
        assert_eq!(refused.status, status, "{}", refused.text());
        assert!(refused.text().contains(text), "{}", refused.text());
    }
    assert!(upstream.seen().is_empty());
    leaves(&gateway, "249.25");
    assert_eq!(gateway.rows(&["ledger", "in-doubt"]).len(), 0);
}

/// Promise 8: of two workers, each reads at most 128 bodies for their items at a time. The rest is refused, and costs nothing.
#[test]
fn few_bodies_are_read_for_their_items_at_a_time() {
    let (gateway, _upstream) = start();
    let head = format!("POST /bulk HTTP/1.1\r\nhost: a\r\n{KEY}content-length: 15\r\n\r\n{{\"records\"");
    let mut clients: Vec<Client> = (0..300).map(|_| Client::connect(gateway.public)).collect();
    clients.iter_mut().for_each(|client| client.send(&head).unwrap());
    std::thread::sleep(Duration::from_secs(1)); // until all have arrived
    let statuses = clients.iter_mut().map(|client| {
        let _ = client.send(":[1]}"); // a refused request may be closed
        client.read(false).unwrap().status
    });
    let statuses: Vec<u16> = statuses.collect();
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert!(
        statuses.iter().all(|status| matches!(status, 200 | 503)) && (1..=256).contains(&served),
        "{served}"
    );
    drop(clients);
    assert_eq!(echo(&gateway, "/bulk", "", br#"{"records":[1]}"#).status, 200, "there is room again");
    leaves(&gateway, &(1000.0 - 0.25 * (served as f64 + 1.0)).to_string());
}

/// The size and the time of a stream are charged, also of a WebSocket, when it ends.
#[test]
fn streams_cost_what_passes_through_them() {
    let (gateway, _upstream) = start();
    echo(&gateway, "/stream", "", &vec![b'x'; 3 << 20]);
    leaves(&gateway, "999.125"); // 0.5 + 3 × 0.125
    let mut client = Client::connect(gateway.public);
    let upgrade = "connection: upgrade\r\nupgrade: echo\r\n";
    client.send(format!("GET /stream HTTP/1.1\r\nhost: a\r\n{KEY}{upgrade}\r\n")).unwrap();
    let head = client.head().unwrap();
    assert_eq!((head.status, head.charged()), (101, None));
    for _ in 0..32 {
        client.send(vec![b'y'; 1 << 16]).unwrap();
        client.exactly(1 << 16).unwrap();
    }
    assert_eq!(gateway.available("acme"), "899.125", "held until the tunnel ends");
    drop(client);
    leaves(&gateway, "998.375"); // 0.5 + 2 × 0.125
    let steady = "x-response-pause: 300\r\nx-response-chunks: a|b|c|d\r\n";
    let mut client = Client::connect(gateway.public);
    let begun = Instant::now();
    client.ask(format!("GET /timed HTTP/1.1\r\nhost: a\r\n{KEY}{steady}\r\n")).unwrap();
    let took = begun.elapsed().as_secs_f64() * 10.0;
    eventually("settled", || gateway.available("acme") != "898.375");
    let cost = 998.375 - gateway.available("acme").parse::<f64>().unwrap();
    assert!((4.0..took + 1.0).contains(&cost), "{cost} for {took}"); // 9, less what the head was late
}

/// With `abandon`, the upstream's request ends with its client, and what was seen is charged; the hold, if that does not
/// tell the price.
#[test]
fn an_abandoned_request_is_charged_what_was_seen() {
    let (gateway, upstream) = start();
    let leave = |path: &str, headers: &str, reads_head: bool| {
        upstream.clear();
        let mut client = Client::connect(gateway.public);
        client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n{KEY}{headers}\r\n")).unwrap();
        eventually("the request", || !upstream.seen().is_empty());
        if reads_head {
            client.head().unwrap();
        }
        socket2::SockRef::from(&*client.socket()).set_linger(Some(Duration::ZERO)).unwrap();
    };
    leave("/left", "x-response-delay: 2000\r\nx-response-body: {\"cost\":1}\r\n", false);
    leaves(&gateway, "990");
    leave("/left", "x-response-pause: 700\r\nx-response-chunks: {\"cost\"|:|3|}\r\n", true);
    leaves(&gateway, "980");
    let begun = Instant::now();
    leave("/timed", "x-response-pause: 1000\r\nx-response-chunks: a|b|c|d|e|f|g|h|i|j|k|l\r\n", true);
    eventually("settled", || gateway.available("acme") != "880");
    let left: f64 = gateway.available("acme").parse().unwrap();
    assert!(left > 980.0 - begun.elapsed().as_secs_f64() * 10.0 - 1.0, "{left}");
    assert!(begun.elapsed() < Duration::from_secs(9), "the rest of the stream was not awaited");
    // The same client that stays gets its answer, and pays its price.
    let mut client = Client::connect(gateway.public);
    client
        .ask(format!("GET /left HTTP/1.1\r\nhost: a\r\n{KEY}x-response-body: {{\"cost\":1.5}}\r\n\r\n"))
        .unwrap();
    let expected = left - 1.5;
    eventually("settled", || (gateway.available("acme").parse::<f64>().unwrap() - expected).abs() < 1e-9);
}

/// Promise 8: however long a stream is, what is kept of it does not grow.
#[test]
fn long_streams_are_read_in_bounded_memory() {
    let (gateway, _upstream) = start();
    let usage = r#"{"usage":{"prompt_tokens":1000000,"completion_tokens":0}}"#;
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let events = "x-response-header: content-type: text/event-stream\r\n";
    echo(&gateway, "/chat", events, format!("data: {usage}\n\n").as_bytes());
    leaves(&gateway, "998"); // 2.5 would be above the hold
    let before = peak();
    let event = "data: {\"choices\":[{\"delta\":{\"content\":\"word\"}}],\"usage\":null}\n\n";
    let many = format!("{}data: {usage}\n\ndata: [DONE]\n\n", event.repeat(100_000));
    assert_eq!(echo(&gateway, "/chat", events, many.as_bytes()).body.len(), many.len());
    leaves(&gateway, "996");
    let long = format!("data: {{\"x\":\"{}\"}}\n\ndata: {usage}\n\n", "y".repeat(64 << 20));
    assert_eq!(echo(&gateway, "/chat", events, long.as_bytes()).body.len(), long.len());
    leaves(&gateway, "994");
    let grown = peak().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB");
}
