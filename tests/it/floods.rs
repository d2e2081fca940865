//! Tests floods of HTTP/2 frames: what they cost the gateway, and that good clients are still served.
//!
//! A flood consists of frames, or of requests that cost more than their size suggests. All floods together take a fixed
//! share of the tests' time; with `TOLLGATE_LONG=1`, a minute each. Figures are printed, latencies as medians of
//! rounds. The tests assert that floods are cut off, that no good client is refused, and that memory stays bounded.

#[path = "../corpora/frames.rs"]
pub mod frames;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::support::{Client, Gateway, Upstream, config};

/// Connections that flood at the same time.
const FLOODERS: usize = 10;
/// How long a connection that was cut off waits before it connects again.
const AGAIN: Duration = Duration::from_millis(50);
/// Rounds of each flood. Every round is preceded by an equally long time without the flood.
const ROUNDS: u32 = 4;
/// How long all floods together take. The rounds without a flood take as long again.
const SHARE: Duration = Duration::from_secs(24);
/// Maximum bytes of memory that all connections of a flood may make the gateway keep.
const MOST_MEMORY: i64 = 48 * 1024 * 1024;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The bytes of one round of a flood, on the stream with this id.
type Round = fn(u32) -> Vec<u8>;

fn head(stream: u32, flags: u8) -> Vec<u8> {
    head_for("/open/x", stream, flags)
}

fn head_for(path: &str, stream: u32, flags: u8) -> Vec<u8> {
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "gw.test"), (":path", path)];
    frames::frame(1, flags, stream, &frames::head(&fields))
}

/// A header block with more fields than a head may have, but fewer than end the connection. Each byte is one field,
/// `accept-encoding: gzip, deflate` of HPACK's static table, which counts as 60 bytes (RFC 9113, section 10.5.1).
const LARGE: [u8; 2000] = [0x90; 2000];
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const FLOODS: [(&str, Round); 16] = [
    ("rapid reset", |s| [head(s, END_STREAM | END_HEADERS), frames::frame(3, 0, s, &[0, 0, 0, 8])].concat()),
    ("resets by the server", |s| {
        [head(s, END_STREAM | END_HEADERS), frames::frame(8, 0, s, &[0; 4])].concat()
    }),
    ("continuation", |s| match s {
        1 => head(1, 0),
        _ => frames::frame(9, 0, 1, &frames::head(&[("a", &"b".repeat(100))])),
    }),
    ("empty data", |s| match s {
        1 => head(1, END_HEADERS),
        _ => frames::frame(0, 0, 1, &[]),
    }),
    ("settings", |_| frames::frame(4, 0, 0, &[])),
    ("ping", |_| frames::frame(6, 0, 0, &[0; 8])),
    ("priority", |s| frames::frame(2, 0, s, &[0, 0, 0, 0, 16])),
    ("window", |_| frames::frame(8, 0, 0, &[0, 0, 0, 1])),
    ("unknown frames", |_| frames::frame(0xfa, 0, 0, &[0; 4])),
    ("ends of a stream that is over", |s| match (s / 2) % 200 {
        // This stream gets its response and is reset before the next chunk arrives.
        199 => head_for("/nowhere", s, END_HEADERS),
        at if s > 400 => frames::frame(0, END_STREAM, s - 2 * at - 2, &[]),
        _ => Vec::new(),
    }),
    ("heads for a stream that is over", |s| match (s / 2) % 200 {
        199 => head_for("/nowhere", s, END_HEADERS),
        at @ 0..14 if s > 400 => frames::frame(1, END_STREAM | END_HEADERS, s - 2 * at - 2, &LARGE),
        _ => Vec::new(), // the blocks above fill a chunk
    }),
    ("heads that are too large", |s| frames::frame(1, END_STREAM | END_HEADERS, s, &LARGE)),
    ("HPACK bomb", |s| {
        // One entry of the dynamic table of about 3 KB, referenced by one byte each time (RFC 7541, section 6.1).
        let mut block = frames::head(&[(":method", "GET"), (":scheme", "http"), (":path", "/open/x")]);
        block.extend(b"\x40\x01a\x7f\x99\x16"); // 127 + 25 + 22 * 128 bytes
        block.extend([b'b'; 2968]);
        block.extend([0xbe; 10_000]);
        frames::frame(1, END_STREAM | END_HEADERS, s, &block)
    }),
    ("requests of a path that is encoded over and over", |s| {
        // A path of 3.5 KB that is added to HPACK's dynamic table once, and referenced by one byte from then on.
        let mut block = frames::head(&[(":method", "GET"), (":scheme", "http"), (":authority", "a")]);
        match s {
            1 => {
                block.extend(b"\x44\x7f\xaf\x1a/%"); // 127 + 47 + 26 * 128 bytes
                block.extend(b"25".repeat(1750));
            }
            _ => block.push(0xbe),
        }
        frames::frame(1, END_STREAM | END_HEADERS, s, &block)
    }),
    ("requests with a wrong key", |s| {
        let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/one")];
        let key = format!("wrong-{s}");
        let block = frames::head(&[&fields[..], &[("x-api-key", &*key)]].concat());
        frames::frame(1, END_STREAM | END_HEADERS, s, &block)
    }),
    ("uploads by the byte", |s| {
        let data = frames::frame(0, 0, s, b"x").repeat(500);
        [head(s, END_HEADERS), data, frames::frame(0, END_STREAM, s, &[])].concat()
    }),
];

fn thread_cpu() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}

/// CPU seconds and resident bytes of a process.
fn spent(id: u32) -> (f64, i64) {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum();
    (ticks / 100.0, fields[21].parse::<i64>().unwrap() * 4096)
}

/// Floods until `stop` is set. Returns the number of connections, the bytes sent, and the CPU time that the flood used.
fn flood(address: SocketAddr, round: Round, stop: &AtomicBool) -> (u64, u64, Duration) {
    // Lowers the priority of this thread only: real floods do not use the gateway's own processors.
    let _ = rustix::process::setpriority_process(None, 19);
    let (mut connections, mut bytes) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        connections += 1;
        let mut chunk = [PREFACE, &frames::frame(4, 0, 0, &[])].concat();
        let mut buffer = [0; 64 * 1024];
        for number in 0.. {
            chunk.extend(round(2 * number + 1));
            if chunk.len() < 32 * 1024 && number % 200 != 199 {
                continue;
            }
            if stop.load(Ordering::Relaxed) || stream.write_all(&chunk).is_err() {
                break;
            }
            bytes += chunk.len() as u64;
            chunk.clear();
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                _ => {}
            }
        }
        std::thread::sleep(AGAIN);
    }
    (connections, bytes, thread_cpu())
}

/// Sends a good client's requests, one after the other. Returns the CPU seconds that the gateway used meanwhile, and
/// the 99th percentile of latencies in µs.
fn good(gateway: &Gateway, time: Duration) -> (f64, u128) {
    let before = spent(gateway.id()).0;
    let (start, mut latencies) = (Instant::now(), Vec::new());
    let mut client = Client::connect(gateway.public);
    while start.elapsed() < time {
        let asked = Instant::now();
        let response =
            client.ask("GET /one HTTP/1.1\r\nhost: gw.test\r\nx-api-key: good-key\r\n\r\n").unwrap();
        assert_eq!(response.status, 200);
        latencies.push(asked.elapsed().as_micros());
        std::thread::sleep(Duration::from_millis(2));
    }
    latencies.sort_unstable();
    (spent(gateway.id()).0 - before, latencies[latencies.len() * 99 / 100])
}

/// The cost of a flood: CPU seconds of the gateway (including the good client's requests), CPU seconds of the flood
/// itself, and the good client's latency.
struct Flooded {
    connections: u64,
    bytes: u64,
    cpu: f64,
    theirs: f64,
    p99: u128,
}

fn flooded(gateway: &Gateway, round: Round, time: Duration) -> Flooded {
    let (stop, address) = (&AtomicBool::new(false), gateway.public);
    let ((cpu, p99), sent) = std::thread::scope(|scope| {
        let floods: Vec<_> =
            (0..FLOODERS).map(|_| scope.spawn(move || flood(address, round, stop))).collect();
        let good = std::panic::catch_unwind(|| good(gateway, time));
        stop.store(true, Ordering::Relaxed);
        let good = good.unwrap_or_else(|_| panic!("the good client was not served"));
        (good, floods.into_iter().map(|flood| flood.join().unwrap()).collect::<Vec<_>>())
    });
    Flooded {
        connections: sent.iter().map(|sent| sent.0).sum(),
        bytes: sent.iter().map(|sent| sent.1).sum(),
        cpu,
        theirs: sent.iter().map(|sent| sent.2.as_secs_f64()).sum(),
        p99,
    }
}

fn median(mut values: Vec<u128>) -> u128 {
    values.sort_unstable();
    values[values.len() / 2]
}

#[test]
fn floods_cost_their_senders_and_no_good_client() {
    let long = std::env::var_os("TOLLGATE_LONG").is_some();
    let time = if long { Duration::from_secs(60) } else { SHARE / FLOODS.len() as u32 };
    let upstream = Upstream::start();
    let text = config("").replacen("credits = 1000", "credits = 10000000", 1);
    for (name, round) in FLOODS {
        let gateway = Gateway::start(&text, &upstream);
        good(&gateway, Duration::from_millis(80)); // the first requests are slower
        let before = spent(gateway.id()).1;
        // Times without and with the flood alternate, because the machine's speed changes from one second to the next.
        let (calm, floods): (Vec<_>, Vec<_>) = (0..ROUNDS)
            .map(|_| (good(&gateway, time / ROUNDS), flooded(&gateway, round, time / ROUNDS)))
            .unzip();
        let memory = spent(gateway.id()).1 - before;
        let connections: u64 = floods.iter().map(|flood| flood.connections).sum();
        let bytes: u64 = floods.iter().map(|flood| flood.bytes).sum();
        let (cpu, theirs) = floods.iter().fold((0., 0.), |(c, t), flood| (c + flood.cpu, t + flood.theirs));
        let cpu = cpu - calm.iter().map(|calm| calm.0).sum::<f64>();
        let (calm, during) = (
            median(calm.iter().map(|calm| calm.1).collect()),
            median(floods.iter().map(|flood| flood.p99).collect()),
        );
        println!(
            "{name}: {connections} connections, {} MB sent; CPU {cpu:.2} s of the gateway's for {theirs:.2} s of theirs; \
             memory {:+} KiB; good p99 {calm} µs without, {during} µs with it",
            bytes / 1_000_000,
            memory / 1024,
        );
        assert!(connections > FLOODERS as u64, "{name}: nobody was ever cut off");
        assert!(memory < MOST_MEMORY, "{name}: {memory} bytes more");
        assert_eq!(gateway.stop().0, Some(0), "{name}");
    }
}
