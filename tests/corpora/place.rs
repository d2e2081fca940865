//! A gateway under test with its own upstream.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tollgate::types::KeyHash;

use crate::case::{KEY, KEY2};
use crate::upstream::{Seen, Upstream};

/// Credits of each account. A request costs one credit.
const CREDITS: usize = 1_000_000;
/// Silence on a connection after which no further bytes are expected.
const SILENCE: Duration = Duration::from_millis(120);
/// Longest wait for what a case must be answered with, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug)]
pub enum Routes {
    /// Every path requires a key and costs a credit.
    AllKeyed,
    /// No path requires a key.
    AllOpen,
    /// `/public/…` requires no key, `/private/…` does.
    Both,
}

pub struct Place {
    pub upstream: Upstream,
    pub address: SocketAddr,
    gateway: Child,
    folder: tempfile::TempDir,
    lines: Arc<Mutex<Vec<String>>>,
    /// Requests that the upstream received since the start: the gateway's request id, and true if there was a key.
    ids: Mutex<Vec<(String, bool)>>,
}

/// The result of a connection: the received bytes, and true if the gateway closed it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub bytes: Vec<u8>,
    pub closed: bool,
}

impl Outcome {
    /// The number of responses of HTTP/1.x that have begun.
    pub fn responses(&self) -> usize {
        let begins = |bytes: &&[u8]| *bytes == b"HTTP/1.1 " || *bytes == b"HTTP/1.0 ";
        self.bytes.windows(9).filter(begins).count()
    }

    pub fn status(&self) -> u16 {
        let text = String::from_utf8_lossy(&self.bytes);
        let rest = text.strip_prefix("HTTP/1.1 ").or(text.strip_prefix("HTTP/1.0 "));
        rest.and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or_default()
    }
}

fn config(upstream: SocketAddr, routes: Routes) -> String {
    let route = |name: &str, path: &str, more: &str| {
        format!("[[routes]]\nname = \"{name}\"\npath = \"{path}\"\nupstream = \"u\"\n{more}\n")
    };
    let routes = match routes {
        Routes::AllKeyed => route("all", "/{*rest}", "credits = 1"),
        Routes::AllOpen => route("all", "/{*rest}", "public = true"),
        Routes::Both => {
            route("private", "/private/{*rest}", "credits = 1")
                + &route("public", "/public/{*rest}", "public = true")
        }
    };
    let account = |name: &str, key: &str| {
        let hash = KeyHash::of(key.as_bytes()).to_hex();
        format!(
            "[accounts.{name}]\ncredits = {CREDITS}\n[[accounts.{name}.keys]]\nlabel = \"k\"\nsha256 = \"{hash}\"\n"
        )
    };
    format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nthreads = 1\nheader_timeout = \"2s\"\nidle_timeout = \"2s\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n[auth]\nfailed_keys_per_minute = 0\n\
         [upstreams.u]\nservers = [\"http://{upstream}\"]\n{routes}{}{}",
        account("one", KEY),
        account("two", KEY2)
    )
}

impl Place {
    pub fn open(routes: Routes) -> Self {
        let upstream = Upstream::start();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.toml"), config(upstream.address, routes)).unwrap();
        let mut gateway = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .arg("serve")
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(gateway.stdout.take().unwrap()).lines().map_while(Result::ok);
        let line = out.find(|line| line.contains("serving clients")).expect("a gateway that serves");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = line["address"].as_str().unwrap().parse().unwrap();
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || out.for_each(|line| kept.lock().unwrap().push(line)));
        Self { upstream, address, gateway, folder, lines, ids: Mutex::default() }
    }

    /// Sends bytes, then more on the same connection after each response. Each time, reads until the gateway is silent and
    /// has sent `enough`, which gets the number of times that bytes were sent.
    pub fn send(&self, first: &[u8], then: &[Vec<u8>], enough: impl Fn(&Outcome, usize) -> bool) -> Outcome {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        let mut outcome = Outcome::default();
        for (at, bytes) in std::iter::once(first).chain(then.iter().map(Vec::as_slice)).enumerate() {
            let _ = stream.write_all(bytes); // the gateway may close before the last byte
            read(&mut stream, &mut outcome);
            let sent = Instant::now();
            while !outcome.closed && !enough(&outcome, at + 1) && sent.elapsed() < PATIENCE {
                read(&mut stream, &mut outcome);
            }
            if outcome.closed {
                break;
            }
        }
        outcome
    }

    /// Sends bytes, and reads until the gateway closes the connection or is silent for four seconds.
    pub fn wait_for_end(&self, bytes: &[u8]) -> Outcome {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(bytes).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(4))).unwrap();
        let mut outcome = Outcome::default();
        read(&mut stream, &mut outcome);
        outcome
    }

    /// Checks that a clean request gets its own response. Returns the requests that the upstream received before it.
    pub fn settle(&self, keyed: bool) -> Result<Vec<Seen>, String> {
        let seen = self.upstream.take();
        self.note(&seen)?;
        let path = if keyed { "/private/clean" } else { "/public/clean" };
        let key = if keyed { format!("x-api-key: {KEY}\r\n") } else { String::new() };
        let request = format!("GET {path} HTTP/1.1\r\nhost: gw.test\r\n{key}connection: close\r\n\r\n");
        let mut stream = TcpStream::connect(self.address).map_err(|error| error.to_string())?;
        stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).map_err(|error| format!("the clean request: {error}"))?;
        if !response.starts_with("HTTP/1.1 200 ") || !response.ends_with(&format!("\r\n\r\n{path}")) {
            return Err(format!("the clean request got {response:?}"));
        }
        let after = self.upstream.take();
        self.note(&after)?;
        match &after[..] {
            [clean] if clean.target() == path => Ok(seen),
            other => Err(format!("beside the clean request came {other:?}")),
        }
    }

    fn note(&self, seen: &[Seen]) -> Result<(), String> {
        for request in seen {
            if let Some(fault) = &request.fault {
                return Err(format!("the upstream got a malformed request: {fault}"));
            }
            let [id] = request.values("x-request-id")[..] else {
                return Err(format!("the upstream got a request without one id: {request:?}"));
            };
            let keyed = !request.values("x-tollgate-account").is_empty();
            self.ids.lock().unwrap().push((id.to_owned(), keyed));
        }
        Ok(())
    }

    /// Stops the gateway. Checks that every request id is in its log, and that each request with a key was charged
    /// once.
    pub fn close(mut self) -> Result<(), String> {
        let id = self.gateway.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let status = self.gateway.wait().unwrap();
        if !status.success() {
            return Err(format!("the gateway ended with {status}"));
        }
        let ids = self.ids.lock().unwrap();
        let unique: HashSet<&str> = ids.iter().map(|(id, _)| &**id).collect();
        if unique.len() != ids.len() {
            return Err("an id reached the upstream twice".to_owned());
        }
        std::thread::sleep(Duration::from_millis(200)); // time to read the last lines of the log
        let log = self.lines.lock().unwrap().join("\n");
        if let Some(strange) = unique.iter().find(|id| !log.contains(**id)) {
            return Err(format!("the gateway's log does not know {strange}"));
        }
        let keyed = ids.iter().filter(|(_, keyed)| *keyed).count();
        let spent: usize = ["one", "two"].iter().map(|account| CREDITS - self.available(account)).sum();
        if spent != keyed {
            return Err(format!("{keyed} requests with a key, {spent} credits charged"));
        }
        Ok(())
    }

    fn available(&self, account: &str) -> usize {
        let output = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["account", "show", account, "--output", "json"])
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        shown["available"].to_string().parse().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
    }
}

/// Reads until the connection is closed or silent.
fn read(stream: &mut TcpStream, outcome: &mut Outcome) {
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break outcome.closed = true,
            Ok(count) => outcome.bytes.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(_) => break outcome.closed = true,
        }
    }
}
