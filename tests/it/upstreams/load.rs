//! Servers that come and go while requests are sent. `TOLLGATE_LONG` selects the long runs.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{folder, start, with_servers};
use crate::support::{Client, Gateway, Upstream, eventually};

const KEY: &str = "x-api-key: good-key\r\n";
const CLIENTS: usize = 8;

fn request(method: &str, id: &str) -> String {
    let (length, body) = if method == "POST" { ("content-length: 4\r\n", "text") } else { ("", "") };
    format!("{method} /free/x HTTP/1.1\r\nhost: a\r\n{KEY}x-id: {id}\r\n{length}\r\n{body}")
}

/// One of three servers is killed and comes back. Only requests fail that it had in flight and that must not be sent
/// again; after slow start it has its share again.
#[test]
fn a_server_may_be_killed_and_come_back() {
    let upstreams = [Upstream::start(), Upstream::start(), Upstream::start()];
    upstreams.iter().for_each(|upstream| upstream.set_delay(Duration::from_millis(2)));
    let urls: Vec<String> = upstreams.iter().map(|upstream| format!("http://{}", upstream.address)).collect();
    let more = "ejection = { time = \"1s\" }\nslow_start = \"1s\"";
    let gateway = start(&folder(&[]), &with_servers(&urls, more));
    let (stop, failed) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (gateway, stop, failed) = (&gateway, &stop, &failed);
            scope.spawn(move || {
                let (mut connection, mut round) = (Client::connect(gateway.public), 0);
                while !stop.load(Ordering::Relaxed) {
                    let method = ["GET", "POST"][round % 2];
                    let response = connection.ask(request(method, &format!("{client}-{round}"))).unwrap();
                    if response.status != 200 {
                        failed.lock().unwrap().push(method);
                    }
                    round += 1;
                }
            });
        }
        std::thread::sleep(Duration::from_millis(700));
        for _ in 0..2 {
            upstreams[0].kill();
            std::thread::sleep(Duration::from_millis(1500));
            upstreams[0].revive();
            std::thread::sleep(Duration::from_millis(1000));
        }
        eventually("slow start is over", || {
            let status = gateway.json(&["status"]);
            let rows = status["upstreams"][0]["servers"].as_array().unwrap().clone();
            rows.iter().all(|row| row["state"] == "up")
        });
        upstreams.iter().for_each(Upstream::clear);
        std::thread::sleep(Duration::from_millis(2000));
        stop.store(true, Ordering::Relaxed);
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.iter().all(|method| *method == "POST"), "{failed:?}");
    assert!(failed.len() <= 2 * CLIENTS, "{} requests failed", failed.len());
    let counts: Vec<usize> = upstreams.iter().map(|upstream| upstream.seen().len()).collect();
    let mean = counts.iter().sum::<usize>() / 3;
    assert!(counts.iter().all(|count| count.abs_diff(mean) <= mean / 10), "{counts:?}");
}

/// A server that closes idle connections at random moments.
struct Impatient {
    address: SocketAddr,
    /// How often each POST came, by its id.
    came: Arc<Mutex<HashMap<String, usize>>>,
    closed: Arc<AtomicUsize>,
}

impl Impatient {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { address, came: Arc::default(), closed: Arc::default() };
        let (came, closed) = (Arc::clone(&server.came), Arc::clone(&server.closed));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (came, closed) = (Arc::clone(&came), Arc::clone(&closed));
                std::thread::spawn(move || {
                    let mut patience = None; // for the first request of a connection
                    while serve_one(&stream, patience, &came).is_some() {
                        patience = Some(Duration::from_micros(fastrand::u64(100..4000)));
                    }
                    closed.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        server
    }
}

/// Serves a request that comes in time; `None` if none does.
fn serve_one(
    mut stream: &TcpStream,
    patience: Option<Duration>,
    came: &Mutex<HashMap<String, usize>>,
) -> Option<()> {
    stream.set_read_timeout(patience).ok()?;
    let mut reader = BufReader::with_capacity(1, stream);
    let (mut line, mut length, mut id, mut is_post) = (String::new(), 0, String::new(), false);
    loop {
        line.clear();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        stream.set_read_timeout(None).ok()?;
        is_post |= line.starts_with("POST ");
        match line.trim_end().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(("x-id", value)) => id = value.to_owned(),
            _ if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    if is_post {
        *came.lock().unwrap().entry(id.clone()).or_default() += 1;
    }
    stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{id}", id.len()).as_bytes()).ok()
}

/// A GET never fails because an idle connection was just being closed. A POST may, if it was already written; none comes
/// twice.
#[test]
fn connections_may_be_closed_at_any_moment() {
    let times = if std::env::var_os("TOLLGATE_LONG").is_some() { 100_000 } else { 6_000 };
    let server = Impatient::start();
    let text = with_servers(&[format!("http://{}", server.address)], "retries = { budget = \"100%\" }");
    let gateway = start(&folder(&[]), &text);
    let (asked, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (gateway, asked, refused) = (&gateway, &asked, &refused);
            scope.spawn(move || ask_many(gateway, client, times, asked, refused));
        }
    });
    let came = server.came.lock().unwrap();
    assert!(came.values().all(|times| *times == 1), "a POST came twice");
    let refused = refused.into_inner();
    println!("{} closed, {refused} of {} POSTs refused", server.closed.load(Ordering::Relaxed), times / 2);
    assert!(server.closed.load(Ordering::Relaxed) > times / 100, "connections were hardly closed");
    assert!(refused < server.closed.load(Ordering::Relaxed), "{refused} POSTs were refused");
}

fn ask_many(gateway: &Gateway, client: usize, times: usize, asked: &AtomicUsize, refused: &AtomicUsize) {
    let mut connection = Client::connect(gateway.public);
    loop {
        let round = asked.fetch_add(1, Ordering::Relaxed);
        if round >= times {
            return;
        }
        let (method, id) = (["GET", "POST"][round % 2], format!("{client}-{round}"));
        let response = connection.ask(request(method, &id)).unwrap();
        match response.status {
            200 => assert_eq!(response.text(), id, "another request's response"),
            502 if method == "POST" => drop(refused.fetch_add(1, Ordering::Relaxed)),
            status => panic!("{method}: {status} {}", response.text()),
        }
        std::thread::sleep(Duration::from_micros(fastrand::u64(0..4000)));
    }
}
