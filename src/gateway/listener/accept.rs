//! Accepts connections: acquires a connection slot, performs the handshake within its deadline, then serves HTTP.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::handshake::negotiate;
use super::slots::{ConnectionSlot, ConnectionSlots};
use crate::gateway::connection::{
    Connection, ConnectionSettings, Connections, Opening, RequestHandler, serve,
};
use crate::policy::client_address::is_trusted;
use crate::telemetry::Lane;
use crate::types::Repeats;

/// Pause after an accept failed because descriptors or memory ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Most connections that a stop still accepts on a socket, of those whose clients were connected by the kernel before.
const MAX_LAST: u32 = 1024;

/// An accepted connection.
struct Accepted {
    stream: TcpStream,
    peer: SocketAddr,
    is_tls: bool,
    slot: ConnectionSlot,
}

/// Accepts connections on a socket until the gateway stops, and serves each with a handler.
pub(in crate::gateway) async fn accept_connections(
    connections: Rc<Connections>,
    listener: TcpListener,
    is_tls: bool,
    slots: Arc<ConnectionSlots>,
    stats: Arc<Lane>,
    handler: impl RequestHandler,
) {
    let (stop, mut failures) = (connections.stop.clone(), Repeats::default());
    let mut left = None; // how many more are accepted, once the gateway stops
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled(), if left.is_none() => {
                left = Some(MAX_LAST);
                continue;
            }
            accepted = listener.accept(), if left != Some(0) => accepted,
            () = std::future::ready(()), if left.is_some() => return,
        };
        left = left.map(|left| left - 1);
        match accepted {
            Ok((stream, peer)) => {
                // Without a free slot this connection waits here, and further ones wait in the kernel's queue. A stop
                // closes it, unless a slot is free.
                let slot = tokio::select! {
                    biased;
                    slot = slots.acquire(&stats) => slot,
                    () = stop.cancelled() => return,
                };
                let Some(slot) = slot else { return };
                let accepted = Accepted { stream, peer, is_tls, slot };
                let opening = connections.start_opening();
                let serving = serve_accepted(Rc::clone(&connections), opening, accepted, handler.clone());
                connections.tasks.spawn_local(serving);
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                if let Some(more) = failures.should_log(connections.clock.now()) {
                    tracing::warn!(%error, more, "cannot accept a connection; trying again shortly");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// True if only this connection failed, because its client disconnected before the accept: the next accept may succeed.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Serves a connection from its handshake until it is closed.
async fn serve_accepted(
    connections: Rc<Connections>,
    opening: Opening,
    accepted: Accepted,
    handler: impl RequestHandler,
) {
    // Boxed, so that the memory of the handshake is free while the connection is served.
    let opened = Box::pin(open(&connections, accepted)).await;
    drop(opening);
    if let Some((connection, settings)) = opened {
        serve(&connections, connection, settings, handler).await;
    }
}

/// Assigns the slot to the client's address and negotiates the protocol; `None` if the connection must be closed.
async fn open(connections: &Connections, accepted: Accepted) -> Option<(Connection, ConnectionSettings)> {
    let Accepted { stream, peer, is_tls, mut slot } = accepted;
    let accepted_at = connections.clock.now();
    let view = connections.views.load();
    let settings = &view.settings;
    // The connections of a trusted proxy are not limited: it has many clients.
    let is_client = |peer: SocketAddr| !is_trusted(peer.ip(), &settings.trusted_proxies);
    if is_client(peer) && !slot.assign(peer.ip()) {
        return None;
    }
    let deadline = connections.clock.instant(accepted_at.plus(settings.header_timeout));
    let negotiating = negotiate(stream, peer, is_tls, settings);
    let negotiated = tokio::select! {
        biased;
        negotiated = tokio::time::timeout_at(deadline.into(), negotiating) => negotiated.ok().flatten()?,
        () = connections.drain_begun() => return None,
    };
    let client = negotiated.peer;
    if client != peer && is_client(client) && !slot.assign(client.ip()) {
        return None;
    }
    let settings = ConnectionSettings {
        is_proxy: !is_client(client),
        half_close: settings.half_close,
        max_head: settings.max_header_size,
    };
    let now = connections.clock.now();
    Some((Connection::new(negotiated, accepted_at, now, Box::new(slot), &settings), settings))
}
