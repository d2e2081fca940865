//! Why there is no response, or why its body ended early.

use std::io;

use super::http1::Malformed;

/// Why there is no response: how far the request came, what of it the server may have received, and the cause. What may
/// be retried depends on these.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{cause}")]
pub struct SendError {
    /// The stage that failed.
    pub stage: Stage,
    /// What the server may have received.
    pub sent: Sent,
    /// The cause.
    pub cause: Cause,
}

/// The stages of a request to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A server is selected.
    Select,
    /// The connection is established.
    Connect,
    /// TLS is established.
    Handshake,
    /// The request is written and the response head is awaited.
    Exchange,
}

impl Stage {
    /// The stage's name in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Select => "select",
            Self::Connect => "connect",
            Self::Handshake => "tls",
            Self::Exchange => "exchange",
        }
    }
}

/// What a server may have received of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// No byte.
    Nothing,
    /// A part of the request or all of it.
    Something,
}

/// The cause of a failed request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// No address of the upstream is known.
    #[error("no address is known: {0}")]
    NoAddress(String),
    /// All servers have `max_requests` in flight, and the queue is full or its time passed.
    #[error("all servers have max_requests in flight")]
    Full,
    /// This worker already has [`MAX_CONNECTIONS`](super::MAX_CONNECTIONS) connections to upstreams.
    #[error("too many upstream connections")]
    TooManyConnections,
    /// The connection was not established within the connect timeout.
    #[error("the connect timeout has passed")]
    Timeout,
    /// The response head did not arrive within the response timeout.
    #[error("the response timeout has passed")]
    NoResponse,
    /// The server was silent in the middle of a response body for longer than the body timeout.
    #[error("the body timeout has passed")]
    Silent,
    /// The operating system reported an error.
    #[error("{1}")]
    Io(io::ErrorKind, String),
    /// The server's certificate was refused.
    #[error("the certificate was refused: {0}")]
    Certificate(String),
    /// TLS failed for another reason.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The server does not speak HTTP/2 although it must.
    #[error("the server does not offer HTTP/2")]
    NoHttp2,
    /// The server closed the connection before the response head was complete.
    #[error("the server closed the connection")]
    Closed,
    /// The response is malformed.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// HTTP/2 failed.
    #[error("HTTP/2 failed: {0}")]
    Http2(String),
    /// The client aborted the request body, or it was too large.
    #[error("the request's body ended early")]
    Body,
    /// The response does not accept the upgrade that was requested.
    #[error("the response does not match the requested upgrade")]
    Upgrade,
    /// The requested host cannot be expressed over HTTP/2.
    #[error("the requested host is malformed")]
    Host,
}

impl SendError {
    /// A request that failed before a byte of it was sent.
    #[must_use]
    pub fn unsent(stage: Stage, cause: Cause) -> Self {
        Self { stage, sent: Sent::Nothing, cause }
    }

    /// A request of which the server may have received a part.
    #[must_use]
    pub fn sent(cause: Cause) -> Self {
        Self { stage: Stage::Exchange, sent: Sent::Something, cause }
    }

    /// The error type of `Proxy-Status` (RFC 9209, section 2.3).
    #[must_use]
    pub fn proxy_error(&self) -> &'static str {
        match (&self.cause, self.stage) {
            (Cause::NoAddress(_), _) => "dns_error",
            (Cause::Full | Cause::TooManyConnections, _) => "connection_limit_reached",
            (Cause::Timeout, _) => "connection_timeout",
            (Cause::NoResponse | Cause::Silent, _) => "http_response_timeout",
            (Cause::Io(io::ErrorKind::ConnectionRefused, _), Stage::Connect) => "connection_refused",
            (Cause::Io(..), Stage::Connect) => "destination_unavailable",
            (Cause::Certificate(_), _) => "tls_certificate_error",
            (Cause::Tls(_) | Cause::NoHttp2, _) | (Cause::Io(..), Stage::Handshake) => "tls_protocol_error",
            (Cause::Closed | Cause::Io(..), _) => "connection_terminated",
            (Cause::Malformed(_) | Cause::Http2(_), _) => "http_protocol_error",
            (Cause::Upgrade, _) => "http_upgrade_failed",
            (Cause::Body | Cause::Host, _) => "http_request_error",
        }
    }

    /// True if the server is to blame, not the client and not the gateway.
    #[must_use]
    pub fn is_about_server(&self) -> bool {
        self.stage != Stage::Select
            && !matches!(self.cause, Cause::TooManyConnections | Cause::Body | Cause::Host | Cause::Upgrade)
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind(), error.to_string())
    }
}

impl ResponseFault {
    /// The cause, for logs.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Io(error) => Cause::Io(error.kind(), error.to_string()),
            Self::Malformed(malformed) => Cause::Malformed(*malformed),
            Self::Closed => Cause::Closed,
            Self::Silent => Cause::Silent,
            Self::Body => Cause::Body,
        }
    }
}

/// Why a response, or its body, ended early.
#[derive(Debug, thiserror::Error)]
pub enum ResponseFault {
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The bytes that arrived are not a valid response.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The upstream closed before its response was complete.
    #[error("the upstream closed the connection early")]
    Closed,
    /// The client aborted the request body, or it was too large.
    #[error("the request's body ended early")]
    Body,
    /// The upstream sent nothing of the body for the longest time that is allowed.
    #[error("the upstream was silent for too long")]
    Silent,
}
