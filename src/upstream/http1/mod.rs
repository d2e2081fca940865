//! HTTP/1.1 with servers: on httparse, and polled in the request's own task (docs/performance.md). Strict: a response
//! that two parsers could end at different bytes is refused.

mod body;
mod body_decoder;
mod connection;
mod duplex;
mod response_head;
mod upload;

pub(super) use body::Http1Body;
pub(super) use connection::{ExchangeError, Http1Connection};
pub use response_head::{FramingContext, Malformed};
pub(super) use upload::Upload;
