//! One client's connection: what it is doing, and its deadlines.

mod deadlines;
mod ending;
mod parser;

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ipnet::IpNet;
use parking_lot::{Mutex, MutexGuard};
use tokio::io::AsyncWrite;
use tokio::task::coop::unconstrained;

use super::arrive::{Arrived, Protocol};
use super::corked::Sends;
use super::frames::FrameScanner;
use super::head::{HeadScanner, Seen};
use super::places::Place;
use super::socket::Socket;
use super::target::is_trusted;
use super::waits::{Patience, Waits};
use crate::policy::reject::Reason;
use crate::types::Moment;
pub(super) use deadlines::{Look, MAX_SILENCE};

/// What a connection is doing, as far as deadlines are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A head is awaited or arriving; since the accept, or since its first byte.
    Head(Moment),
    /// A request is being served, or more than one.
    Busy,
    /// Between requests.
    Idle(Moment),
    /// Told to end, where that can be told.
    Leaving(Moment),
}

/// What the connection's task, its I/O and its requests share. They run on one thread; the lock,
/// never contended, is there because hyper wants I/O that could cross threads.
#[derive(Debug)]
pub(super) struct Connection {
    /// The other end.
    pub(super) peer: SocketAddr,
    /// Its address as text, which every request says upstream.
    pub(super) address: Box<str>,
    /// What it speaks.
    pub(super) protocol: Protocol,
    /// Whether it speaks TLS.
    pub(super) secure: bool,
    inner: Mutex<Inner>,
    _place: Place,
}

/// What its settings say of a connection when it begins.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rules {
    /// The other end is a trusted proxy, with clients of its own.
    pub(super) is_proxy: bool,
    /// A client that closed its sending side still gets its answer.
    pub(super) half_close: bool,
    /// Most bytes of a head.
    pub(super) max_head: usize,
}

/// What looks at the bytes before hyper does.
#[derive(Debug)]
pub(super) enum Scanner {
    Heads(HeadScanner),
    Frames(Box<FrameScanner>),
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) socket: Socket,
    pub(super) scanner: Scanner,
    phase: Phase,
    /// When this turn of the connection's task began.
    now: Moment,
    /// For the client to take what is written to it.
    writing: Patience,
    /// When a byte last went either way.
    moved: Moment,
    /// Bytes written since the last look.
    written: usize,
    /// The client was seen leaving: it closed its sending side, or more.
    leaving: bool,
    /// One that did still gets its answer.
    half_close: bool,
    /// The key of the request that is served works no more.
    key_ended: bool,
    /// It was told to leave: what it still asks for gets no answer.
    told: bool,
    /// Requests in flight. With HTTP/1.1 there is one place, which is used again and again.
    streams: Vec<Arc<Waits>>,
    /// Requests that became tunnels.
    tunnels: usize,
    /// Requests that their client gave up, and that go on since they are paid for.
    lingering: usize,
}

/// Requests that one connection's client gave up, and that go on since they are paid for: as many
/// as it may have in flight besides. Until one of them is settled, it gets no further one.
const MAX_LINGERING: usize = 100;

impl Connection {
    /// A connection that was accepted at `accepted`.
    pub(super) fn new(arrived: Arrived, accepted: Moment, now: Moment, place: Place, rules: &Rules) -> Self {
        let Arrived { socket, protocol, peer } = arrived;
        let secure = matches!(socket, Socket::Tls(_));
        let (scanner, streams) = match protocol {
            Protocol::Http1 => (Scanner::Heads(HeadScanner::new(rules.max_head)), vec![Arc::default()]),
            Protocol::Http2 => {
                (Scanner::Frames(Box::new(FrameScanner::new(now, rules.is_proxy))), Vec::new())
            }
        };
        let inner = Inner {
            socket,
            scanner,
            phase: Phase::Head(accepted),
            now,
            writing: Patience::default(),
            moved: now,
            written: 0,
            leaving: false,
            half_close: rules.half_close,
            key_ended: false,
            told: false,
            streams,
            tunnels: 0,
            lingering: 0,
        };
        let address = peer.ip().to_canonical().to_string().into_boxed_str();
        Self { peer, address, protocol, secure, inner: Mutex::new(inner), _place: place }
    }

    /// The other end's socket and what looks at its bytes, for [`super::watched`].
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// A turn of the connection's task begins.
    pub(super) fn tick(&self, now: Moment) {
        self.inner.lock().now = now;
    }

    /// A request begins: its place among those in flight, and what the scanner saw of its head.
    pub(super) fn begin(&self) -> (Arc<Waits>, Option<Seen>) {
        let mut inner = self.inner.lock();
        (inner.phase, inner.key_ended) = (Phase::Busy, false);
        match &mut inner.scanner {
            Scanner::Heads(heads) => {
                let seen = heads.next();
                inner.streams[0].begin(None);
                (Arc::clone(&inner.streams[0]), seen)
            }
            Scanner::Frames(frames) => {
                frames.begun();
                let waits: Arc<Waits> = Arc::default();
                waits.begin(Some(inner.now));
                inner.streams.push(Arc::clone(&waits));
                (waits, Some(Ok(())))
            }
        }
    }

    /// A request is answered.
    pub(super) fn end(&self, waits: &Arc<Waits>, now: Moment) {
        waits.end();
        let mut inner = self.inner.lock();
        match &inner.scanner {
            Scanner::Heads(heads) => {
                inner.phase = if heads.is_within_head() { Phase::Head(now) } else { Phase::Idle(now) };
            }
            Scanner::Frames(_) => {
                let before = inner.streams.len();
                inner.streams.retain(|stream| !Arc::ptr_eq(stream, waits));
                if inner.streams.len() < before {
                    inner.rest_from(now);
                }
            }
        }
    }

    /// Whether it may have a further request forwarded: with HTTP/2 a client can give up one after
    /// the other.
    ///
    /// # Errors
    /// [`Reason::Overloaded`], until what it gave up is settled.
    pub(super) fn may_forward(&self, trusted: &[IpNet]) -> Result<(), Reason> {
        let may = self.protocol == Protocol::Http1
            || self.inner.lock().lingering < MAX_LINGERING
            || is_trusted(self.peer.ip(), trusted); // it has many clients, each with its key's concurrency
        may.then_some(()).ok_or(Reason::Overloaded)
    }

    /// A request that goes on without its client, or such a one that is settled.
    pub(super) fn linger(&self, goes_on: bool) {
        let lingering = &mut self.inner.lock().lingering;
        *lingering = if goes_on { *lingering + 1 } else { *lingering - 1 };
    }

    /// A request becomes a tunnel. With HTTP/1.1 the connection speaks another protocol from here on.
    pub(super) fn open_tunnel(&self) {
        let mut inner = self.inner.lock();
        inner.tunnels += 1;
        if let Scanner::Heads(heads) = &mut inner.scanner {
            heads.blind();
            if let Some(socket) = inner.socket.corked() {
                socket.set_sends(Sends::AtOnce); // it has no more turns
            }
        }
    }

    /// The tunnel is over.
    pub(super) fn close_tunnel(&self, now: Moment) {
        let mut inner = self.inner.lock();
        inner.tunnels -= 1;
        if let Scanner::Frames(_) = inner.scanner {
            inner.rest_from(now);
        }
    }

    /// The client is told that an idle connection ends, if it takes that at once.
    pub(super) fn say_goodbye(&self, context: &mut Context<'_>) {
        let _ = Pin::new(&mut self.inner.lock().socket).poll_shutdown(context);
    }

    /// The connection is over: its socket is closed, unless it goes on as a tunnel.
    pub(super) fn close(&self) {
        let mut inner = self.inner.lock();
        if self.protocol == Protocol::Http2 || inner.tunnels == 0 {
            inner.socket = Socket::Closed;
        }
    }

    /// Ready when bytes came, or the connection's end.
    pub(super) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.lock().socket.tcp().map_or(Poll::Ready(Ok(())), |socket| socket.poll_read_ready(context))
    }

    /// A turn of the connection's task is over: what it wrote is sent.
    ///
    /// # Errors
    /// Where the client cannot be written to any more, or sent what it is to be closed for.
    pub(super) fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.lock();
        let turn = inner.end_turn();
        let Some(socket) = inner.socket.corked() else { return Poll::Ready(Ok(())) };
        let was_full = socket.is_full();
        // Outside the task's budget: a turn that spent it would find a socket full that is not.
        let sending = unconstrained(std::future::poll_fn(|context| socket.poll_send(context)));
        let polled = pin!(sending).poll(context);
        // Otherwise nothing was kept back here, and whether the client takes what hyper writes is told by `wrote`.
        if was_full || polled.is_pending() {
            inner.flushed(&polled);
        }
        turn?;
        polled
    }

    /// The gateway stops: a client that waits for nothing has little time to leave.
    pub(super) fn stop(&self, now: Moment) {
        let mut inner = self.inner.lock();
        inner.told = true;
        if self.protocol == Protocol::Http2 && inner.streams.is_empty() && inner.tunnels == 0 {
            inner.phase = Phase::Leaving(now);
        }
    }

    /// The client was told to leave.
    pub(super) fn leave(&self, now: Moment) {
        let mut inner = self.inner.lock();
        (inner.phase, inner.told) = (Phase::Leaving(now), true);
    }

    /// How the connection stands.
    ///
    /// A head has `header` from its first byte, a silence between requests `idle`; so much patience
    /// has a client that takes little of an answer or sends little of a body it announced, and so
    /// long may nothing move after it closed its sending side. Nothing is silent for [`MAX_SILENCE`].
    pub(super) fn look(&self, now: Moment, header: Duration, idle: Duration) -> Look {
        self.inner.lock().look(now, header, idle).unwrap_or(Look::Over)
    }
}

impl Inner {
    fn rest_from(&mut self, now: Moment) {
        if self.streams.is_empty() && self.tunnels == 0 && self.phase == Phase::Busy {
            self.phase = Phase::Idle(now);
        }
    }

    /// Bytes came. Says how many of them hyper is to have now.
    ///
    /// # Errors
    /// Where the connection is to be closed for them.
    pub(super) fn read(&mut self, came: &[u8]) -> io::Result<usize> {
        self.moved = self.now;
        match &mut self.scanner {
            Scanner::Heads(heads) => {
                if let Phase::Idle(_) = self.phase {
                    self.phase = Phase::Head(self.now);
                }
                heads.walk(came).map_err(io::Error::other)
            }
            Scanner::Frames(frames) => {
                frames.walk(came, self.now).map(|()| came.len()).map_err(io::Error::other)
            }
        }
    }

    /// The client was to take bytes.
    pub(super) fn wrote(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &polled {
            Poll::Pending => self.writing.begin(self.now),
            Poll::Ready(result) => {
                let bytes = result.as_ref().copied().unwrap_or_default();
                self.moved = self.now;
                self.end_writing(bytes);
                self.written += bytes;
                if let Scanner::Frames(frames) = &mut self.scanner {
                    frames.wrote(bytes);
                }
            }
        }
        polled
    }

    /// What was kept back, because the client took nothing, is gone or is not.
    pub(super) fn flushed(&mut self, polled: &Poll<io::Result<()>>) {
        match polled {
            Poll::Pending => self.writing.begin(self.now),
            Poll::Ready(_) => self.end_writing(0),
        }
    }

    fn end_writing(&mut self, bytes: usize) {
        if self.writing.is_on()
            && let Phase::Idle(since) | Phase::Leaving(since) = &mut self.phase
        {
            *since = self.now; // until now it took the last of an answer
        }
        self.writing.end(self.now, bytes);
    }

    /// # Errors
    /// Where the connection is to be closed for what came in this turn.
    fn end_turn(&mut self) -> io::Result<()> {
        match &mut self.scanner {
            Scanner::Frames(frames) if !self.told => frames.end_turn(self.now).map_err(io::Error::other),
            Scanner::Frames(frames) => {
                let _ = frames.end_turn(self.now); // heads that crossed what it was told are ignored
                Ok(())
            }
            Scanner::Heads(_) => Ok(()),
        }
    }

    /// A piece of an answer was handed to HTTP/2.
    pub(super) fn gave(&mut self) {
        if let Scanner::Frames(frames) = &mut self.scanner {
            frames.gave();
        }
    }

    /// Whether the connection is to be read no further in this turn.
    pub(super) fn is_turn_full(&self) -> bool {
        matches!(&self.scanner, Scanner::Frames(frames) if frames.is_turn_full())
    }

    /// Whether nothing that was read or is to be written is lost with hyper's state. HTTP/2's is
    /// the connection's own.
    fn may_rest(&self) -> bool {
        matches!(&self.scanner, Scanner::Heads(heads) if heads.is_between()) && !self.writing.is_on()
    }
}
