//! A request that is sent to an upstream: its head, then its body.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::Request;
use http_body::Body;
use tokio::io::AsyncWrite;
use tokio::net::tcp::OwnedWriteHalf;

use super::body_decoder::may_trail;

/// Body frames up to this size are copied into the buffer of the head, so that a small request is one write. Larger
/// frames are written without a copy, unless the body is chunked.
const MAX_COPIED: usize = 8 * 1024;

/// A request to an upstream, with a body of type `B`.
#[derive(Debug)]
pub struct OutgoingRequest<B> {
    /// The head.
    pub head: OutgoingHead,
    /// The body; `None` if the request has none.
    pub body: Option<B>,
}

/// The head of a request to an upstream.
#[derive(Debug)]
pub enum OutgoingHead {
    /// HTTP/1.1.
    Http1 {
        /// The request line, all fields, and the final empty line.
        bytes: Vec<u8>,
        /// True if the headers declare `Transfer-Encoding: chunked`, false if they declare a length.
        chunked: bool,
    },
    /// HTTP/2. Boxed, so that the enum is small to move.
    Http2(Box<Request<()>>),
}

/// Memory of request heads that were sent, reused for the next ones.
#[derive(Debug, Default)]
pub struct HeadBuffers(RefCell<Vec<Vec<u8>>>);

impl HeadBuffers {
    /// Most buffers that are kept.
    const MAX: usize = 64;
    /// Capacity of a buffer, in bytes: larger ones are freed.
    const SIZE: usize = 1024;

    /// An empty buffer.
    pub fn take(&self) -> Vec<u8> {
        self.0.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(Self::SIZE))
    }

    pub(super) fn put(&self, mut memory: Vec<u8>) {
        let mut list = self.0.borrow_mut();
        if list.len() < Self::MAX && memory.capacity() <= Self::SIZE {
            memory.clear();
            list.push(memory);
        }
    }
}

/// Why a request could not be written to its end.
#[derive(Debug)]
pub(super) enum UploadError {
    /// The upstream's connection failed.
    Upstream(io::Error),
    /// The client aborted the body, or it was too large.
    Body,
}

/// A request that is being written.
#[derive(Debug)]
pub(super) struct Upload<B> {
    /// The head, and small frames of the body after it.
    head: Vec<u8>,
    body: Option<B>,
    chunked: bool,
    /// How many bytes of `head` are written.
    at: usize,
    /// A large frame of the body, to be written after `head`.
    data: Bytes,
    /// The body was polled once, so the head is no longer delayed for it.
    is_polled: bool,
    is_started: bool,
}

impl<B: Body<Data = Bytes> + Unpin> Upload<B> {
    pub(super) fn new(head: Vec<u8>, chunked: bool, body: Option<B>) -> Self {
        Self { head, body, chunked, at: 0, data: Bytes::new(), is_polled: false, is_started: false }
    }

    /// The memory of the head, for the next request.
    pub(super) fn into_memory(self) -> Vec<u8> {
        self.head
    }

    /// True if the upstream may have seen a part of the request.
    pub(super) fn is_started(&self) -> bool {
        self.is_started
    }

    /// Writes the request to its end.
    pub(super) fn poll(
        &mut self,
        writer: &mut OwnedWriteHalf,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), UploadError>> {
        loop {
            if self.body.is_some() && !self.is_polled {
                // The client may have sent the body together with the head, and it may arrive with the next poll: wait
                // once.
                self.is_polled = true;
                if self.poll_body(context)?.is_pending() {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            while self.at < self.head.len() || self.data.has_remaining() {
                ready!(self.poll_write(writer, context)).map_err(UploadError::Upstream)?;
            }
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_body(context)?);
        }
    }

    fn poll_write(&mut self, writer: &mut OwnedWriteHalf, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let head = &self.head[self.at..];
        let written = if self.data.is_empty() {
            ready!(Pin::new(writer).poll_write(context, head))?
        } else {
            let slices = [io::IoSlice::new(head), io::IoSlice::new(&self.data)];
            ready!(Pin::new(writer).poll_write_vectored(context, &slices))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.is_started = true;
        let of_head = written.min(head.len());
        self.at += of_head;
        self.data.advance(written - of_head);
        if self.at == self.head.len() {
            self.at = 0;
            self.head.clear();
        }
        Poll::Ready(Ok(()))
    }

    /// Takes the next frame of the body; earlier frames are written or still in `head`.
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<(), UploadError>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        let head = &mut self.head;
        let frame = ready!(Pin::new(body).poll_frame(context));
        let frame = match frame {
            None => {
                head.extend_from_slice(if self.chunked { b"0\r\n\r\n" } else { b"" });
                self.body = None;
                return Poll::Ready(Ok(()));
            }
            Some(Err(_)) => return Poll::Ready(Err(UploadError::Body)),
            Some(Ok(frame)) => frame,
        };
        match frame.into_data() {
            Ok(data) if data.is_empty() => {} // an empty chunk would end the body
            Ok(data) if self.chunked => {
                head.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                head.extend_from_slice(&data);
                head.extend_from_slice(b"\r\n");
            }
            Ok(data) if data.len() <= MAX_COPIED => head.extend_from_slice(&data),
            Ok(data) => self.data = data,
            Err(frame) => {
                if let (Ok(trailers), true) = (frame.into_trailers(), self.chunked) {
                    head.extend_from_slice(b"0\r\n");
                    for (name, value) in trailers.iter().filter(|(name, _)| may_trail(name)) {
                        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                            head.extend_from_slice(part);
                        }
                    }
                    head.extend_from_slice(b"\r\n");
                }
                self.body = None; // nothing follows trailers
            }
        }
        let done = self.body.as_ref().is_some_and(|body| !self.chunked && body.is_end_stream());
        if done {
            self.body = None;
        }
        Poll::Ready(Ok(()))
    }
}
