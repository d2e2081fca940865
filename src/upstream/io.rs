//! The bytes of a connection to a server, with or without TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Waker};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

/// A connection to a server, without TLS or with it. It has one owner, since TLS may have to write in order to read.
pub(super) type Io = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// True if the connection is open, as far as the kernel knows, and no byte arrived that nobody asked for. Session tickets,
/// which TLS servers send at any time, are taken in.
pub(super) fn is_quiet(io: &mut Io) -> bool {
    match io {
        // This makes a system call only if the kernel has reported an event on the socket.
        Either::Left(stream) => {
            stream.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        }
        Either::Right(stream) => {
            let mut byte = [0];
            let mut context = Context::from_waker(Waker::noop());
            Pin::new(stream).poll_read(&mut context, &mut ReadBuf::new(&mut byte)).is_pending()
        }
    }
}
