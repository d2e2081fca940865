//! Tests concurrent HTTP/2 requests: streams that a client cancels, responses that it does not read, tunnels that it
//! opens.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::floods::frames;
use crate::support::{Gateway, Upstream, config, eventually, get};

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// A connection that sends and receives raw frames.
struct Raw {
    stream: TcpStream,
    came: Vec<u8>,
}

impl Raw {
    fn connect(address: SocketAddr, settings: &[u8]) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &*frames::frame(4, 0, 0, settings)].concat();
        stream.write_all(&preface).unwrap();
        Self { stream, came: Vec::new() }
    }

    fn ask(&mut self, number: u32, path: &str, more: &[(&str, &str)]) {
        let mut fields = vec![(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)];
        fields.push(("x-api-key", "good-key"));
        fields.extend(more);
        self.head(number, END_STREAM, &fields);
    }

    fn head(&mut self, number: u32, flags: u8, fields: &[(&str, &str)]) {
        let head = frames::frame(1, flags | END_HEADERS, number, &frames::head(fields));
        self.stream.write_all(&head).unwrap();
    }

    fn give_up(&mut self, number: u32) {
        self.stream.write_all(&frames::frame(3, 0, number, &CANCEL)).unwrap();
    }

    /// Reads until `enough` is true.
    fn until(&mut self, enough: impl Fn(&frames::Told) -> bool) -> frames::Told {
        let begun = Instant::now();
        loop {
            let told = frames::read(&self.came);
            if enough(&told) {
                return told;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{told:?}");
            self.read();
        }
    }

    /// Reads what arrives before the read timeout.
    fn read(&mut self) {
        let mut buffer = [0; 65_536];
        match self.stream.read(&mut buffer) {
            Ok(0) => panic!("the connection ended: {:?}", frames::read(&self.came)),
            Ok(count) => self.came.extend_from_slice(&buffer[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
}

/// Promise 5 and its bound: a cancelled request whose credits are held continues and is charged. A client that cancels
/// one request after the other must wait for that.
#[test]
fn what_one_connection_gives_up_is_charged_and_bounded() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(""), &upstream);
    let mut client = Raw::connect(gateway.public, &[]);
    for at in 0..100 {
        client.ask(2 * at + 1, "/one", &[("x-response-delay", "2500")]);
    }
    eventually("100 requests at the upstream", || upstream.seen().len() == 100);
    for at in 0..100 {
        client.give_up(2 * at + 1);
    }
    client.ask(301, "/one", &[]);
    let told = client.until(|told| !told.answered.is_empty());
    assert_eq!(told.answered, [false], "one more than is bounded");
    // Other connections are not affected. This connection is served again once its cancelled requests are settled.
    assert_eq!(get(gateway.public, "/one", "x-api-key: good-key\r\n").status, 200);
    let mut number = 301;
    eventually("room for a further one", || {
        number += 2;
        client.ask(number, "/one", &[]);
        let count = (number as usize - 301) / 2 + 1;
        client.until(|told| told.answered.len() == count).answered.ends_with(&[true])
    });
    assert_eq!(gateway.available("acme"), "898");
}

/// A key's concurrency counts a request up to the last byte of its response, even if the client cancelled it.
#[test]
fn an_answer_that_is_read_on_keeps_its_place_among_the_keys_requests() {
    let upstream = Upstream::start();
    let text = config("[plans.narrow]\nconcurrency = 1\n");
    let text = text.replace("[accounts.acme]\n", "[accounts.acme]\nplan = \"narrow\"\n");
    let gateway = Gateway::start(&text, &upstream);
    let chunks = format!("{{{}\"cost\":2}}", "| ".repeat(30)); // 1.5 s
    let mut client = Raw::connect(gateway.public, &[]);
    client.ask(1, "/json", &[("x-response-chunks", &chunks)]);
    client.until(|told| told.answered == [true]);
    client.give_up(1);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(get(gateway.public, "/one", "x-api-key: good-key\r\n").status, 429);
    eventually("its end", || gateway.available("acme") == "998");
    assert_eq!(get(gateway.public, "/one", "x-api-key: good-key\r\n").status, 200);
}

/// Promise 5 for a stop that does not wait: a response whose price was not read costs its hold.
#[test]
fn an_answer_that_a_stop_cuts_off_while_it_is_read_on_costs_its_hold() {
    let upstream = Upstream::start();
    let text = config("").replacen("[server]\n", "[server]\ndrain_timeout = \"200ms\"\n", 1);
    assert!(text.contains("drain_timeout"));
    let gateway = Gateway::start(&text, &upstream);
    let chunks = format!("{{{}\"cost\":2}}", "| ".repeat(50)); // 2.5 s
    let mut client = Raw::connect(gateway.public, &[]);
    client.ask(1, "/json", &[("x-response-chunks", &chunks)]);
    client.until(|told| told.answered == [true]);
    client.give_up(1);
    std::thread::sleep(Duration::from_millis(100));
    let (code, folder) = gateway.stop();
    assert_eq!(code, Some(0));
    let gateway = Gateway::start_in(folder);
    assert_eq!(gateway.available("acme"), "990");
    let rows = gateway.rows(&["account", "statement", "acme"]);
    assert!(rows.iter().any(|row| row["kind"] == "charge"), "{rows:?}");
}

/// A 2xx response that switches no protocol cannot be forwarded to a client that asked for a WebSocket over HTTP/2,
/// where 2xx means that the tunnel is open.
#[test]
fn a_websocket_that_its_upstream_does_not_open_costs_nothing() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(""), &upstream);
    let mut client = Raw::connect(gateway.public, &[]);
    let open = |client: &mut Raw, number: u32, response: &str, delay: &str| {
        let fields = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", "/one"),
            ("sec-websocket-version", "13"),
            ("x-api-key", "good-key"),
            ("x-response-raw", response),
            ("x-response-delay", delay),
        ];
        client.head(number, 0, &fields);
    };
    let told = |client: &mut Raw, number: u32| {
        let count = number.div_ceil(2) as usize;
        client.until(|told| told.answered.len() == count).answered.pop()
    };
    let success = "HTTP/1.1 200 OK\\ncontent-length: 2\\n\\n{}";
    open(&mut client, 1, success, "0");
    assert_eq!(told(&mut client, 1), Some(false));
    assert_eq!(gateway.available("acme"), "1000");
    let accept = "sec-websocket-accept: oG1tGY2Q+c3F7LBadpKCpKUX6eo=";
    let switch = &format!(
        "HTTP/1.1 101 Switching Protocols\\nconnection: upgrade\\nupgrade: websocket\\n{accept}\\n\\n"
    );
    open(&mut client, 3, switch, "0");
    assert_eq!(told(&mut client, 3), Some(true));
    assert_eq!(gateway.available("acme"), "999");
    // A client that cancels before the response changes nothing about the charge.
    open(&mut client, 5, success, "300");
    eventually("the third at the upstream", || upstream.seen().len() == 3);
    client.give_up(5);
    eventually("its release", || gateway.available("acme") == "999" && upstream.last().answered);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(gateway.available("acme"), "999");
}

/// During a stop, a client without a request in flight is told that the gateway stops, and has a second to close,
/// however long other clients are still served.
#[test]
fn a_stop_waits_for_no_client_that_waits_for_nothing() {
    let gateway = Gateway::start(&config(""), &Upstream::start());
    let mut clients = [0, 1].map(|_| Raw::connect(gateway.public, &[]));
    for client in &mut clients {
        client.ask(1, "/one", &[]);
        client.until(|told| told.answered == [true]);
    }
    let begun = Instant::now();
    assert_eq!(gateway.stop().0, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "a third of its time to drain");
    for mut client in clients {
        let mut rest = Vec::new();
        client.stream.read_to_end(&mut rest).unwrap();
        client.came.extend(rest);
        let goaways = frames::read(&client.came).goaways;
        assert!(!goaways.is_empty() && goaways.iter().all(|code| *code == 0), "{goaways:?}");
    }
}

/// An HTTP/2 upstream for one connection. After the first response, `long` responses consist of as many small DATA
/// frames as the window has room for. All other responses have one DATA frame.
fn speaks_http2(long: u32) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 24]).unwrap();
        stream.write_all(&frames::frame(4, 0, 0, &[])).unwrap();
        let mut header = [0; 9];
        while stream.read_exact(&mut header).is_ok() {
            let number = u32::from_be_bytes(header[5..].try_into().unwrap());
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            stream.read_exact(&mut vec![0; length]).unwrap();
            let response = match (header[3], header[4]) {
                (1, _) => {
                    let mut response = frames::frame(1, END_HEADERS, number, &[0x88]);
                    let pieces = if (3..2 * long + 3).contains(&number) { WINDOW / PIECE.len() } else { 1 };
                    response.extend(frames::frame(0, 0, number, PIECE).repeat(pieces - 1));
                    response.extend(frames::frame(0, END_STREAM, number, PIECE));
                    response
                }
                (4, 0) => frames::frame(4, 1, 0, &[]),
                _ => continue,
            };
            stream.write_all(&response).unwrap();
        }
    });
    address
}

const PIECE: &[u8] = b"hello";
/// Bytes that the gateway lets an upstream send on a stream before the client reads them.
const WINDOW: usize = 64 * 1024;

/// Clients share a connection to an HTTP/2 upstream. Responses that one client leaves unread do not end the responses
/// of others, however small their DATA frames are.
#[test]
fn small_pieces_that_nobody_reads_end_no_connection_that_others_share() {
    let text = config(&calls(speaks_http2(8))).replace("threads = 2", "threads = 1");
    let gateway = Gateway::start(&text, &Upstream::start());
    let short = || {
        let short = get(gateway.public, "/calls/short", "x-api-key: good-key\r\n");
        assert_eq!((short.status, short.text().as_str()), (200, "hello"));
    };
    short();
    let no_window = [0, 4, 0, 0, 0, 0];
    let mut slow = Raw::connect(gateway.public, &no_window);
    for at in 0..8 {
        slow.ask(2 * at + 1, "/calls/long", &[]);
    }
    slow.until(|told| told.answered.len() == 8);
    for _ in 0..20 {
        short();
    }
    // The unread responses are delivered once their client opens its window.
    let room = |stream: u32| frames::frame(8, 0, stream, &100_000_u32.to_be_bytes());
    slow.stream.write_all(&(0..8).map(|at| room(2 * at + 1)).collect::<Vec<_>>().concat()).unwrap();
    slow.stream.write_all(&(0..8).map(|_| room(0)).collect::<Vec<_>>().concat()).unwrap();
    let whole = 8 * WINDOW / PIECE.len() * (9 + PIECE.len());
    while slow.came.len() < whole {
        slow.read();
        let told = frames::read(&slow.came);
        assert!(told.resets.is_empty() && told.goaways.is_empty(), "{told:?}");
    }
}

fn calls(upstream: SocketAddr) -> String {
    format!(
        "[upstreams.calls]\nservers = [\"h2c://{upstream}\"]\n[[routes]]\nname = \"calls\"\n\
         path = \"/calls/{{*rest}}\"\nupstream = \"calls\"\ncredits = 1\n"
    )
}

/// An HTTP/2 upstream gets no request for a WebSocket, and the refusal costs nothing.
#[test]
fn a_websocket_before_an_upstream_that_has_none_is_refused() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let gateway = Gateway::start(&config(&calls(silent.local_addr().unwrap())), &Upstream::start());
    let mut client = Raw::connect(gateway.public, &[]);
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/calls/x"),
        ("sec-websocket-version", "13"),
        ("x-api-key", "good-key"),
    ];
    client.head(1, 0, &fields);
    assert_eq!(client.until(|told| !told.answered.is_empty()).answered, [false]);
    client.ask(3, "/one", &[]);
    assert_eq!(client.until(|told| told.answered.len() == 2).answered, [false, true]);
    assert_eq!(gateway.available("acme"), "999");
    assert_eq!(silent.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "nobody connected");
}

/// An upstream whose connection is open but silent is detected long before its response is overdue, with a PING.
#[test]
fn a_connection_to_an_upstream_that_no_longer_lives_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = Gateway::start(&config(&calls(listener.local_addr().unwrap())), &Upstream::start());
    let upstream = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 24]).unwrap();
        stream.write_all(&frames::frame(4, 0, 0, &[])).unwrap();
        stream.write_all(&frames::frame(4, 1, 0, &[])).unwrap();
        let (mut header, mut kinds) = ([0; 9], Vec::new());
        while stream.read_exact(&mut header).is_ok() {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            stream.read_exact(&mut vec![0; length]).unwrap();
            kinds.push(header[3]);
        }
        kinds
    });
    let begun = Instant::now();
    let response = get(gateway.public, "/calls/x", "x-api-key: good-key\r\n");
    assert_eq!(response.status, 502, "{}", response.text());
    assert!(begun.elapsed() < Duration::from_secs(30), "half of the time that a response may take");
    assert!(upstream.join().unwrap().contains(&6), "a PING");
    assert_eq!(gateway.available("acme"), "1000");
}

/// HEAD gets no body, not even in Tollgate's own responses, because some HTTP/2 clients treat a body as an error.
#[test]
fn head_gets_no_body() {
    const DATA: u8 = 0;
    let gateway = Gateway::start(&config(""), &Upstream::start());
    let mut client = Raw::connect(gateway.public, &[]);
    for (at, (path, found)) in [("/nowhere", false), ("/one", true)].into_iter().enumerate() {
        let number = 2 * at as u32 + 1;
        let fields = [
            (":method", "HEAD"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", path),
            ("x-api-key", "good-key"),
        ];
        client.head(number, END_STREAM, &fields);
        assert_eq!(client.until(|told| told.answered.len() > at).answered[at], found);
    }
    client.read();
    let mut rest = &client.came[..];
    while let [_, middle, low, kind, ..] = rest {
        assert_ne!(*kind, DATA);
        rest = &rest[9 + (usize::from(*middle) << 8 | usize::from(*low))..];
    }
}

/// Heads that are too large are refused one by one, and a client that sends nothing else is cut off. A trusted proxy is
/// not cut off, because it has many clients.
#[test]
fn who_sends_only_heads_that_are_too_large_is_cut_off() {
    const HEADS: usize = 40;
    let large = [0x90; 2000]; // each field counts as 60 bytes: see `floods.rs`
    for trusts in ["", "trusted_proxies = [\"127.0.0.1\"]\n"] {
        let text = config("").replacen("[server]\n", &format!("[server]\n{trusts}"), 1);
        let gateway = Gateway::start(&text, &Upstream::start());
        let mut client = Raw::connect(gateway.public, &[]);
        let (mut sent, mut ended) = (0, false);
        while sent < HEADS && !ended {
            let head = frames::frame(1, END_STREAM | END_HEADERS, 2 * sent as u32 + 1, &large);
            ended = client.stream.write_all(&head).is_err();
            sent += 1;
            let mut buffer = [0; 4096];
            while !ended && frames::read(&client.came).answered.len() < sent {
                match client.stream.read(&mut buffer) {
                    Ok(count) if count > 0 => client.came.extend_from_slice(&buffer[..count]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    _ => ended = true,
                }
            }
        }
        let answered = frames::read(&client.came).answered;
        assert!(answered.len() >= 5 && !answered.contains(&true), "{answered:?}");
        assert_eq!(ended, trusts.is_empty(), "{answered:?}");
    }
}
