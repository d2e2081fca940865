//! Measures good clients while other clients send headers slowly, send bodies slowly, or read slowly.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use crate::gateway::{Door, Gateway, KEY};

/// The header timeout and the idle timeout of the gateway, which end slow clients.
const DEADLINE: Duration = Duration::from_secs(10);
/// Time between two bytes that a slow client sends.
const DRIP: Duration = Duration::from_secs(2);
/// Good clients, each of which sends one request after the other.
const GOOD: usize = 4;
const PAUSE: Duration = Duration::from_millis(2);
/// Size of a slow reader's receive buffer in bytes.
const SMALL: usize = 4096;
/// Slow clients that connect within a millisecond or two, and therefore send their bytes at the same time.
const AT_ONCE: usize = 5;

/// Measures the 99th percentile of the good clients without and with slow clients, in alternating rounds.
pub fn run(upstream: SocketAddr, (count, rounds, time): (usize, usize, Duration)) {
    let server = "header_timeout = \"10s\"\nidle_timeout = \"10s\"";
    let gateway = Gateway::start(upstream, Door::Plain, server, "");
    let address = gateway.address;
    println!("\n{count} slow clients beside {GOOD} good ones");
    let (mut calm, mut slow) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let before = good(address, time);
        let (stop, open) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let drips = {
            let (stop, open) = (Arc::clone(&stop), Arc::clone(&open));
            std::thread::spawn(move || drip(address, count, &stop, &open))
        };
        while open.load(Ordering::SeqCst) < count {
            std::thread::sleep(Duration::from_millis(10));
        }
        let all = Instant::now();
        std::thread::sleep(time / 4); // until the socket buffers are full
        let meanwhile = good(address, time);
        let held = gateway.clients();
        let gone = until_gone(&gateway, all);
        stop.store(true, Ordering::SeqCst);
        drips.join().expect("slow clients that end");
        println!(
            "round {round}: good p99 {} µs before, {} µs meanwhile; {held} slow ones left, all gone after {gone:.1} s",
            before.0, meanwhile.0
        );
        assert_eq!((before.1, meanwhile.1), (0, 0), "errors of good clients");
        calm.push(before.0);
        slow.push(meanwhile.0);
    }
    let median = |list: &mut Vec<u128>| {
        list.sort_unstable();
        list[list.len() / 2]
    };
    let (calm, slow) = (median(&mut calm), median(&mut slow));
    println!("medians {calm} and {slow} µs: × {:.2}", slow as f64 / calm as f64);
}

/// Seconds from `since`, when the last slow client connected, until the gateway has no client connection.
fn until_gone(gateway: &Gateway, since: Instant) -> f64 {
    while gateway.clients() > 0 && since.elapsed() < DEADLINE * 3 {
        std::thread::sleep(Duration::from_millis(20));
    }
    since.elapsed().as_secs_f64()
}

/// The 99th percentile in µs, and the number of responses that are not 200.
fn good(address: SocketAddr, time: Duration) -> (u128, usize) {
    let barrier = Arc::new(Barrier::new(GOOD));
    let clients: Vec<_> = (0..GOOD)
        .map(|_| {
            let barrier = Arc::clone(&barrier);
            std::thread::spawn(move || {
                barrier.wait();
                ask(address, time)
            })
        })
        .collect();
    let (mut latencies, mut errors) = (Vec::new(), 0);
    for client in clients {
        let (mine, wrong) = client.join().expect("a good client");
        latencies.extend(mine);
        errors += wrong;
    }
    latencies.sort_unstable();
    (latencies[latencies.len() * 99 / 100], errors)
}

fn ask(address: SocketAddr, time: Duration) -> (Vec<u128>, usize) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    let request = format!("GET /one HTTP/1.1\r\nhost: a\r\nx-api-key: {KEY}\r\n\r\n");
    let (begun, mut latencies, mut errors, mut buffer) = (Instant::now(), Vec::new(), 0, [0; 4096]);
    while begun.elapsed() < time {
        let asked = Instant::now();
        stream.write_all(request.as_bytes()).expect("a sent request");
        let count = stream.read(&mut buffer).expect("a response");
        latencies.push(asked.elapsed().as_micros());
        errors += usize::from(!buffer[..count].starts_with(b"HTTP/1.1 200"));
        std::thread::sleep(PAUSE);
    }
    (latencies, errors)
}

/// Runs slow clients, a third of each kind, until `stop` is set.
fn drip(address: SocketAddr, count: usize, stop: &AtomicBool, open: &Arc<AtomicUsize>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut clients = JoinSet::new();
        for at in 0..count {
            let open = Arc::clone(open);
            clients.spawn(async move {
                slow(address, at % 3, &open).await.expect("a slow client that is let in");
            });
            if at % AT_ONCE == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        while !stop.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

/// Runs one slow client. It never closes its connection, so that only the gateway ends it.
async fn slow(address: SocketAddr, kind: usize, open: &AtomicUsize) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    if kind == 2 {
        SockRef::from(&socket).set_recv_buffer_size(SMALL)?;
    }
    let mut stream = socket.connect(address).await?;
    let start = match kind {
        0 => "GET /one HTTP/1.1\r\nhost: a\r\nx-slow: ".to_owned(),
        1 => format!("POST /one HTTP/1.1\r\nhost: a\r\nx-api-key: {KEY}\r\ncontent-length: 100000\r\n\r\n"),
        _ => format!("GET /large HTTP/1.1\r\nhost: a\r\nx-api-key: {KEY}\r\n\r\n"),
    };
    stream.write_all(start.as_bytes()).await?;
    open.fetch_add(1, Ordering::SeqCst);
    if kind < 2 {
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(DRIP).await;
        }
    }
    std::future::pending::<()>().await;
    Ok(())
}
