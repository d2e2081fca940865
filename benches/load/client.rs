//! A minimal HTTP/1.1 client: sends a request, and reads what servers under test send.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use crate::Result;

/// Read timeout. An event stream takes a second, and everything takes longer under valgrind.
const PATIENCE: Duration = Duration::from_secs(10);
const BUFFER: usize = 64 * 1024;

/// The text of a request before and after its key.
pub fn around(path: &str, port: u16, body: usize) -> (String, String) {
    let (method, length) = match body {
        0 => ("GET", String::new()),
        body => ("POST", format!("Content-Type: application/json\r\nContent-Length: {body}\r\n")),
    };
    let before = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nx-api-key: ");
    (before, format!("\r\n{length}\r\n{}", "x".repeat(body)))
}

/// Sends one request on its own connection and reads the response.
pub fn ask(port: u16, path: &str, key: &str, body: usize) -> Result<Response> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (before, after) = around(path, port, body);
    stream.write_all(format!("{before}{key}{after}").as_bytes())?;
    let (mut response, mut buffer) = (Response::new(true), vec![0; BUFFER]);
    while !response.is_done() {
        match stream.read(&mut buffer)? {
            0 => return Err("the connection ended within a response".into()),
            length => response.feed(&buffer[..length])?,
        }
    }
    Ok(response)
}

/// The balance of a key's account, in whole credits.
pub fn balance(port: u16, key: &str) -> Result<u64> {
    let response = ask(port, "/account/info", key, 0)?;
    if response.status != 200 {
        return Err(format!("/account/info responds with {}", response.status).into());
    }
    let document: serde_json::Value = serde_json::from_slice(&response.kept.unwrap_or_default())?;
    Ok(document["credits"].as_u64().ok_or("a balance that is not whole")?)
}

/// Maximum bytes of a response head. A longer head is an error.
const MAX_HEAD: usize = 64 * 1024;

/// The state of the parser: where in a response the next byte is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Head,
    Body(usize),
    /// In the line with a chunk's size; the value of the digits so far.
    Size(usize),
    /// After the digits of the size, before the end of the line.
    SizeEnd(usize),
    Chunk(usize),
    /// In the trailers after the last chunk: how much of the final empty line was seen.
    Trailer(usize),
    /// Between a chunk's data and the next size.
    ChunkEnd,
    Done,
}

/// A response, as far as it has been received.
pub struct Response {
    at: At,
    head: Vec<u8>,
    pub status: u16,
    /// The server closes the connection after this response.
    pub closes: bool,
    /// Bytes of the body.
    pub length: usize,
    /// Empty lines in the body, each of which ends an event.
    pub events: u64,
    newline: bool,
    /// The body, if it is to be kept.
    pub kept: Option<Vec<u8>>,
}

impl Response {
    pub fn new(keep: bool) -> Self {
        Self {
            at: At::Head,
            head: Vec::new(),
            status: 0,
            closes: false,
            length: 0,
            events: 0,
            newline: false,
            kept: keep.then(Vec::new),
        }
    }

    pub fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// Parses received bytes. Bytes after the end of the response are an error.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<()> {
        if self.at == At::Head {
            bytes = self.feed_head(bytes)?;
        }
        while let Some((&first, rest)) = bytes.split_first() {
            match self.at {
                At::Head => return Ok(()),
                At::Done => return Err("bytes after the end of a response".into()),
                At::Body(left) | At::Chunk(left) => {
                    let taken = left.min(bytes.len());
                    self.body(&bytes[..taken]);
                    bytes = &bytes[taken..];
                    self.at = match (self.at, left - taken) {
                        (At::Body(_), 0) => At::Done,
                        (At::Body(_), left) => At::Body(left),
                        (_, 0) => At::ChunkEnd,
                        (_, left) => At::Chunk(left),
                    };
                }
                _ => {
                    self.at = self.framing(first)?;
                    bytes = rest;
                }
            }
        }
        Ok(())
    }

    /// The next state, after a byte of a chunk's framing or of the trailers.
    fn framing(&self, byte: u8) -> Result<At> {
        let digit = char::from(byte).to_digit(16).map(|digit| digit as usize);
        Ok(match (self.at, byte) {
            (At::Size(0) | At::SizeEnd(0), b'\n') => At::Trailer(1),
            (At::Size(size) | At::SizeEnd(size), b'\n') => At::Chunk(size),
            (At::Size(size), _) => match digit {
                Some(digit) => At::Size(size.checked_mul(16).ok_or("a chunk without end")? + digit),
                None => At::SizeEnd(size),
            },
            (At::ChunkEnd, b'\n') => At::Size(0),
            (At::Trailer(1), b'\n') => At::Done,
            (At::Trailer(_), b'\n') => At::Trailer(1),
            (At::Trailer(seen), b'\r') => At::Trailer(seen),
            (At::Trailer(_), _) => At::Trailer(0),
            (at, _) => at,
        })
    }

    /// Adds bytes to the head. Returns the bytes that follow the head once it is complete.
    fn feed_head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        let known = self.head.len();
        self.head.extend_from_slice(bytes);
        let Some(end) = head_end(&self.head) else {
            let fits = self.head.len() <= MAX_HEAD;
            return if fits { Ok(&[]) } else { Err("a response's head without end".into()) };
        };
        let head = &self.head[..end];
        let status = head.split(|byte| *byte == b' ').nth(1).and_then(|word| std::str::from_utf8(word).ok());
        self.status = status.and_then(|word| word.parse().ok()).ok_or("a response without a status")?;
        self.closes = header(head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        self.at = match header(head, "content-length") {
            Some("0") => At::Done,
            Some(length) => At::Body(length.parse()?),
            None if header(head, "transfer-encoding").is_some() => At::Size(0),
            None => return Err("a response without a length".into()),
        };
        Ok(&bytes[end - known..])
    }

    fn body(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        for &byte in bytes.iter().filter(|_| matches!(self.at, At::Chunk(_))) {
            self.events += u64::from(self.newline && byte == b'\n');
            self.newline = byte == b'\n';
        }
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(bytes);
        }
    }
}

/// The length of the head, its final empty line included; `None` if the head is incomplete.
fn head_end(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// The value of a header field.
fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let mut lines = head.split(|byte| *byte == b'\n').skip(1);
    let value = lines.find_map(|line| {
        let (start, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        start.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
    });
    std::str::from_utf8(value?).ok().map(str::trim)
}
