//! Decodes compressed response bodies, beside the stream: the client gets the body as it is.

use std::io::{self, Write};

use brotli_decompressor::{BrotliDecoderParameter, DecompressorWriter};
use flate2::write::{MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};

/// Largest window of a zstd frame, as a power of two in bytes: 8 MiB, which decoders should support (RFC 8878, section
/// 3.1.1.1.2).
const MAX_ZSTD_WINDOW: u32 = 23;
/// Bytes that brotli's decoder passes on at a time.
const BROTLI_BUFFER: usize = 4096;

/// True if a content coding can be read.
fn is_readable(coding: &str) -> bool {
    let known = ["gzip", "x-gzip", "deflate", "br", "zstd", "identity"];
    known.iter().any(|known| coding.eq_ignore_ascii_case(known))
}

/// Those encodings that the client accepts and a price can be read from.
#[must_use]
pub fn readable_encodings(headers: &HeaderMap) -> String {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let codings = values.flat_map(|value| value.split(',')).map(str::trim);
    let readable = |coding: &&str| is_readable(coding.split(';').next().unwrap_or_default().trim_end());
    let readable: Vec<&str> = codings.filter(readable).collect();
    if readable.is_empty() { "identity".to_owned() } else { readable.join(", ") }
}

/// Decodes a body, and writes it to `W`.
pub(super) enum Decoder<W: Write> {
    Plain(W),
    Gzip(Box<MultiGzDecoder<W>>),
    Deflate(Box<ZlibDecoder<W>>),
    Brotli(Box<DecompressorWriter<W>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, W>>),
}

impl<W: Write> Decoder<W> {
    /// The decoder of a response's content coding; the writer, if it cannot be decoded.
    pub(super) fn new(headers: &HeaderMap, writer: W) -> Result<Self, W> {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let (first, second) = (codings.next(), codings.next());
        let Some(first) = first else { return Ok(Self::Plain(writer)) };
        let coding = first.to_str().unwrap_or_default().trim().to_ascii_lowercase();
        match (coding.as_str(), second) {
            ("" | "identity", None) => Ok(Self::Plain(writer)),
            ("gzip" | "x-gzip", None) => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(writer)))),
            ("deflate", None) => Ok(Self::Deflate(Box::new(ZlibDecoder::new(writer)))),
            ("br", None) => Ok(Self::brotli(writer)),
            ("zstd", None) => Self::zstd(writer),
            _ => Err(writer), // unknown, or several
        }
    }

    /// A decoder for windows of at most 16 MiB (RFC 7932, section 9.1).
    fn brotli(writer: W) -> Self {
        let mut decoder = DecompressorWriter::new(writer, BROTLI_BUFFER);
        decoder.set_parameter(BrotliDecoderParameter::BROTLI_DECODER_PARAM_LARGE_WINDOW, 0);
        Self::Brotli(Box::new(decoder))
    }

    fn zstd(writer: W) -> Result<Self, W> {
        let Ok(mut decoder) = zstd::stream::raw::Decoder::new() else { return Err(writer) };
        if decoder.set_parameter(zstd::stream::raw::DParameter::WindowLogMax(MAX_ZSTD_WINDOW)).is_err() {
            return Err(writer);
        }
        Ok(Self::Zstd(Box::new(zstd::stream::write::Decoder::with_decoder(writer, decoder))))
    }

    /// The writer.
    pub(super) fn get_ref(&self) -> &W {
        match self {
            Self::Plain(writer) => writer,
            Self::Gzip(decoder) => decoder.get_ref(),
            Self::Deflate(decoder) => decoder.get_ref(),
            Self::Brotli(decoder) => decoder.get_ref(),
            Self::Zstd(decoder) => decoder.get_ref(),
        }
    }

    /// The writer.
    pub(super) fn get_mut(&mut self) -> &mut W {
        match self {
            Self::Plain(writer) => writer,
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Deflate(decoder) => decoder.get_mut(),
            Self::Brotli(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut(),
        }
    }

    /// Decodes a piece, and writes all that can be decoded.
    ///
    /// # Errors
    /// If the piece is not valid, or the writer fails.
    pub(super) fn decode(&mut self, bytes: &[u8]) -> io::Result<()> {
        let writer: &mut dyn Write = match self {
            Self::Plain(writer) => writer,
            Self::Gzip(decoder) => decoder,
            Self::Deflate(decoder) => decoder,
            Self::Brotli(decoder) => decoder,
            Self::Zstd(decoder) => decoder,
        };
        writer.write_all(bytes)?;
        writer.flush()
    }

    /// Ends the body.
    ///
    /// # Errors
    /// If the body is incomplete.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Deflate(decoder) => decoder.try_finish(),
            Self::Brotli(decoder) => decoder.close(),
            Self::Zstd(decoder) => decoder.flush(),
        }
    }
}

impl<W: Write> std::fmt::Debug for Decoder<W> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Decoder")
    }
}
