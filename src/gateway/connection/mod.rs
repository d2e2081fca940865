//! One client connection: scanning before hyper, HTTP/1.1 and HTTP/2, deadlines, I/O, streams.
//!
//! A connection calls the request handler through the trait [`RequestHandler`], and contains no other request logic.

mod closing;
mod connections;
mod deadlines;
mod handler;
mod http1;
mod http2;
mod io;
mod poll_loop;
mod protocol;
mod scan;
mod serve;
mod state;
mod stream;

pub(super) use connections::{Connections, Opening};
pub(super) use deadlines::request::{MAX_SILENCE, RequestDeadlines};
pub(super) use handler::RequestHandler;
pub(super) use io::socket::Socket;
pub(super) use io::write_coalescing::{CoalescingStream, FlushPolicy};
pub(super) use protocol::{Negotiated, PREFACE, Protocol};
pub(super) use scan::HeadVerdict;
pub(super) use serve::serve;
pub(super) use state::{Connection, ConnectionSettings};
pub(super) use stream::{DetachedRequest, Stream, TunnelStream};
