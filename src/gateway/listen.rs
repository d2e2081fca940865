//! Accepts connections, keeps their deadlines, and drains them.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Gate;
use super::connection::{Connection, Place, Watched, is_leaving};
use super::handle::handle;
use super::limits::Limits;
use crate::clock::Clock;
use crate::directory::Directory;
use crate::ledger::SpenderSeed;
use crate::snapshot::Reader;
use crate::telemetry::Stats;
use crate::upstream::Pool;

/// Connections that the kernel keeps for each listener until they are accepted.
const BACKLOG: i32 = 4096;
/// How long to wait after an accept failed, where descriptors or memory ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// hyper's own least buffer.
const MIN_BUFFER: usize = 8192;
/// How often a worker closes upstream connections that were idle too long.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// The sockets of one worker.
#[derive(Debug)]
pub struct Listening(Vec<std::net::TcpListener>);

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
    pub stats: Arc<Stats>,
    /// The way to the ledger.
    pub spender: SpenderSeed,
    /// The time.
    pub clock: Clock,
    /// Its sockets.
    pub listening: Listening,
    /// Places for connections, of all workers.
    pub places: Arc<Semaphore>,
    /// Says when to stop accepting.
    pub stop: CancellationToken,
    /// Random bits that begin the ids of its requests.
    pub id_start: u64,
}

/// Binds every address once for each worker, each with its own queue (SO_REUSEPORT).
///
/// # Errors
/// Where an address is in use, by another gateway too: SO_REUSEPORT alone would not tell.
pub fn bind(addresses: &[SocketAddr], workers: usize) -> Result<(Vec<Listening>, Vec<SocketAddr>), String> {
    let mut workers: Vec<Listening> = (0..workers).map(|_| Listening(Vec::new())).collect();
    let mut bound = Vec::new();
    for &address in addresses {
        let describe = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => format!("cannot listen on {address}: another process does already"),
            io::ErrorKind::PermissionDenied => {
                format!("cannot listen on {address}: no permission for this port")
            }
            _ => format!("cannot listen on {address}: {error}"),
        };
        if address.port() != 0 {
            socket(address, false).and_then(|socket| socket.bind(&address.into())).map_err(describe)?;
        }
        let mut actual = address;
        for worker in &mut workers {
            let listener = listen_on(actual).map_err(describe)?;
            actual = listener.local_addr().map_err(describe)?;
            worker.0.push(listener);
        }
        bound.push(actual);
    }
    Ok((workers, bound))
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    Ok(socket)
}

fn listen_on(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket(address, true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Runs a worker until it is told to stop and its connections are done or the drain's time is up.
/// Must run within a `LocalSet`, on one thread.
pub async fn run(seed: WorkerSeed) {
    let spender = seed.spender.plant();
    let gate = Rc::new(Gate {
        view: seed.view,
        directory: seed.directory,
        limits: seed.limits,
        stats: seed.stats,
        spender: spender.clone(),
        pool: Pool::new(seed.clock.clone()),
        clock: seed.clock,
        tasks: TaskTracker::new(),
        closing: std::cell::Cell::new(false),
        id_start: seed.id_start,
        id_count: std::cell::Cell::new(0),
    });
    let pump = tokio::task::spawn_local(async move { spender.pump().await });
    let sweep = tokio::task::spawn_local(sweep(Rc::clone(&gate)));
    let accepting = TaskTracker::new();
    for listener in seed.listening.0 {
        match TcpListener::from_std(listener) {
            Ok(listener) => {
                let (gate, places, stop) = (Rc::clone(&gate), Arc::clone(&seed.places), seed.stop.clone());
                accepting.spawn_local(accept(gate, listener, places, stop));
            }
            Err(error) => tracing::error!(%error, "a socket cannot be listened on"),
        }
    }
    accepting.close();
    accepting.wait().await;
    let limit = gate.view.peek().settings.drain_timeout;
    gate.tasks.close();
    if tokio::time::timeout(limit, gate.tasks.wait()).await.is_err() {
        tracing::warn!(left = gate.tasks.len(), "the drain's time is up; what is left is cut");
    }
    gate.closing.set(true);
    pump.abort();
    sweep.abort();
}

async fn sweep(gate: Rc<Gate>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        gate.pool.sweep();
    }
}

async fn accept(gate: Rc<Gate>, listener: TcpListener, places: Arc<Semaphore>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Without a place this one waits here, and the next ones in the kernel's queue.
                let place = tokio::select! {
                    place = Arc::clone(&places).acquire_owned() => place,
                    () = stop.cancelled() => return,
                };
                let Ok(place) = place else { return };
                let connection = serve_connection(Rc::clone(&gate), stream, peer, place, stop.clone());
                gate.tasks.spawn_local(connection);
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept; trying again shortly");
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

/// Lets the kernel find out that a client's machine is gone, in under two minutes.
fn keep_alive(stream: &TcpStream) {
    let probes =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    let _ = SockRef::from(stream).set_tcp_keepalive(&probes.with_retries(3)); // an aid, not a need
}

async fn serve_connection(
    gate: Rc<Gate>,
    stream: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
    stop: CancellationToken,
) {
    let _ = stream.set_nodelay(true); // an optimisation, not a need
    let place = Place::take(place, &gate.stats);
    let connection = Arc::new(Connection::new(peer, gate.clock.now(), place));
    keep_alive(&stream);
    let stream = Arc::new(stream);
    let (seen, clock) = (Arc::clone(&connection), gate.clock.clone());
    let io = Watched { stream: Arc::clone(&stream), connection: seen, clock };
    let (header_timeout, idle_timeout, max_head) = {
        let view = gate.view.peek();
        (view.settings.header_timeout, view.settings.idle_timeout, view.settings.max_header_size)
    };
    let service = {
        let (gate, connection) = (Rc::clone(&gate), Arc::clone(&connection));
        service_fn(move |request| {
            let (gate, connection) = (Rc::clone(&gate), Arc::clone(&connection));
            async move { Ok::<_, Infallible>(handle(gate, connection, request).await) }
        })
    };
    let mut builder = http1::Builder::new();
    builder
        .half_close(true) // a client that closed its sending side still gets its answer
        .header_read_timeout(None) // one deadline for heads, bodies and silence: `Connection`
        .max_header_size(max_head)
        .max_buf_size(max_head.max(MIN_BUFFER));
    let mut serving = pin!(builder.serve_connection(TokioIo::new(io), service).with_upgrades());
    let mut stopping = false;
    while let Some(look) = connection.next_look(gate.clock.now(), header_timeout, idle_timeout) {
        tokio::select! {
            _ = &mut serving => break, // an error concerns this connection only
            () = tokio::time::sleep(look) => {
                if connection.is_busy() && is_leaving(&stream) {
                    connection.leaves();
                }
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}
