//! A request to an upstream, before its connection is chosen.

use std::cell::RefCell;
use std::error::Error;

use bytes::Bytes;
use http::{HeaderValue, Method, Request};
use http_body::Body;

use super::http1::FramingContext;
use crate::policy::upstream::balance::HashBy;

/// A body that is sent to an upstream.
pub trait OutgoingBody:
    Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin + 'static
{
}

impl<B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin + 'static> OutgoingBody for B {}

/// The server that a request is rendered for.
#[derive(Clone, Copy, Debug)]
pub struct NextHop<'a> {
    /// `host:port` of the server's URL.
    pub authority: &'a HeaderValue,
    /// True if the connection uses TLS.
    pub is_tls: bool,
}

/// A request to an upstream. Its head is rendered once the connection is known, and again for every other try: the HTTP
/// version and the `Host` depend on the server.
pub trait OutgoingRequest {
    /// The request's body.
    type Body: OutgoingBody;

    /// Takes the body; `None` if the request has none.
    fn take_body(&mut self) -> Option<Self::Body>;

    /// The body from its beginning, for another try; `None` if that is no longer possible.
    fn rewind_body(&mut self) -> Option<Self::Body>;

    /// True if the client aborted the body, or it was too large.
    fn has_body_failed(&self) -> bool;

    /// The method.
    fn method(&self) -> &Method;

    /// The hash of what requests to the same server have in common.
    fn affinity(&self, by: &HashBy) -> u64;

    /// True if the request needs HTTP/1.1, for an upgrade.
    fn needs_http1(&self) -> bool;

    /// What the framing of an HTTP/1.1 response depends on.
    fn framing_context(&self) -> FramingContext;

    /// True if the HTTP/1.1 head declares a chunked body.
    fn is_chunked(&self) -> bool;

    /// Writes an HTTP/1.1 head.
    fn write_http1(&self, hop: NextHop<'_>, out: &mut Vec<u8>);

    /// Makes an HTTP/2 head; `None` if the requested host cannot be expressed in one.
    fn http2_head(&self, hop: NextHop<'_>) -> Option<Request<()>>;
}

/// Memory of request heads that were sent, reused for the next ones.
#[derive(Debug, Default)]
pub(super) struct HeadBuffers(RefCell<Vec<Vec<u8>>>);

impl HeadBuffers {
    /// Most buffers that are kept.
    const MAX: usize = 64;
    /// Capacity of a buffer, in bytes: larger ones are freed.
    const SIZE: usize = 1024;

    /// An empty buffer.
    pub(super) fn take(&self) -> Vec<u8> {
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
