//! Tests what an operator relies on: every request is logged with its outcome, also those that hyper refuses by itself;
//! no log line is repeated without bound; addresses and paths of the configuration have the documented meaning.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Client, Gateway, Refusing, Upstream, cli, config, get, post, sha256};

const KEY: &str = "x-api-key: good-key\r\n";

fn request_lines(gateway: &Gateway) -> Vec<Value> {
    let lines = gateway.lines().into_iter().filter(|line| line.contains("tollgate::request"));
    lines.map(|line| serde_json::from_str(&line).unwrap()).collect()
}

fn wait_for_lines(gateway: &Gateway, count: usize) -> Vec<Value> {
    for _ in 0..200 {
        let lines = request_lines(gateway);
        if lines.len() >= count {
            return lines;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{count} lines wanted: {:?}", request_lines(gateway));
}

/// The log line and the counters have the reason why a request was refused. The log line has a proxy's request id
/// beside Tollgate's.
#[test]
fn every_request_is_logged_with_what_became_of_it() {
    let upstream = Upstream::start();
    let text = config("").replace("threads = 2\n", "threads = 1\ntrusted_proxies = [\"127.0.0.1\"]\n");
    let gateway = Gateway::start(&text, &upstream);
    let table = [
        (format!("GET /one HTTP/1.1\r\nhost: a\r\n{KEY}x-request-id: id-0\r\n\r\n"), 200, "proxied"),
        ("GET /one HTTP/1.1\r\nhost: a\r\nx-request-id: id-1\r\n\r\n".to_owned(), 401, "missing_key"),
        (
            "GET /one HTTP/1.1\r\nhost: a\r\nx-api-key: w\r\nx-request-id: id-2\r\n\r\n".to_owned(),
            401,
            "invalid_key",
        ),
        ("GET /no HTTP/1.1\r\nhost: a\r\nx-request-id: id-3\r\n\r\n".to_owned(), 404, "no_route"),
        (
            format!("GET /account/info HTTP/1.1\r\nhost: a\r\n{KEY}x-request-id: id-4\r\n\r\n"),
            200,
            "answered",
        ),
        // hyper responds to these requests by itself, with a bare status.
        ("GET / HTTP/1.1\r\nbad header\r\n\r\n".to_owned(), 400, "bad_request"),
        (format!("GET / HTTP/1.1\r\nhost: a\r\na: {}\r\n\r\n", "b".repeat(100_000)), 431, "header_too_large"),
    ];
    for (at, (request, status, outcome)) in table.iter().enumerate() {
        let mut client = Client::connect(gateway.public);
        let _ = client.send(request); // the response may arrive before the request was sent completely
        assert_eq!(client.head().unwrap().status, *status, "{outcome}");
        drop(client);
        let line = wait_for_lines(&gateway, at + 1).pop().unwrap();
        assert_eq!((&line["status"], &line["outcome"]), (&json!(status), &json!(outcome)), "{line}");
        let id = request.contains("x-request-id").then(|| format!("id-{at}"));
        assert_eq!(line["proxy_request_id"].as_str(), id.as_deref(), "{line}");
        assert!(line["request_id"].as_str().unwrap().starts_with("req_"));
    }
    let status = gateway.json(&["status"]);
    let count = |outcome: &str| status["outcomes"][outcome].as_u64();
    assert_eq!(
        (count("proxied"), count("invalid_key"), count("header_too_large")),
        (Some(1), Some(1), Some(1))
    );
    assert_eq!((&status["requests"], &status["refused"]), (&json!(7), &json!(5)));
}

/// A hold that a crash left in doubt is found and given back by the id that a proxy gave the request.
#[test]
fn a_hold_in_doubt_is_found_by_a_proxys_id() {
    let upstream = Upstream::start();
    let text = config("").replace("threads = 2\n", "threads = 1\ntrusted_proxies = [\"127.0.0.1\"]\n");
    let gateway = Gateway::start(&text, &upstream);
    let ids = ["trace-1", "trace-2", "trace-2"];
    let clients = ids.map(|id| {
        let mut client = Client::connect(gateway.public);
        let given = format!("x-request-id: {id}\r\nx-response-delay: 5000\r\n");
        client.send(format!("GET /one HTTP/1.1\r\nhost: a\r\n{KEY}{given}\r\n")).unwrap();
        client
    });
    while upstream.seen().len() < ids.len() {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(300)); // their holds are on disk
    let gateway = Gateway::start_in(gateway.crash());
    drop(clients);
    let found = |request: &str| gateway.rows(&["ledger", "in-doubt", "--request", request]);
    assert_eq!((found("trace-1").len(), found("trace-2").len(), found("trace-3").len()), (1, 2, 0));
    assert_eq!(gateway.rows(&["ledger", "in-doubt"]).len(), 3);
    let id = found("trace-1")[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(found(&id)[0]["id"], id, "by Tollgate's own, too");
    assert_eq!(gateway.json(&["ledger", "give-back", "trace-1"])["id"], id);
    assert_eq!(gateway.available("acme"), "998");
    let several = gateway.cli(&["ledger", "give-back", "trace-2"]);
    assert!(!several.status.success() && String::from_utf8_lossy(&several.stderr).contains("name one"));
    let none = gateway.cli(&["ledger", "give-back", "trace-3"]);
    assert!(!none.status.success() && String::from_utf8_lossy(&none.stderr).contains("no hold in doubt"));
}

/// Requests to an upstream that cannot be reached do not each write a log line.
#[test]
fn an_upstream_that_is_away_is_told_of_once() {
    let away = Refusing::bind();
    let text = config("").replace("{upstream}", &away.address.to_string());
    let gateway = Gateway::start(&text, &Upstream::start());
    for _ in 0..300 {
        assert_eq!(get(gateway.public, "/open/a", "").status, 502);
    }
    let told = gateway.lines().iter().filter(|line| line.contains("a request to the server failed")).count();
    assert!((1..=2).contains(&told), "{told} lines of two workers");
}

/// A head with many fields gets its response in order: after another request and before one, sent in one piece or in
/// several, or while the previous request is still waiting.
#[test]
fn many_fields_come_anywhere_on_a_connection() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(""), &upstream);
    let fields = (0..180).map(|at| format!("x-{at}: y\r\n")).collect::<String>();
    let few = "POST /open/few HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    let slow = "GET /open/slow HTTP/1.1\r\nhost: a\r\nx-response-delay: 100\r\n\r\n";
    let many = format!("POST /open/many HTTP/1.1\r\nhost: a\r\n{fields}content-length: 3\r\n\r\nabc");
    let all = [few, slow, &many, few, &many, few].concat();
    for piece in [all.len(), 1500, 700, 33] {
        upstream.clear();
        let mut client = Client::connect(gateway.public);
        for bytes in all.as_bytes().chunks(piece) {
            client.send(bytes).unwrap();
            std::thread::sleep(Duration::from_millis(u64::from(piece > 33)));
        }
        for at in 0..6 {
            assert_eq!(client.read(false).unwrap().status, 200, "response {at}, in pieces of {piece}");
        }
        let seen = upstream.seen();
        let paths: Vec<&str> = seen.iter().map(|seen| seen.target()).collect();
        assert_eq!(paths, ["few", "slow", "many", "few", "many", "few"].map(|name| format!("/open/{name}")));
        for seen in seen.iter().filter(|seen| seen.target() == "/open/many") {
            assert_eq!((seen.header("x-179"), &seen.body[..]), (Some("y"), &b"abc"[..]));
        }
    }
    let last = "GET /open/last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let mut client = Client::connect(gateway.public);
    upstream.clear();
    client.send([last, &many].concat()).unwrap();
    assert_eq!(client.read(false).unwrap().status, 200);
    assert!(client.is_closed() && upstream.seen().len() == 1, "nothing is answered behind the last request");
}

/// Up to 200 fields pass in both directions. With one more, the request is refused with an error body, and logged.
#[test]
fn many_fields_pass_and_too_many_are_refused_in_words() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(""), &upstream);
    let fields = |count: usize| (0..count).map(|at| format!("x-{at}: y\r\n")).collect::<String>();
    for (count, status) in [(98, 200), (99, 200), (100, 200), (199, 200), (200, 431), (255, 431)] {
        let response = get(gateway.public, "/open/a", &fields(count)); // plus the host
        assert_eq!(response.status, status, "{count} fields");
        if status == 431 {
            assert_eq!(response.json()["code"], "header_too_large");
            assert_eq!(response.header("connection"), Some("close"));
        } else {
            assert_eq!(upstream.last().header(&format!("x-{}", count - 1)), Some("y"));
        }
    }
    let large = get(gateway.public, "/open/a", &format!("a: {}\r\n", "b".repeat(40_000)));
    assert_eq!((large.status, &large.json()["code"]), (431, &json!("header_too_large")));
    let response = |count: usize| {
        let head = (0..count).map(|at| format!("y-{at}: z\\n")).collect::<String>();
        let raw = format!(
            "x-response-raw: HTTP/1.1 200 OK\\nconnection: close\\ncontent-length: 0\\n{head}\\n\r\n"
        );
        get(gateway.public, "/open/a", &raw)
    };
    assert_eq!(response(150).header("y-149"), Some("z"));
    assert_eq!((response(198).status, response(199).status), (200, 502)); // plus two more
    let http2 = |count: usize| {
        let url = format!("http://{}/open/a", gateway.public);
        let fields: Vec<String> = (0..count).map(|at| format!("x-{at}: y")).collect();
        let mut curl = std::process::Command::new("curl");
        curl.args(["-s", "--http2-prior-knowledge", "-w", "%{http_code}"]);
        let output =
            curl.args(fields.iter().flat_map(|field| ["-H", field])).arg(url).output().expect("curl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(http2(150).ends_with("200"));
    let refused = http2(210);
    assert!(refused.ends_with("431") && refused.contains("header_too_large"), "{refused}");
    let lines = wait_for_lines(&gateway, 12);
    let told = lines.iter().filter(|line| line["outcome"] == "header_too_large").count();
    assert_eq!(told, 4, "{lines:?}");
}

#[test]
fn a_prefix_is_stripped_however_it_is_written() {
    let upstream = Upstream::start();
    let more = "[[routes]]\nname = \"s\"\npath = \"/a;b/c%20d/{*rest}\"\nupstream = \"api\"\npublic = true\nstrip_prefix = \"/a;b/c%20d\"\n";
    let gateway = Gateway::start(&config(more), &upstream);
    for path in ["/a;b/c%20d/x", "/a%3Bb/c%20d/x", "/%61%3bb/%63%20d/x"] {
        assert_eq!(get(gateway.public, path, "").status, 200, "{path}");
        assert_eq!(upstream.last().target(), "/x", "{path}");
    }
    assert_eq!(get(gateway.public, "/a%3bb/c%20d/", "").status, 200);
    assert_eq!(upstream.last().target(), "/");
}

/// `[::]` accepts IPv4 connections too, unless an IPv4 address with the same port is listed.
#[test]
fn an_unspecified_ipv6_address_takes_both_families() {
    if TcpListener::bind("[::1]:0").is_err() {
        return crate::support::skipped("this machine has no IPv6");
    }
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config("").replace("[\"127.0.0.1:0\"]", "[\"[::]:0\"]"), &upstream);
    for host in ["127.0.0.1", "::1"] {
        let address = SocketAddr::new(host.parse().unwrap(), gateway.public.port());
        assert_eq!(get(address, "/open/a", "").status, 200, "{host}");
        assert_eq!(upstream.last().header("x-forwarded-for"), Some(host));
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let both = format!("[\"[::]:{port}\", \"127.0.0.1:{port}\"]");
    let gateway = Gateway::start(&config("").replace("[\"127.0.0.1:0\"]", &both), &upstream);
    for host in ["127.0.0.1", "::1"] {
        let address = SocketAddr::new(host.parse().unwrap(), gateway.public.port());
        assert_eq!(get(address, "/open/a", "").status, 200, "{host}");
    }
}

/// If a large upload is refused early, its connection is not reset before the client has read the reason.
#[test]
fn an_upload_that_is_refused_early_learns_why() {
    let upstream = Upstream::start();
    let text = config("").replace("threads = 2\n", "threads = 2\nmax_body_size = \"1KiB\"\n");
    let gateway = Gateway::start(&text, &upstream);
    let body = vec![b'x'; 1_000_000];
    for round in 0..20 {
        let (key, status) = if round % 2 == 0 { ("wrong", "401") } else { ("good-key", "413") };
        let mut stream = TcpStream::connect(gateway.public).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let head = format!(
            "POST /one HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        for piece in body.chunks(50_000) {
            std::thread::sleep(Duration::from_millis(2));
            stream.write_all(piece).unwrap_or_else(|error| panic!("round {round}: {error}"));
        }
        let mut response = [0; 12];
        stream.read_exact(&mut response).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(String::from_utf8_lossy(&response[9..]), status);
    }
}

/// Commands that only read a ledger book nothing. Only a gateway, or a command that books, makes an opening grant.
#[test]
fn looking_at_a_ledger_without_a_gateway_grants_nothing() {
    let upstream = Upstream::start();
    let (_, folder) = Gateway::start(&config(""), &upstream).stop();
    let path = folder.path().join("config.toml");
    let more = format!(
        "[accounts.later]\ncredits = 50\n[[accounts.later.keys]]\nlabel = \"k\"\nsha256 = \"{}\"\n",
        sha256("later")
    );
    let text = std::fs::read_to_string(&path).unwrap() + &more;
    std::fs::write(&path, text).unwrap();
    let told = |arguments: &[&str]| {
        let output = cli(folder.path(), arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for arguments in
        [&["account", "list"][..], &["key", "list"], &["ledger", "verify"], &["ledger", "in-doubt"]]
    {
        told(arguments);
    }
    assert!(!told(&["account", "list"]).contains("later"));
    assert!(!told(&["ledger", "export"]).contains("later"));
    assert!(told(&["account", "list"]).contains("acme"));
    assert!(told(&["key", "list"]).contains("good"), "the file's own keys are known");
    let gateway = Gateway::start_in(folder);
    assert_eq!(gateway.available("later"), "50");
}

/// If an upstream switches protocols without the right `Sec-WebSocket-Accept`, no WebSocket is opened, and the request
/// costs nothing.
#[test]
fn a_websocket_that_is_not_accepted_is_none() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(""), &upstream);
    let ask = |accept: &str| {
        let raw = format!(
            "HTTP/1.1 101 Switching Protocols\\nconnection: upgrade\\nupgrade: websocket\\n{accept}\\n"
        );
        let key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n";
        let headers =
            format!("{KEY}connection: upgrade\r\nupgrade: websocket\r\n{key}x-response-raw: {raw}\r\n");
        get(gateway.public, "/one", &headers).status
    };
    assert_eq!(ask("sec-websocket-accept: c3pPLMBiTxaQ9kYGzzhZRbK+xOo=\\n"), 502);
    assert_eq!(ask(""), 502);
    assert_eq!(gateway.available("acme"), "1000");
    assert_eq!(ask("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\\n"), 101);
    assert_eq!(gateway.available("acme"), "999");
}

/// Only Tollgate sets the headers that identify the client. `set_headers` cannot name them.
#[test]
fn set_headers_cannot_name_what_says_who_asks() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["x-tollgate-account", "X-Tollgate-Key", "x-tollgate-anything", "x-request-id", "te", "host"]
    {
        let text = config("").replace("{upstream}", "127.0.0.1:9");
        let more = format!("set_headers = {{ {name} = \"x\" }}\n\n[[routes]]\nname = \"free\"");
        let text = text.replacen("\n[[routes]]\nname = \"free\"", &more, 1);
        std::fs::write(folder.path().join("config.toml"), text).unwrap();
        let told = cli(folder.path(), &["check"]);
        assert_eq!(told.status.code(), Some(1), "{name}");
        let told = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(told.contains("cannot be set here"), "{name}: {told}");
    }
    assert_eq!(post(Gateway::start(&config(""), &Upstream::start()).public, "/one", KEY, "").status, 200);
}

/// A gateway that says that it serves hears every signal.
#[test]
fn a_signal_is_heard_as_soon_as_the_gateway_serves() {
    for _ in 0..5 {
        let gateway = Gateway::start(&config(""), &Upstream::start());
        gateway.signal("HUP");
        let (code, _) = gateway.stop();
        assert_eq!(code, Some(0), "{code:?}");
    }
}
