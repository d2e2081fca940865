//! One request's place on its connection. HTTP/1.1 has one after the other, HTTP/2 several at once.

use std::sync::Arc;

use super::arrive::Protocol;
use super::connection::Connection;
use super::waits::Waits;
use crate::types::Moment;

/// A request's connection, and what the request waits for there.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) connection: Arc<Connection>,
    pub(super) waits: Arc<Waits>,
}

impl Stream {
    /// The request is answered, with a body of so many bytes. HTTP/2 keeps it until the client opens its
    /// window, and its stream's task says when it is gone.
    pub(super) fn gave_whole(&self, now: Moment, bytes: usize) {
        match self.connection.protocol {
            Protocol::Http1 => self.end(now),
            Protocol::Http2 => self.waits.gave(now, bytes),
        }
    }

    /// The request is answered.
    pub(super) fn end(&self, now: Moment) {
        self.connection.end(&self.waits, now);
    }
}

/// A request that goes on without its client, until it is settled. Keeps the connection's place, and
/// the connection's count.
#[derive(Debug)]
pub(super) struct Lingering(Stream);

impl Lingering {
    pub(super) fn new(stream: &Stream) -> Self {
        stream.connection.linger(true);
        Self(stream.clone())
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        self.0.connection.linger(false);
    }
}
