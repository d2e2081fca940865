//! A client that sends bytes unchanged and reads responses.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Read timeout: the longest silence that a test waits for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client's connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// A response, read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Response {
    /// The only value of a header; `None` if it is absent. Panics if the header occurs twice.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        let value = found.next().map(|(_, value)| &**value);
        assert!(found.next().is_none(), "{name} stands twice in {:?}", self.headers);
        value
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub fn charged(&self) -> Option<&str> {
        self.header("x-credits-used")
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    /// A connection; `None` if nobody listens.
    pub fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(Self { stream: BufReader::new(stream) })
    }

    /// The socket, for operations that this type does not offer.
    pub fn socket(&mut self) -> &mut TcpStream {
        self.stream.get_mut()
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// Sends a request and reads its response.
    pub fn ask(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<Response> {
        let head_only = bytes.as_ref().starts_with(b"HEAD ");
        self.send(bytes)?;
        self.read(head_only)
    }

    pub fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\r\n") {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.len() - 2);
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    pub fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// Reads only a head.
    pub fn head(&mut self) -> io::Result<Response> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Response { status, headers: self.fields()?, body: Vec::new(), trailers: Vec::new() })
    }

    pub fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    pub fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let size = usize::from_str_radix(&self.line()?, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        let data = self.exactly(size)?;
        if size > 0 && !self.line()?.is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(data)
    }

    /// Reads a response to its end.
    pub fn read(&mut self, head_only: bool) -> io::Result<Response> {
        let mut response = self.head()?;
        while response.status == 100 {
            response = self.head()?;
        }
        let length = response.header("content-length").map(|length| length.parse::<usize>().unwrap());
        if head_only || matches!(response.status, 101 | 204 | 304) {
            return Ok(response);
        }
        if response.header("transfer-encoding") == Some("chunked") {
            loop {
                let chunk = self.chunk()?;
                if chunk.is_empty() {
                    break;
                }
                response.body.extend(chunk);
            }
            response.trailers = self.fields()?;
        } else if let Some(length) = length {
            response.body = self.exactly(length)?;
        } else {
            self.stream.read_to_end(&mut response.body)?;
        }
        Ok(response)
    }

    /// True if the peer closes the connection without sending another byte.
    pub fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

/// Sends a request on its own connection, and reads its response.
pub fn send(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Response {
    Client::connect(address).ask(bytes).unwrap()
}

/// `GET` with these header lines, each ending in CRLF.
pub fn get(address: SocketAddr, path: &str, headers: &str) -> Response {
    send(address, format!("GET {path} HTTP/1.1\r\nhost: gw.test\r\n{headers}\r\n"))
}

/// `POST` with these header lines, each ending in CRLF, and a body.
pub fn post(address: SocketAddr, path: &str, headers: &str, body: &str) -> Response {
    let length = body.len();
    send(
        address,
        format!("POST {path} HTTP/1.1\r\nhost: gw.test\r\ncontent-length: {length}\r\n{headers}\r\n{body}"),
    )
}
