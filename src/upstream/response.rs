//! The head of a server's response, and a body that still has to arrive.

use http::{HeaderMap, StatusCode};

/// A response. `B` depends on the HTTP version.
#[derive(Debug)]
pub struct ResponseOf<B> {
    /// The status; the only informational one is 101.
    pub status: StatusCode,
    /// All header fields, as they arrived.
    pub headers: HeaderMap,
    /// The body.
    pub body: B,
}
