//! A client's socket that coalesces small writes.
//!
//! Every write is a system call and a TCP segment of its own. One poll of a connection's task may make
//! several: a response and TLS's close_notify, or the responses to several HTTP/2 requests. They are
//! buffered here and sent together when the poll ends.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Most bytes that are buffered; longer writes go to the kernel directly.
const MAX_BUFFERED: usize = 16 * 1024;
/// Vectored writes up to this many bytes are copied into one slice if nothing is buffered: the kernel takes
/// one small slice faster than several.
const MAX_COPIED: usize = 1024;

/// When written bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) enum FlushPolicy {
    /// Immediately: nothing is buffered.
    Immediate,
    /// Before a read has to wait for the client: during a handshake.
    BeforeWaiting,
    /// When [`CoalescingStream::poll_send`] is called, or if more than [`MAX_BUFFERED`] bytes would be buffered.
    OnRequest,
}

/// A client's socket with its write buffer.
#[derive(Debug)]
pub(in crate::gateway) struct CoalescingStream {
    tcp: TcpStream,
    /// Bytes that were read ahead to detect the protocol, for the next reader.
    read_ahead: BytesMut,
    buffered: BytesMut,
    policy: FlushPolicy,
    /// The socket's send buffer is full: the socket did not accept all bytes that were to be sent.
    is_full: bool,
}

impl CoalescingStream {
    pub(in crate::gateway) fn new(tcp: TcpStream, policy: FlushPolicy) -> Self {
        Self { tcp, read_ahead: BytesMut::new(), buffered: BytesMut::new(), policy, is_full: false }
    }

    pub(in crate::gateway) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Bytes that were read ahead.
    pub(in crate::gateway) fn peeked(&self) -> &[u8] {
        &self.read_ahead
    }

    /// Reads ahead, up to `most` bytes in total. Returns how many bytes arrived; 0 at the end of the stream.
    pub(in crate::gateway) async fn peek_more(&mut self, most: usize) -> io::Result<usize> {
        loop {
            self.tcp.readable().await?; // no memory is reserved for a silent connection
            self.read_ahead.reserve(most - self.read_ahead.len());
            let left = most - self.read_ahead.len();
            let mut room = (&mut self.read_ahead).limit(left);
            match self.tcp.try_read_buf(&mut room) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    /// Drops the first bytes of those that were read ahead.
    pub(in crate::gateway) fn drop_peeked(&mut self, count: usize) {
        self.read_ahead.advance(count);
    }

    /// Changes the flush policy. Buffered bytes stay buffered until the next write or
    /// [`CoalescingStream::poll_send`].
    pub(in crate::gateway) fn set_policy(&mut self, policy: FlushPolicy) {
        self.policy = policy;
    }

    /// True if the socket did not accept all bytes that were to be sent.
    pub(in crate::gateway) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Sends the buffered bytes.
    pub(in crate::gateway) fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.buffered.is_empty() {
            let written = Pin::new(&mut self.tcp).poll_write(context, &self.buffered);
            self.is_full = written.is_pending();
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.buffered.advance(count),
            }
        }
        self.buffered = BytesMut::new(); // an idle connection keeps no buffer
        self.is_full = false;
        Poll::Ready(Ok(()))
    }

    /// Buffers bytes if the policy buffers and there is room; true if it did.
    fn buffer(&mut self, slices: &[IoSlice<'_>], length: usize) -> bool {
        let buffers = self.policy != FlushPolicy::Immediate && self.buffered.len() + length <= MAX_BUFFERED;
        if buffers {
            self.buffered.reserve(length);
            slices.iter().for_each(|slice| self.buffered.extend_from_slice(slice));
        }
        buffers
    }
}

impl AsyncRead for CoalescingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.read_ahead.is_empty() {
            let count = self.read_ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.read_ahead.split_to(count));
            if self.read_ahead.is_empty() {
                self.read_ahead = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        let polled = Pin::new(&mut self.tcp).poll_read(context, buffer);
        if polled.is_pending() && self.policy == FlushPolicy::BeforeWaiting {
            ready!(self.poll_send(context))?;
        }
        polled
    }
}

impl AsyncWrite for CoalescingStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        if self.buffer(slices, length) {
            return Poll::Ready(Ok(length));
        }
        if !self.buffered.is_empty() {
            ready!(self.poll_send(context))?;
            if self.buffer(slices, length) {
                return Poll::Ready(Ok(length));
            }
        }
        let tcp = Pin::new(&mut self.tcp);
        if let [slice] = slices {
            return tcp.poll_write(context, slice);
        }
        if length > MAX_COPIED {
            return tcp.poll_write_vectored(context, slices);
        }
        let (mut whole, mut at) = ([0; MAX_COPIED], 0);
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
        match self.policy {
            FlushPolicy::Immediate => self.poll_send(context),
            // Report a full socket, so that hyper produces no more.
            _ if self.is_full => self.poll_send(context),
            FlushPolicy::BeforeWaiting | FlushPolicy::OnRequest => Poll::Ready(Ok(())),
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

    /// A coalescing stream and the other end of its socket, which reads for at most 100 ms.
    async fn pair(policy: FlushPolicy) -> (CoalescingStream, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        other.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        (CoalescingStream::new(listener.accept().await.unwrap().0, policy), other)
    }

    fn received(mut other: &std::net::TcpStream) -> Vec<u8> {
        let mut buffer = [0; 1024];
        let count = other.read(&mut buffer).unwrap_or(0);
        buffer[..count].to_vec()
    }

    async fn send(stream: &mut CoalescingStream) {
        poll_fn(|context| stream.poll_send(context)).await.unwrap();
    }

    #[tokio::test]
    async fn writes_of_one_poll_are_sent_together_at_its_end() {
        let (mut stream, other) = pair(FlushPolicy::OnRequest).await;
        stream.write_all(b"one ").await.unwrap();
        stream.write_all(b"two").await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(received(&other), b"");
        send(&mut stream).await;
        assert_eq!(received(&other), b"one two");
        stream.write_all(b"three").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(received(&other), b"three");
    }

    #[tokio::test]
    async fn a_handshake_message_is_sent_before_the_reply_is_awaited() {
        let (mut stream, other) = pair(FlushPolicy::BeforeWaiting).await;
        stream.write_all(b"hello").await.unwrap();
        let nothing = tokio::time::timeout(Duration::from_millis(20), stream.read_u8()).await;
        assert!(nothing.is_err());
        assert_eq!(received(&other), b"hello");
        stream.write_all(b"ticket").await.unwrap();
        stream.set_policy(FlushPolicy::OnRequest);
        assert_eq!(received(&other), b"");
        send(&mut stream).await;
        assert_eq!(received(&other), b"ticket");
    }

    #[tokio::test]
    async fn an_immediate_write_follows_the_buffered_bytes() {
        let (mut stream, other) = pair(FlushPolicy::OnRequest).await;
        stream.write_all(b"one ").await.unwrap();
        stream.set_policy(FlushPolicy::Immediate);
        let two = [IoSlice::new(b"t"), IoSlice::new(b"wo")];
        assert_eq!(stream.write_vectored(&two).await.unwrap(), 3);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(received(&other), b"one two");
    }

    #[tokio::test]
    async fn a_full_socket_is_reported_and_no_byte_is_lost_or_buffered_beyond_the_bound() {
        let (mut stream, mut other) = pair(FlushPolicy::OnRequest).await;
        let mut sent: Vec<u8> = Vec::new();
        let full = |stream: &mut CoalescingStream, sent: &mut Vec<u8>| {
            let piece = vec![u8::try_from(sent.len() % 251).unwrap(); 5_000];
            let context = &mut Context::from_waker(std::task::Waker::noop());
            match Pin::new(&mut *stream).poll_write(context, &piece) {
                Poll::Ready(count) => sent.extend_from_slice(&piece[..count.unwrap()]),
                Poll::Pending => return true,
            }
            false
        };
        while !full(&mut stream, &mut sent) {}
        assert!(stream.is_full() && stream.buffered.len() <= MAX_BUFFERED);
        let context = &mut Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut stream).poll_flush(context).is_pending(), "hyper must produce no more");
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            other.set_read_timeout(None).unwrap();
            other.read_to_end(&mut all).unwrap();
            all
        });
        send(&mut stream).await;
        assert!(!stream.is_full());
        stream.shutdown().await.unwrap();
        assert!(reading.join().unwrap() == sent);
    }
}
