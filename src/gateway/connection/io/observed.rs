//! Passes the bytes of a connection to its scanner before hyper reads them, and reports written bytes to its deadlines.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::gateway::connection::state::Connection;

/// A connection's socket as hyper sees it: bytes that arrive pass the scanner first.
#[derive(Debug)]
pub(in crate::gateway) struct ObservedIo(pub(in crate::gateway::connection) Arc<Connection>);

impl AsyncRead for ObservedIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        if inner.has_read_enough() {
            context.waker().wake_by_ref(); // the rest is read in the next poll, after other connections
            return Poll::Pending;
        }
        match inner.replay(buffer.remaining()) {
            None => return Poll::Pending, // until the connection has a parser that accepts many fields
            Some(bytes) if bytes.is_empty() => {}
            Some(bytes) => {
                buffer.put_slice(&bytes);
                return Poll::Ready(Ok(()));
            }
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut inner.socket).poll_read(context, buffer);
        let arrived = &buffer.filled()[before..];
        if arrived.is_empty() {
            return polled;
        }
        let for_hyper = inner.bytes_arrived(arrived)?;
        buffer.set_filled(before + for_hyper);
        if for_hyper == 0 { Poll::Pending } else { polled }
    }
}

impl AsyncWrite for ObservedIo {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.lock();
        let polled = Pin::new(&mut inner.socket).poll_write(context, bytes);
        inner.bytes_written(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.lock();
        let polled = Pin::new(&mut inner.socket).poll_write_vectored(context, slices);
        inner.bytes_written(polled)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        let polled = Pin::new(&mut inner.socket).poll_flush(context);
        inner.flush_polled(&polled);
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        inner.parser_closes();
        Pin::new(&mut inner.socket).poll_shutdown(context)
    }
}
