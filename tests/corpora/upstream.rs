//! An upstream that accepts only well-formed requests (RFC 9112) and records them. A request that is cut off is not
//! recorded: a gateway that streams forwards the part that it received, and the end of the connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as the upstream read it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub line: String,
    pub fields: Vec<(String, String)>,
    /// Why the request is not well-formed; `None` if it is.
    pub fault: Option<String>,
}

impl Seen {
    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    pub fn values(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(known, _)| known == name).map(|(_, value)| &**value).collect()
    }
}

pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Upstream {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let kept = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || serve(&stream, &kept));
            }
        });
        Self { address, seen }
    }

    /// The requests that arrived since the last call.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

fn serve(stream: &TcpStream, kept: &Mutex<Vec<Seen>>) {
    let mut reader = BufReader::new(stream);
    while let Some(head) = head(&mut reader) {
        let mut seen = Seen { line: String::new(), fields: Vec::new(), fault: None };
        let read = head.and_then(|lines| parse(&mut seen, &lines)).and_then(|()| body(&seen, &mut reader));
        seen.fault = match read {
            Err(Broken::Off) => return,
            Err(Broken::Malformed(fault)) => Some(fault),
            Ok(()) => None,
        };
        let (ends, text) = (seen.fault.is_some(), seen.target().to_owned());
        let no_body = seen.line.starts_with("HEAD ");
        kept.lock().unwrap().push(seen);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
        let body = if no_body { "" } else { &text };
        let mut writer = stream;
        if ends || writer.write_all(format!("{head}{body}").as_bytes()).is_err() {
            return;
        }
    }
}

/// Why a request could not be read.
enum Broken {
    /// The connection ended within the request.
    Off,
    Malformed(String),
}

impl From<String> for Broken {
    fn from(fault: String) -> Self {
        Self::Malformed(fault)
    }
}

type Read_<T> = Result<T, Broken>;

/// Reads the lines of a head; `None` if the connection ended before a head began.
fn head(reader: &mut impl BufRead) -> Option<Read_<Vec<String>>> {
    let mut lines = Vec::new();
    loop {
        let line = match line(reader) {
            Ok(None) if lines.is_empty() => return None,
            Ok(None) => return Some(Err(Broken::Off)),
            Ok(Some(line)) => line,
            Err(fault) => return Some(Err(fault)),
        };
        if line.is_empty() {
            return Some(Ok(lines));
        }
        lines.push(line);
    }
}

fn line(reader: &mut impl BufRead) -> Read_<Option<String>> {
    let mut bytes = Vec::new();
    reader.read_until(b'\n', &mut bytes).map_err(|_| Broken::Off)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if !bytes.ends_with(b"\n") {
        return Err(Broken::Off);
    }
    let text = bytes.strip_suffix(b"\r\n").ok_or_else(|| format!("a line without CRLF: {bytes:?}"))?;
    if text.iter().any(|&byte| byte != b'\t' && byte.is_ascii_control()) {
        return Err(format!("a control byte in {text:?}").into());
    }
    Ok(Some(text.iter().map(|&byte| char::from(byte)).collect()))
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn parse(seen: &mut Seen, lines: &[String]) -> Read_<()> {
    let (line, fields) = lines.split_first().ok_or_else(|| "an empty head".to_owned())?;
    seen.line.clone_from(line);
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else {
        return Err(format!("request line {line:?}").into());
    };
    let clean = target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !is_token(method) || !(clean || target == "*") {
        return Err(format!("request line {line:?}").into());
    }
    for field in fields {
        let (name, value) = field.split_once(':').ok_or_else(|| format!("field {field:?}"))?;
        if !is_token(name) {
            return Err(format!("field name {name:?}").into());
        }
        seen.fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
    }
    match seen.values("host").len() {
        1 => Ok(()),
        hosts => Err(format!("{hosts} hosts").into()),
    }
}

fn body(seen: &Seen, reader: &mut impl BufRead) -> Read_<()> {
    match (&seen.values("content-length")[..], &seen.values("transfer-encoding")[..]) {
        ([], []) => Ok(()),
        ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            let length = length.parse().map_err(|_| "length".to_owned())?;
            read(reader, length)
        }
        ([], ["chunked"]) => loop {
            let size = line(reader)?.ok_or(Broken::Off)?;
            if !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(format!("chunk size {size:?}").into());
            }
            let size = u64::from_str_radix(&size, 16).map_err(|_| format!("chunk size {size:?}"))?;
            if size == 0 {
                return match head(reader) {
                    Some(Ok(_)) => Ok(()),
                    Some(Err(broken)) => Err(broken),
                    None => Err(Broken::Off),
                };
            }
            read(reader, size)?;
            match line(reader)?.as_deref() {
                Some("") => {}
                None => return Err(Broken::Off),
                other => return Err(format!("behind a chunk: {other:?}").into()),
            }
        },
        (lengths, encodings) => Err(format!("lengths {lengths:?}, encodings {encodings:?}").into()),
    }
}

fn read(reader: &mut impl BufRead, length: u64) -> Read_<()> {
    let copied = std::io::copy(&mut reader.take(length), &mut std::io::sink());
    match copied {
        Ok(copied) if copied == length => Ok(()),
        _ => Err(Broken::Off),
    }
}
