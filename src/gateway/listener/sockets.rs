//! Binds the public addresses, one socket for each worker.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Connections that the kernel queues for each socket until they are accepted.
const BACKLOG: i32 = 4096;
/// Unsent bytes that the kernel buffers for a client: the memory that a slow reader uses. Without this bound
/// it may be 4 MiB, and a few thousand slow readers exhaust the kernel's memory for TCP.
const MAX_UNSENT: u32 = 128 * 1024;

/// The listening sockets of one worker, each with a flag that is true if it uses TLS.
#[derive(Debug)]
pub struct ListeningSockets(pub(in crate::gateway) Vec<(TcpListener, bool)>);

/// An address that clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicAddress {
    /// The address.
    pub address: SocketAddr,
    /// True if it uses TLS.
    pub is_tls: bool,
}

/// The sockets of a gateway.
#[derive(Debug)]
pub struct Bound {
    /// The sockets of each worker.
    pub workers: Vec<ListeningSockets>,
    /// The addresses, with the ports that the kernel chose.
    pub public: Vec<PublicAddress>,
    /// Copies of all sockets, for a process that takes over.
    pub copies: Vec<PassedSocket>,
}

/// Binds every address once for each worker, each with its own accept queue (SO_REUSEPORT). Sockets that were passed
/// for an address are used in place of new ones, and removed from the list: connections that wait in their queues are
/// accepted.
///
/// # Errors
/// If an address is in use, also by another gateway: SO_REUSEPORT alone would not fail then.
pub fn bind(
    addresses: &[PublicAddress],
    workers: usize,
    passed: &mut Vec<PassedSocket>,
) -> Result<Bound, String> {
    let mut workers: Vec<ListeningSockets> = (0..workers).map(|_| ListeningSockets(Vec::new())).collect();
    let (mut public, mut copies) = (Vec::new(), Vec::new());
    let is_first = passed.is_empty(); // otherwise the process before this one still listens
    for &PublicAddress { address, is_tls } in addresses {
        let describe = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => format!("cannot listen on {address}: another process does already"),
            io::ErrorKind::PermissionDenied => {
                format!("cannot listen on {address}: no permission for this port")
            }
            _ => format!("cannot listen on {address}: {error}"),
        };
        let purpose = if is_tls { Purpose::Tls } else { Purpose::Plain };
        let label = Some((purpose, address));
        let mut copy = |socket: &TcpListener| {
            copies.push(PassedSocket { socket: socket.try_clone()?, label });
            Ok(())
        };
        let own = take_passed(passed, purpose, address);
        if let Some(actual) = own.first().and_then(|socket| socket.local_addr().ok()) {
            own.iter().try_for_each(&mut copy).map_err(describe)?;
            share(own, is_tls, &mut workers).map_err(describe)?;
            public.push(PublicAddress { address: actual, is_tls });
            continue;
        }
        // Dual stack, as in other servers, unless an IPv4 address with the same port is listed too.
        let same_port =
            |other: &PublicAddress| other.address.is_ipv4() && other.address.port() == address.port();
        let is_dual_stack =
            address.ip().is_unspecified() && (address.port() == 0 || !addresses.iter().any(same_port));
        if is_first && address.port() != 0 {
            socket(address, is_dual_stack, false)
                .and_then(|socket| socket.bind(&address.into()))
                .map_err(describe)?;
        }
        let mut actual = address;
        for worker in &mut workers {
            let listener = listen_on(actual, is_dual_stack).map_err(describe)?;
            actual = listener.local_addr().map_err(describe)?;
            copy(&listener).map_err(describe)?;
            worker.0.push((listener, is_tls));
        }
        public.push(PublicAddress { address: actual, is_tls });
    }
    Ok(Bound { workers, public, copies })
}

/// What a listening socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Clients without TLS.
    Plain,
    /// Clients with TLS.
    Tls,
    /// Operators.
    Admin,
    /// People who use the dashboard.
    Dashboard,
}

/// A listening socket of another process.
#[derive(Debug)]
pub struct PassedSocket {
    /// The socket.
    pub socket: TcpListener,
    /// What it is for, and the address in the configuration that it was opened for; `None` if the service manager opened
    /// it.
    pub label: Option<(Purpose, SocketAddr)>,
}

impl PassedSocket {
    /// A copy, for another process.
    ///
    /// # Errors
    /// If descriptors run out.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, label: self.label })
    }
}

/// Takes the sockets that were passed for an address of the configuration.
pub fn take_passed(
    passed: &mut Vec<PassedSocket>,
    purpose: Purpose,
    address: SocketAddr,
) -> Vec<TcpListener> {
    let is_wanted = |it: &PassedSocket| match it.label {
        Some(label) if label == (purpose, address) => true,
        _ => it.socket.local_addr().is_ok_and(|actual| actual == address),
    };
    let (wanted, others) = std::mem::take(passed).into_iter().partition(is_wanted);
    *passed = others;
    let wanted: Vec<PassedSocket> = wanted;
    wanted.into_iter().map(|it| it.socket).collect()
}

/// Gives each worker a socket. If there are more workers than sockets, several accept on the same one.
fn share(sockets: Vec<TcpListener>, is_tls: bool, workers: &mut [ListeningSockets]) -> io::Result<()> {
    for socket in &sockets {
        socket.set_nonblocking(true)?;
        set_options(&SockRef::from(socket));
    }
    for (worker, socket) in workers.iter_mut().zip(sockets.iter().cycle()) {
        worker.0.push((socket.try_clone()?, is_tls));
    }
    let count = workers.len();
    for (at, socket) in sockets.into_iter().enumerate().skip(count) {
        workers[at % count].0.push((socket, is_tls));
    }
    Ok(())
}

fn socket(address: SocketAddr, is_dual_stack: bool, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!is_dual_stack)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    Ok(socket)
}

fn listen_on(address: SocketAddr, is_dual_stack: bool) -> io::Result<TcpListener> {
    let socket = socket(address, is_dual_stack, true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    set_options(&SockRef::from(&socket));
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Sets keep-alive probes, which detect an unreachable client in under two minutes, TCP_NODELAY, and the bound
/// of unsent bytes. Accepted sockets inherit these options from the listener (Linux: `inet_csk_clone_lock`),
/// which saves five system calls per connection. The gateway also works without them, so errors are ignored.
fn set_options(socket: &SockRef<'_>) {
    let probes =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    let _ = socket.set_tcp_keepalive(&probes.with_retries(3));
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_notsent_lowat(MAX_UNSENT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_sockets_inherit_the_listeners_options() {
        let listener = listen_on("127.0.0.1:0".parse().unwrap(), false).unwrap();
        listener.set_nonblocking(false).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = Socket::from(listener.accept().unwrap().0);
        assert!(accepted.tcp_nodelay().unwrap());
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
        assert_eq!(accepted.tcp_keepalive_interval().unwrap(), Duration::from_secs(15));
        assert_eq!(accepted.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(accepted.tcp_notsent_lowat().unwrap(), MAX_UNSENT);
    }
}
