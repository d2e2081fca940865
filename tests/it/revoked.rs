//! Tests that a key that stops working ends its requests in flight within a second: tunnels, streams and calls, over
//! HTTP/1.1 and HTTP/2. They are settled as if their client had disconnected.

use std::time::{Duration, Instant};

use crate::floods::frames;
use crate::support::{Client, Gateway, Upstream, config, sha256};

/// One second, and a tolerance for slow machines.
const SOON: Duration = Duration::from_millis(2500);

/// A request in flight that takes long: its kind and its client.
struct InFlight {
    what: &'static str,
    client: Client,
}

fn begin(gateway: &Gateway, upstream: &Upstream, key: &str) -> Vec<InFlight> {
    let head =
        |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\n{more}\r\n");
    let seen = upstream.seen().len();
    let mut tunnel = Client::connect(gateway.public);
    assert_eq!(tunnel.ask(head("/free/a", "connection: upgrade\r\nupgrade: echo\r\n")).unwrap().status, 101);
    tunnel.send("ping").unwrap();
    assert_eq!(tunnel.exactly(4).unwrap(), b"ping");
    let mut stream = Client::connect(gateway.public);
    stream.send(head("/free/b", "x-response-pause: 4000\r\nx-response-chunks: one|two|three\r\n")).unwrap();
    assert_eq!(stream.head().unwrap().status, 200);
    assert_eq!(stream.chunk().unwrap(), b"one");
    let mut call = Client::connect(gateway.public);
    call.send(head("/header", "x-response-delay: 4000\r\nx-response-header: x-cost: 2\r\n")).unwrap();
    let mut http2 = Client::connect(gateway.public);
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/free/c"),
        ("x-api-key", key),
        ("x-response-delay", "4000"),
    ];
    let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frames::frame(4, 0, 0, &[])].concat();
    http2.send([preface, frames::frame(1, 5, 1, &frames::head(&fields))].concat()).unwrap();
    while upstream.seen().len() < seen + 4 {
        std::thread::sleep(Duration::from_millis(5));
    }
    [("a tunnel", tunnel), ("a stream", stream), ("a call", call), ("a call over HTTP/2", http2)]
        .map(|(what, client)| InFlight { what, client })
        .into()
}

/// True if the request ends before its upstream responds: its connection is closed, or its stream is reset.
fn ends(in_flight: &mut InFlight) -> bool {
    let InFlight { what, client } = in_flight;
    if *what != "a call over HTTP/2" {
        return client.is_closed();
    }
    let mut told = Vec::new();
    loop {
        match client.exactly(1) {
            Ok(byte) => told.extend(byte),
            Err(_) => return true,
        }
        let told = frames::read(&told);
        if !told.resets.is_empty() || !told.answered.is_empty() {
            return told.answered.is_empty();
        }
    }
}

#[test]
fn requests_in_flight_end_with_their_key() {
    let upstream = Upstream::start();
    let file = format!(
        "[accounts.file]\ncredits = 100\n[[accounts.file.keys]]\nlabel = \"k\"\nsha256 = \"{}\"\n",
        sha256("of-file")
    );
    let gateway = Gateway::start(&config(&file), &upstream);
    gateway.json(&["account", "create", "store"]);
    gateway.json(&["account", "grant", "store", "100", "--reference", "r"]);
    let made = |more: &[&str]| -> (String, String) {
        let made = gateway.json(&[&["key", "create", "--account", "store", "--label", "k"], more].concat());
        (made["id"].as_str().unwrap().to_owned(), made["key"].as_str().unwrap().to_owned())
    };
    let done = |arguments: &[&str]| assert!(gateway.cli(arguments).status.success(), "{arguments:?}");
    type Way<'a> = (&'a str, &'a [&'a str], &'a dyn Fn(&str));
    let ways: [Way<'_>; 6] = [
        ("revoked", &[], &|id| done(&["key", "revoke", id])),
        ("disabled", &[], &|id| done(&["key", "disable", id])),
        ("rotated", &[], &|id| done(&["key", "rotate", id])),
        ("rotated with an overlap that ends", &[], &|id| done(&["key", "rotate", id, "--overlap", "1s"])),
        ("expired", &["--expires", "2s"], &|_| {}),
        ("suspended", &[], &|_| done(&["account", "suspend", "store"])),
    ];
    let mut left = 100;
    for (what, more, way) in ways {
        let (id, key) = made(more);
        let mut requests = begin(&gateway, &upstream, &key);
        way(&id);
        let begun = Instant::now();
        for request in &mut requests {
            assert!(ends(request), "{} went on although its key was {what}", request.what);
        }
        let most = if what.contains("overlap") || what == "expired" { SOON * 2 } else { SOON };
        assert!(begun.elapsed() < most, "{what}: {:?}", begun.elapsed());
        left -= 2; // the call is settled once its upstream responds
        let settled = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            gateway.available("store") == left.to_string()
        });
        assert!(settled, "{what}: {} left", gateway.available("store"));
        let _ = gateway.cli(&["account", "resume", "store"]);
    }
    // Requests of other keys continue. Requests of a key that the file no longer has end.
    let mut kept = begin(&gateway, &upstream, "good-key");
    let mut dropped = begin(&gateway, &upstream, "of-file");
    gateway.write_config(&gateway.config().replace(&file, ""));
    done(&["reload"]);
    assert!(dropped.iter_mut().all(ends));
    kept[0].client.send("pong").unwrap();
    assert_eq!(kept[0].client.exactly(4).unwrap(), b"pong");
    let outcomes = &gateway.json(&["status"])["outcomes"];
    assert!(outcomes["key_ended"].as_u64() >= Some(4 * 6), "{outcomes}");
}
