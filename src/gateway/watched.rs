//! A connection's bytes on their way to hyper and back.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Connection;

/// The connection's socket, as hyper sees it: what comes passes a scanner first.
#[derive(Debug)]
pub(super) struct Watched(pub(super) Arc<Connection>);

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        if inner.is_turn_full() {
            context.waker().wake_by_ref(); // the rest in the next turn, behind other connections
            return Poll::Pending;
        }
        match inner.reread(buffer.remaining()) {
            None => return Poll::Pending, // until the connection's task has another parser
            Some(bytes) if bytes.is_empty() => {}
            Some(bytes) => {
                buffer.put_slice(&bytes);
                return Poll::Ready(Ok(()));
            }
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut inner.socket).poll_read(context, buffer);
        let came = &buffer.filled()[before..];
        if came.is_empty() {
            return polled;
        }
        let now = inner.read(came)?;
        buffer.set_filled(before + now);
        if now == 0 { Poll::Pending } else { polled }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.lock();
        let polled = Pin::new(&mut inner.socket).poll_write(context, bytes);
        inner.wrote(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.lock();
        let polled = Pin::new(&mut inner.socket).poll_write_vectored(context, slices);
        inner.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        let polled = Pin::new(&mut inner.socket).poll_flush(context);
        inner.flushed(&polled);
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        inner.ends();
        Pin::new(&mut inner.socket).poll_shutdown(context)
    }
}
