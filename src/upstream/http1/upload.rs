//! Writes a request to a server: its head, then its body.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::Body;
use tokio::io::AsyncWrite;

use super::body_decoder::may_trail;
use crate::upstream::io::Io;

/// Body frames up to this size are copied into the buffer of the head, so that a small request is one write. Larger
/// frames are written without a copy, unless the body is chunked.
const MAX_COPIED: usize = 8 * 1024;

/// Why a request could not be written to its end.
#[derive(Debug)]
pub(super) enum UploadError {
    /// The connection failed.
    Connection(io::Error),
    /// The client aborted the body, or it was too large.
    Body,
}

/// A request that is being written.
#[derive(Debug)]
pub(in crate::upstream) struct Upload<B> {
    /// The head, and small frames of the body after it.
    head: Vec<u8>,
    /// Length of the head itself, until a byte of it is written.
    head_length: usize,
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
    pub(in crate::upstream) fn new(head: Vec<u8>, chunked: bool, body: Option<B>) -> Self {
        let head_length = head.len();
        let (at, data) = (0, Bytes::new());
        Self { head, head_length, body, chunked, at, data, is_polled: false, is_started: false }
    }

    /// Replaces the head by that for another server. No byte was written yet; what was taken of the body stays.
    pub(in crate::upstream) fn replace_head(&mut self, head: &[u8]) {
        self.head.splice(..self.head_length, head.iter().copied());
        self.head_length = head.len();
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
    pub(super) fn poll(&mut self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<(), UploadError>> {
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
                ready!(self.poll_write(io, context)).map_err(UploadError::Connection)?;
            }
            ready!(Pin::new(&mut *io).poll_flush(context)).map_err(UploadError::Connection)?;
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_body(context)?);
        }
    }

    fn poll_write(&mut self, io: &mut Io, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let head = &self.head[self.at..];
        let is_tls = matches!(io, Io::Right(_));
        let polled = if self.data.is_empty() {
            Pin::new(io).poll_write(context, head)
        } else {
            let slices = [io::IoSlice::new(head), io::IoSlice::new(&self.data)];
            Pin::new(io).poll_write_vectored(context, &slices)
        };
        // TLS may have sent a part although it failed then.
        self.is_started |= is_tls && matches!(polled, Poll::Ready(Err(_)));
        let written = ready!(polled)?;
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
