//! A client's socket whose small writes go out together.
//!
//! A write is a call of the kernel and a segment of its own. A turn of a connection's task may make
//! several: an answer and the record that closes a TLS connection, or the answers to several requests
//! of HTTP/2. They are held here until the turn is over.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Most bytes that are held; more go to the kernel directly.
const MOST: usize = 16 * 1024;
/// Up to this many bytes, a head and what follows are put together where nothing is held: the kernel
/// takes one small piece sooner than several.
const SMALL: usize = 1024;

/// When what is written is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sends {
    /// Nothing is held.
    AtOnce,
    /// As soon as the other end is waited for: in a handshake.
    BeforeWaiting,
    /// When [`Corked::poll_send`] is called, or where more than [`MOST`] would be held.
    WhenTold,
}

/// A socket, and what is to be written to it.
#[derive(Debug)]
pub(super) struct Corked {
    tcp: TcpStream,
    /// What was read ahead of whoever reads this: how a connection begins says what it speaks.
    early: BytesMut,
    held: BytesMut,
    sends: Sends,
    /// The socket did not take all that was to be sent.
    full: bool,
}

impl Corked {
    pub(super) fn new(tcp: TcpStream, sends: Sends) -> Self {
        Self { tcp, early: BytesMut::new(), held: BytesMut::new(), sends, full: false }
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// What was read ahead.
    pub(super) fn early(&self) -> &[u8] {
        &self.early
    }

    /// Reads ahead, up to `most` bytes altogether; 0 at the end.
    pub(super) async fn read_early(&mut self, most: usize) -> io::Result<usize> {
        loop {
            self.tcp.readable().await?; // a silent connection keeps no memory for it
            self.early.reserve(most - self.early.len());
            let left = most - self.early.len();
            let mut room = (&mut self.early).limit(left);
            match self.tcp.try_read_buf(&mut room) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    /// Takes off the beginning of what was read ahead.
    pub(super) fn skip_early(&mut self, count: usize) {
        self.early.advance(count);
    }

    /// From now on it sends so; what is held stays held until the next write or [`Corked::poll_send`].
    pub(super) fn set_sends(&mut self, sends: Sends) {
        self.sends = sends;
    }

    /// Whether the socket did not take all that was to be sent.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Sends what is held: a turn is over, or it cannot wait.
    pub(super) fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let written = Pin::new(&mut self.tcp).poll_write(context, &self.held);
            self.full = written.is_pending();
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.held.advance(count),
            }
        }
        self.held = BytesMut::new(); // an idle connection keeps nothing
        self.full = false;
        Poll::Ready(Ok(()))
    }

    /// Takes bytes, if they are to be held and there is room.
    fn hold(&mut self, slices: &[IoSlice<'_>], length: usize) -> bool {
        let holds = self.sends != Sends::AtOnce && self.held.len() + length <= MOST;
        if holds {
            self.held.reserve(length);
            slices.iter().for_each(|slice| self.held.extend_from_slice(slice));
        }
        holds
    }
}

impl AsyncRead for Corked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let count = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early.split_to(count));
            if self.early.is_empty() {
                self.early = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        let polled = Pin::new(&mut self.tcp).poll_read(context, buffer);
        if polled.is_pending() && self.sends == Sends::BeforeWaiting {
            ready!(self.poll_send(context))?;
        }
        polled
    }
}

impl AsyncWrite for Corked {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        if self.hold(slices, length) {
            return Poll::Ready(Ok(length));
        }
        if !self.held.is_empty() {
            ready!(self.poll_send(context))?;
            if self.hold(slices, length) {
                return Poll::Ready(Ok(length));
            }
        }
        let tcp = Pin::new(&mut self.tcp);
        if let [slice] = slices {
            return tcp.poll_write(context, slice);
        }
        if length > SMALL {
            return tcp.poll_write_vectored(context, slices);
        }
        let (mut whole, mut at) = ([0; SMALL], 0);
        for slice in slices {
            whole[at..at + slice.len()].copy_from_slice(slice);
            at += slice.len();
        }
        tcp.poll_write(context, &whole[..at])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.sends {
            Sends::AtOnce => self.poll_send(context),
            // What the socket does not take is told, so that no more is made for it.
            _ if self.full => self.poll_send(context),
            Sends::BeforeWaiting | Sends::WhenTold => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::io::Read;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A corked socket, and its other end, which does not block.
    async fn pair(sends: Sends) -> (Corked, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        other.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        (Corked::new(listener.accept().await.unwrap().0, sends), other)
    }

    fn came(mut other: &std::net::TcpStream) -> Vec<u8> {
        let mut buffer = [0; 1024];
        let count = other.read(&mut buffer).unwrap_or(0);
        buffer[..count].to_vec()
    }

    async fn send(corked: &mut Corked) {
        poll_fn(|context| corked.poll_send(context)).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_written_in_a_turn_goes_at_its_end_and_in_one_piece() {
        let (mut corked, other) = pair(Sends::WhenTold).await;
        corked.write_all(b"one ").await.unwrap();
        corked.write_all(b"two").await.unwrap();
        corked.flush().await.unwrap();
        assert_eq!(came(&other), b"");
        send(&mut corked).await;
        assert_eq!(came(&other), b"one two");
        corked.write_all(b"three").await.unwrap();
        corked.shutdown().await.unwrap();
        assert_eq!(came(&other), b"three");
    }

    #[tokio::test]
    async fn a_handshake_is_sent_before_it_waits() {
        let (mut corked, other) = pair(Sends::BeforeWaiting).await;
        corked.write_all(b"hello").await.unwrap();
        let nothing = tokio::time::timeout(Duration::from_millis(20), corked.read_u8()).await;
        assert!(nothing.is_err());
        assert_eq!(came(&other), b"hello");
        corked.write_all(b"ticket").await.unwrap();
        corked.set_sends(Sends::WhenTold);
        assert_eq!(came(&other), b"");
        send(&mut corked).await;
        assert_eq!(came(&other), b"ticket");
    }

    #[tokio::test]
    async fn at_once_is_at_once_and_after_what_was_held() {
        let (mut corked, other) = pair(Sends::WhenTold).await;
        corked.write_all(b"one ").await.unwrap();
        corked.set_sends(Sends::AtOnce);
        let two = [IoSlice::new(b"t"), IoSlice::new(b"wo")];
        assert_eq!(corked.write_vectored(&two).await.unwrap(), 3);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(came(&other), b"one two");
    }

    #[tokio::test]
    async fn a_full_socket_is_told_and_nothing_is_lost_or_kept_beyond_the_bound() {
        let (mut corked, mut other) = pair(Sends::WhenTold).await;
        let mut sent: Vec<u8> = Vec::new();
        let full = |corked: &mut Corked, sent: &mut Vec<u8>| {
            let piece = vec![u8::try_from(sent.len() % 251).unwrap(); 5_000];
            let context = &mut Context::from_waker(std::task::Waker::noop());
            match Pin::new(&mut *corked).poll_write(context, &piece) {
                Poll::Ready(count) => sent.extend_from_slice(&piece[..count.unwrap()]),
                Poll::Pending => return true,
            }
            false
        };
        while !full(&mut corked, &mut sent) {}
        assert!(corked.is_full() && corked.held.len() <= MOST);
        let context = &mut Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut corked).poll_flush(context).is_pending(), "hyper is to make no more");
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            other.set_read_timeout(None).unwrap();
            other.read_to_end(&mut all).unwrap();
            all
        });
        send(&mut corked).await;
        assert!(!corked.is_full());
        corked.shutdown().await.unwrap();
        assert!(reading.join().unwrap() == sent);
    }
}
