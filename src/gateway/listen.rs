//! Binds addresses, accepts connections and drains them.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Gate;
use super::limits::Limits;
use super::places::Places;
use super::revoke;
use super::serve::{Accepted, serve};
use crate::clock::{Beat, Clock};
use crate::directory::Directory;
use crate::ledger::SpenderSeed;
use crate::snapshot::Reader;
use crate::telemetry::Lane;
use crate::telemetry::lines::{self, Batch, Lines};
use crate::types::Repeats;
use crate::upstream::Pool;

/// Connections that the kernel keeps for each listener until they are accepted.
const BACKLOG: i32 = 4096;
/// Bytes that the kernel keeps for a client beyond what is on its way to it: what a slow reader costs.
/// Without this bound it may be 4 MiB, and a few thousand of them exhaust the memory of all sockets.
const MAX_UNSENT: u32 = 128 * 1024;
/// How long to wait after an accept failed, where descriptors or memory ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often a worker closes upstream connections that were idle too long.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// The sockets of one worker, and whether each speaks TLS.
#[derive(Debug)]
pub struct Listening(Vec<(std::net::TcpListener, bool)>);

/// An address that clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Public {
    /// The address.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub secure: bool,
}

/// What a worker is made of, until it runs on its own thread.
#[derive(Debug)]
pub struct WorkerSeed {
    /// The snapshot in force.
    pub view: Reader,
    /// Keys and accounts.
    pub directory: Arc<Directory>,
    /// Limit states of all workers.
    pub limits: Arc<Limits>,
    /// What is counted.
    pub stats: Arc<Lane>,
    /// The way to the log, where requests are logged at all.
    pub lines: Option<Lines>,
    /// The way to the ledger.
    pub spender: SpenderSeed,
    /// The time.
    pub clock: Clock,
    /// Its sockets.
    pub listening: Listening,
    /// Places for connections, of all workers.
    pub places: Arc<Places>,
    /// Says when to stop accepting.
    pub stop: CancellationToken,
    /// Random bits that begin the ids of its requests.
    pub id_start: u64,
}

/// Binds every address once for each worker, each with its own queue (SO_REUSEPORT).
///
/// # Errors
/// Where an address is in use, by another gateway too: SO_REUSEPORT alone would not tell.
pub fn bind(addresses: &[Public], workers: usize) -> Result<(Vec<Listening>, Vec<Public>), String> {
    let mut workers: Vec<Listening> = (0..workers).map(|_| Listening(Vec::new())).collect();
    let mut bound = Vec::new();
    for &Public { address, secure } in addresses {
        let describe = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => format!("cannot listen on {address}: another process does already"),
            io::ErrorKind::PermissionDenied => {
                format!("cannot listen on {address}: no permission for this port")
            }
            _ => format!("cannot listen on {address}: {error}"),
        };
        // Both families, as other servers take it, unless the port of an IPv4 address is listed too.
        let same_port = |other: &Public| other.address.is_ipv4() && other.address.port() == address.port();
        let dual = address.ip().is_unspecified() && (address.port() == 0 || !addresses.iter().any(same_port));
        if address.port() != 0 {
            socket(address, dual, false).and_then(|socket| socket.bind(&address.into())).map_err(describe)?;
        }
        let mut actual = address;
        for worker in &mut workers {
            let listener = listen_on(actual, dual).map_err(describe)?;
            actual = listener.local_addr().map_err(describe)?;
            worker.0.push((listener, secure));
        }
        bound.push(Public { address: actual, secure });
    }
    Ok((workers, bound))
}

fn socket(address: SocketAddr, dual: bool, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!dual)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    Ok(socket)
}

fn listen_on(address: SocketAddr, dual: bool) -> io::Result<std::net::TcpListener> {
    let socket = socket(address, dual, true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    tune(&socket);
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Lets the kernel find out that a client's machine is gone, in under two minutes, and writes what
/// there is at once. Connections have this from their listener (Linux: `inet_csk_clone_lock`), which
/// saves five calls for each. Both are aids, not needs.
fn tune(socket: &Socket) {
    let probes =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    let _ = socket.set_tcp_keepalive(&probes.with_retries(3));
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_notsent_lowat(MAX_UNSENT);
}

/// Runs a worker until it is told to stop and its connections are done or the drain's time is up.
/// Must run on a `LocalRuntime`.
pub async fn run(seed: WorkerSeed) {
    let spender = seed.spender.plant();
    let gate = Rc::new(Gate {
        views: seed.view.views(),
        directory: seed.directory,
        limits: seed.limits,
        stats: seed.stats,
        log: seed.lines.map(|lines| RefCell::new(Batch::new(lines))),
        log_waits: Notify::new(),
        spender: spender.clone(),
        pool: Pool::default(),
        beat: Beat::new(seed.clock.clone()),
        clock: seed.clock,
        tasks: TaskTracker::new(),
        stop: seed.stop.clone(),
        closing: Cell::new(false),
        stopping: Cell::new(false),
        connections: RefCell::default(),
        tunnels: RefCell::default(),
        id_start: seed.id_start,
        id_count: Cell::new(0),
        connection_count: Cell::new(0),
    });
    let pump = tokio::task::spawn_local(async move { spender.pump().await });
    let sweep = tokio::task::spawn_local(sweep(Rc::clone(&gate)));
    let flush = tokio::task::spawn_local(flush(Rc::clone(&gate)));
    let revoke = tokio::task::spawn_local(revoke::watch(Rc::clone(&gate)));
    let accepting = TaskTracker::new();
    for (listener, secure) in seed.listening.0 {
        match TcpListener::from_std(listener) {
            Ok(listener) => {
                let (gate, places) = (Rc::clone(&gate), Arc::clone(&seed.places));
                accepting.spawn_local(accept(gate, listener, secure, places));
            }
            Err(error) => tracing::error!(%error, "a socket cannot be listened on"),
        }
    }
    accepting.close();
    accepting.wait().await;
    gate.stop();
    let limit = gate.views.load().settings.drain_timeout;
    gate.tasks.close();
    if tokio::time::timeout(limit, gate.tasks.wait()).await.is_err() {
        tracing::warn!(left = gate.tasks.len(), "the drain's time is up; what is left is cut");
    }
    gate.closing.set(true);
    pump.abort();
    sweep.abort();
    flush.abort();
    revoke.abort();
    gate.flush_log();
}

/// Hands lines about requests on, some time after the first one that waits.
async fn flush(gate: Rc<Gate>) {
    loop {
        gate.log_waits.notified().await;
        tokio::time::sleep(lines::WAIT).await;
        gate.flush_log();
    }
}

async fn sweep(gate: Rc<Gate>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        gate.pool.sweep(gate.clock.now());
    }
}

async fn accept(gate: Rc<Gate>, listener: TcpListener, secure: bool, places: Arc<Places>) {
    let (stop, mut failures) = (gate.stop.clone(), Repeats::default());
    loop {
        let number = gate.next_connection();
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Without a place this one waits here, and the next ones in the kernel's queue.
                let place = tokio::select! {
                    place = places.take(&gate.stats) => place,
                    () = stop.cancelled() => return,
                };
                let Some(place) = place else { return };
                let accepted = Accepted { stream, peer, secure, place };
                gate.tasks.spawn_local(serve(Rc::clone(&gate), number, accepted));
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                if let Some(more) = failures.says(gate.clock.now()) {
                    tracing::warn!(%error, more, "cannot accept; trying again shortly");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The client was gone before it was accepted: the next one may be well.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted_has_the_listeners_options() {
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
