//! Bodies of answers: where they end, and what of them has come.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

use super::answer::{MAX_FIELDS, Malformed};

/// Longest line that a chunk's size and extensions may stand in, in bytes.
const MAX_CHUNK_LINE: usize = 4096;
/// Longest trailer section, in bytes.
const MAX_TRAILERS: usize = 32 * 1024;

/// How an answer's body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoder {
    /// So many bytes are left.
    Length(u64),
    /// Chunks (RFC 9112, section 7.1).
    Chunked(Chunk),
    /// Whatever comes until the upstream closes.
    UntilClose,
}

/// Where in a chunked body the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// At a chunk's size.
    Size,
    /// Within a chunk's data.
    Data(u64),
    /// At the line end behind a chunk's data.
    End,
    /// In the trailer section.
    Trailers,
}

/// What a buffer holds of a body.
#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    /// Bytes of the body.
    Data(Bytes),
    /// Fields behind the body; it is over.
    Trailers(HeaderMap),
    /// More must be read first.
    More,
    /// The body is over.
    Over,
}

impl Decoder {
    pub(super) const fn chunked() -> Self {
        Self::Chunked(Chunk::Size)
    }

    /// Whether the body is over.
    pub(super) fn is_over(self) -> bool {
        self == Self::Length(0)
    }

    /// How many bytes are left, where that is known.
    pub(super) fn left(self) -> Option<u64> {
        if let Self::Length(left) = self { Some(left) } else { None }
    }

    /// Takes the next piece off what was read.
    ///
    /// # Errors
    /// [`Malformed::Chunk`].
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Piece, Malformed> {
        match self {
            Self::Length(0) => Ok(Piece::Over),
            _ if buffer.is_empty() => Ok(Piece::More),
            Self::Length(left) => Ok(Piece::Data(take(left, buffer))),
            Self::UntilClose => Ok(Piece::Data(buffer.split().freeze())),
            Self::Chunked(_) => self.next_of_chunks(buffer),
        }
    }

    fn next_of_chunks(&mut self, buffer: &mut BytesMut) -> Result<Piece, Malformed> {
        while let Self::Chunked(at) = self {
            *at = match at {
                // httparse takes a line without a digit for 0, and any byte in an extension.
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
                        return Ok(Piece::More);
                    }
                    _ => return Err(Malformed::Chunk),
                },
                Chunk::Data(left) => {
                    if buffer.is_empty() {
                        return Ok(Piece::More);
                    }
                    let data = take(left, buffer);
                    if *left == 0 {
                        *at = Chunk::End;
                    }
                    return Ok(Piece::Data(data));
                }
                Chunk::End => match &**buffer {
                    [b'\r', b'\n', ..] => {
                        buffer.advance(2);
                        Chunk::Size
                    }
                    [] | [b'\r'] => return Ok(Piece::More),
                    _ => return Err(Malformed::Chunk),
                },
                Chunk::Trailers => return self.trailers(buffer),
            };
        }
        Ok(Piece::Over)
    }

    fn trailers(&mut self, buffer: &mut BytesMut) -> Result<Piece, Malformed> {
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
            Ok(httparse::Status::Partial) if buffer.len() <= MAX_TRAILERS => return Ok(Piece::More),
            _ => return Err(Malformed::Chunk),
        };
        buffer.advance(length);
        *self = Self::Length(0);
        Ok(if trailers.is_empty() { Piece::Over } else { Piece::Trailers(trailers) })
    }
}

fn take(left: &mut u64, buffer: &mut BytesMut) -> Bytes {
    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
    *left -= here as u64;
    buffer.split_to(here).freeze()
}

/// Whether a field may stand behind a body: none that frames it, routes it or says who asks
/// (RFC 9110, section 6.5.1).
pub(super) fn may_trail(name: &HeaderName) -> bool {
    let not_here = [
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
    !not_here.contains(name) && !name.as_str().starts_with("x-tollgate-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds a text in pieces; gives the body, the trailers and what is left.
    fn decode(
        mut decoder: Decoder,
        text: &[u8],
        step: usize,
    ) -> Result<(Vec<u8>, Vec<String>, usize), Malformed> {
        let (mut buffer, mut body, mut names) = (BytesMut::new(), Vec::new(), Vec::new());
        let mut pieces = text.chunks(step.max(1));
        loop {
            match decoder.next(&mut buffer)? {
                Piece::Data(data) => body.extend_from_slice(&data),
                Piece::Trailers(fields) => names.extend(fields.keys().map(ToString::to_string)),
                Piece::Over => {
                    return Ok((body, names, buffer.len() + pieces.map(<[u8]>::len).sum::<usize>()));
                }
                Piece::More => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return Ok((body, names, usize::MAX)), // cut short
                },
            }
        }
    }

    #[test]
    fn a_chunked_body_ends_where_it_says() {
        let text = b"4;ext=1\r\nWiki\r\nA\r\n0123456789\r\n0\r\nx-sum: 1\r\ncontent-length: 9\r\n\r\nHTTP";
        for step in 1..text.len() {
            let (body, names, left) = decode(Decoder::chunked(), text, step).unwrap();
            assert_eq!((&*body, left), (&b"Wiki0123456789"[..], 4));
            assert_eq!(names, ["x-sum"]);
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
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
            assert_eq!(decode(Decoder::chunked(), text, 64), Err(Malformed::Chunk), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_chunks_in_any_pieces_give_the_same_body(
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
            let (body, names, left) = decode(Decoder::chunked(), &text, step).unwrap();
            prop_assert_eq!(body, chunks.concat());
            prop_assert!(names.is_empty());
            prop_assert_eq!(left, rest);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(text in proptest::collection::vec(any::<u8>(), 0..200), step in 1_usize..20) {
            let _ = decode(Decoder::chunked(), &text, step);
        }
    }
}
