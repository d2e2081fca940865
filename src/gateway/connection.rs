//! One client's connection: its bytes on their way to hyper, and its deadlines.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::head::{HeadScanner, Seen};
use crate::telemetry::Lane;
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
    /// Its address as text, which every request says upstream.
    pub(super) address: Box<str>,
    inner: Mutex<Inner>,
    _place: Place,
}

/// A place among the connections that are open, tunnels too; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    stats: Arc<Lane>,
}

impl Place {
    pub(super) fn take(permit: OwnedSemaphorePermit, stats: &Arc<Lane>) -> Self {
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
    stream: TcpStream,
    heads: HeadScanner,
    phase: Phase,
    /// When this turn of the connection's task began.
    now: Moment,
    /// Since when the client has not taken what is written to it.
    write_stalled: Option<Moment>,
    /// Since when the upstream side waits for more of the request's body.
    body_stalled: Option<Moment>,
    /// While the answer's head is awaited: how long it may take after the last of the body.
    answer_timeout: Option<Duration>,
    /// When it must be there; `None` while the client is awaited.
    answer_due: Option<Moment>,
    /// When a byte last went either way.
    moved: Moment,
    /// The client was seen leaving: it closed its sending side, or more.
    leaving: bool,
}

/// Longest silence within an answer: past it the connection is closed, whatever it waits for.
pub(super) const MAX_SILENCE: Duration = Duration::from_secs(3600);

impl Connection {
    pub(super) fn new(stream: TcpStream, peer: SocketAddr, now: Moment, place: Place) -> Self {
        let inner = Inner {
            stream,
            heads: HeadScanner::default(),
            phase: Phase::Head(now),
            now,
            write_stalled: None,
            body_stalled: None,
            answer_timeout: None,
            answer_due: None,
            moved: now,
            leaving: false,
        };
        let address = peer.ip().to_canonical().to_string().into_boxed_str();
        Self { peer, address, inner: Mutex::new(inner), _place: place }
    }

    /// A turn of the connection's task begins.
    pub(super) fn tick(&self, now: Moment) {
        self.inner.lock().now = now;
    }

    /// A request begins: what the scanner saw of its head.
    pub(super) fn begin(&self) -> Option<Seen> {
        let mut inner = self.inner.lock();
        inner.phase = Phase::Busy;
        inner.heads.next()
    }

    /// The upstream's answer is awaited from now on.
    pub(super) fn awaits_answer(&self, now: Moment, timeout: Duration) {
        let mut inner = self.inner.lock();
        (inner.answer_timeout, inner.answer_due) = (Some(timeout), Some(now.plus(timeout)));
    }

    /// It is awaited no longer.
    pub(super) fn has_answer(&self) {
        let mut inner = self.inner.lock();
        (inner.answer_timeout, inner.answer_due) = (None, None);
    }

    /// How long until the answer must be there; `None` while the client is awaited.
    pub(super) fn answer_left(&self, now: Moment) -> Option<Duration> {
        self.inner.lock().answer_due.map(|due| due.since(now))
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

    /// The upstream side waits for the client: its time, not the upstream's.
    pub(super) fn waits_for_body(&self, now: Moment) {
        let mut inner = self.inner.lock();
        inner.body_stalled.get_or_insert(now);
        inner.answer_due = None;
    }

    /// The upstream side got some of the body, or its end.
    pub(super) fn got_body(&self, now: Moment) {
        let mut inner = self.inner.lock();
        inner.body_stalled = None;
        inner.answer_due = inner.answer_timeout.map(|timeout| now.plus(timeout));
    }

    /// Looks whether the client closed its sending side, or is gone altogether, while nobody reads
    /// what it sends. Takes no byte. One that closed only its sending side still gets its answer,
    /// but not for ever.
    pub(super) fn look_for_client(&self) {
        let mut inner = self.inner.lock();
        if inner.phase == Phase::Busy && !inner.leaving {
            let mut one = [std::mem::MaybeUninit::uninit(); 1];
            inner.leaving = match SockRef::from(&inner.stream).peek(&mut one) {
                Ok(count) => count == 0,
                Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            };
        }
    }

    /// Lets the kernel find out that a client's machine is gone, in under two minutes, and writes
    /// what there is at once. Both are aids, not needs.
    pub(super) fn tune(&self) {
        let probes =
            TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
        let stream = &self.inner.lock().stream;
        let _ = SockRef::from(stream).set_tcp_keepalive(&probes.with_retries(3));
        let _ = stream.set_nodelay(true);
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
        if let Some(due) = inner.answer_due {
            next = next.min(due.since(now));
        }
        Some(next.max(Duration::from_millis(1)))
    }
}

/// Up to this many bytes, a head and what follows are put together before they are written.
const SMALL_WRITE: usize = 1024;

/// The connection's socket, as hyper sees it: what comes passes the [`HeadScanner`] first.
#[derive(Debug)]
pub(super) struct Watched(pub(super) Arc<Connection>);

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.0.inner.lock();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut inner.stream).poll_read(context, buffer);
        let came = &buffer.filled()[before..];
        if !came.is_empty() {
            inner.moved = inner.now;
            if let Phase::Idle(_) = inner.phase {
                inner.phase = Phase::Head(inner.now);
            }
            inner.heads.walk(came);
        }
        polled
    }
}

impl Inner {
    fn wrote(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if polled.is_pending() {
            self.write_stalled.get_or_insert(self.now);
        } else {
            (self.write_stalled, self.moved) = (None, self.now);
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.inner.lock();
        let polled = Pin::new(&mut inner.stream).poll_write(context, bytes);
        inner.wrote(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.inner.lock();
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        let polled = if length <= SMALL_WRITE {
            // The kernel takes one small piece sooner than several.
            let (mut whole, mut at) = ([0; SMALL_WRITE], 0);
            for slice in slices {
                whole[at..at + slice.len()].copy_from_slice(slice);
                at += slice.len();
            }
            Pin::new(&mut inner.stream).poll_write(context, &whole[..at])
        } else {
            Pin::new(&mut inner.stream).poll_write_vectored(context, slices)
        };
        inner.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // a socket keeps nothing back
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.inner.lock().stream).poll_shutdown(context)
    }
}
