//! An upstream that records every request and sends the response that the request's own headers describe.
//!
//! `x-response-status`, `x-response-body`, `x-response-delay` (ms before the head), `x-response-header` (`name: value`, joined
//! by `|`), `x-response-raw` (the whole response, `\n` for CRLF), `x-response-cut` (bytes of the body after which it
//! closes), `x-response-chunks` (chunks joined by `|`, with a pause of 50 ms between them, or of `x-response-pause` ms),
//! `x-response-stall` (bytes of the body after which it is silent for a minute), `x-response-echo` (responds with the
//! request's body), `x-response-close` (closes after the response). Without these headers the response is 200 `{}`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};

/// A request as the upstream received it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Number of chunks that the body arrived in.
    pub chunks: usize,
    /// True if the whole response was written.
    pub answered: bool,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

/// The upstream; its threads end with the process.
#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    journal: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicU64>,
    resumed: Arc<AtomicU64>,
    fails: Arc<AtomicBool>,
    is_killed: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    /// Milliseconds before each response.
    delay: Arc<AtomicU64>,
}

impl Upstream {
    pub fn start() -> Self {
        Self::start_with("127.0.0.1:0", None)
    }

    /// An upstream that listens on another address.
    pub fn start_at(address: &str) -> Self {
        Self::start_with(address, None)
    }

    /// An upstream with TLS.
    pub fn start_tls(config: Arc<ServerConfig>) -> Self {
        Self::start_with("127.0.0.1:0", Some(config))
    }

    fn start_with(address: &str, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let journal = Arc::<Mutex<Vec<Seen>>>::default();
        let (connections, resumed) = (Arc::default(), Arc::default());
        let (fails, delay) = (Arc::default(), Arc::default());
        let (is_killed, open) = (Arc::default(), Arc::default());
        let upstream = Self { address, journal, connections, resumed, fails, is_killed, open, delay };
        upstream.listen(listener, tls);
        upstream
    }

    fn listen(&self, listener: TcpListener, tls: Option<Arc<ServerConfig>>) {
        let serving = self.clone();
        serving.is_killed.store(false, Ordering::SeqCst);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (upstream, tls) = (serving.clone(), tls.clone());
                if upstream.is_killed.load(Ordering::SeqCst) {
                    return; // drops the listener
                }
                upstream.connections.fetch_add(1, Ordering::SeqCst);
                let _ = stream.set_nodelay(true);
                upstream.open.lock().unwrap().extend(stream.try_clone());
                std::thread::spawn(move || match tls {
                    None => {
                        while upstream.serve_one(&mut &stream).is_some() {}
                        let _ = stream.shutdown(std::net::Shutdown::Both); // its clone is still open
                    }
                    Some(tls) => {
                        let connection = ServerConnection::new(tls).unwrap();
                        let mut stream = StreamOwned::new(connection, stream);
                        let mut is_open = upstream.serve_one(&mut stream).is_some();
                        if stream.conn.handshake_kind() == Some(HandshakeKind::Resumed) {
                            upstream.resumed.fetch_add(1, Ordering::SeqCst);
                        }
                        while is_open {
                            is_open = upstream.serve_one(&mut stream).is_some();
                        }
                        stream.conn.send_close_notify();
                        let _ = stream.flush(); // the client may be gone
                        let _ = stream.sock.shutdown(std::net::Shutdown::Both);
                    }
                });
            }
        });
    }

    /// Ends as a killed process does: no connection is left, and new ones are refused.
    pub fn kill(&self) {
        self.is_killed.store(true, Ordering::SeqCst);
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        let _ = TcpStream::connect(self.address); // wakes the thread that accepts
    }

    /// Listens again on the same address.
    pub fn revive(&self) {
        while TcpStream::connect(self.address).is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.listen(TcpListener::bind(self.address).unwrap(), None);
    }

    /// All requests received so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.journal.lock().unwrap().clone()
    }

    /// Removes and returns all requests received so far.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.journal.lock().unwrap())
    }

    pub fn last(&self) -> Seen {
        self.seen().pop().expect("the upstream saw a request")
    }

    pub fn clear(&self) {
        self.journal.lock().unwrap().clear();
    }

    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// From now on the upstream closes its connections instead of responding, or responds again.
    pub fn set_failing(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    /// From now on each response comes this much later.
    pub fn set_delay(&self, delay: Duration) {
        self.delay.store(delay.as_millis() as u64, Ordering::SeqCst);
    }

    /// Number of TLS handshakes that resumed a session.
    pub fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::SeqCst)
    }

    /// Serves one request; `None` if the connection must end.
    fn serve_one(&self, stream: &mut (impl Read + Write)) -> Option<()> {
        let mut reader = BufReader::with_capacity(1, &mut *stream); // reads no byte of the next request
        let line = read_line(&mut reader)?;
        let headers = read_fields(&mut reader)?;
        let mut seen =
            Seen { line, headers, body: Vec::new(), trailers: Vec::new(), chunks: 0, answered: false };
        read_body(&mut reader, &mut seen)?;
        if self.fails.load(Ordering::SeqCst) {
            return None;
        }
        let at = {
            let mut journal = self.journal.lock().unwrap();
            journal.push(seen.clone());
            journal.len() - 1
        };
        std::thread::sleep(Duration::from_millis(self.delay.load(Ordering::SeqCst)));
        let kept = response(stream, &seen);
        if let (Some(entry), true) = (self.journal.lock().unwrap().get_mut(at), kept.is_some()) {
            entry.answered = true;
        }
        kept.filter(|keep| *keep).map(|_| ())
    }
}

fn read_line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).ok()?;
    let line = line.strip_suffix(b"\r\n")?;
    Some(String::from_utf8_lossy(line).into_owned())
}

fn read_fields(reader: &mut impl BufRead) -> Option<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            return Some(fields);
        }
        let (name, value) = line.split_once(':')?;
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn read_body(reader: &mut impl BufRead, seen: &mut Seen) -> Option<()> {
    if seen.header("transfer-encoding") == Some("chunked") {
        loop {
            let size = usize::from_str_radix(&read_line(reader)?, 16).ok()?;
            if size == 0 {
                seen.trailers = read_fields(reader)?;
                return Some(());
            }
            let mut chunk = vec![0; size];
            reader.read_exact(&mut chunk).ok()?;
            read_line(reader)?;
            seen.body.extend(chunk);
            seen.chunks += 1;
        }
    }
    let length = seen.header("content-length").map_or(0, |length| length.parse().unwrap());
    seen.body = vec![0; length];
    reader.read_exact(&mut seen.body).ok()
}

/// Writes a response. Returns true if the connection is to be kept, `None` if it broke.
fn response(stream: &mut (impl Read + Write), seen: &Seen) -> Option<bool> {
    if let Some(delay) = seen.header("x-response-delay") {
        std::thread::sleep(Duration::from_millis(delay.parse().unwrap()));
    }
    if let Some(raw) = seen.header("x-response-raw") {
        stream.write_all(raw.replace("\\n", "\r\n").as_bytes()).ok()?;
        return Some(false);
    }
    if seen.header("upgrade").is_some() {
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\nx-cost: 3\r\n\r\n").ok()?;
        return echo(stream);
    }
    let status = seen.header("x-response-status").unwrap_or("200");
    let mut head = format!("HTTP/1.1 {status} Whatever\r\nx-upstream: yes\r\n");
    for line in
        seen.header("x-response-header").unwrap_or_default().split('|').filter(|line| !line.is_empty())
    {
        head.push_str(line);
        head.push_str("\r\n");
    }
    if let Some(chunks) = seen.header("x-response-chunks") {
        let pause = seen.header("x-response-pause").map_or(50, |pause| pause.parse().unwrap());
        return response_chunks(stream, head, chunks, Duration::from_millis(pause));
    }
    let body = match seen.header("x-response-echo") {
        Some(_) => seen.body.clone(),
        None => seen.header("x-response-body").unwrap_or("{}").as_bytes().to_vec(),
    };
    if !matches!(status, "204" | "304") {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    let stalls = seen.header("x-response-stall");
    let cut: Option<usize> = seen.header("x-response-cut").or(stalls).map(|cut| cut.parse().unwrap());
    let mut bytes = format!("{head}\r\n").into_bytes();
    if !seen.line.starts_with("HEAD") && !matches!(status, "204" | "304") {
        bytes.extend_from_slice(&body[..cut.unwrap_or(body.len())]);
    }
    stream.write_all(&bytes).ok()?;
    if stalls.is_some() {
        std::thread::sleep(Duration::from_secs(60));
    }
    Some(cut.is_none() && seen.header("x-response-close").is_none())
}

fn response_chunks(stream: &mut impl Write, mut head: String, chunks: &str, pause: Duration) -> Option<bool> {
    head.push_str("transfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    for (at, chunk) in chunks.split('|').enumerate() {
        if at > 0 {
            std::thread::sleep(pause);
        }
        stream.write_all(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes()).ok()?;
    }
    stream.write_all(b"0\r\nx-sum: 7\r\n\r\n").ok()?;
    Some(true)
}

fn echo(stream: &mut (impl Read + Write)) -> Option<bool> {
    let mut buffer = [0; 1024];
    loop {
        let count = stream.read(&mut buffer).ok().filter(|&count| count > 0)?;
        stream.write_all(&buffer[..count]).ok()?;
    }
}
