//! Parses HTTP/1.1 response heads strictly: a response that two parsers could end at different bytes would give one
//! client's response to another (RFC 9112, sections 6.3 and 11.1).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Version};
use memchr::memchr;

use super::body_decoder::BodyDecoder;

/// Largest response head, in bytes.
const MAX_HEAD: usize = 128 * 1024;
/// Most header fields of a response.
pub(super) const MAX_FIELDS: usize = 200;

/// The facts about a request that the framing of its response depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FramingContext {
    /// The request is a HEAD: its response has no body, whatever its headers say.
    pub is_head: bool,
    /// The client requests an upgrade, so 101 is a final response.
    pub is_upgrade: bool,
}

/// Why a response is refused: parsers disagree on such responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not an HTTP/1.x head, or it contains a malformed line.
    #[error("the response head is not valid HTTP")]
    Head,
    /// The head has more than 128 KiB or 200 fields, or too many informational (1xx) responses precede it.
    #[error("the response head is too large")]
    TooLarge,
    /// A contradictory or unknown length or transfer coding.
    #[error("the response's length is ambiguous")]
    Length,
    /// 101 to a request without an upgrade.
    #[error("the upstream switched protocols without being asked to")]
    Switched,
    /// A malformed chunk or trailer.
    #[error("the response's chunks are malformed")]
    Chunk,
}

/// A response head, and the framing of its body.
#[derive(Debug)]
pub(in crate::upstream) struct ResponseHead {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) decoder: BodyDecoder,
    /// The connection can serve another request after this response.
    pub(super) persistent: bool,
    /// How long the server keeps an idle connection open, if it says so (`Keep-Alive: timeout=…`).
    pub(super) keep_alive: Option<Duration>,
}

/// Takes a head from the buffer, informational (1xx) ones too; `None` if it is incomplete. `searched`: how many bytes
/// of the buffer earlier calls searched for the end of the head, so that a head that arrives slowly is searched only
/// once.
///
/// # Errors
/// [`Malformed`]: the connection must be closed.
pub(super) fn take_head(
    buffer: &mut BytesMut,
    searched: &mut usize,
    context: FramingContext,
) -> Result<Option<ResponseHead>, Malformed> {
    let Some(length) = head_length(buffer, searched.saturating_sub(LONGEST_END)) else {
        *searched = buffer.len();
        return if buffer.len() > MAX_HEAD { Err(Malformed::TooLarge) } else { Ok(None) };
    };
    *searched = 0;
    if length > MAX_HEAD {
        return Err(Malformed::TooLarge);
    }
    parse(&buffer.split_to(length).freeze(), context).map(Some)
}

/// Length of the longest end of a head (`\n\r\n`).
const LONGEST_END: usize = 3;

/// The length of a head, including its final empty line; `None` if it is incomplete. The search begins at the byte
/// `from`.
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

fn parse(bytes: &Bytes, context: FramingContext) -> Result<ResponseHead, Malformed> {
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
    let mut framing =
        ResponseFraming { persistent: version == Version::HTTP_11, ..ResponseFraming::default() };
    let mut headers = HeaderMap::with_capacity(parsed.headers.len() + ADDED_FIELDS);
    for field in &*parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed::Head)?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value));
        let value = value.map_err(|_| Malformed::Head)?;
        let repeated = framing.length.is_some() && name == header::CONTENT_LENGTH;
        framing.note(&name, &value)?;
        if !repeated {
            headers.append(name, value); // hyper would join two values with a comma
        }
    }
    let decoder = framing.decoder(status, version, context)?;
    let persistent = framing.persistent && decoder != BodyDecoder::UntilClose && !framing.closes;
    Ok(ResponseHead { status, headers, decoder, persistent, keep_alive: framing.keep_alive })
}

/// Capacity of the map for header fields that the gateway adds to a response, so that the map need not grow.
const ADDED_FIELDS: usize = 8;

/// The header fields that decide the length of the body and whether the connection persists.
#[derive(Debug, Default)]
struct ResponseFraming {
    length: Option<u64>,
    chunked: bool,
    persistent: bool,
    closes: bool,
    keep_alive: Option<Duration>,
}

impl ResponseFraming {
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
        } else if name.as_str() == "keep-alive" {
            self.keep_alive = keep_alive(value.as_bytes()).or(self.keep_alive);
        }
        Ok(())
    }

    /// The framing of the body (RFC 9112, section 6.3); stricter where the RFC leaves a choice.
    fn decoder(
        &self,
        status: StatusCode,
        version: Version,
        context: FramingContext,
    ) -> Result<BodyDecoder, Malformed> {
        if self.chunked && (self.length.is_some() || version == Version::HTTP_10) {
            return Err(Malformed::Length);
        }
        if status == StatusCode::SWITCHING_PROTOCOLS && !context.is_upgrade {
            return Err(Malformed::Switched);
        }
        let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        Ok(match self.length {
            _ if context.is_head || bodiless || status.is_informational() => BodyDecoder::Length(0),
            _ if self.chunked => BodyDecoder::chunked(),
            Some(length) => BodyDecoder::Length(length),
            None => BodyDecoder::UntilClose,
        })
    }
}

/// The `timeout` parameter of a `Keep-Alive` field, in seconds (RFC 2068, section 19.7.1.1).
fn keep_alive(value: &[u8]) -> Option<Duration> {
    let mut parameters = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let timeout = parameters.find_map(|parameter| parameter.strip_prefix(b"timeout="))?;
    number(timeout).map(Duration::from_secs)
}

/// Parses digits: no sign, no list, no overflow.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: FramingContext = FramingContext { is_head: false, is_upgrade: false };

    fn taken(text: &str, context: FramingContext) -> Result<Option<ResponseHead>, Malformed> {
        take_head(&mut BytesMut::from(text), &mut 0, context)
    }

    #[test]
    fn heads_determine_how_their_bodies_end() {
        let head = FramingContext { is_head: true, ..PLAIN };
        let upgrade = FramingContext { is_upgrade: true, ..PLAIN };
        let chunked = BodyDecoder::chunked;
        let table = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", PLAIN, BodyDecoder::Length(5), true),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n",
                PLAIN,
                BodyDecoder::Length(5),
                true,
            ),
            ("HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n", PLAIN, chunked(), true),
            ("HTTP/1.1 200 OK\r\n\r\n", PLAIN, BodyDecoder::UntilClose, false),
            ("HTTP/1.1 200 OK\ncontent-length: 0\n\n", PLAIN, BodyDecoder::Length(0), true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", head, BodyDecoder::Length(0), true),
            ("HTTP/1.1 204 No\r\ncontent-length: 5\r\n\r\n", PLAIN, BodyDecoder::Length(0), true),
            ("HTTP/1.1 304 No\r\ncontent-length: 5\r\n\r\n", PLAIN, BodyDecoder::Length(0), true),
            ("HTTP/1.1 103 Hints\r\nlink: </a>\r\n\r\n", PLAIN, BodyDecoder::Length(0), true),
            ("HTTP/1.1 101 Switch\r\nupgrade: x\r\n\r\n", upgrade, BodyDecoder::Length(0), true),
            ("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n", PLAIN, BodyDecoder::Length(1), false),
            (
                "HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 1\r\n\r\n",
                PLAIN,
                BodyDecoder::Length(1),
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nconnection: x, close\r\ncontent-length: 1\r\n\r\n",
                PLAIN,
                BodyDecoder::Length(1),
                false,
            ),
        ];
        for (text, context, decoder, persistent) in table {
            let head = taken(text, context).unwrap().unwrap();
            assert_eq!((head.decoder, head.persistent), (decoder, persistent), "{text:?}");
        }
    }

    #[test]
    fn responses_that_parsers_could_frame_differently_are_refused() {
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
    fn servers_say_how_long_they_keep_a_connection() {
        let table = [
            ("timeout=5", Some(5)),
            ("max=100, timeout=5", Some(5)),
            ("timeout=0,max=1", Some(0)),
            ("max=100", None),
            ("timeout=", None),
            ("timeout=-1", None),
            ("timeout=5s", None),
            ("timeout=99999999999999999999", None),
        ];
        for (value, seconds) in table {
            let text = format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nkeep-alive: {value}\r\n\r\n");
            let head = taken(&text, PLAIN).unwrap().unwrap();
            assert_eq!(head.keep_alive, seconds.map(Duration::from_secs), "{value}");
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
    fn a_head_may_arrive_in_any_parts() {
        let text = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let whole = text.len() - 2;
        for at in 0..whole {
            let (mut buffer, mut searched) = (BytesMut::from(&text[..at]), 0);
            assert!(take_head(&mut buffer, &mut searched, PLAIN).unwrap().is_none(), "{at}");
            buffer.extend_from_slice(&text.as_bytes()[at..]);
            assert_eq!(
                take_head(&mut buffer, &mut searched, PLAIN).unwrap().unwrap().headers["content-length"],
                "2"
            );
            assert_eq!(&*buffer, b"ok");
        }
    }
}
