//! The HTTP version of a connection, and the outcome of its negotiation.

use std::net::SocketAddr;

use super::io::socket::Socket;

/// The connection preface of an HTTP/2 client (RFC 9113, section 3.4).
pub(in crate::gateway) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Requests that an HTTP/2 client may have in flight on one connection.
pub(super) const MAX_STREAMS: u32 = 100;

/// The HTTP version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) enum Protocol {
    /// HTTP/1.0 and HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// A connection whose handshake is done: its first request may arrive.
#[derive(Debug)]
pub(in crate::gateway) struct Negotiated {
    pub(in crate::gateway) socket: Socket,
    pub(in crate::gateway) protocol: Protocol,
    /// The client's address: the socket's peer, or the one that a trusted proxy's PROXY header names.
    pub(in crate::gateway) peer: SocketAddr,
}
