//! Serves a connection from the end of its handshake to its close.

use std::rc::Rc;
use std::sync::Arc;

use super::connections::Connections;
use super::handler::RequestHandler;
use super::http1::serve_http1;
use super::http2::serve_http2;
use super::protocol::Protocol;
use super::state::{Connection, ConnectionSettings};

/// Serves a connection with a handler until it is closed.
pub(in crate::gateway) async fn serve(
    connections: &Rc<Connections>,
    connection: Connection,
    settings: ConnectionSettings,
    handler: impl RequestHandler,
) {
    let (number, connection) = (connections.next_number(), Arc::new(connection));
    match connection.protocol {
        Protocol::Http1 => serve_http1(connections, number, &connection, settings, handler).await,
        Protocol::Http2 => serve_http2(connections, number, &connection, settings, handler).await,
    }
    connections.unregister(number);
    connection.close();
}
