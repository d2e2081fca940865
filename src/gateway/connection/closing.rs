//! Closes connections: gracefully; early, if the client disconnected or its key was revoked; or after
//! discarding what the client still sends (lingering close).

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Duration, timeout};

use super::deadlines::request::RequestDeadlines;
use super::io::socket::Socket;
use super::protocol::Protocol;
use super::scan::Scanner;
use super::state::{Connection, Phase};
use crate::types::{KeyHash, Moment};

/// Longest time for which the rest of a request is read and discarded after an early response (lingering close). If the
/// socket were closed with unread bytes, the kernel would reset the connection, and the client would lose its response.
const MAX_LINGER: Duration = Duration::from_secs(5);
/// Most bytes that a lingering close reads.
const MAX_LINGER_BYTES: usize = 64 * 1024 * 1024;

impl Connection {
    /// Cancels the requests whose key does not work any more, as if their client had disconnected. Returns true
    /// if the connection's task must be woken.
    pub(in crate::gateway) fn cancel_requests(&self, mut works: impl FnMut(&KeyHash) -> bool) -> bool {
        let mut inner = self.inner.lock();
        let is_revoked = |request: &&Arc<RequestDeadlines>| request.check_key(&mut works);
        let revoked: Vec<Arc<RequestDeadlines>> = inner.requests.iter().filter(is_revoked).cloned().collect();
        let is_http1 = matches!(inner.scanner, Scanner::Heads(_));
        inner.is_key_revoked |= is_http1 && !revoked.is_empty();
        revoked.iter().for_each(|request| request.cancel());
        is_http1 && !revoked.is_empty()
    }

    /// Checks, without reading, whether the client closed its sending side or the connection while a request is
    /// being served. Such a client counts as disconnected. With `half_close` it still gets its response, but
    /// the connection must not be silent for longer than `idle_timeout`. hyper detects the close itself if it
    /// has read all bytes before it.
    pub(super) fn check_client(&self) {
        let mut inner = self.inner.lock();
        if inner.phase == Phase::Serving && !inner.is_client_closing && self.protocol == Protocol::Http1 {
            let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
            let Some(socket) = inner.socket.tcp() else { return };
            let mut polled = [PollFd::new(socket, PollFlags::RDHUP)];
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let is_polled = poll(&mut polled, Some(&at_once)).is_ok();
            inner.is_client_closing = is_polled && polled[0].revents().intersects(gone);
        }
    }

    /// Starts a graceful close because the gateway stops: an HTTP/2 client without requests has a bounded time
    /// to close.
    pub(super) fn stop(&self, now: Moment) {
        let mut inner = self.inner.lock();
        inner.is_closing = true;
        if self.protocol == Protocol::Http2 && inner.requests.is_empty() && inner.tunnels == 0 {
            inner.phase = Phase::ShuttingDown(now);
        }
    }

    /// True if the connection waits for a request.
    pub(super) fn is_idle(&self) -> bool {
        self.inner.lock().phase != Phase::Serving
    }

    /// True if the response to a request has begun, and has not ended.
    pub(super) fn is_streaming(&self) -> bool {
        let inner = self.inner.lock();
        inner.phase == Phase::Serving && inner.requests.iter().any(|request| !request.is_awaiting_response())
    }

    /// Starts a graceful close because the connection was idle for too long.
    pub(super) fn shut_down(&self, now: Moment) {
        let mut inner = self.inner.lock();
        (inner.phase, inner.is_closing) = (Phase::ShuttingDown(now), true);
    }

    /// Tells the client of an idle connection that it closes (TLS close_notify, FIN), if the socket accepts
    /// that immediately.
    pub(super) fn close_idle(&self, context: &mut Context<'_>) {
        let _ = Pin::new(&mut self.inner.lock().socket).poll_shutdown(context);
    }

    /// Closes the socket, unless the connection continues as a tunnel.
    pub(super) fn close(&self) {
        let mut inner = self.inner.lock();
        if self.protocol == Protocol::Http2 || inner.tunnels == 0 {
            inner.socket = Socket::Closed;
        }
    }

    /// Takes the socket, if a part of a request is unread when its connection ends.
    fn take_unread(&self) -> Option<Socket> {
        let mut inner = self.inner.lock();
        let is_unread = match &inner.scanner {
            Scanner::Heads(heads) => {
                self.protocol == Protocol::Http1 && !heads.is_between_requests() && inner.tunnels == 0
            }
            Scanner::Frames(_) => false,
        };
        let is_unread = is_unread && !inner.is_client_closing;
        is_unread.then(|| std::mem::replace(&mut inner.socket, Socket::Closed))
    }

    /// Lingering close: sends FIN, then reads and discards what the client still sends, within
    /// [`MAX_LINGER`] and [`MAX_LINGER_BYTES`].
    pub(super) async fn linger(&self) {
        let Some(mut socket) = self.take_unread() else { return };
        let reading = async {
            socket.shutdown().await.ok()?;
            let (mut left, mut buffer) = (MAX_LINGER_BYTES, vec![0; 16 * 1024]);
            while left > 0 {
                let tcp = socket.tcp()?; // TLS records are discarded undecrypted
                tcp.readable().await.ok()?;
                match tcp.try_read(&mut buffer) {
                    Ok(0) => return None,
                    Ok(count) => left = left.saturating_sub(count),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return None,
                }
            }
            Some(())
        };
        let _ = timeout(MAX_LINGER, reading).await; // the socket is closed in any case
    }
}
