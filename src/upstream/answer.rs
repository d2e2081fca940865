//! Heads of answers: read strictly, since an answer that two readers could end at different places
//! would hand one client's answer to another (RFC 9112, sections 6.3 and 11.1).

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Version};
use memchr::memchr;

use super::decode::Decoder;

/// Largest head of an answer, in bytes.
const MAX_HEAD: usize = 128 * 1024;
/// Most header fields of an answer.
pub(super) const MAX_FIELDS: usize = 200;

/// What the framing of an answer depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// The request is a HEAD: its answer has no body, whatever it says.
    pub head: bool,
    /// The request asks for an upgrade: a 101 is an answer.
    pub upgrade: bool,
}

/// An answer that no reader should be trusted to read the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The head is not HTTP/1.x, or has a line that is none.
    #[error("the answer's head is not HTTP")]
    Head,
    /// Over 128 KiB, or over 200 fields.
    #[error("the answer's head is too large")]
    TooLarge,
    /// A length or an encoding that is contradictory or not understood.
    #[error("the answer's length is ambiguous")]
    Length,
    /// 101 to a request that asked for no upgrade.
    #[error("the upstream switched protocols without being asked to")]
    Switched,
    /// A chunk or a trailer that is not one.
    #[error("the answer's chunks are malformed")]
    Chunk,
}

/// A head, and how its body is to be read.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) decoder: Decoder,
    /// The connection may serve another request.
    pub(super) persistent: bool,
}

/// Takes a head off the buffer, once it is whole; informational ones too (their status is 1xx).
/// `searched` is how much of the buffer was seen before: a head that trickles in is searched once.
///
/// # Errors
/// The connection must not be used any more then.
pub(super) fn take(
    buffer: &mut BytesMut,
    searched: &mut usize,
    asks: Asks,
) -> Result<Option<Head>, Malformed> {
    let Some(length) = head_length(buffer, searched.saturating_sub(LONGEST_END)) else {
        *searched = buffer.len();
        return if buffer.len() > MAX_HEAD { Err(Malformed::TooLarge) } else { Ok(None) };
    };
    *searched = 0;
    if length > MAX_HEAD {
        return Err(Malformed::TooLarge);
    }
    read(&buffer.split_to(length).freeze(), asks).map(Some)
}

/// Bytes of the longest end of a head, less one.
const LONGEST_END: usize = 3;

/// Where the empty line ends that ends a head; none before `from`.
fn head_length(bytes: &[u8], mut from: usize) -> Option<usize> {
    while let Some(at) = memchr(b'\n', &bytes[from..]) {
        from += at + 1;
        match &bytes[from..] {
            [b'\n', ..] => return Some(from + 1),
            [b'\r', b'\n', ..] => return Some(from + 2),
            _ => {}
        }
    }
    None
}

fn read(bytes: &Bytes, asks: Asks) -> Result<Head, Malformed> {
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Malformed::TooLarge),
        _ => return Err(Malformed::Head),
    }
    let code = parsed.code.unwrap_or_default();
    let status = StatusCode::from_u16(code).map_err(|_| Malformed::Head)?;
    let version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut framing = Framing { persistent: version == Version::HTTP_11, ..Framing::default() };
    let mut headers = HeaderMap::with_capacity(parsed.headers.len() + ADDED_FIELDS);
    for field in &*parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed::Head)?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value));
        let value = value.map_err(|_| Malformed::Head)?;
        let repeated = framing.length.is_some() && name == header::CONTENT_LENGTH;
        framing.note(&name, &value)?;
        if !repeated {
            headers.append(name, value); // hyper would write the second one behind a comma
        }
    }
    let decoder = framing.decoder(status, version, asks)?;
    let persistent = framing.persistent && decoder != Decoder::UntilClose && !framing.closes;
    Ok(Head { status, headers, decoder, persistent })
}

/// Fields that the gateway adds to an answer, so that the map need not grow.
const ADDED_FIELDS: usize = 8;

/// What a head says about its body's length and its connection.
#[derive(Debug, Default)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
    persistent: bool,
    closes: bool,
}

impl Framing {
    fn note(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<(), Malformed> {
        if *name == header::CONTENT_LENGTH {
            let length = number(value.as_bytes()).ok_or(Malformed::Length)?;
            if self.length.replace(length).is_some_and(|before| before != length) {
                return Err(Malformed::Length);
            }
        } else if *name == header::TRANSFER_ENCODING {
            if self.chunked || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed::Length);
            }
            self.chunked = true;
        } else if *name == header::CONNECTION {
            for option in value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                self.closes |= option.eq_ignore_ascii_case(b"close");
                self.persistent |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        Ok(())
    }

    /// RFC 9112, section 6.3; stricter where it lets a reader choose.
    fn decoder(&self, status: StatusCode, version: Version, asks: Asks) -> Result<Decoder, Malformed> {
        if self.chunked && (self.length.is_some() || version == Version::HTTP_10) {
            return Err(Malformed::Length);
        }
        if status == StatusCode::SWITCHING_PROTOCOLS && !asks.upgrade {
            return Err(Malformed::Switched);
        }
        let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        Ok(match self.length {
            _ if asks.head || bodiless || status.is_informational() => Decoder::Length(0),
            _ if self.chunked => Decoder::chunked(),
            Some(length) => Decoder::Length(length),
            None => Decoder::UntilClose,
        })
    }
}

/// Digits only: no sign, no list, no overflow.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Asks = Asks { head: false, upgrade: false };

    fn taken(text: &str, asks: Asks) -> Result<Option<Head>, Malformed> {
        take(&mut BytesMut::from(text), &mut 0, asks)
    }

    #[test]
    fn heads_say_how_their_bodies_end() {
        let head = Asks { head: true, ..PLAIN };
        let upgrade = Asks { upgrade: true, ..PLAIN };
        let chunked = Decoder::chunked;
        let table = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", PLAIN, Decoder::Length(5), true),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n",
                PLAIN,
                Decoder::Length(5),
                true,
            ),
            ("HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n", PLAIN, chunked(), true),
            ("HTTP/1.1 200 OK\r\n\r\n", PLAIN, Decoder::UntilClose, false),
            ("HTTP/1.1 200 OK\ncontent-length: 0\n\n", PLAIN, Decoder::Length(0), true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", head, Decoder::Length(0), true),
            ("HTTP/1.1 204 No\r\ncontent-length: 5\r\n\r\n", PLAIN, Decoder::Length(0), true),
            ("HTTP/1.1 304 No\r\ncontent-length: 5\r\n\r\n", PLAIN, Decoder::Length(0), true),
            ("HTTP/1.1 103 Hints\r\nlink: </a>\r\n\r\n", PLAIN, Decoder::Length(0), true),
            ("HTTP/1.1 101 Switch\r\nupgrade: x\r\n\r\n", upgrade, Decoder::Length(0), true),
            ("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n", PLAIN, Decoder::Length(1), false),
            (
                "HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 1\r\n\r\n",
                PLAIN,
                Decoder::Length(1),
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nconnection: x, close\r\ncontent-length: 1\r\n\r\n",
                PLAIN,
                Decoder::Length(1),
                false,
            ),
        ];
        for (text, asks, decoder, persistent) in table {
            let head = taken(text, asks).unwrap().unwrap();
            assert_eq!((head.decoder, head.persistent), (decoder, persistent), "{text:?}");
        }
    }

    #[test]
    fn what_two_readers_could_take_differently_is_refused() {
        use Malformed::{Head, Length, Switched};
        let table = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n", Length),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\n", Length),
            ("HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n", Length),
            ("HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n", Length),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0x5\r\n\r\n", Length),
            ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n", Length),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", Length),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", Length),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n", Length),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\n", Length),
            ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Length),
            ("HTTP/1.1 101 Switch\r\nupgrade: x\r\n\r\n", Switched),
            ("HTTP/2 200 OK\r\n\r\n", Head),
            ("HTTP/1.1 20 OK\r\n\r\n", Head),
            ("SSH-2.0-x\r\n\r\n", Head),
            ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", Head),
            ("HTTP/1.1 200 OK\r\nspace : x\r\n\r\n", Head),
            ("HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n", Head),
            ("HTTP/1.1 200 OK\r\na: b\0c\r\n\r\n", Head),
            ("HTTP/1.1 200 OK\r\na: b\rc\r\n\r\n", Head),
            ("\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Head),
        ];
        for (text, fault) in table {
            assert_eq!(taken(text, PLAIN).map(|_| ()), Err(fault), "{text:?}");
        }
    }

    #[test]
    fn heads_are_bounded() {
        let fields = "a: b\r\n".repeat(MAX_FIELDS + 1);
        let many = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        assert_eq!(taken(&many, PLAIN).map(|_| ()), Err(Malformed::TooLarge));
        let long = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(MAX_HEAD));
        assert_eq!(taken(&long, PLAIN).map(|_| ()), Err(Malformed::TooLarge));
        assert_eq!(taken(&format!("{long}\r\n\r\n"), PLAIN).map(|_| ()), Err(Malformed::TooLarge));
    }

    #[test]
    fn a_head_may_come_in_any_pieces() {
        let text = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let whole = text.len() - 2;
        for at in 0..whole {
            let (mut buffer, mut searched) = (BytesMut::from(&text[..at]), 0);
            assert!(take(&mut buffer, &mut searched, PLAIN).unwrap().is_none(), "{at}");
            buffer.extend_from_slice(&text.as_bytes()[at..]);
            assert_eq!(
                take(&mut buffer, &mut searched, PLAIN).unwrap().unwrap().headers["content-length"],
                "2"
            );
            assert_eq!(&*buffer, b"ok");
        }
    }
}
