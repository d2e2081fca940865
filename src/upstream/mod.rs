//! Upstreams: one connection pool per worker, never shared between threads.
//!
//! HTTP/2 is hyper's client. HTTP/1.1 is on httparse and polled in the request's own task: hyper's client connection is a
//! task of its own, and costs two wake-ups and a channel per request (docs/performance.md).

mod body_decoder;
mod connection_count;
mod http1;
mod http2;
mod pool;
mod request;
mod response;
mod response_body;
mod response_head;

pub use connection_count::MAX_CONNECTIONS;
pub use pool::Pool;
pub use request::{HeadBuffers, OutgoingHead, OutgoingRequest};
pub use response::{ResponseFault, ResponseOf, SendError};
pub use response_body::{UpstreamBody, UpstreamResponse};
pub use response_head::{FramingContext, Malformed};
