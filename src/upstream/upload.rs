//! A request on its way to the upstream: its head, then its body.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::Request;
use http_body::Body;
use tokio::io::AsyncWrite;
use tokio::net::tcp::OwnedWriteHalf;

use super::decode::may_trail;

/// Pieces of a body up to this size are copied behind what waits to be written, so that a small
/// request leaves in one write; larger ones are written from where they are.
const COPIED: usize = 8 * 1024;

/// A request that goes upstream. `B` is its body.
#[derive(Debug)]
pub struct Outgoing<B> {
    /// All but the body.
    pub head: Head,
    /// The body, where there is one.
    pub body: Option<B>,
}

/// A request's head, as its upstream reads it.
#[derive(Debug)]
pub enum Head {
    /// HTTP/1.1.
    Http1 {
        /// The request line and all fields, with the empty line at their end.
        bytes: Vec<u8>,
        /// Whether they say that the body comes in chunks; else they say its length.
        chunked: bool,
    },
    /// HTTP/2.
    Http2(Request<()>),
}

/// Memory of heads that were sent, for the next ones.
#[derive(Debug, Default)]
pub struct Spare(RefCell<Vec<Vec<u8>>>);

impl Spare {
    /// Most pieces that are kept.
    const MAX: usize = 64;
    /// The capacity of each, in bytes: larger ones are given back to the allocator.
    const SIZE: usize = 1024;

    /// An empty piece of memory.
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

/// Why a request could not be sent to its end.
#[derive(Debug)]
pub(super) enum Cut {
    /// The upstream takes no more.
    Upstream(io::Error),
    /// The client's body broke off, or outgrew its bound.
    Body,
}

/// What is left of a request to be written.
#[derive(Debug)]
pub(super) struct Upload<B> {
    /// The head, and small pieces of the body behind it.
    head: Vec<u8>,
    body: Option<B>,
    chunked: bool,
    /// How much of `head` is written.
    at: usize,
    /// A large piece of the body, behind what is left of the head.
    data: Bytes,
    /// The body was asked once and had nothing: the head waits no longer for it.
    asked: bool,
    started: bool,
}

impl<B: Body<Data = Bytes> + Unpin> Upload<B> {
    pub(super) fn new(head: Vec<u8>, chunked: bool, body: Option<B>) -> Self {
        Self { head, body, chunked, at: 0, data: Bytes::new(), asked: false, started: false }
    }

    /// The memory that the head was written in.
    pub(super) fn into_memory(self) -> Vec<u8> {
        self.head
    }

    /// Whether the upstream may have seen some of it.
    pub(super) fn is_started(&self) -> bool {
        self.started
    }

    /// Writes until all is written.
    pub(super) fn poll(
        &mut self,
        writer: &mut OwnedWriteHalf,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Cut>> {
        loop {
            if self.body.is_some() && !self.asked {
                // What the client sent along with its head may be there after one more turn.
                self.asked = true;
                if self.poll_body(context)?.is_pending() {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            while self.at < self.head.len() || self.data.has_remaining() {
                ready!(self.poll_write(writer, context)).map_err(Cut::Upstream)?;
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
        self.started = true;
        let of_head = written.min(head.len());
        self.at += of_head;
        self.data.advance(written - of_head);
        if self.at == self.head.len() {
            self.at = 0;
            self.head.clear();
        }
        Poll::Ready(Ok(()))
    }

    /// Takes the next piece of the body; what was taken before is written or still in `head`.
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        let head = &mut self.head;
        let frame = ready!(Pin::new(body).poll_frame(context));
        let frame = match frame {
            None => {
                head.extend_from_slice(if self.chunked { b"0\r\n\r\n" } else { b"" });
                self.body = None;
                return Poll::Ready(Ok(()));
            }
            Some(Err(_)) => return Poll::Ready(Err(Cut::Body)),
            Some(Ok(frame)) => frame,
        };
        match frame.into_data() {
            Ok(data) if data.is_empty() => {} // an empty chunk would end the body
            Ok(data) if self.chunked => {
                head.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                head.extend_from_slice(&data);
                head.extend_from_slice(b"\r\n");
            }
            Ok(data) if data.len() <= COPIED => head.extend_from_slice(&data),
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
