//! Opens all listening sockets of a gateway.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::gateway::{self, Bound, PassedSocket, PublicAddress, Purpose, take_passed};
use crate::snapshot::Settings;

/// All listening sockets of a gateway.
#[derive(Debug)]
pub(super) struct Sockets {
    /// That of operators.
    pub(super) admin: TcpListener,
    /// Those of clients.
    pub(super) bound: Bound,
    /// Copies of all of them, for a process that takes over.
    pub(super) copies: Vec<PassedSocket>,
}

impl Sockets {
    /// Opens the sockets of a configuration. Sockets that were passed to this process are used in place of new ones.
    ///
    /// # Errors
    /// If an address is in use, or cannot be used.
    pub(super) fn open(settings: &Settings, mut passed: Vec<PassedSocket>) -> Result<Self, String> {
        let address = settings.admin_listen;
        let own = take_passed(&mut passed, Purpose::Admin, address).into_iter().next();
        let admin = own.map_or_else(|| bind_admin(address), Ok)?;
        let copy = |error: io::Error| format!("a socket cannot be copied: {error}");
        admin.set_nonblocking(true).map_err(copy)?;
        let label = Some((Purpose::Admin, address));
        let mut copies = vec![PassedSocket { socket: admin.try_clone().map_err(copy)?, label }];
        let mut bound = gateway::bind(&addresses(settings), settings.threads, &mut passed)?;
        copies.append(&mut bound.copies);
        for address in passed.iter().filter_map(|it| it.socket.local_addr().ok()) {
            tracing::warn!(%address, "a socket that was passed to the gateway is not for one of its addresses");
        }
        Ok(Self { admin, bound, copies })
    }
}

fn bind_admin(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!("cannot listen on {address}: another process does already"),
        _ => format!("cannot listen on {address}: {error}"),
    })
}

/// The configured client addresses.
fn addresses(settings: &Settings) -> Vec<PublicAddress> {
    let plain = settings.listen.iter().map(|&address| PublicAddress { address, is_tls: false });
    plain.chain(settings.tls_listen.iter().map(|&address| PublicAddress { address, is_tls: true })).collect()
}
