//! What servers do wrong: no response of another request, no request twice, the right refusal, the right charge, and no
//! connection that spoils the next request.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{folder, start, with_servers};
use crate::support::{Authority, Client, Gateway, Pair, Refusing, Upstream, get, post};

const KEY: &str = "x-api-key: good-key\r\n";
/// How often each fault is tried.
const TIMES: usize = 100;

/// A server that does to a request what its `x-fault` says, if it is one that obeys. Responses name the request's id.
#[derive(Clone)]
struct Faulty {
    address: SocketAddr,
    obeys: bool,
    /// How often each request came, by its id.
    came: Arc<Mutex<HashMap<String, usize>>>,
}

impl Faulty {
    fn start(obeys: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { address: listener.local_addr().unwrap(), obeys, came: Arc::default() };
        let serving = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = serving.clone();
                std::thread::spawn(move || while server.serve_one(&stream).is_some() {});
            }
        });
        server
    }

    fn serve_one(&self, stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::with_capacity(1, stream);
        let mut fields = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) => drop(fields.insert(name.to_owned(), value.to_owned())),
                None if line.trim_end().is_empty() => break,
                None => {}
            }
        }
        let length = fields.get("content-length").map_or(0, |length| length.parse().unwrap());
        reader.read_exact(&mut vec![0; length]).ok()?;
        let id = fields.get("x-id").cloned().unwrap_or_default();
        *self.came.lock().unwrap().entry(id.clone()).or_default() += 1;
        let fault = fields.get("x-fault").filter(|_| self.obeys).map_or("", String::as_str);
        respond(stream, fault, &id)
    }
}

fn respond(mut stream: &TcpStream, fault: &str, id: &str) -> Option<()> {
    let body = format!("body of {id}");
    let whole = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut write = |bytes: &[u8]| stream.write_all(bytes).ok();
    match fault {
        "" => return write(whole.as_bytes()),
        "reset" => {
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
        "silent" => std::thread::sleep(Duration::from_secs(2)),
        "half a head" => write(&whole.as_bytes()[..20])?,
        "half a body" => write(&whole.as_bytes()[..whole.len() - 5])?,
        "garbage" => write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n\0\xff\xfe")?,
        "extra bytes" => {
            write(format!("{whole}HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong").as_bytes())?;
            std::thread::sleep(Duration::from_millis(300));
        }
        "endless head" => {
            write(b"HTTP/1.1 200 OK\r\n")?;
            while write(&b"x-more: and more\r\n".repeat(100)).is_some() {}
        }
        "endless body" => {
            write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
            while write(format!("400\r\n{}\r\n", "x".repeat(1024)).as_bytes()).is_some() {}
        }
        "slow drip" => {
            for byte in whole.as_bytes() {
                write(&[*byte])?;
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        "storm of 1xx" => write(&b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000))?,
        other => panic!("{other}"),
    }
    None
}

/// What a client gets for a request.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    /// The whole response to this request.
    Whole,
    /// A part of it, or one without an end.
    Cut,
    /// A refusal with this status.
    Refused(u16),
}

fn ask(client: &mut Client, method: &str, fault: &str, id: &str) -> Got {
    let fault = if fault.is_empty() { String::new() } else { format!("x-fault: {fault}\r\n") };
    let (length, body) = if method == "POST" { ("content-length: 4\r\n", "text") } else { ("", "") };
    client
        .send(format!("{method} /one HTTP/1.1\r\nhost: a\r\n{KEY}x-id: {id}\r\n{fault}{length}\r\n{body}"))
        .unwrap();
    let head = client.head().unwrap();
    if head.header("transfer-encoding").is_some() {
        for _ in 0..50 {
            client.chunk().unwrap();
        }
        return Got::Cut; // the endless body; the client leaves
    }
    let length: usize = head.header("content-length").unwrap().parse().unwrap();
    let Ok(body) = client.exactly(length) else { return Got::Cut };
    match head.status {
        200 => {
            assert_eq!(String::from_utf8_lossy(&body), format!("body of {id}"), "another request's response");
            Got::Whole
        }
        status => {
            assert_eq!(head.charged(), Some("0"), "{status}");
            Got::Refused(status)
        }
    }
}

/// Tries each fault a hundred times for GET and POST, each followed by a request without a fault. `expected`: what the
/// request with a fault gets, if the faulty server is asked; with other servers, a GET may get the whole response.
fn tries(servers: &[Faulty], fault: &str, expected: &Got) {
    let urls: Vec<String> = servers.iter().map(|server| format!("http://{}", server.address)).collect();
    let more = "ejection = { failures = 0 }\nretries = { most = 1, budget = \"100%\" }";
    let text = with_servers(&urls, more).replace("response_timeout = \"5s\"", "response_timeout = \"400ms\"");
    let gateway = start(&folder(&[]), &text);
    let spent = Mutex::new(0);
    std::thread::scope(|scope| {
        for thread in 0..10 {
            let (gateway, spent) = (&gateway, &spent);
            scope.spawn(move || {
                let mut client = Client::connect(gateway.public);
                for round in 0..TIMES / 10 {
                    for method in ["GET", "POST"] {
                        let id = format!("{fault}-{method}-{thread}-{round}");
                        let got = ask(&mut client, method, fault, &id);
                        let may_differ = servers.len() > 1 && got == Got::Whole;
                        assert!(got == *expected || may_differ, "{fault} {method}: {got:?}");
                        if got == Got::Cut {
                            client = Client::connect(gateway.public);
                        }
                        *spent.lock().unwrap() += usize::from(!matches!(got, Got::Refused(_)));
                        let got = ask(&mut client, method, "", &format!("{id}-next"));
                        assert_eq!(got, Got::Whole, "after {fault}");
                        *spent.lock().unwrap() += 1;
                    }
                }
            });
        }
    });
    let available: usize = gateway.available("acme").parse().unwrap();
    assert_eq!(1000 - available, *spent.lock().unwrap(), "{fault}");
    let mut came: HashMap<String, usize> = HashMap::new();
    for server in servers {
        for (id, times) in &*server.came.lock().unwrap() {
            *came.entry(id.clone()).or_default() += times;
        }
    }
    for (id, times) in came {
        let most = if id.contains("POST") || matches!(fault, "garbage" | "silent") { 1 } else { 2 };
        assert!(times <= most, "{id} came {times} times");
    }
}

#[test]
fn faults_of_servers_do_no_harm() {
    let table = [
        ("reset", Got::Refused(502)),
        ("silent", Got::Refused(504)),
        ("half a head", Got::Refused(502)),
        ("half a body", Got::Cut),
        ("garbage", Got::Refused(502)),
        ("extra bytes", Got::Whole),
        ("endless head", Got::Refused(502)),
        ("endless body", Got::Cut),
        ("slow drip", Got::Refused(504)),
        ("storm of 1xx", Got::Refused(502)),
    ];
    for (fault, expected) in table {
        tries(&[Faulty::start(true)], fault, &expected);
        tries(&[Faulty::start(true), Faulty::start(false), Faulty::start(false)], fault, &expected);
    }
}

/// A server that refuses connections, or whose certificate is refused: nothing was sent, so others are asked.
#[test]
fn servers_that_cannot_be_connected_to_do_no_harm() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let tls = |pair: Pair| Upstream::start_tls(pair.server(&[], None));
    let good = [tls(authority.issue(&["127.0.0.1"])), tls(authority.issue(&["127.0.0.1"]))];
    let wrong = tls(stranger.issue(&["127.0.0.1"]));
    let refusing = Refusing::bind();
    for bad in [refusing.address, wrong.address] {
        for others in [0, 2] {
            let mut urls = vec![format!("https://{bad}")];
            urls.extend(good[..others].iter().map(|upstream| format!("https://{}", upstream.address)));
            let more =
                "tls = { ca = \"ca.pem\" }\nejection = { failures = 0 }\nretries = { budget = \"100%\" }";
            let gateway = start(&folder(&[("ca.pem", &authority.pem)]), &with_servers(&urls, more));
            let before: usize = good.iter().map(|upstream| upstream.seen().len()).sum();
            let status = |gateway: &Gateway, round: usize| match round % 2 {
                0 => get(gateway.public, "/one", KEY).status,
                _ => post(gateway.public, "/one", KEY, "text").status,
            };
            let wanted = if others == 0 { 502 } else { 200 };
            // Ten retries a second are always in the budget.
            let (times, pause) = if others == 0 { (TIMES, 0) } else { (TIMES / 2, 120) };
            for round in 0..times {
                assert_eq!(status(&gateway, round), wanted, "{others} others, request {round}");
                std::thread::sleep(Duration::from_millis(pause));
            }
            let came = good.iter().map(|upstream| upstream.seen().len()).sum::<usize>() - before;
            let expected = if others == 0 { 0 } else { times };
            assert_eq!((came, wrong.seen().len()), (expected, 0));
            assert_eq!(gateway.available("acme"), (1000 - expected).to_string());
        }
    }
}

/// `Proxy-Status` names the upstream and the kind of its error, where that was switched on, and nothing else.
#[test]
fn the_kind_of_an_error_is_said_where_that_is_asked_for() {
    let (authority, faulty) = (Authority::new(), Faulty::start(true));
    let wrong = Upstream::start_tls(Pair::self_signed(&["127.0.0.1"]).server(&[], None));
    let refusing = Refusing::bind();
    let (plain, tls) = (format!("http://{}", faulty.address), "tls = { ca = \"ca.pem\" }");
    let table = [
        (format!("http://{}", refusing.address), "", "", "connection_refused"),
        (format!("https://{}", wrong.address), tls, "", "tls_certificate_error"),
        (format!("https://{}", faulty.address), tls, "", "tls_protocol_error"),
        (plain.clone(), "", "reset", "connection_terminated"),
        (plain.clone(), "", "garbage", "http_protocol_error"),
        (plain, "", "silent", "http_response_timeout"),
        ("http://nowhere.invalid".to_owned(), "", "", "dns_error"),
    ];
    for (url, more, fault, expected) in table {
        for is_on in [true, false] {
            let text = with_servers(std::slice::from_ref(&url), more)
                .replace("response_timeout = \"5s\"", "response_timeout = \"400ms\"");
            let text = format!("{text}[response_headers]\nproxy_status = {is_on}\n");
            let gateway = start(&folder(&[("ca.pem", &authority.pem)]), &text);
            let response = post(gateway.public, "/one", &format!("{KEY}x-fault: {fault}\r\n"), "text");
            let wanted = format!("tollgate; error={expected}; next-hop=\"api\"");
            assert!(response.status >= 502, "{expected}: {}", response.status);
            assert_eq!(response.header("proxy-status"), is_on.then_some(&*wanted));
            assert_eq!(gateway.available("acme"), "1000");
        }
    }
}
