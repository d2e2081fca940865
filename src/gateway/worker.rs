//! One worker: a thread with its own runtime, sockets, connections and request handler.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Connections;
use super::listener::{ConnectionSlots, ListeningSockets, accept_connections};
use super::request::limits::Limits;
use super::request::{Handler, Services, end_revoked_requests};
use crate::clock::Clock;
use crate::directory::Directory;
use crate::ledger::SpenderSeed;
use crate::snapshot::SnapshotReader;
use crate::telemetry::WorkerTelemetry;
use crate::telemetry::{lines, usage};
use crate::types::RequestIdStart;

/// How often a worker closes upstream connections that were idle for too long.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// How often a worker that stops looks for responses that have not ended.
const STREAMS_CHECKED_EVERY: Duration = Duration::from_millis(100);
/// How long idle connections stay open after the worker stopped accepting: so many rounds of so long, in each of which
/// the worker and its clients run, even if the machine stood still for a while.
const GRACE_ROUNDS: u32 = 20;
const GRACE_ROUND: Duration = Duration::from_millis(25);

/// Everything that a worker needs; passed to the worker's own thread, which starts it.
#[derive(Debug)]
pub struct WorkerSeed {
    /// The snapshot in force.
    pub view: SnapshotReader,
    /// Keys and accounts.
    pub directory: Arc<Directory>,
    /// Limit states of all workers.
    pub limits: Arc<Limits>,
    /// What the worker reports to.
    pub telemetry: WorkerTelemetry,
    /// The worker's handle on the ledger.
    pub spender: SpenderSeed,
    /// The clock.
    pub clock: Clock,
    /// The worker's listening sockets.
    pub sockets: ListeningSockets,
    /// Connection slots of all workers.
    pub slots: Arc<ConnectionSlots>,
    /// Cancelled when the gateway stops accepting.
    pub stop: CancellationToken,
    /// Gets a permit when the worker has stopped accepting and no client waits to be told.
    pub wound_down: Arc<Semaphore>,
    /// The first part of the ids of the worker's requests.
    pub id_start: RequestIdStart,
}

/// Runs a worker until the gateway stops and all connections are closed, or the drain timeout has passed.
pub async fn run(seed: WorkerSeed) {
    let spender = seed.spender.start();
    let _ = seed.telemetry.stats.runtime.set(Handle::current()); // a worker starts once
    let connections = Rc::new(Connections::new(seed.view.views(), seed.clock, seed.stop));
    let services = Rc::new(Services::new(
        Rc::clone(&connections),
        seed.directory,
        seed.limits,
        seed.telemetry.clone(),
        spender.clone(),
        seed.id_start,
    ));
    let handler = Handler::new(&services);
    let background: [JoinHandle<()>; 5] = [
        tokio::task::spawn_local(async move { spender.pump().await }),
        tokio::task::spawn_local(sweep_upstreams(handler.clone())),
        tokio::task::spawn_local(flush_log(Rc::clone(&services))),
        tokio::task::spawn_local(pass_usage(Rc::clone(&services))),
        tokio::task::spawn_local(end_revoked_requests(Rc::clone(&services))),
    ];
    let accepting = TaskTracker::new();
    for (socket, is_tls) in seed.sockets.0 {
        match TcpListener::from_std(socket) {
            Ok(socket) => {
                let (connections, slots) = (Rc::clone(&connections), Arc::clone(&seed.slots));
                let (stats, handler) = (Arc::clone(&seed.telemetry.stats), handler.clone());
                accepting.spawn_local(accept_connections(connections, socket, is_tls, slots, stats, handler));
            }
            Err(error) => tracing::error!(%error, "cannot listen on a socket"),
        }
    }
    accepting.close();
    accepting.wait().await;
    wind_down(&connections).await;
    seed.wound_down.add_permits(1);
    drain(&connections).await;
    background.iter().for_each(JoinHandle::abort);
    services.flush_log();
    services.usage.pass(connections.clock.wall());
    services.decisions.pass(connections.clock.wall());
}

/// Passes on what requests used and what was decided about them, about once a second.
async fn pass_usage(services: Rc<Services>) {
    loop {
        tokio::time::sleep(usage::PASSED_EVERY).await;
        services.usage.pass(services.connections.clock.wall());
        services.decisions.pass(services.connections.clock.wall());
    }
}

/// Lets clients of idle connections send one more request, whose response says that the connection closes: a request
/// that crosses the close of its connection would fail.
async fn wind_down(connections: &Connections) {
    connections.wind_down();
    for _ in 0..GRACE_ROUNDS {
        if !connections.has_untold() {
            break;
        }
        tokio::time::sleep(GRACE_ROUND).await;
    }
}

/// Waits for the requests in flight, at most for the drain timeout; for responses that have begun and tunnels, at most
/// for theirs.
async fn drain(connections: &Connections) {
    connections.drain();
    connections.tasks.close();
    let settings = connections.views.load().settings.clone();
    let begun = connections.clock.now();
    let is_over = || connections.clock.now().since(begun) >= settings.stream_drain_timeout;
    let drained = tokio::time::timeout(settings.drain_timeout, connections.tasks.wait());
    if drained.await.is_err() {
        while connections.has_streams() && !is_over() {
            tokio::time::sleep(STREAMS_CHECKED_EVERY).await;
        }
        let left = connections.tasks.len();
        if left > 0 {
            tracing::warn!(left, "drain_timeout has passed; connections still open are closed");
        }
    }
    connections.end();
}

/// Passes log lines to the log writer, a short time after the first one was added.
async fn flush_log(services: Rc<Services>) {
    loop {
        services.log_pending.notified().await;
        tokio::time::sleep(lines::WAIT).await;
        services.flush_log();
    }
}

async fn sweep_upstreams(handler: Handler) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        handler.sweep_upstreams();
    }
}
