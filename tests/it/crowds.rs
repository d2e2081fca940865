//! Tests connection limits: more connections than slots, from one client and from all clients.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::support::{Gateway, Upstream, config, eventually, get};

const REQUEST: &[u8] = b"GET /open/a HTTP/1.1\r\nhost: a\r\n\r\n";

/// Connects from another loopback address.
fn from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

fn is_served(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut start = [0; 12];
    stream.write_all(REQUEST).is_ok() && stream.read_exact(&mut start).is_ok() && start == *b"HTTP/1.1 200"
}

/// True if the connection is open, although no request was sent.
fn is_open(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let read = stream.read(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn one_address_leaves_places_to_others() {
    let upstream = Upstream::start();
    let text = config("").replace("threads = 2", "threads = 2\nmax_connections = 100");
    let gateway = Gateway::start(&text, &upstream);
    let mut greedy: Vec<TcpStream> = (0..100).map(|_| from(2, gateway.public)).collect();
    std::thread::sleep(Duration::from_millis(300));
    let open = greedy.iter_mut().filter_map(|stream| is_open(stream).then_some(())).count();
    // One address may hold at most 16 times as many slots as are free. A connection that is being refused still holds
    // its slot.
    assert!((90..=95).contains(&open), "{open}");
    // Workers accept connections in any order, so any of them may be the refused ones.
    assert!(greedy.iter_mut().find_map(|stream| is_open(stream).then_some(stream)).is_some_and(is_served));
    assert!(is_served(&mut from(3, gateway.public)));
    let status = gateway.json(&["status"]);
    assert!(status.to_string().contains(&format!("\"connections_over_share\":{}", 100 - open)), "{status}");
    // Connections that close free their slots, for the greedy address too.
    drop(greedy);
    eventually("slots are free", || (0..20).all(|_| is_served(&mut from(2, gateway.public))));
}

/// A trusted proxy may use all connection slots. Each of its clients is limited by its own address.
#[test]
fn a_trusted_proxy_is_many_clients() {
    let upstream = Upstream::start();
    let text = config("")
        .replace("threads = 2", "threads = 1\nmax_connections = 100\ntrusted_proxies = [\"127.0.0.2\"]");
    let gateway = Gateway::start(&text, &upstream);
    let naming = text.replace("threads = 1\n", "threads = 1\nproxy_protocol = true\n");
    let mut all: Vec<TcpStream> = (0..100).map(|_| from(2, gateway.public)).collect();
    assert!(all.iter_mut().all(is_served));
    let gateway = Gateway::start(&naming, &upstream);
    let named = b"PROXY TCP4 203.0.113.9 10.0.0.1 4000 80\r\n";
    let mut one: Vec<TcpStream> = (0..99).map(|_| from(2, gateway.public)).collect();
    let served = one.iter_mut().filter_map(|stream| {
        stream.write_all(named).unwrap();
        is_served(stream).then_some(())
    });
    assert!((90..=95).contains(&served.count()));
}

/// CPU time of a process, in ticks of 10 ms.
fn ticks(id: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// Without free descriptors, new clients wait and the gateway does not spin. It serves clients again once others leave.
#[test]
fn without_descriptors_the_gateway_waits_in_peace() {
    let upstream = Upstream::start();
    let gateway = Gateway::start_by(&["prlimit", "--nofile=256:256"], &config(""), &upstream);
    let crowd: Vec<TcpStream> =
        (0..400).map(|at| from(u8::try_from(2 + at % 200).unwrap(), gateway.public)).collect();
    std::thread::sleep(Duration::from_millis(500));
    let before = ticks(gateway.id());
    std::thread::sleep(Duration::from_secs(1));
    let spent = ticks(gateway.id()) - before;
    assert!(spent <= 20, "{spent} ticks of CPU in a second of waiting");
    drop(crowd);
    let left = Instant::now();
    assert_eq!(get(gateway.public, "/open/a", "").status, 200);
    assert!(left.elapsed() < Duration::from_secs(1), "{:?}", left.elapsed());
}
