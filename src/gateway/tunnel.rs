//! Upgraded connections: bytes both ways until one side is done, or both are silent for long.

use std::io::Cursor;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::Gate;
use super::connection::MAX_SILENCE;
use super::limits::Pass;
use super::permit::Owed;
use super::record::Record;
use super::stream::Stream;
use super::waits::Waits;
use crate::clock::Clock;
use crate::policy::outcome::Outcome;
use crate::types::Moment;
use crate::upstream::AnswerBody;

/// The client's end of a tunnel, and what the tunnel keeps occupied until its end.
pub(super) struct Tunnel {
    client: OnUpgrade,
    gate: Rc<Gate>,
    pass: Pass,
    record: Rc<Record>,
    stream: Stream,
    waits: Arc<Waits>,
}

impl Tunnel {
    /// Takes over what a request occupies.
    pub(super) fn new(client: OnUpgrade, owed: &mut Owed) -> Self {
        let (gate, pass) = (Rc::clone(&owed.gate), std::mem::take(&mut owed.pass));
        let record = Rc::clone(&owed.record);
        Self { client, gate, pass, record, stream: owed.stream.clone(), waits: owed.stream.waits.of_tunnel() }
    }

    /// Carries bytes once both sides have switched; the drain waits for it.
    pub(super) fn dig(self, upstream: AnswerBody) {
        let Self { client, gate, pass, record, stream, waits } = self;
        stream.connection.open_tunnel();
        gate.tunnels.borrow_mut().push(Arc::downgrade(&waits));
        let held = Open { gate: Rc::clone(&gate), stream };
        let clock = gate.clock.clone();
        let idle = record.view().settings.idle_timeout;
        gate.outlive(async move {
            let (Ok(client), Some((early, reader, writer))) = (client.await, upstream.into_tunnel()) else {
                return;
            };
            let upstream = tokio::io::join(Cursor::new(early).chain(reader), writer);
            let moved = Arc::new(Last::new(&clock));
            let mut client = Noted { io: TokioIo::new(client), last: Arc::clone(&moved) };
            let mut upstream = Noted { io: upstream, last: Arc::clone(&moved) };
            let mut copying = std::pin::pin!(tokio::io::copy_bidirectional(&mut client, &mut upstream));
            // Once a side has closed, the other may finish, but not stay silent.
            while let Some(left) = {
                let allowed = if moved.has_end() { idle } else { MAX_SILENCE };
                allowed.checked_sub(moved.since()).filter(|left| !left.is_zero())
            } {
                let look = left.min(idle);
                let ended = std::future::poll_fn(|context| {
                    waits.watch(context.waker());
                    if waits.is_cut() {
                        return Poll::Ready(()); // its key works no more
                    }
                    copying.as_mut().poll(context).map(|_| ())
                });
                if tokio::time::timeout(look, ended).await.is_ok() {
                    break; // either end may break off
                }
            }
            if waits.has_lost_its_key() {
                record.ended(Outcome::KeyEnded);
            }
            drop((pass, record, held));
        });
    }
}

/// A tunnel's connection, which keeps its place and is not idle while it goes on.
struct Open {
    gate: Rc<Gate>,
    stream: Stream,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stream.connection.close_tunnel(self.gate.clock.now());
    }
}

/// When a byte last went through, and whether a side has closed.
struct Last {
    clock: Clock,
    at: AtomicU64,
    ended: std::sync::atomic::AtomicBool,
}

impl Last {
    fn new(clock: &Clock) -> Self {
        let at = AtomicU64::new(clock.now().0);
        Self { clock: clock.clone(), at, ended: false.into() }
    }

    fn note(&self, end: bool) {
        self.at.store(self.clock.now().0, Ordering::Relaxed);
        if end {
            self.ended.store(true, Ordering::Relaxed);
        }
    }

    fn since(&self) -> std::time::Duration {
        self.clock.now().since(Moment(self.at.load(Ordering::Relaxed)))
    }

    fn has_end(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// An end of a tunnel that notes what is read from it.
struct Noted<T> {
    io: T,
    last: Arc<Last>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Noted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        if polled.is_ready() {
            self.last.note(buffer.filled().len() == before);
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Noted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
