//! One HTTP/1.1 connection to a server, with one request at a time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Frame;
use tokio_util::io::poll_read_buf;

use super::body_decoder::{BodyDecoder, Decoded};
use super::response_head::{FramingContext, Malformed, ResponseHead, take_head};
use super::upload::{Upload, UploadError};
use crate::upstream::connection_count::CountedConnection;
use crate::upstream::fault::ResponseFault;
use crate::upstream::io::{Io, is_quiet};
use crate::upstream::request::{HeadBuffers, OutgoingBody};

/// Buffer for the first read of a response: the head, and all of a small body.
const FIRST_READ: usize = 8 * 1024;
/// Largest buffer for a further read.
const NEXT_READ: usize = 128 * 1024;
/// Most informational (1xx) responses before the final one.
const MAX_INFORMATIONAL: usize = 32;

/// An HTTP/1.1 connection. Between requests its buffer is empty, and its memory is kept for the next response.
#[derive(Debug)]
pub(in crate::upstream) struct Http1Connection {
    pub(super) io: Io,
    /// The server reads no more of the request.
    is_write_closed: bool,
    pub(super) buffer: BytesMut,
    /// How many bytes of the buffer were searched for the end of a head.
    searched: usize,
    /// How long the server keeps the connection open while it is idle, if its last response said so.
    keep_alive: Option<Duration>,
    counted: CountedConnection,
}

/// A request that was sent, as far as the server reads it, and the head of its response.
#[derive(Debug)]
pub(in crate::upstream) struct Exchange<B> {
    pub(super) connection: Box<Http1Connection>,
    pub(super) head: ResponseHead,
    /// The rest of the request, if the response began before its end.
    pub(super) rest: Option<Upload<B>>,
}

/// Why an exchange has no response.
#[derive(Debug)]
pub(in crate::upstream) enum ExchangeError<B> {
    /// The connection was closed before a byte of the request was written.
    Unsent(Upload<B>, ResponseFault),
    /// The exchange failed otherwise: the connection broke, the response is malformed, or the request body ended early.
    Sent(ResponseFault),
}

impl Http1Connection {
    pub(in crate::upstream) fn new(io: Io, counted: CountedConnection) -> Box<Self> {
        let buffer = BytesMut::new();
        Box::new(Self { io, is_write_closed: false, buffer, searched: 0, keep_alive: None, counted })
    }

    /// True if the idle connection is still open, as far as the kernel knows, and no unrequested byte arrived.
    pub(in crate::upstream) fn is_quiet(&mut self) -> bool {
        is_quiet(&mut self.io)
    }

    /// How long the server keeps the connection open while it is idle, if its last response said so.
    pub(in crate::upstream) fn keep_alive(&self) -> Option<Duration> {
        self.keep_alive
    }

    /// Sends a request and reads the response head.
    pub(in crate::upstream) async fn exchange<B: OutgoingBody>(
        mut self: Box<Self>,
        mut upload: Upload<B>,
        framing: FramingContext,
        buffers: &HeadBuffers,
    ) -> Result<Exchange<B>, ExchangeError<B>> {
        let mut uploaded = false;
        let mut informational = 0;
        let head = std::future::poll_fn(|context| {
            if !upload.is_started() && !self.is_quiet() {
                return Poll::Ready(Err(ResponseFault::Closed)); // closed, or it sent bytes before the request
            }
            if !uploaded {
                uploaded = self.poll_upload(&mut upload, context)?;
            }
            if !upload.is_started() {
                return Poll::Pending;
            }
            loop {
                let head = ready!(self.poll_head(context, framing))?;
                if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                    return Poll::Ready(Ok(head));
                }
                informational += 1;
                if informational > MAX_INFORMATIONAL {
                    return Poll::Ready(Err(ResponseFault::Malformed(Malformed::TooLarge)));
                }
            }
        });
        match head.await {
            Ok(mut head) => {
                self.keep_alive = head.keep_alive;
                let mut rest = None;
                if uploaded {
                    buffers.put(upload.into_memory());
                } else if self.is_write_closed {
                    head.persistent = false;
                } else {
                    rest = Some(upload);
                }
                Ok(Exchange { connection: self, head, rest })
            }
            Err(fault @ (ResponseFault::Io(_) | ResponseFault::Closed)) if !upload.is_started() => {
                Err(ExchangeError::Unsent(upload, fault))
            }
            Err(fault) => Err(ExchangeError::Sent(fault)),
        }
    }

    /// Writes the request; true once it is written to its end. If the server stops reading, its response is still
    /// awaited.
    fn poll_upload<B: OutgoingBody>(
        &mut self,
        upload: &mut Upload<B>,
        context: &mut Context<'_>,
    ) -> Result<bool, ResponseFault> {
        if self.is_write_closed {
            return Ok(false);
        }
        match upload.poll(&mut self.io, context) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(UploadError::Body)) => Err(ResponseFault::Body),
            Poll::Ready(Err(UploadError::Connection(error))) if !upload.is_started() => {
                Err(ResponseFault::Io(error))
            }
            Poll::Ready(Err(UploadError::Connection(_))) => {
                self.is_write_closed = true;
                Ok(false)
            }
        }
    }

    fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        framing: FramingContext,
    ) -> Poll<Result<ResponseHead, ResponseFault>> {
        loop {
            if !self.buffer.is_empty()
                && let Some(head) = take_head(&mut self.buffer, &mut self.searched, framing)?
            {
                return Poll::Ready(Ok(head));
            }
            if ready!(self.poll_fill(context, FIRST_READ))? == 0 {
                return Poll::Ready(Err(ResponseFault::Closed));
            }
        }
    }

    /// Reads the next frame of a response body; `None` at its end.
    #[inline]
    pub(super) fn poll_body(
        &mut self,
        context: &mut Context<'_>,
        decoder: &mut BodyDecoder,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseFault>>> {
        loop {
            match decoder.next(&mut self.buffer)? {
                Decoded::Data(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Decoded::Trailers(fields) => return Poll::Ready(Some(Ok(Frame::trailers(fields)))),
                Decoded::End => return Poll::Ready(None),
                Decoded::Incomplete => {}
            }
            let left = decoder.left().and_then(|left| usize::try_from(left).ok()).unwrap_or(FIRST_READ);
            if ready!(self.poll_fill(context, left.clamp(1, NEXT_READ)))? == 0 {
                if *decoder != BodyDecoder::UntilClose {
                    return Poll::Ready(Some(Err(ResponseFault::Closed)));
                }
                *decoder = BodyDecoder::Length(0);
            }
        }
    }

    fn poll_fill(&mut self, context: &mut Context<'_>, size: usize) -> Poll<io::Result<usize>> {
        self.buffer.reserve(size);
        poll_read_buf(Pin::new(&mut self.io), context, &mut self.buffer)
    }

    /// The connection for the next request; `None` if bytes arrived that belong to no response.
    pub(super) fn reset(mut self: Box<Self>) -> Option<Box<Self>> {
        if !self.buffer.is_empty() {
            return None;
        }
        if self.buffer.capacity() > FIRST_READ {
            self.buffer = BytesMut::new(); // grown for a large body
        }
        Some(self)
    }

    /// The connection's parts, once it switched protocols: the bytes that arrived after the head, and the connection.
    pub(super) fn into_parts(self) -> (Bytes, Io, CountedConnection) {
        (self.buffer.freeze(), self.io, self.counted)
    }
}
