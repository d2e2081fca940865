//! Connects a request to its connection: HTTP/1.1 serves one request after the other, HTTP/2 several at the same time.

use std::sync::Arc;

use super::deadlines::request::RequestDeadlines;
use super::protocol::Protocol;
use super::scan::HeadVerdict;
use super::state::Connection;
use crate::clock::Clock;
use crate::types::Moment;

/// The connection of a request, and the request's deadlines there.
#[derive(Clone, Debug)]
pub(in crate::gateway) struct Stream {
    pub(in crate::gateway) connection: Arc<Connection>,
    pub(in crate::gateway) deadlines: Arc<RequestDeadlines>,
}

impl Stream {
    /// Starts a request on a connection. Returns the scanner's verdict on its head too; `None` if the scanner did
    /// not see that head.
    pub(super) fn start(connection: Arc<Connection>) -> (Self, Option<HeadVerdict>) {
        let (deadlines, verdict) = connection.start_request();
        (Self { connection, deadlines }, verdict)
    }

    /// The whole response, with a body of this many bytes, was passed to hyper. Over HTTP/2 hyper keeps it until
    /// the client opens its window; then the stream's task ends the request.
    pub(in crate::gateway) fn response_given(&self, now: Moment, bytes: usize) {
        match self.connection.protocol {
            Protocol::Http1 => self.end(now),
            Protocol::Http2 => self.deadlines.chunk_given(now, bytes),
        }
    }

    /// Ends the request: its response is complete, or its client disconnected.
    pub(in crate::gateway) fn end(&self, now: Moment) {
        self.connection.end_request(&self.deadlines, now);
    }
}

/// A request that continues without its client until it is settled. It keeps the connection's slot, and the
/// connection counts it as detached.
#[derive(Debug)]
pub(in crate::gateway) struct DetachedRequest(Stream);

impl DetachedRequest {
    pub(in crate::gateway) fn new(stream: &Stream) -> Self {
        stream.connection.count_detached(true);
        Self(stream.clone())
    }
}

impl Drop for DetachedRequest {
    fn drop(&mut self) {
        self.0.connection.count_detached(false);
    }
}

/// A request that became a tunnel. It keeps the connection's slot, and meanwhile the connection is not idle.
#[derive(Debug)]
pub(in crate::gateway) struct TunnelStream {
    stream: Stream,
    clock: Clock,
}

impl TunnelStream {
    pub(in crate::gateway) fn new(stream: &Stream, clock: &Clock) -> Self {
        stream.connection.open_tunnel();
        Self { stream: stream.clone(), clock: clock.clone() }
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        self.stream.connection.close_tunnel(self.clock.now());
    }
}
