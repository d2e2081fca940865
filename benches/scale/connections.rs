//! Measures the memory of idle connections and of requests in flight, and the time to find a route.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::Method;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tollgate::config;

use crate::books::{config as text_of, file_keys, key_text};
use crate::process::{Gateway, Memory};
use crate::upstream::Upstream;
use crate::{Sizes, heading, line, mib};

/// Route look-ups that are timed.
const LOOKUPS: u32 = 200_000;

fn request() -> String {
    format!("GET /one HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\n\r\n", key_text(0))
}

fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).expect("a connection; raise `ulimit -n`")
}

/// A connection that served one request and waits for the next.
fn idle(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(request().as_bytes()).expect("a sent request");
    let count = stream.read(&mut [0; 4096]).expect("a response");
    assert!(count > 0, "a gateway that responds");
    stream
}

/// Bytes per additional connection between two numbers of connections, so that the gateway's base memory is not
/// included.
fn slope(counts: [usize; 2], memory: [Memory; 2]) -> String {
    let more = memory[1].resident as f64 - memory[0].resident as f64;
    format!("{:.0}", more / (counts[1] - counts[0]) as f64)
}

/// Measures the memory per idle connection and per request in flight.
pub fn idle_and_in_flight(sizes: &Sizes) {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    heading("connections", &["connections", "idle MiB", "in flight MiB"]);
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = text_of(&upstream.address.to_string(), &file_keys(1, 0));
    let text = text.replace("[admin]", "idle_timeout = \"600s\"\n[admin]"); // part of `[server]`
    std::fs::write(folder.path().join("config.toml"), text).expect("a written file");
    let gateway = Gateway::start(folder.path());
    let mut open: Vec<TcpStream> = Vec::new();
    let idle = sizes.connections.map(|count| {
        while open.len() < count {
            open.push(idle(gateway.public));
        }
        gateway.settled(sizes.settle)
    });
    drop(open);
    drop(gateway);
    let gateway = Gateway::start(folder.path());
    upstream.hold.store(true, Ordering::SeqCst);
    let mut open: Vec<TcpStream> = Vec::new();
    let before = upstream.came.load(Ordering::SeqCst);
    let in_flight = sizes.connections.map(|count| {
        while open.len() < count {
            let mut stream = connect(gateway.public);
            stream.write_all(request().as_bytes()).expect("a sent request");
            open.push(stream);
        }
        while upstream.came.load(Ordering::SeqCst) < before + count {
            std::thread::sleep(Duration::from_millis(20));
        }
        gateway.settled(sizes.settle)
    });
    upstream.hold.store(false, Ordering::SeqCst);
    for (at, count) in sizes.connections.iter().enumerate() {
        line(&[count.to_string(), mib(idle[at].resident), mib(in_flight[at].resident)]);
    }
    println!("bytes per idle connection: {}", slope(sizes.connections, idle));
    println!(
        "bytes per request in flight, its two connections included: {}",
        slope(sizes.connections, in_flight)
    );
}

/// Measures how many nanoseconds it takes to find one of many routes: the last one, which has a path parameter.
pub fn routes(sizes: &Sizes) {
    heading("routes", &["routes", "find ns"]);
    for &routes in &sizes.routes {
        let mut more = String::new();
        for at in 0..routes {
            let _ = write!(
                more,
                "[[routes]]\nname = \"r{at}\"\npath = \"/api/v1/r{at}/{{id}}\"\nupstream = \"api\"\n"
            );
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text_of("127.0.0.1:9", &more)).expect("a written file");
        let loaded = config::load(&path).expect("a sound file");
        let wanted = format!("/api/v1/r{}/42", routes - 1);
        let begun = Instant::now();
        for _ in 0..LOOKUPS {
            black_box(loaded.snapshot.table.find(Some("api.example.com"), black_box(&wanted), &Method::GET));
        }
        let each = begun.elapsed().as_nanos() as f64 / f64::from(LOOKUPS);
        line(&[routes.to_string(), format!("{each:.0}")]);
    }
}
