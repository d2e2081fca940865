//! Tests requests whose payment is not ready immediately, through a complete gateway.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use super::App;
use crate::clock::Clock;
use crate::gateway::waiting::{self, Wait};
use crate::types::KeyHash;

/// A gateway whose routes `/waits` and `/counts` wait for permits before they are paid for, and its upstream.
struct World {
    runtime: Runtime,
    app: App,
    address: SocketAddr,
    permits: Arc<Semaphore>,
    /// Number of requests that the upstream received.
    seen: Arc<AtomicUsize>,
    _folder: TempDir,
}

impl World {
    /// Starts a gateway. `test` is the prefix of its route names, since `waiting::set` applies to all
    /// gateways of a process.
    fn start(test: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (upstream, seen) = upstream();
        let route = |path: &str, credits: &str| {
            format!(
                "[[routes]]\nname = \"{test}.{path}\"\npath = \"/{path}\"\nupstream = \"api\"\n{credits}\n"
            )
        };
        let text = format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nthreads = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [ledger]\nurl = \"sqlite:ledger.db\"\n[log]\nrequests = false\n\
             [upstreams.api]\nservers = [\"http://{upstream}\"]\n{}{}{}\
             [accounts.acme]\ncredits = 10\n[[accounts.acme.keys]]\nlabel = \"a\"\nsha256 = \"{}\"\n",
            route("waits", "credits = 2"),
            route("counts", "credits = 2"),
            route("free", ""),
            KeyHash::of(b"good-key").to_hex()
        );
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text).expect("a written file");
        let permits = Arc::new(Semaphore::new(0));
        for (route, per_line) in [("waits", false), ("counts", true)] {
            waiting::set(&format!("{test}.{route}"), Wait { permits: Arc::clone(&permits), per_line });
        }
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let loaded = crate::config::load(&path).expect("a valid configuration");
        let app = runtime.block_on(App::start(&path, loaded, Clock::system(), None)).expect("a gateway");
        let address = app.public[0].address;
        Self { runtime, app, address, permits, seen, _folder: folder }
    }

    /// Sends a request, and leaves its connection open.
    fn send(&self, head: &str, body: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.address).expect("a connection");
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let request =
            format!("{head} HTTP/1.1\r\nhost: a\r\nx-api-key: good-key\r\nconnection: close\r\n{body}");
        client.write_all(request.as_bytes()).expect("a sent request");
        client
    }

    fn available(&self) -> String {
        let text = read(self.send("GET /account/info", "\r\n"));
        let body = text.split_once("\r\n\r\n").expect("a response with a body").1;
        let info: serde_json::Value = serde_json::from_str(body).expect("JSON");
        info["credits"].to_string()
    }

    fn stop(self) {
        self.runtime.block_on(self.app.stop()).expect("a closed ledger");
    }
}

fn read(mut client: TcpStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).expect("a response");
    text
}

/// Starts an upstream that responds 200 with the number of times that `line` is in the request. Returns its
/// address, and a counter of its requests.
fn upstream() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = listener.local_addr().expect("an address");
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let count = Arc::clone(&count);
            std::thread::spawn(move || respond(client, &count));
        }
    });
    (address, seen)
}

fn respond(mut client: TcpStream, count: &AtomicUsize) {
    let (mut text, mut part) = (Vec::new(), [0; 4096]);
    let end = |text: &[u8]| {
        let text = String::from_utf8_lossy(text).to_lowercase();
        let chunked = text.contains("transfer-encoding: chunked");
        text.contains("\r\n\r\n") && (!chunked || text.ends_with("0\r\n\r\n"))
    };
    while !end(&text) {
        match client.read(&mut part) {
            Ok(read) if read > 0 => text.extend_from_slice(&part[..read]),
            _ => return,
        }
    }
    count.fetch_add(1, Ordering::SeqCst);
    let body = String::from_utf8_lossy(&text);
    let lines = body.matches("line").count();
    let _ = client.write_all(
        format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\n{lines}").as_bytes(),
    );
}

fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if is_true() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}");
}

/// Promise 1: no request is forwarded before it is paid for. Other requests of the worker are served meanwhile.
#[test]
fn a_request_is_forwarded_once_its_payment_is_ready() {
    let world = World::start("ready");
    let waiting = world.send("GET /waits", "\r\n");
    assert!(read(world.send("GET /free", "\r\n")).starts_with("HTTP/1.1 200"));
    assert_eq!(world.seen.load(Ordering::SeqCst), 1, "only the free request");
    assert_eq!(world.available(), "10");
    world.permits.add_permits(1);
    let response = read(waiting);
    assert!(response.starts_with("HTTP/1.1 200") && response.contains("x-credits-used: 2"), "{response}");
    assert_eq!(world.available(), "8");
    world.stop();
}

/// Promise 5: a client that disconnects before its request is paid for owes nothing.
#[test]
fn a_client_that_leaves_while_its_payment_waits_owes_nothing() {
    let world = World::start("gone");
    drop(world.send("GET /waits", "\r\n"));
    std::thread::sleep(Duration::from_millis(100));
    world.permits.add_permits(1); // a payment that is still waiting would take this permit
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(world.permits.available_permits(), 1);
    assert_eq!((world.available().as_str(), world.seen.load(Ordering::SeqCst)), ("10", 0));
    world.stop();
}

/// A request whose payment takes too long is refused and costs nothing.
#[test]
fn a_payment_that_takes_too_long_is_refused() {
    let world = World::start("late");
    let response = read(world.send("GET /waits", "\r\n"));
    assert!(response.starts_with("HTTP/1.1 503") && response.contains("ledger_unavailable"), "{response}");
    assert_eq!((world.available().as_str(), world.seen.load(Ordering::SeqCst)), ("10", 0));
    world.stop();
}

/// A request body that the price depends on is read completely, and then forwarded as it was sent.
#[test]
fn a_price_by_the_request_body_waits_for_all_of_it() {
    let world = World::start("counts");
    world.permits.add_permits(10);
    let chunked = "transfer-encoding: chunked\r\n\r\n";
    let mut client = world.send("POST /counts", &format!("{chunked}5\r\nline\n\r\n"));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!((world.available().as_str(), world.seen.load(Ordering::SeqCst)), ("10", 0));
    client.write_all(b"a\r\nline\nline\n\r\n0\r\n\r\n").expect("the rest");
    let response = read(client);
    assert!(response.contains("x-credits-used: 2") && response.ends_with("\r\n\r\n3"), "{response}");
    wait_until("held for three lines, charged for one", || world.available() == "8");

    let six_lines = "line\n".repeat(6);
    let response = read(world.send("POST /counts", &format!("content-length: 30\r\n\r\n{six_lines}")));
    assert!(response.starts_with("HTTP/1.1 402"), "{response}");

    let response = read(world.send("POST /counts", "content-length: 8388609\r\n\r\n"));
    assert!(response.starts_with("HTTP/1.1 413"), "{response}");
    assert_eq!((world.available().as_str(), world.seen.load(Ordering::SeqCst)), ("8", 1));
    world.stop();
}
