//! Tests promise 8 over HTTP: a peer that is slow, silent or gone does not hold resources forever.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use crate::floods::frames;
use crate::support::{Client, Gateway, Upstream, config, get};

const KEY: &str = "x-api-key: good-key\r\n";

#[test]
fn slow_and_silent_clients_are_closed_by_their_deadline() {
    let more = "";
    let upstream = Upstream::start();
    let text = config(more)
        .replace("threads = 2", "threads = 1\nheader_timeout = \"600ms\"\nidle_timeout = \"1500ms\"");
    let gateway = Gateway::start(&text, &upstream);
    let closes = |client: &mut Client, least: u64, most: u64| {
        let start = Instant::now();
        assert!(client.is_closed());
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(least) && took < Duration::from_millis(most), "{took:?}");
    };
    let mut silent = Client::connect(gateway.public);
    closes(&mut silent, 400, 2500);
    let mut half = Client::connect(gateway.public);
    half.send("GET / HTTP/1.1\r\nhost:").unwrap();
    closes(&mut half, 400, 2500);
    let request = "GET /open/a HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut idle = Client::connect(gateway.public);
    assert_eq!(idle.ask(request).unwrap().status, 200);
    closes(&mut idle, 1200, 4000);
    let mut second = Client::connect(gateway.public);
    second.ask(request).unwrap();
    second.send("GET").unwrap();
    closes(&mut second, 400, 2500);
    let mut body = Client::connect(gateway.public);
    body.send("POST /open/a HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n1").unwrap();
    let start = Instant::now();
    let mut rest = Vec::new();
    let _ = body.socket().read_to_end(&mut rest);
    assert!(start.elapsed() < Duration::from_secs(5), "a body that stops coming ends");
}

#[test]
fn a_client_that_leaves_a_silent_stream_gives_its_place_back() {
    let upstream = Upstream::start();
    let hash = crate::support::sha256("single");
    let more = format!(
        "[plans.single]\nconcurrency = 1\n[accounts.single]\nplan = \"single\"\n[[accounts.single.keys]]\nlabel = \"k\"\nsha256 = \"{hash}\"\n"
    );
    let text = config(&more)
        .replace("threads = 2", "threads = 1\nidle_timeout = \"1s\"")
        .replace("\"5s\"", "\"20s\"");
    let gateway = Gateway::start(&text, &upstream);
    // The upstream sends the head and five bytes of the body, then nothing.
    let head = "GET /free/a HTTP/1.1\r\nhost: a\r\nx-api-key: single\r\nx-response-body: 0123456789\r\nx-response-stall: 5\r\n\r\n";
    let mut client = Client::connect(gateway.public);
    client.send(head).unwrap();
    assert_eq!(client.head().unwrap().status, 200);
    let ask = || get(gateway.public, "/free/b", "x-api-key: single\r\n").status;
    assert_eq!(ask(), 429);
    drop(client);
    let freed = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        ask() == 200
    });
    assert!(freed, "the slot of a client that left is free again");
}

/// A client that closes its sending side counts as disconnected immediately, as in nginx: its place in the key's
/// concurrency is free, and the gateway does not wait for the upstream. With `half_close` it still gets its response.
#[test]
fn a_client_that_closes_during_a_request_is_gone_at_once() {
    for half_close in [false, true] {
        let upstream = Upstream::start();
        let hash = crate::support::sha256("single");
        let more = format!(
            "[plans.single]\nconcurrency = 1\n[accounts.single]\nplan = \"single\"\n[[accounts.single.keys]]\nlabel = \"k\"\nsha256 = \"{hash}\"\n"
        );
        let text = config(&more).replace("threads = 2", &format!("threads = 1\nhalf_close = {half_close}"));
        let gateway = Gateway::start(&text, &upstream);
        // Bytes after a request make the gateway stop reading. It must still notice that the client has closed.
        for behind in ["", "GET /"] {
            upstream.clear();
            let mut client = Client::connect(gateway.public);
            let request =
                "GET /free/a HTTP/1.1\r\nhost: a\r\nx-api-key: single\r\nx-response-delay: 4000\r\n\r\n";
            client.send(format!("{request}{behind}")).unwrap();
            while upstream.seen().is_empty() {
                std::thread::sleep(Duration::from_millis(5));
            }
            client.socket().shutdown(std::net::Shutdown::Write).unwrap();
            if half_close {
                assert_eq!(client.head().unwrap().status, 200);
                continue;
            }
            let begun = Instant::now();
            while get(gateway.public, "/free/b", "x-api-key: single\r\n").status == 429 {
                std::thread::sleep(Duration::from_millis(20));
            }
            assert!(begun.elapsed() < Duration::from_secs(3), "{behind:?}: {:?}", begun.elapsed());
            assert!(!upstream.seen()[0].answered, "the upstream was not waited for");
        }
    }
}

#[test]
fn a_slow_upload_is_the_clients_time_not_the_upstreams() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config("").replace("\"5s\"", "\"400ms\""), &upstream);
    let mut client = Client::connect(gateway.public);
    client.send(format!("POST /one HTTP/1.1\r\nhost: a\r\n{KEY}content-length: 4\r\n\r\nab")).unwrap();
    std::thread::sleep(Duration::from_millis(1000));
    assert_eq!(client.ask("cd").unwrap().status, 200);
}

#[test]
fn more_connections_than_places_wait_their_turn() {
    let upstream = Upstream::start();
    let text = config("").replace("threads = 2", "threads = 1\nmax_connections = 2");
    let gateway = Gateway::start(&text, &upstream);
    let request = "GET /open/a HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut first = Client::connect(gateway.public);
    let mut second = Client::connect(gateway.public);
    assert_eq!(first.ask(request).unwrap().status, 200);
    assert_eq!(second.ask(request).unwrap().status, 200);
    let mut third = Client::connect(gateway.public);
    third.send(request).unwrap();
    third.socket().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(third.head().is_err(), "no place yet");
    drop(first);
    third.socket().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(third.read(false).unwrap().status, 200);
}

#[test]
fn a_client_that_stops_reading_holds_nothing_up_for_others() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(""), &upstream);
    let body = "x".repeat(4 << 20);
    let mut slow = Client::connect(gateway.public);
    let head = format!(
        "POST /open/a HTTP/1.1\r\nhost: a\r\nx-response-echo: 1\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    slow.send(head).unwrap();
    slow.socket().set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    slow.socket().write_all(body.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    for _ in 0..20 {
        assert_eq!(get(gateway.public, "/open/b", "").status, 200);
    }
    assert_eq!(slow.read(false).unwrap().body.len(), body.len());
}

#[test]
fn a_client_that_stops_reading_after_a_long_stream_is_closed_by_its_deadline() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut upstream = Upstream::start();
    upstream.address = listener.local_addr().unwrap(); // the gateway connects to the listener instead
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || stream_for_ever(stream));
        }
    });
    const MUCH: u64 = 64 << 20; // more than the socket buffers hold
    let more = "[server]\nidle_timeout = \"1s\"\n";
    let gateway = Gateway::start(&config("").replace("[server]\n", more), &upstream);
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(gateway.public)).collect();
    for client in &mut clients {
        client.send("GET /open/a HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    }
    // Long enough for each connection's timer to expire in an event loop iteration that only reads and writes.
    let mut piece = vec![0; 1 << 20];
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2500) {
        for client in &mut clients {
            assert!(client.socket().read(&mut piece).unwrap() > 0);
        }
    }
    std::thread::sleep(Duration::from_millis(4000));
    for client in &mut clients {
        client.socket().set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let rest = std::io::copy(&mut client.socket().take(MUCH), &mut std::io::sink());
        let cut = rest.map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |rest| rest < MUCH);
        assert!(cut, "the response was not cut");
    }
}

fn stream_for_ever(mut stream: std::net::TcpStream) {
    let mut head = [0; 4096];
    let _ = stream.read(&mut head);
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut chunk = b"8000\r\n".to_vec();
    chunk.resize(chunk.len() + 0x8000, b'x');
    chunk.extend_from_slice(b"\r\n");
    while stream.write_all(&chunk).is_ok() {}
}

/// A client that is slow at a steady pace is cut off too: waiting time adds up, and 256 received bytes offset one
/// second of it.
#[test]
fn a_body_that_drips_runs_out_of_patience_and_a_slow_one_does_not() {
    let upstream = Upstream::start();
    let text = config("").replace("threads = 2", "threads = 1\nidle_timeout = \"1s\"");
    let gateway = Gateway::start(&text, &upstream);
    let head = "POST /open/a HTTP/1.1\r\nhost: a\r\ncontent-length: 6000\r\n\r\n";
    let send = |piece: usize| {
        let mut client = Client::connect(gateway.public);
        client.send(head).unwrap();
        let start = Instant::now();
        let mut left = 6000_usize;
        while left > 0 && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(100));
            if client.send("x".repeat(piece.min(left))).is_err() {
                return None; // closed within the body
            }
            left = left.saturating_sub(piece);
        }
        (left == 0).then(|| client.read(false).unwrap().status)
    };
    assert_eq!(send(1), None);
    assert_eq!(send(200), Some(200));
}

/// An HTTP/2 client that opens no flow-control window for a response, or a window that is too small, cannot keep the
/// stream open by sending other frames. This holds for upstream responses and for Tollgate's own.
#[test]
fn a_stream_that_nobody_reads_is_reset_and_its_connection_goes_on() {
    let upstream = Upstream::start();
    let text = config("").replace("threads = 2", "threads = 1\nidle_timeout = \"1s\"");
    let gateway = Gateway::start(&text, &upstream);
    for (path, echoed, window, answered) in [
        ("/open/a", 0, 0, true),
        ("/open/a", 5000, 1, true),
        ("/open/a", 5000, 4998, true),
        ("/one", 0, 0, false),
    ] {
        is_reset_unread(&gateway, path, echoed, window, answered);
    }
}

/// Sends `echoed` bytes, which the response repeats, with an initial window of `window` bytes. Checks that the gateway
/// resets the unread stream.
fn is_reset_unread(gateway: &Gateway, path: &str, echoed: usize, window: u32, answered: bool) {
    let mut stream = std::net::TcpStream::connect(gateway.public).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut fields = vec![(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", path)];
    if echoed > 0 {
        fields.push(("x-response-echo", "yes"));
    }
    let room = [&[0, 4][..], &window.to_be_bytes()].concat();
    let start = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &*frames::frame(4, 0, 0, &room),
        &frames::frame(1, 4, 1, &frames::head(&fields)),
        &frames::frame(0, 1, 1, &vec![b'x'; echoed]),
    ];
    stream.write_all(&start.concat()).unwrap();
    let (begun, mut came) = (Instant::now(), Vec::new());
    while frames::read(&came).resets.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(5), "never reset: {:?}", frames::read(&came));
        stream.write_all(&frames::frame(6, 0, 0, &[0; 8])).unwrap(); // 50 a second, too few to be a flood
        std::thread::sleep(Duration::from_millis(20));
        let mut buffer = [0; 8192];
        match stream.read(&mut buffer) {
            Ok(0) => panic!("the connection ended: {:?}", frames::read(&came)),
            Ok(count) => came.extend_from_slice(&buffer[..count]),
            Err(_) => {} // read timeout
        }
    }
    assert!(begun.elapsed() > Duration::from_millis(900), "{path} {window}: {:?}", begun.elapsed());
    assert_eq!(frames::read(&came).answered, [answered], "its head had room");
}
