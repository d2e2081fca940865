//! Tests upstream responses that other gateways handled wrongly. None may reach a client as the response to another
//! request, and each costs what the price says (promises 1 and 4).

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use crate::support::{Client, Gateway, Upstream, config};

const KEY: &str = "x-api-key: good-key\r\n";

/// What a client receives for an upstream's response.
enum Outcome {
    /// The whole response, with this status and body.
    Whole(u16, &'static str),
    /// A refusal made by Tollgate, charged 0.
    Refused,
    /// A head, after which the connection breaks.
    Cut,
}
use Outcome::{Cut, Refused, Whole};

fn request(method: &str, raw: &str) -> String {
    format!("{method} /one HTTP/1.1\r\nhost: a\r\n{KEY}x-response-raw: {raw}\r\n\r\n")
}

#[test]
fn an_odd_answer_is_refused_or_cut_and_never_anybody_elses() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(""), &upstream);
    let flood = format!("{}HTTP/1.1 200 OK\\ncontent-length: 0\\n\\n", "HTTP/1.1 103 H\\n\\n".repeat(33));
    let fields = format!("HTTP/1.1 200 OK\\n{}\\n", "a: b\\n".repeat(201));
    let table = [
        // Bytes after the end of a response are forwarded to no client.
        (
            "GET",
            "HTTP/1.1 200 OK\\ncontent-length: 2\\n\\nokHTTP/1.1 200 OK\\ncontent-length: 4\\n\\nevil",
            Whole(200, "ok"),
        ),
        ("GET", "HTTP/1.1 204 No\\n\\nHTTP/1.1 200 OK\\ncontent-length: 4\\n\\nevil", Whole(204, "")),
        ("GET", "HTTP/1.1 204 No\\ncontent-length: 4\\n\\nevil", Whole(204, "")),
        ("GET", "HTTP/1.1 304 No\\ncontent-length: 4\\n\\nevil", Whole(304, "")),
        ("HEAD", "HTTP/1.1 200 OK\\ncontent-length: 4\\n\\nevil", Whole(200, "")),
        (
            "GET",
            "HTTP/1.1 200 OK\\ntransfer-encoding: chunked\\n\\n2\\nok\\n0\\n\\nHTTP/1.1 200 OK\\n\\n",
            Whole(200, "ok"),
        ),
        // Informational responses (1xx) are not forwarded.
        (
            "GET",
            "HTTP/1.1 103 Hints\\nlink: x\\n\\nHTTP/1.1 100 Go\\n\\nHTTP/1.1 200 OK\\ncontent-length: 2\\n\\nok",
            Whole(200, "ok"),
        ),
        ("GET", &flood, Refused),
        // The end of the connection ends a body without a length.
        ("GET", "HTTP/1.1 200 OK\\n\\nok", Whole(200, "ok")),
        ("GET", "HTTP/1.0 200 OK\\n\\nok", Whole(200, "ok")),
        // A length that two readers could interpret differently.
        ("GET", "HTTP/1.1 200 OK\\ncontent-length: 2\\ntransfer-encoding: chunked\\n\\n0\\n\\n", Refused),
        ("GET", "HTTP/1.1 200 OK\\ncontent-length: 2\\ncontent-length: 3\\n\\nok!", Refused),
        ("GET", "HTTP/1.1 200 OK\\ncontent-length: 2, 2\\n\\nok", Refused),
        ("GET", "HTTP/1.1 200 OK\\ncontent-length: -2\\n\\nok", Refused),
        ("GET", "HTTP/1.1 200 OK\\ntransfer-encoding: gzip, chunked\\n\\n0\\n\\n", Refused),
        ("GET", "HTTP/1.0 200 OK\\ntransfer-encoding: chunked\\n\\n0\\n\\n", Refused),
        // Not a valid response head.
        ("GET", "HTTP/1.1 200 OK\\nfolded: a\\n b\\n\\n", Refused),
        ("GET", "HTTP/1.1 200 OK\\nname : a\\n\\n", Refused),
        ("GET", "HTTP/1.1 OK\\n\\n", Refused),
        ("GET", "HTTP/3 200 OK\\n\\n", Refused),
        ("GET", "HTTP/1.1 101 Switch\\nupgrade: websocket\\nconnection: upgrade\\n\\nevil", Refused),
        ("GET", "HTTP/1.1 200 OK\\ncontent-le", Refused),
        ("GET", &fields, Refused),
        // The body is incomplete or its chunks are invalid.
        ("GET", "HTTP/1.1 200 OK\\ncontent-length: 9\\n\\nshort", Cut),
        ("GET", "HTTP/1.1 200 OK\\ntransfer-encoding: chunked\\n\\n5\\nhello\\n", Cut),
        ("GET", "HTTP/1.1 200 OK\\ntransfer-encoding: chunked\\n\\n5\\nhello\\nzz\\n", Cut),
        ("GET", "HTTP/1.1 200 OK\\ntransfer-encoding: chunked\\n\\n5\\nhello!\\n0\\n\\n", Cut),
    ];
    let mut charged = 0;
    for (method, raw, outcome) in &table {
        let mut client = Client::connect(gateway.public);
        client.send(request(method, raw)).unwrap();
        let response = client.read(*method == "HEAD");
        match (outcome, response) {
            (Whole(status, body), Ok(response)) => {
                assert_eq!((response.status, response.text().as_str()), (*status, *body), "{raw}");
                charged += u32::from(*status < 300);
            }
            (Refused, Ok(response)) => {
                assert_eq!((response.status, response.charged()), (502, Some("0")), "{raw}");
            }
            (Cut, Err(_)) => {
                charged += 1; // the response head had arrived
                client = Client::connect(gateway.public);
            }
            (_, response) => panic!("{raw}: {response:?}"),
        }
        // The upstream closes after each response. A request sent before the gateway notices that would get a 502.
        std::thread::sleep(std::time::Duration::from_millis(50));
        // The next request, on the same connection if that is still open, gets its own response.
        let plain = client.ask(format!("GET /one HTTP/1.1\r\nhost: a\r\n{KEY}x-response-body: mine\r\n\r\n"));
        assert_eq!(plain.unwrap().text(), "mine", "after {raw}");
        charged += 1;
    }
    assert_eq!(gateway.available("acme"), (1000 - charged).to_string());
}

#[test]
fn an_answer_may_begin_before_the_request_has_ended() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut upstream, address) = (Upstream::start(), listener.local_addr().unwrap());
    upstream.address = address; // the gateway connects to the listener instead
    let gateway = Gateway::start(&config(""), &upstream);
    let echo = std::thread::spawn(move || {
        let stream = listener.accept().unwrap().0;
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
        respond_each_chunk(&stream, &mut reader);
    });
    let mut client = Client::connect(gateway.public);
    client.send(format!("POST /one HTTP/1.1\r\nhost: a\r\n{KEY}transfer-encoding: chunked\r\n\r\n")).unwrap();
    assert_eq!(client.head().unwrap().status, 200);
    for word in ["first", "second", "third"] {
        client.send(format!("{:x}\r\n{word}\r\n", word.len())).unwrap();
        assert_eq!(client.chunk().unwrap(), word.as_bytes(), "what was sent comes back at once");
    }
    client.send("0\r\n\r\n").unwrap();
    assert_eq!(client.chunk().unwrap(), b"");
    echo.join().unwrap();
    assert_eq!(gateway.available("acme"), "999");
}

/// Sends a response head immediately, then each chunk as soon as it arrives.
fn respond_each_chunk(mut stream: &TcpStream, reader: &mut impl BufRead) {
    stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    loop {
        let mut size = String::new();
        reader.read_line(&mut size).unwrap();
        let length = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut data = vec![0; length + 2];
        reader.read_exact(&mut data).unwrap();
        stream.write_all(size.as_bytes()).unwrap();
        stream.write_all(&data).unwrap();
        if length == 0 {
            return;
        }
    }
}

#[test]
fn a_body_that_outgrows_its_bound_after_the_answer_began_cuts_the_upstream() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut upstream = Upstream::start();
    upstream.address = listener.local_addr().unwrap(); // the gateway connects to the listener instead
    let small = "name = \"one\"\nmax_body_size = \"1KiB\"\n";
    let text = config("").replace("name = \"one\"\n", small);
    assert!(text.contains(small), "the route has a bound");
    let gateway = Gateway::start(&text, &upstream);
    let saw_the_end = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
        let mut rest = Vec::new();
        match std::io::Read::read_to_end(&mut reader, &mut rest) {
            Ok(_) => !rest.ends_with(b"0\r\n\r\n"), // closed without the last chunk
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    });
    let mut client = Client::connect(gateway.public);
    client.send(format!("POST /one HTTP/1.1\r\nhost: a\r\n{KEY}transfer-encoding: chunked\r\n\r\n")).unwrap();
    assert_eq!(client.head().unwrap().status, 200);
    client.send(format!("800\r\n{}\r\n", "x".repeat(0x800))).unwrap();
    assert!(saw_the_end.join().unwrap(), "the upstream was cut");
    assert!(client.is_closed(), "and so was the response");
    assert_eq!(gateway.available("acme"), "999");
}
