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
    /// That of the dashboard, if it has one of its own.
    pub(super) dashboard: Option<TcpListener>,
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
        let (admin, copy) = open(&mut passed, Purpose::Admin, settings.admin_listen)?;
        let mut copies = vec![copy];
        let mut dashboard = None;
        if let Some(address) = settings.dashboard.as_ref().and_then(|dashboard| dashboard.listen) {
            let (socket, copy) = open(&mut passed, Purpose::Dashboard, address)?;
            dashboard = Some(socket);
            copies.push(copy);
        }
        let mut bound = gateway::bind(&addresses(settings), settings.threads, &mut passed)?;
        copies.append(&mut bound.copies);
        for address in passed.iter().filter_map(|it| it.socket.local_addr().ok()) {
            tracing::warn!(%address, "a socket that was passed to the gateway is not for one of its addresses");
        }
        Ok(Self { admin, dashboard, bound, copies })
    }
}

/// Takes or opens a listening socket of the control plane, and a copy of it for a process that takes over.
fn open(
    passed: &mut Vec<PassedSocket>,
    purpose: Purpose,
    address: SocketAddr,
) -> Result<(TcpListener, PassedSocket), String> {
    let own = take_passed(passed, purpose, address).into_iter().next();
    let socket = own.map_or_else(|| bind(address), Ok)?;
    let copy = |error: io::Error| format!("a socket cannot be copied: {error}");
    socket.set_nonblocking(true).map_err(copy)?;
    let label = Some((purpose, address));
    let twin = PassedSocket { socket: socket.try_clone().map_err(copy)?, label };
    Ok((socket, twin))
}

fn bind(address: SocketAddr) -> Result<TcpListener, String> {
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
