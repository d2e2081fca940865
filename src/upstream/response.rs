//! An upstream's response, or why there is none.

use std::io;

use http::{HeaderMap, StatusCode};

use super::response_head::Malformed;

/// An upstream's response: its head, and the body that still has to arrive. `B` depends on the HTTP version.
#[derive(Debug)]
pub struct ResponseOf<B> {
    /// The status; the only informational one is 101.
    pub status: StatusCode,
    /// All header fields, as they arrived.
    pub headers: HeaderMap,
    /// The body.
    pub body: B,
}

/// Why there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The connection failed, or was not established within the connect timeout.
    #[error("the upstream cannot be reached")]
    Unreachable,
    /// The request failed before the response head was complete: the connection was closed, the head was
    /// malformed, or the request body ended early.
    #[error("the upstream's connection broke")]
    Broken,
    /// This worker already has [`MAX_CONNECTIONS`](super::MAX_CONNECTIONS) connections to upstreams.
    #[error("too many upstream connections")]
    Overloaded,
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
