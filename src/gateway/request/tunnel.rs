//! Runs tunnels: copies bytes between a client (an upgraded connection, or the HTTP/2 stream of an extended CONNECT)
//! and an upgraded connection of the upstream, until both sides have closed, or both are silent for too long.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::permit::InFlight;
use super::response::settlement::TunnelCharge;
use crate::clock::Clock;
use crate::gateway::connection::{MAX_SILENCE, RequestDeadlines, TunnelStream};
use crate::policy::outcome::Outcome;
use crate::types::Moment;
use crate::upstream::UpstreamBody;

/// Starts a tunnel between a client that upgrades and an upstream that accepted the upgrade. The drain waits for
/// the tunnel, and its request is in flight until the tunnel ends. `charge`: if it depends on what passes through.
pub(super) fn start_tunnel(
    request: Rc<InFlight>,
    client: OnUpgrade,
    upstream: UpstreamBody,
    charge: Option<TunnelCharge>,
) {
    let connections = Rc::clone(&request.services.connections);
    let deadlines = request.deadlines().for_tunnel();
    let stream = TunnelStream::new(&request.stream, &connections.clock);
    connections.register_tunnel(&deadlines);
    connections.spawn_detached(async move {
        copy(&request, client, upstream, &deadlines, charge).await;
        if deadlines.is_key_revoked() {
            request.record.set_outcome(Outcome::KeyEnded);
        }
        drop((request, stream));
    });
}

async fn copy(
    request: &InFlight,
    client: OnUpgrade,
    upstream: UpstreamBody,
    deadlines: &RequestDeadlines,
    charge: Option<TunnelCharge>,
) {
    let idle_timeout = request.record.view().settings.idle_timeout;
    let (Ok(client), Some(upstream)) = (client.await, upstream.into_tunnel()) else { return };
    let activity = Arc::new(Activity::new(&request.services.connections.clock));
    let mut client = TrackedIo { io: TokioIo::new(client), activity: Arc::clone(&activity), charge: None };
    let mut upstream = TrackedIo { io: upstream, activity: Arc::clone(&activity), charge };
    let mut copying = std::pin::pin!(tokio::io::copy_bidirectional(&mut client, &mut upstream));
    while let Some(left) = activity.time_left(idle_timeout) {
        let ended = std::future::poll_fn(|context| {
            deadlines.set_waker(context.waker());
            if deadlines.is_cancelled() {
                return Poll::Ready(()); // its key stopped working
            }
            copying.as_mut().poll(context).map(|_| ()) // either side may abort
        });
        if tokio::time::timeout(left.min(idle_timeout), ended).await.is_ok() {
            return;
        }
    }
}

/// When a byte last moved through a tunnel, and whether a side closed.
struct Activity {
    clock: Clock,
    last: AtomicU64,
    is_half_closed: AtomicBool,
}

impl Activity {
    fn new(clock: &Clock) -> Self {
        let last = AtomicU64::new(clock.now().0);
        Self { clock: clock.clone(), last, is_half_closed: AtomicBool::new(false) }
    }

    fn note(&self, is_end: bool) {
        self.last.store(self.clock.now().0, Ordering::Relaxed);
        if is_end {
            self.is_half_closed.store(true, Ordering::Relaxed);
        }
    }

    /// How long the tunnel may stay silent; `None` if it was silent for too long. After one side closed, the other
    /// may finish, but has only the idle timeout.
    fn time_left(&self, idle_timeout: Duration) -> Option<Duration> {
        let is_half_closed = self.is_half_closed.load(Ordering::Relaxed);
        let allowed = if is_half_closed { idle_timeout } else { MAX_SILENCE };
        let silence = self.clock.now().since(Moment(self.last.load(Ordering::Relaxed)));
        allowed.checked_sub(silence).filter(|left| !left.is_zero())
    }
}

/// One side of a tunnel, which notes what is read from it.
struct TrackedIo<T> {
    io: T,
    activity: Arc<Activity>,
    /// What is read from it is counted for this charge.
    charge: Option<TunnelCharge>,
}

impl<T: AsyncRead + Unpin> AsyncRead for TrackedIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        if polled.is_ready() {
            let read = buffer.filled().len() - before;
            self.activity.note(read == 0);
            if let Some(charge) = &mut self.charge {
                charge.count(read as u64);
            }
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for TrackedIo<T> {
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
