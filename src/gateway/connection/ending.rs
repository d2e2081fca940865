//! What ends a connection before its time: a client that is gone, a key that works no more; and what is
//! still read of one that is over.

use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::AsyncWriteExt;
use tokio::time::{Duration, timeout};

use super::{Connection, Phase, Scanner};
use crate::gateway::arrive::Protocol;
use crate::gateway::socket::Socket;
use crate::gateway::waits::Waits;
use crate::types::KeyHash;

/// How long the rest of a request is read and thrown away, where it was answered before its end: closed at
/// once, with bytes unread, the kernel would reset the connection, and the client lose its answer.
const MAX_LINGER: Duration = Duration::from_secs(5);
/// How much of it.
const MAX_LINGERED: usize = 64 * 1024 * 1024;

impl Connection {
    /// Ends the requests whose key opens the gate no more, as if their client had left. Whether the
    /// connection's task has to look.
    pub(in crate::gateway) fn end_requests(&self, mut opens: impl FnMut(&KeyHash) -> bool) -> bool {
        let mut inner = self.inner.lock();
        let lost = |stream: &&Arc<Waits>| stream.lost_its_key(&mut opens);
        let lost: Vec<Arc<Waits>> = inner.streams.iter().filter(lost).cloned().collect();
        let http1 = matches!(inner.scanner, Scanner::Heads(_));
        inner.key_ended |= http1 && !lost.is_empty();
        lost.iter().for_each(|stream| stream.cut());
        http1 && !lost.is_empty()
    }

    /// Looks whether the client closed its sending side, or is gone altogether, while nobody reads
    /// what it sends. Takes no byte. Such a client is gone; or, with `half_close`, still gets its answer,
    /// but not for ever. hyper finds out sooner where nothing that it has not read yet is before the end.
    pub(in crate::gateway) fn look_for_client(&self) {
        let mut inner = self.inner.lock();
        if inner.phase == Phase::Busy && !inner.leaving && self.protocol == Protocol::Http1 {
            let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
            let Some(socket) = inner.socket.tcp() else { return };
            let mut looked = [PollFd::new(socket, PollFlags::RDHUP)];
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let seen = poll(&mut looked, Some(&at_once)).is_ok();
            inner.leaving = seen && looked[0].revents().intersects(gone);
        }
    }

    /// Takes the socket, if a part of a request was not read when its connection ended.
    fn take_unread(&self) -> Option<Socket> {
        let mut inner = self.inner.lock();
        let unread = match &inner.scanner {
            Scanner::Heads(heads) => {
                self.protocol == Protocol::Http1 && !heads.is_between() && inner.tunnels == 0
            }
            Scanner::Frames(_) => false,
        };
        (unread && !inner.leaving).then(|| std::mem::replace(&mut inner.socket, Socket::Closed))
    }

    /// Closes in peace where the client is still sending: says that nothing more comes, and reads what does.
    pub(in crate::gateway) async fn linger_on_socket(&self) {
        let Some(mut socket) = self.take_unread() else { return };
        let reading = async {
            socket.shutdown().await.ok()?;
            let (mut left, mut buffer) = (MAX_LINGERED, vec![0; 16 * 1024]);
            while left > 0 {
                let tcp = socket.tcp()?; // what stands in TLS records is not looked at
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
        let _ = timeout(MAX_LINGER, reading).await; // it is closed either way
    }
}
