//! Upstreams: each worker has its own connections, which never cross threads.
//!
//! A request is sent in four steps: select a server, connect, render the head, exchange ([`Pool::send`]).

mod body;
mod connect;
mod connection_count;
mod fault;
mod http1;
mod http2;
mod io;
mod local;
mod outgoing;
mod pool;
mod request;
mod response;
mod tunnel;
mod watch;

pub use body::{UpstreamBody, UpstreamResponse};
pub use connection_count::MAX_CONNECTIONS;
pub use fault::{Cause, ResponseFault, SendError, Sent, Stage};
pub use http1::{FramingContext, Malformed};
pub use local::LocalServer;
pub use pool::Pool;
pub use request::{NextHop, OutgoingBody, OutgoingRequest};
pub use response::ResponseOf;
pub use tunnel::Tunnel;
pub use watch::Watcher;
