//! The state of one client connection, which its task, its I/O and its requests share.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use ipnet::IpNet;
use parking_lot::{Mutex, MutexGuard};
use tokio::task::coop::unconstrained;

use super::deadlines::SlowClientAllowance;
use super::deadlines::request::RequestDeadlines;
use super::io::socket::Socket;
use super::io::write_coalescing::FlushPolicy;
use super::protocol::{Negotiated, Protocol};
use super::scan::{FrameScanner, HeadScanner, HeadVerdict, Scanner};
use crate::policy::client_address::is_trusted;
use crate::policy::reject::Reason;
use crate::types::Moment;

/// Most detached requests of one connection: the client disconnected or reset their stream, and they continue
/// upstream because credits are held. As many again may be in flight. At this limit, further requests of the
/// connection are refused until one detached request is settled.
const MAX_DETACHED: usize = 100;

/// The phase of a connection, which selects its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waiting for a head (since the accept), or reading a head (since its first byte).
    ReadingHead(Moment),
    /// Serving at least one request.
    Serving,
    /// Between requests.
    Idle(Moment),
    /// A graceful close began; over HTTP/2 a GOAWAY tells the client to close.
    ShuttingDown(Moment),
}

/// Settings of a connection, fixed when it starts.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::gateway) struct ConnectionSettings {
    /// The peer is a trusted proxy, with clients of its own.
    pub(in crate::gateway) is_proxy: bool,
    /// A client that closed its sending side still gets its response.
    pub(in crate::gateway) half_close: bool,
    /// Most bytes of a request head.
    pub(in crate::gateway) max_head: usize,
}

/// The listener's slot for a connection. Released when the connection, its detached requests and its tunnels
/// have ended.
pub(in crate::gateway) type Slot = Box<dyn Debug + Send + Sync>;

/// One client connection. Used on one thread; the lock, never contended, exists because hyper requires I/O
/// that is `Send`.
#[derive(Debug)]
pub(in crate::gateway) struct Connection {
    /// The client's address, or the trusted proxy's.
    pub(in crate::gateway) peer: SocketAddr,
    /// Its IP address as text, which is forwarded with every request.
    pub(in crate::gateway) address: Box<str>,
    pub(in crate::gateway) protocol: Protocol,
    /// The connection uses TLS.
    pub(in crate::gateway) is_tls: bool,
    pub(super) inner: Mutex<Inner>,
    _slot: Slot,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) socket: Socket,
    pub(super) scanner: Scanner,
    pub(super) phase: Phase,
    /// When the current poll of the connection's task began.
    now: Moment,
    /// The client's allowance for reading the bytes that are written to it.
    pub(super) reading: SlowClientAllowance,
    /// When a byte last moved in either direction.
    pub(super) last_activity: Moment,
    /// Bytes written since the deadlines were last checked.
    pub(super) written: usize,
    /// The client closed its sending side, or the whole connection.
    pub(super) is_client_closing: bool,
    /// A client that closed its sending side still gets its response.
    pub(super) half_close: bool,
    /// The key of the HTTP/1.1 request in flight stopped working.
    pub(super) is_key_revoked: bool,
    /// The connection is closing: further requests get no response.
    pub(super) is_closing: bool,
    /// Requests in flight. HTTP/1.1 has one element, which is used again for each request.
    pub(super) requests: Vec<Arc<RequestDeadlines>>,
    /// Requests that became tunnels.
    pub(super) tunnels: usize,
    /// Requests whose client disconnected, but which continue upstream because credits are held.
    detached: usize,
}

impl Connection {
    /// A connection that was accepted at `accepted` and whose handshake is done.
    pub(in crate::gateway) fn new(
        negotiated: Negotiated,
        accepted: Moment,
        now: Moment,
        slot: Slot,
        settings: &ConnectionSettings,
    ) -> Self {
        let Negotiated { socket, protocol, peer } = negotiated;
        let is_tls = matches!(socket, Socket::Tls(_));
        let (scanner, requests) = match protocol {
            Protocol::Http1 => (Scanner::Heads(HeadScanner::new(settings.max_head)), vec![Arc::default()]),
            Protocol::Http2 => {
                (Scanner::Frames(Box::new(FrameScanner::new(now, settings.is_proxy))), Vec::new())
            }
        };
        let inner = Inner {
            socket,
            scanner,
            phase: Phase::ReadingHead(accepted),
            now,
            reading: SlowClientAllowance::default(),
            last_activity: now,
            written: 0,
            is_client_closing: false,
            half_close: settings.half_close,
            is_key_revoked: false,
            is_closing: false,
            requests,
            tunnels: 0,
            detached: 0,
        };
        let address = peer.ip().to_canonical().to_string().into_boxed_str();
        Self { peer, address, protocol, is_tls, inner: Mutex::new(inner), _slot: slot }
    }

    /// Locks the state, for the connection's I/O.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Starts a poll of the connection's task.
    pub(super) fn start_poll(&self, now: Moment) {
        self.inner.lock().now = now;
    }

    /// Notes that a new HTTP/1.1 parser starts. `many_fields`: it accepts heads with many fields.
    pub(super) fn start_parser(&self, many_fields: bool) {
        if let Scanner::Heads(heads) = &mut self.inner.lock().scanner {
            heads.many_fields().start_parser(many_fields);
        }
    }

    /// Starts a request. Returns its deadlines, and the scanner's verdict on its head.
    pub(super) fn start_request(&self) -> (Arc<RequestDeadlines>, Option<HeadVerdict>) {
        let mut inner = self.inner.lock();
        (inner.phase, inner.is_key_revoked) = (Phase::Serving, false);
        match &mut inner.scanner {
            Scanner::Heads(heads) => {
                let verdict = heads.next_verdict();
                inner.requests[0].start(None);
                (Arc::clone(&inner.requests[0]), verdict)
            }
            Scanner::Frames(frames) => {
                frames.request_began();
                let deadlines: Arc<RequestDeadlines> = Arc::default();
                deadlines.start(Some(inner.now));
                inner.requests.push(Arc::clone(&deadlines));
                (deadlines, Some(Ok(())))
            }
        }
    }

    /// Ends a request: its response is complete, or its client disconnected.
    pub(super) fn end_request(&self, deadlines: &Arc<RequestDeadlines>, now: Moment) {
        deadlines.end();
        let mut inner = self.inner.lock();
        match &inner.scanner {
            Scanner::Heads(heads) => {
                inner.phase = if heads.is_within_head() { Phase::ReadingHead(now) } else { Phase::Idle(now) };
            }
            Scanner::Frames(_) => {
                let before = inner.requests.len();
                inner.requests.retain(|request| !Arc::ptr_eq(request, deadlines));
                if inner.requests.len() < before {
                    inner.start_idling(now);
                }
            }
        }
    }

    /// Checks that a further request may be forwarded: an HTTP/2 client can reset one stream after the other.
    ///
    /// # Errors
    /// [`Reason::Overloaded`], until a detached request is settled.
    pub(in crate::gateway) fn may_forward(&self, trusted: &[IpNet]) -> Result<(), Reason> {
        let may = self.protocol == Protocol::Http1
            || self.inner.lock().detached < MAX_DETACHED
            || is_trusted(self.peer.ip(), trusted); // a proxy's clients are limited by the concurrency of their keys
        may.then_some(()).ok_or(Reason::Overloaded)
    }

    /// Counts a request that continues without its client, or stops counting it once it is settled.
    pub(super) fn count_detached(&self, is_added: bool) {
        let detached = &mut self.inner.lock().detached;
        *detached = if is_added { *detached + 1 } else { *detached - 1 };
    }

    /// Counts a request that becomes a tunnel. An HTTP/1.1 connection carries another protocol from here on.
    pub(super) fn open_tunnel(&self) {
        let mut inner = self.inner.lock();
        inner.tunnels += 1;
        if let Scanner::Heads(heads) = &mut inner.scanner {
            heads.stop();
            if let Some(socket) = inner.socket.coalescing() {
                socket.set_policy(FlushPolicy::Immediate); // no poll loop flushes it any more
            }
        }
    }

    /// A tunnel ended.
    pub(super) fn close_tunnel(&self, now: Moment) {
        let mut inner = self.inner.lock();
        inner.tunnels -= 1;
        if let Scanner::Frames(_) = inner.scanner {
            inner.start_idling(now);
        }
    }

    /// A DATA chunk of a response was passed to h2.
    pub(in crate::gateway) fn chunk_given(&self) {
        if let Scanner::Frames(frames) = &mut self.inner.lock().scanner {
            frames.chunk_given();
        }
    }

    /// Ready when the client sent bytes, or closed.
    pub(super) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.lock().socket.tcp().map_or(Poll::Ready(Ok(())), |socket| socket.poll_read_ready(context))
    }

    /// Ends a poll of the connection's task: sends the bytes that were written in it.
    ///
    /// # Errors
    /// If the client cannot be written to any more, or floods the connection.
    pub(super) fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.lock();
        let end = inner.end_poll();
        let Some(socket) = inner.socket.coalescing() else { return Poll::Ready(Ok(())) };
        let was_full = socket.is_full();
        // Exempt from tokio's task budget: a poll that has used it up would take an open socket for a full one.
        let sending = unconstrained(std::future::poll_fn(|context| socket.poll_send(context)));
        let polled = pin!(sending).poll(context);
        // Otherwise no bytes were waiting here, and `bytes_written` tracks whether the client reads.
        if was_full || polled.is_pending() {
            inner.flush_polled(&polled);
        }
        end?;
        polled
    }
}

impl Inner {
    fn start_idling(&mut self, now: Moment) {
        if self.requests.is_empty() && self.tunnels == 0 && self.phase == Phase::Serving {
            self.phase = Phase::Idle(now);
        }
    }

    /// Takes up to `most` withheld bytes, which the parser reads before bytes from the socket; `None` if they
    /// wait for another parser.
    pub(super) fn replay(&mut self, most: usize) -> Option<Bytes> {
        match &mut self.scanner {
            Scanner::Heads(heads) if heads.withholds_head() => None,
            Scanner::Heads(heads) => Some(heads.many_fields().take(most)),
            Scanner::Frames(_) => Some(Bytes::new()),
        }
    }

    /// Scans bytes that arrived. Returns how many of them hyper may read now.
    ///
    /// # Errors
    /// If the connection must be closed because of these bytes.
    pub(super) fn bytes_arrived(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.last_activity = self.now;
        match &mut self.scanner {
            Scanner::Heads(heads) => {
                if let Phase::Idle(_) = self.phase {
                    self.phase = Phase::ReadingHead(self.now);
                }
                heads.scan(bytes).map_err(io::Error::other)
            }
            Scanner::Frames(frames) => {
                frames.scan(bytes, self.now).map(|()| bytes.len()).map_err(io::Error::other)
            }
        }
    }

    /// Notes the outcome of a write.
    pub(super) fn bytes_written(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &polled {
            Poll::Pending => self.reading.start_waiting(self.now),
            Poll::Ready(result) => {
                let bytes = result.as_ref().copied().unwrap_or_default();
                self.last_activity = self.now;
                self.client_read(bytes);
                self.written += bytes;
                if let Scanner::Frames(frames) = &mut self.scanner {
                    frames.bytes_written(bytes);
                }
            }
        }
        polled
    }

    /// Notes the outcome of a flush of bytes that the client did not read before.
    pub(super) fn flush_polled(&mut self, polled: &Poll<io::Result<()>>) {
        match polled {
            Poll::Pending => self.reading.start_waiting(self.now),
            Poll::Ready(_) => self.client_read(0),
        }
    }

    fn client_read(&mut self, bytes: usize) {
        if self.reading.is_waiting()
            && let Phase::Idle(since) | Phase::ShuttingDown(since) = &mut self.phase
        {
            *since = self.now; // until now the client was reading the end of a response
        }
        self.reading.stop_waiting(self.now, bytes);
    }

    /// Ends a poll: the frame scanner charges the client for what arrived in it.
    ///
    /// # Errors
    /// If the connection must be closed because of what arrived in this poll.
    fn end_poll(&mut self) -> io::Result<()> {
        match &mut self.scanner {
            Scanner::Frames(frames) if !self.is_closing => {
                frames.end_poll(self.now).map_err(io::Error::other)
            }
            Scanner::Frames(frames) => {
                let _ = frames.end_poll(self.now); // ignores heads that the client sent before it received the GOAWAY
                Ok(())
            }
            Scanner::Heads(_) => Ok(()),
        }
    }

    /// True if the current poll must read no more.
    pub(super) fn has_read_enough(&self) -> bool {
        matches!(&self.scanner, Scanner::Frames(frames) if frames.has_read_enough())
    }

    /// The parser of HTTP/1.1 closes the connection: further requests get no response.
    pub(super) fn parser_closes(&mut self) {
        self.is_closing |= matches!(self.scanner, Scanner::Heads(_));
    }
}
