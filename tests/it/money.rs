//! Tests promise 2 over HTTP: the sum of charges never exceeds what was granted, however many requests arrive at the
//! same time.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Gateway, Upstream, config, sha256};

/// Number of rounds, all on the same connections. `TOLLGATE_LONG=1` makes a hundred times as many.
fn rounds() -> usize {
    if std::env::var_os("TOLLGATE_LONG").is_some() { 10_000 } else { 100 }
}
/// Requests in a round, each on its own connection.
const CLIENTS: usize = 1000;

/// Reads one response with a short body. Returns its status.
async fn status(stream: &mut TcpStream) -> u16 {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "closed within a response");
        text.extend_from_slice(&buffer[..count]);
        let whole = String::from_utf8_lossy(&text);
        let Some((head, body)) = whole.split_once("\r\n\r\n") else { continue };
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        if body.len() == length.unwrap().parse::<usize>().unwrap() {
            return head[9..12].parse().unwrap();
        }
    }
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

#[tokio::test]
async fn of_a_thousand_requests_on_a_balance_for_one_exactly_one_is_charged() {
    raise_descriptor_limit();
    let upstream = Upstream::start();
    let more =
        format!("[accounts.last]\n[[accounts.last.keys]]\nlabel = \"k\"\nsha256 = \"{}\"\n", sha256("last"));
    let gateway = Gateway::start(&config(&more), &upstream);
    let mut streams = Vec::new();
    for _ in 0..CLIENTS {
        streams.push(connect(gateway.public).await);
    }
    for round in 0..rounds() {
        upstream.clear();
        gateway.json(&["account", "grant", "last", "1", "--reference", &format!("round-{round}")]);
        for stream in &mut streams {
            stream.write_all(b"GET /one HTTP/1.1\r\nhost: a\r\nx-api-key: last\r\n\r\n").await.unwrap();
        }
        let mut statuses = Vec::new();
        for stream in &mut streams {
            statuses.push(status(stream).await);
        }
        let count = |status: u16| statuses.iter().filter(|&&found| found == status).count();
        assert_eq!((count(200), count(402)), (1, CLIENTS - 1), "round {round}");
        assert_eq!(upstream.seen().len(), 1);
    }
    assert_eq!(gateway.available("last"), "0");
    let verified = gateway.json(&["ledger", "verify"]);
    assert_eq!(verified["differences"], serde_json::json!([]));
    let rows = gateway.rows(&["account", "statement", "last"]);
    let charged = rows.iter().filter(|row| row["kind"] == "charge");
    assert_eq!(charged.map(|row| row["requests"].as_u64().unwrap()).sum::<u64>(), rounds() as u64);
}

/// Raises the descriptor limit: a thousand connections need more than many machines allow by default.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}
