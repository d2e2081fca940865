//! Decodes HTTP/1.1 response bodies: by length, chunked, or until the connection closes.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

use super::response_head::{MAX_FIELDS, Malformed};

/// Longest line of a chunk's size and extensions, in bytes.
const MAX_CHUNK_LINE: usize = 4096;
/// Longest trailer section, in bytes.
const MAX_TRAILERS: usize = 32 * 1024;

/// The framing of a response body, and the position in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum BodyDecoder {
    /// This many bytes are left.
    Length(u64),
    /// Chunked transfer coding (RFC 9112, section 7.1).
    Chunked(Chunk),
    /// The body ends when the upstream closes.
    UntilClose,
}

/// The position in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Chunk {
    /// At a chunk's size.
    Size,
    /// Within a chunk's data.
    Data(u64),
    /// At the CRLF after a chunk's data.
    End,
    /// In the trailer section.
    Trailers,
}

/// What was decoded from a buffer.
#[derive(Debug, PartialEq)]
pub(super) enum Decoded {
    /// Bytes of the body.
    Data(Bytes),
    /// Trailers: the body is complete.
    Trailers(HeaderMap),
    /// More bytes must be read first.
    Incomplete,
    /// The body is complete.
    End,
}

impl BodyDecoder {
    pub(super) const fn chunked() -> Self {
        Self::Chunked(Chunk::Size)
    }

    /// True if the body is complete.
    pub(super) fn is_at_end(self) -> bool {
        self == Self::Length(0)
    }

    /// How many bytes are left, if the body's length is known.
    pub(super) fn left(self) -> Option<u64> {
        if let Self::Length(left) = self { Some(left) } else { None }
    }

    /// Decodes the next part of the body from a buffer.
    ///
    /// # Errors
    /// [`Malformed::Chunk`].
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Malformed> {
        match self {
            Self::Length(0) => Ok(Decoded::End),
            _ if buffer.is_empty() => Ok(Decoded::Incomplete),
            Self::Length(left) => Ok(Decoded::Data(take(left, buffer))),
            Self::UntilClose => Ok(Decoded::Data(buffer.split().freeze())),
            Self::Chunked(_) => self.next_chunk(buffer),
        }
    }

    fn next_chunk(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Malformed> {
        while let Self::Chunked(at) = self {
            *at = match at {
                // httparse reads a line without digits as 0, and accepts any byte in an extension.
                Chunk::Size if buffer.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) => {
                    return Err(Malformed::Chunk);
                }
                Chunk::Size => match httparse::parse_chunk_size(buffer) {
                    Ok(httparse::Status::Complete((line, size)))
                        if line <= MAX_CHUNK_LINE && memchr(b'\n', &buffer[..line]) == Some(line - 1) =>
                    {
                        buffer.advance(line);
                        if size == 0 { Chunk::Trailers } else { Chunk::Data(size) }
                    }
                    Ok(httparse::Status::Partial) if buffer.len() <= MAX_CHUNK_LINE => {
                        return Ok(Decoded::Incomplete);
                    }
                    _ => return Err(Malformed::Chunk),
                },
                Chunk::Data(left) => {
                    if buffer.is_empty() {
                        return Ok(Decoded::Incomplete);
                    }
                    let data = take(left, buffer);
                    if *left == 0 {
                        *at = Chunk::End;
                    }
                    return Ok(Decoded::Data(data));
                }
                Chunk::End => match &**buffer {
                    [b'\r', b'\n', ..] => {
                        buffer.advance(2);
                        Chunk::Size
                    }
                    [] | [b'\r'] => return Ok(Decoded::Incomplete),
                    _ => return Err(Malformed::Chunk),
                },
                Chunk::Trailers => return self.trailers(buffer),
            };
        }
        Ok(Decoded::End)
    }

    fn trailers(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Malformed> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let (length, trailers) = match httparse::parse_headers(buffer, &mut fields) {
            Ok(httparse::Status::Complete((length, fields))) if length <= MAX_TRAILERS => {
                let mut trailers = HeaderMap::new();
                for field in fields {
                    let name = HeaderName::from_bytes(field.name.as_bytes());
                    let value = HeaderValue::from_bytes(field.value);
                    match (name, value) {
                        (Ok(name), Ok(value)) if may_trail(&name) => drop(trailers.append(name, value)),
                        (Ok(_), Ok(_)) => {}
                        _ => return Err(Malformed::Chunk),
                    }
                }
                (length, trailers)
            }
            Ok(httparse::Status::Partial) if buffer.len() <= MAX_TRAILERS => return Ok(Decoded::Incomplete),
            _ => return Err(Malformed::Chunk),
        };
        buffer.advance(length);
        *self = Self::Length(0);
        Ok(if trailers.is_empty() { Decoded::End } else { Decoded::Trailers(trailers) })
    }
}

fn take(left: &mut u64, buffer: &mut BytesMut) -> Bytes {
    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
    *left -= here as u64;
    buffer.split_to(here).freeze()
}

/// True if a field may be in the trailer section: not if it concerns framing, routing, authentication
/// or the format of the content (RFC 9110, section 6.5.1).
pub(super) fn may_trail(name: &HeaderName) -> bool {
    let forbidden = [
        header::TRANSFER_ENCODING,
        header::CONTENT_LENGTH,
        header::HOST,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::COOKIE,
        header::SET_COOKIE,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::CONTENT_RANGE,
        header::CACHE_CONTROL,
        header::EXPECT,
    ];
    !forbidden.contains(name) && !name.as_str().starts_with("x-tollgate-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Decodes a text in parts; returns the body, the names of trailers, and how many bytes are left.
    fn decode(
        mut decoder: BodyDecoder,
        text: &[u8],
        step: usize,
    ) -> Result<(Vec<u8>, Vec<String>, usize), Malformed> {
        let (mut buffer, mut body, mut names) = (BytesMut::new(), Vec::new(), Vec::new());
        let mut pieces = text.chunks(step.max(1));
        loop {
            match decoder.next(&mut buffer)? {
                Decoded::Data(data) => body.extend_from_slice(&data),
                Decoded::Trailers(fields) => names.extend(fields.keys().map(ToString::to_string)),
                Decoded::End => {
                    return Ok((body, names, buffer.len() + pieces.map(<[u8]>::len).sum::<usize>()));
                }
                Decoded::Incomplete => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return Ok((body, names, usize::MAX)), // the text ends within the body
                },
            }
        }
    }

    #[test]
    fn a_chunked_body_ends_with_its_last_chunk() {
        let text = b"4;ext=1\r\nWiki\r\nA\r\n0123456789\r\n0\r\nx-sum: 1\r\ncontent-length: 9\r\n\r\nHTTP";
        for step in 1..text.len() {
            let (body, names, left) = decode(BodyDecoder::chunked(), text, step).unwrap();
            assert_eq!((&*body, left), (&b"Wiki0123456789"[..], 4));
            assert_eq!(names, ["x-sum"]);
        }
    }

    #[test]
    fn malformed_chunks_are_refused() {
        let long = format!("1;{}\r\na\r\n", "x".repeat(MAX_CHUNK_LINE));
        let table: [&[u8]; 14] = [
            b"\r\n\r\n",
            b";a\r\n\r\n",
            b" \r\n\r\n",
            b"1;\n\r\na\r\n",
            b"x\r\n",
            b"-1\r\na\r\n",
            b"0x1\r\na\r\n",
            b"1\r\nab\r\n",
            b"1\r\na\n0\r\n\r\n",
            b"fffffffffffffffff\r\n",
            b"1_0\r\n",
            b"0\r\nno colon\r\n\r\n",
            b"0\r\n folded: x\r\n\r\n",
            long.as_bytes(),
        ];
        for text in table {
            assert_eq!(decode(BodyDecoder::chunked(), text, 64), Err(Malformed::Chunk), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_chunked_body_in_any_parts_is_the_same(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..8),
            step in 1_usize..50,
            rest in 0_usize..5,
        ) {
            let mut text = Vec::new();
            for chunk in &chunks {
                text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            text.extend(std::iter::repeat_n(b'x', rest));
            let (body, names, left) = decode(BodyDecoder::chunked(), &text, step).unwrap();
            prop_assert_eq!(body, chunks.concat());
            prop_assert!(names.is_empty());
            prop_assert_eq!(left, rest);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(text in proptest::collection::vec(any::<u8>(), 0..200), step in 1_usize..20) {
            let _ = decode(BodyDecoder::chunked(), &text, step);
        }
    }
}
