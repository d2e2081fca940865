//! One client's connection: its bytes on their way to hyper, and its deadlines.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::head::{HeadScanner, Seen};
use crate::clock::Clock;
use crate::telemetry::Stats;
use crate::types::Moment;

/// What a connection is doing, as far as deadlines are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A head is awaited or arriving; since the accept, or since its first byte.
    Head(Moment),
    /// A request is being served.
    Busy,
    /// Between requests.
    Idle(Moment),
}

/// What the connection's task, its I/O and its requests share. They run on one thread; the lock,
/// never contended, is there because hyper wants I/O that could cross threads.
#[derive(Debug)]
pub(super) struct Connection {
    /// The other end.
    pub(super) peer: SocketAddr,
    inner: Mutex<Inner>,
    _place: Place,
}

/// A place among the connections that are open, tunnels too; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    stats: Arc<Stats>,
}

impl Place {
    pub(super) fn take(permit: OwnedSemaphorePermit, stats: &Arc<Stats>) -> Self {
        stats.connections.fetch_add(1, Ordering::Relaxed);
        Self { _permit: permit, stats: Arc::clone(stats) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stats.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Inner {
    heads: HeadScanner,
    phase: Phase,
    /// Since when the client has not taken what is written to it.
    write_stalled: Option<Moment>,
    /// Since when the upstream side waits for more of the request's body.
    body_stalled: Option<Moment>,
    /// When a byte last went either way.
    moved: Moment,
    /// The client was seen leaving: it closed its sending side, or more.
    leaving: bool,
}

/// Longest silence within an answer: past it the connection is closed, whatever it waits for.
pub(super) const MAX_SILENCE: Duration = Duration::from_secs(3600);

impl Connection {
    pub(super) fn new(peer: SocketAddr, now: Moment, place: Place) -> Self {
        let (heads, phase) = (HeadScanner::default(), Phase::Head(now));
        let inner =
            Inner { heads, phase, write_stalled: None, body_stalled: None, moved: now, leaving: false };
        Self { peer, inner: Mutex::new(inner), _place: place }
    }

    /// A request begins: what the scanner saw of its head.
    pub(super) fn begin(&self) -> Option<Seen> {
        let mut inner = self.inner.lock();
        inner.phase = Phase::Busy;
        inner.heads.next()
    }

    /// A request is answered.
    pub(super) fn end(&self, now: Moment) {
        let mut inner = self.inner.lock();
        inner.body_stalled = None;
        inner.phase = if inner.heads.is_within_head() { Phase::Head(now) } else { Phase::Idle(now) };
    }

    /// The connection speaks another protocol from here on.
    pub(super) fn upgraded(&self) {
        self.inner.lock().heads.blind();
    }

    pub(super) fn waits_for_body(&self, now: Moment) {
        self.inner.lock().body_stalled.get_or_insert(now);
    }

    pub(super) fn got_body(&self) {
        self.inner.lock().body_stalled = None;
    }

    fn arrived(&self, bytes: &[u8], clock: &Clock) {
        let mut inner = self.inner.lock();
        let now = clock.now();
        inner.moved = now;
        if let Phase::Idle(_) = inner.phase {
            inner.phase = Phase::Head(now);
        }
        inner.heads.walk(bytes);
    }

    fn wrote(&self, pending: bool, clock: &Clock) {
        let mut inner = self.inner.lock();
        let now = clock.now();
        if pending {
            inner.write_stalled.get_or_insert(now);
        } else {
            (inner.write_stalled, inner.moved) = (None, now);
        }
    }

    /// The client was seen leaving. A half-closed one still gets its answer, but not for ever.
    pub(super) fn leaves(&self) {
        self.inner.lock().leaving = true;
    }

    /// Whether a request is being served, so that nobody reads what the client does.
    pub(super) fn is_busy(&self) -> bool {
        self.inner.lock().phase == Phase::Busy
    }

    /// How long until the connection is to be looked at again; `None` where its time is up.
    ///
    /// A head has `header` from its first byte, a silence between requests `idle`, and so have a
    /// client that takes nothing, one that sends nothing of the body it announced, and one that
    /// closed its sending side while nothing moves. Nothing is silent for [`MAX_SILENCE`].
    pub(super) fn next_look(&self, now: Moment, header: Duration, idle: Duration) -> Option<Duration> {
        const LOOK: Duration = Duration::from_secs(1);
        let left = |since: Moment, allowed: Duration| {
            allowed.checked_sub(now.since(since)).filter(|left| !left.is_zero())
        };
        let inner = self.inner.lock();
        let mut next = match inner.phase {
            Phase::Head(since) => left(since, header)?,
            // The head's time begins unnoticed within an idle time: look at least that often.
            Phase::Idle(since) => left(since, idle)?.min(header),
            Phase::Busy if inner.leaving => left(inner.moved, idle)?.min(LOOK),
            Phase::Busy => left(inner.moved, MAX_SILENCE)?.min(LOOK),
        };
        for stalled in [inner.write_stalled, inner.body_stalled].into_iter().flatten() {
            next = next.min(left(stalled, idle)?);
        }
        Some(next.max(Duration::from_millis(1)))
    }
}

/// A socket whose bytes are seen by the [`HeadScanner`] before hyper parses them. Shared with the
/// connection's task, which looks whether the client is still there while hyper does not read.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) stream: Arc<TcpStream>,
    pub(super) connection: Arc<Connection>,
    pub(super) clock: Clock,
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            match self.stream.try_read(buffer.initialize_unfilled()) {
                Ok(count) => {
                    let before = buffer.filled().len();
                    buffer.advance(count);
                    if count > 0 {
                        self.connection.arrived(&buffer.filled()[before..], &self.clock);
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Watched {
    fn poll_with(
        &self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let polled = loop {
            match self.stream.poll_write_ready(context) {
                Poll::Pending => break Poll::Pending,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
            match write(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => break Poll::Ready(result),
            }
        };
        self.connection.wrote(polled.is_pending(), &self.clock);
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_with(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(context, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // a socket keeps nothing back
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write))
    }
}

/// Whether the client closed its sending side, or is gone altogether. Looks without taking a byte.
pub(super) fn is_leaving(stream: &TcpStream) -> bool {
    let mut one = [std::mem::MaybeUninit::uninit(); 1];
    match SockRef::from(stream).peek(&mut one) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}
