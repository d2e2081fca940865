//! The server behind the gateways: the bench's own binary, run again with [`ARGUMENT`].
//!
//! One thread that waits for sockets and two timers. Answers by path and understands just what
//! gateways send, so that it costs as little of the load's core as it can.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::Result;
use crate::process::{self, Running};

pub const ARGUMENT: &str = "--upstream";
/// 200 bytes of JSON, at once.
pub const ENRICH: &str = "/people/enrich";
/// 1 MiB, at once.
pub const EXPORT: &str = "/people/export";
/// [`EVENT_COUNT`] events, one each [`BETWEEN_EVENTS`].
pub const EVENTS: &str = "/people/events";
/// As [`ENRICH`], after [`DELAY`].
pub const SLOW: &str = "/people/slow";
pub const BODY_LENGTH: usize = 200;
pub const EXPORT_LENGTH: usize = 1024 * 1024;
pub const EVENT_COUNT: u64 = 100;
const BETWEEN_EVENTS: Duration = Duration::from_millis(10);
const DELAY: Duration = Duration::from_millis(20);
/// One event as a chunk: its length in hex, and the event with its end.
const EVENT: &[u8] = b"2f\r\ndata: {\"status\":\"ok\",\"person\":\"Ada Lovelace\"}\n\n\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
const EVENTS_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const BUFFER: usize = 64 * 1024;
/// Sockets told of at once.
const READY: usize = 1_024;
const LISTENER: Token = Token(0);

/// A running upstream.
pub struct Upstream {
    pub port: u16,
    /// Its standard input, held here, ends when the bench does.
    _process: Running,
}

impl Upstream {
    pub fn start(core: Option<usize>) -> Result<Self> {
        let mut command = process::command(&std::env::current_exe()?, core);
        let mut process = Running::start(command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let output = process.child().stdout.take().ok_or("the upstream has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let port = line.trim().parse().map_err(|_| "the upstream does not say its port")?;
        Ok(Self { port, _process: process })
    }
}

/// Serves until standard input ends.
pub fn run() -> Result<()> {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    println!("{}", listener.local_addr()?.port());
    std::io::stdout().flush()?;
    let (mut poll, mut ready) = (Poll::new()?, Events::with_capacity(READY));
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut server = Server::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match poll.poll(&mut ready, server.timers.next()) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &ready {
            if event.token() == LISTENER {
                server.accept(&poll, &listener)?;
            } else {
                server.serve(event.token().0, event.is_writable(), &mut buffer);
            }
        }
        server.fire();
    }
}

/// What a head asks for.
#[derive(Clone, Copy)]
enum Answer {
    Enrich,
    Export,
    Events,
    Slow,
}

impl Answer {
    fn to(head: &[u8]) -> Self {
        let path = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        match path {
            path if path == EXPORT.as_bytes() => Self::Export,
            path if path == EVENTS.as_bytes() => Self::Events,
            path if path == SLOW.as_bytes() => Self::Slow,
            _ => Self::Enrich,
        }
    }
}

/// Two queues, each in the order of time, since all in one wait equally long.
#[derive(Default)]
struct Timers {
    delayed: VecDeque<(Instant, usize)>,
    events: VecDeque<(Instant, usize)>,
}

impl Timers {
    fn next(&self) -> Option<Duration> {
        let first = self.delayed.front().into_iter().chain(self.events.front()).map(|(at, _)| *at).min();
        first.map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn due(queue: &mut VecDeque<(Instant, usize)>, now: Instant) -> Option<usize> {
        queue.pop_front_if(|(at, _)| *at <= now).map(|(_, number)| number)
    }
}

struct Connection {
    stream: TcpStream,
    /// Begin of a head whose end is still to come.
    rest: Vec<u8>,
    /// Bytes of a request's body that are still to come, and what is answered then.
    body: Option<(usize, Answer)>,
    /// What the socket did not take yet; the first only from an offset on.
    unsent: VecDeque<&'static [u8]>,
    offset: usize,
    events_left: u64,
}

struct Server {
    enrich: &'static [u8],
    export: &'static [u8],
    /// By token; numbers are never used again, so a late timer meets nobody else.
    connections: Vec<Option<Connection>>,
    timers: Timers,
}

impl Server {
    fn new() -> Self {
        let start = r#"{"status":"ok","person":{"name":"Ada Lovelace","email":"ada@example.com"},"note":""#;
        let filler = "x".repeat(BODY_LENGTH - start.len() - 2);
        let enrich = format!("{}{start}{filler}\"}}", head("application/json", BODY_LENGTH));
        let export = head("application/octet-stream", EXPORT_LENGTH) + &"x".repeat(EXPORT_LENGTH);
        Self {
            enrich: enrich.into_bytes().leak(),
            export: export.into_bytes().leak(),
            connections: vec![None], // the listener's number
            timers: Timers::default(),
        }
    }

    fn accept(&mut self, poll: &Poll, listener: &TcpListener) -> Result<()> {
        while let Ok((mut stream, _)) = listener.accept() {
            stream.set_nodelay(true)?;
            let number = Token(self.connections.len());
            poll.registry().register(&mut stream, number, Interest::READABLE | Interest::WRITABLE)?;
            self.connections.push(Some(Connection::new(stream)));
        }
        Ok(())
    }

    fn serve(&mut self, number: usize, writable: bool, buffer: &mut [u8]) {
        let Some(connection) = &mut self.connections[number] else { return };
        let flushed = !writable || connection.flush();
        if !flushed || !self.read(number, buffer) {
            self.connections[number] = None;
        }
    }

    /// Takes all there is; false if the connection is over.
    fn read(&mut self, number: usize, buffer: &mut [u8]) -> bool {
        loop {
            let Some(connection) = &mut self.connections[number] else { return false };
            let length = match connection.stream.read(buffer) {
                Ok(0) => return false,
                Ok(length) => length,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            };
            let mut bytes = &buffer[..length];
            while let Some(connection) = &mut self.connections[number] {
                let Some(answer) = connection.take(&mut bytes) else { break };
                if !self.answer(number, answer) {
                    return false;
                }
            }
            if length < buffer.len() {
                return true;
            }
        }
    }

    fn answer(&mut self, number: usize, answer: Answer) -> bool {
        let Some(connection) = &mut self.connections[number] else { return false };
        match answer {
            Answer::Enrich => connection.send(self.enrich),
            Answer::Export => connection.send(self.export),
            Answer::Slow => {
                self.timers.delayed.push_back((Instant::now() + DELAY, number));
                true
            }
            Answer::Events => {
                connection.events_left = EVENT_COUNT;
                self.timers.events.push_back((Instant::now() + BETWEEN_EVENTS, number));
                connection.send(EVENTS_HEAD)
            }
        }
    }

    /// Does what is due.
    fn fire(&mut self) {
        if self.timers.delayed.is_empty() && self.timers.events.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some(number) = Timers::due(&mut self.timers.delayed, now) {
            self.answer(number, Answer::Enrich);
        }
        while let Some(number) = Timers::due(&mut self.timers.events, now) {
            let Some(connection) = &mut self.connections[number] else { continue };
            connection.events_left -= 1;
            if connection.events_left > 0 {
                connection.send(EVENT);
                self.timers.events.push_back((now + BETWEEN_EVENTS, number));
            } else {
                connection.send(EVENT);
                connection.send(LAST_CHUNK);
            }
        }
    }
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        let (rest, unsent) = (Vec::new(), VecDeque::new());
        Self { stream, rest, body: None, unsent, offset: 0, events_left: 0 }
    }

    /// Takes one request off the bytes; nothing if its end is still to come.
    fn take(&mut self, bytes: &mut &[u8]) -> Option<Answer> {
        if self.body.is_none() {
            let (length, answer) = self.take_head(bytes)?;
            self.body = Some((length, answer));
        }
        let (left, answer) = self.body?;
        let taken = left.min(bytes.len());
        *bytes = &bytes[taken..];
        self.body = (left > taken).then_some((left - taken, answer));
        (left == taken).then_some(answer)
    }

    /// The length of the body that follows, and what is asked for.
    fn take_head(&mut self, bytes: &mut &[u8]) -> Option<(usize, Answer)> {
        if !self.rest.is_empty() {
            let known = self.rest.len();
            self.rest.extend_from_slice(bytes);
            let end = head_end(&self.rest)?;
            *bytes = &bytes[end - known..];
            let asked = asked(&self.rest[..end]);
            self.rest.clear();
            return Some(asked);
        }
        let Some(end) = head_end(bytes) else {
            self.rest.extend_from_slice(bytes);
            *bytes = &[];
            return None;
        };
        let (head, rest) = bytes.split_at(end);
        *bytes = rest;
        Some(asked(head))
    }

    fn send(&mut self, bytes: &'static [u8]) -> bool {
        self.unsent.push_back(bytes);
        self.flush()
    }

    /// False if the connection is over.
    fn flush(&mut self) -> bool {
        while let Some(bytes) = self.unsent.front() {
            match self.stream.write(&bytes[self.offset..]) {
                Ok(length) if self.offset + length == bytes.len() => {
                    (self.offset, _) = (0, self.unsent.pop_front());
                }
                Ok(length) => self.offset += length,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        true
    }
}

fn head(content_type: &str, length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n")
}

/// Where a head ends, its empty line included.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    // From line end to line end; most bytes are looked at once.
    let mut from = 0;
    loop {
        from += bytes.get(from..)?.iter().position(|byte| *byte == b'\n')? + 1;
        if bytes.get(from..from + 2)? == b"\r\n" {
            return Some(from + 2);
        }
    }
}

fn asked(head: &[u8]) -> (usize, Answer) {
    let length = if head.starts_with(b"POST") { header(head, "content-length") } else { None };
    (length.and_then(|length| length.parse().ok()).unwrap_or(0), Answer::to(head))
}

/// A header's value.
pub fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let mut lines = head.split(|byte| *byte == b'\n').skip(1);
    let value = lines.find_map(|line| {
        let (start, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        start.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
    });
    std::str::from_utf8(value?).ok().map(str::trim)
}
