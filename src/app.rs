//! Connects all parts of the gateway, and starts and stops them in order.
//!
//! Start: configuration → ledger and its lock → control plane → control socket → admin address → public addresses →
//! workers. Stop: the workers finish the requests in flight, then the ledger writes their charges, then the other
//! parts end.

mod background;
mod error;
mod handover;
mod inherited;
mod operators;
mod plane;
mod run;
mod service;
mod signals;
mod sockets;
mod storage;
mod usage;
#[cfg(test)]
mod waiting_payments;

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

pub use self::error::StartError;
use self::handover::MAX_TAKEOVERS;
pub use self::inherited::Inherited;
use self::operators::{ControlRuntime, Operators};
pub use self::plane::ControlPlane;
use self::plane::Opening;
use self::signals::Signals;
use self::sockets::Sockets;
pub use self::storage::find as find_ledger;
use crate::clock::Clock;
use crate::config::LoadedConfig;
use crate::control::Control;
use crate::control::socket::ControlSocket;
use crate::directory::{Meter, Owner, elapsed};
use crate::gateway::limits::Limits;
use crate::gateway::{self, Bound, ConnectionSlots, PassedSocket, PublicAddress, WorkerSeed};
use crate::ledger::Bookkeeper;
pub use crate::ledger::Place as LedgerPlace;
use crate::ledger::store::{LedgerError, Storage};
use crate::limit_store::{self, LimitStore, StoreThread};
use crate::snapshot::{self, Settings};
use crate::telemetry::lines::Lines;
use crate::threads;
use crate::types::RequestIdStart;
use crate::upstream::Watcher;

/// File descriptors reserved for everything but connections.
const RESERVED_DESCRIPTORS: u64 = 128;

/// A running gateway.
#[derive(Debug)]
pub struct App {
    /// Addresses that clients connect to.
    pub public: Vec<PublicAddress>,
    /// Address of the operators' listener.
    pub admin: SocketAddr,
    /// Address of the dashboard, if the configuration has one.
    pub dashboard: Option<SocketAddr>,
    plane: ControlPlane,
    path: PathBuf,
    /// Copies of all listening sockets, for a process that takes over.
    listening: Vec<PassedSocket>,
    control_socket: tokio::task::JoinHandle<()>,
    takeovers: mpsc::Receiver<UnixStream>,
    /// Takes the settlements of the process that this one took over from.
    succession: Option<tokio::task::JoinHandle<()>>,
    /// Has a permit for each worker that has stopped accepting.
    wound_down: Arc<Semaphore>,
    clock: Clock,
    limits: Arc<Limits>,
    /// The thread that talks to the store of limits.
    store_thread: Option<StoreThread>,
    workers: Vec<JoinHandle<()>>,
    stop: CancellationToken,
    draining: Arc<AtomicBool>,
    background: Vec<tokio::task::JoinHandle<()>>,
    _runtime: ControlRuntime,
    _watcher: Watcher,
    /// Taken by [`App::run`].
    signals: Option<Signals>,
}

impl App {
    /// Starts a gateway. All errors are reported before the first request is accepted.
    ///
    /// # Errors
    /// If the configuration contradicts the ledger, another process uses the ledger or it cannot be opened, or an
    /// address is in use.
    pub async fn start(
        path: &Path,
        loaded: LoadedConfig,
        clock: Clock,
        lines: Option<Lines>,
    ) -> Result<Self, StartError> {
        Self::start_inheriting(Inherited::default(), path, loaded, clock, lines).await
    }

    /// Starts a gateway that takes over sockets, and perhaps the ledger of the process before it.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn start_inheriting(
        inherited: Inherited,
        path: &Path,
        loaded: LoadedConfig,
        clock: Clock,
        lines: Option<Lines>,
    ) -> Result<Self, StartError> {
        let storage = storage::at(&loaded.snapshot.settings.ledger).open()?;
        Self::begin(storage, inherited, path, loaded, (clock, lines)).await
    }

    /// Starts a gateway with any storage.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn start_with(
        storage: Storage,
        path: &Path,
        loaded: LoadedConfig,
        clock: Clock,
        lines: Option<Lines>,
    ) -> Result<Self, StartError> {
        Self::begin(storage, Inherited::default(), path, loaded, (clock, lines)).await
    }

    async fn begin(
        storage: Storage,
        inherited: Inherited,
        path: &Path,
        loaded: LoadedConfig,
        (clock, lines): (Clock, Option<Lines>),
    ) -> Result<Self, StartError> {
        let Inherited { passed, taken } = inherited;
        let settings = loaded.snapshot.settings.clone();
        let how = Opening { workers: settings.threads, grants: true, adopts: taken.is_some() };
        let (plane, bookkeeper, epoch) = ControlPlane::open_for(storage, path, loaded, how, &clock).await?;
        let (limits, store_thread) = limits(&settings, (&plane.control, &bookkeeper), &clock).await?;
        let usage = usage::count(&bookkeeper, plane.control.view()).await?;
        let control = Arc::clone(&plane.control);
        let mut background = Vec::new();
        let runtime = ControlRuntime::start()?;
        let socket = runtime.within(|| ControlSocket::bind(path))?;
        let (sender, takeovers) = mpsc::channel(MAX_TAKEOVERS);
        let control_socket = runtime.spawn(socket.serve(Arc::clone(&control), sender));
        let (predecessor, sockets) = match taken {
            Some((predecessor, sockets)) => (Some(predecessor), sockets),
            None => (None, Sockets::open(&settings, passed)?),
        };
        let Sockets { admin, dashboard, bound: Bound { workers: sockets, public, .. }, copies: listening } =
            sockets;
        let pages = (settings.dashboard.is_some(), dashboard);
        let operators = Operators::serve(&runtime, &control, admin, pages, &public, &mut background)?;
        background.extend(background::start(&control));
        control.refill_at_start().await;
        let watcher = start_watcher(&control, &clock).await?;
        let slots = Arc::new(ConnectionSlots::new(max_connections(settings.max_connections)));
        let (stop, wound_down) = (CancellationToken::new(), Arc::new(Semaphore::new(0)));
        // Before the first request: a gateway that serves may get a signal, and its program may be replaced.
        let signals = listen_for_signals()?;
        let mut workers = Vec::new();
        for (number, sockets) in sockets.into_iter().enumerate() {
            let no_spender = || StartError::Other("the ledger was opened for fewer workers".to_owned());
            let seed = WorkerSeed {
                view: control.view(),
                directory: control.directory(),
                limits: Arc::clone(&limits),
                telemetry: control.stats().worker(lines.clone(), Arc::clone(&usage)),
                spender: plane.ledger.spender(number).ok_or_else(no_spender)?,
                clock: clock.clone(),
                sockets,
                slots: Arc::clone(&slots),
                stop: stop.clone(),
                wound_down: Arc::clone(&wound_down),
                id_start: RequestIdStart::new(epoch, u16::try_from(number).unwrap_or(u16::MAX)),
            };
            workers.push(spawn_worker(number, seed)?);
        }
        let succession = predecessor.map(|predecessor| tokio::spawn(predecessor.succeed(bookkeeper)));
        let path = path.to_owned();
        Ok(Self {
            public,
            admin: operators.admin,
            dashboard: operators.dashboard,
            plane,
            path,
            listening,
            control_socket,
            takeovers,
            wound_down,
            succession,
            clock,
            limits,
            store_thread,
            workers,
            stop,
            draining: operators.draining,
            background,
            _runtime: runtime,
            _watcher: watcher,
            signals: Some(signals),
        })
    }

    /// The control plane.
    #[must_use]
    pub fn control(&self) -> &Arc<Control> {
        &self.plane.control
    }
}

fn listen_for_signals() -> Result<Signals, StartError> {
    Signals::listen().map_err(|error| StartError::Other(format!("no signal handling: {error}")))
}

/// Starts to watch the servers of upstreams, and waits for the first addresses.
async fn start_watcher(control: &Control, clock: &Clock) -> Result<Watcher, StartError> {
    let failed = |error| StartError::Other(format!("the servers of upstreams cannot be watched: {error}"));
    let watcher = Watcher::start(control.view(), clock.clone()).map_err(failed)?;
    watcher.resolved().await;
    Ok(watcher)
}

fn spawn_worker(number: usize, seed: WorkerSeed) -> Result<JoinHandle<()>, StartError> {
    let on_park = seed.spender.on_park();
    let thread = threads::start(
        format!("tollgate-worker-{number}"),
        |builder| {
            builder.on_thread_park(on_park);
        },
        |runtime| runtime.block_on(gateway::run(seed)),
    );
    thread.map_err(|error| StartError::Other(format!("a worker cannot start: {error}")))
}

/// The limits of all workers. Starts to count them together with the other gateways of a fleet, if they have a store for it.
async fn limits(
    settings: &Settings,
    (control, bookkeeper): (&Control, &Bookkeeper),
    clock: &Clock,
) -> Result<(Arc<Limits>, Option<StoreThread>), StartError> {
    let node = match &settings.ledger {
        snapshot::LedgerPlace::Postgres(place) => place.node.as_deref(),
        snapshot::LedgerPlace::Sqlite(_) => None,
    };
    let Some((place, node)) = settings.limit_store.as_deref().zip(node) else {
        return Ok((restored_limits(None, bookkeeper, clock).await?, None));
    };
    let counted = bookkeeper.clone();
    let gateways =
        move || u32::try_from(counted.counters().nodes.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
    let started = limit_store::start(place, node, Box::new(gateways), clock.clone());
    let (store, thread) =
        started.map_err(|error| StartError::Other(format!("the limit store cannot be used: {error}")))?;
    control.show_limit_store(&store);
    Ok((restored_limits(Some(store), bookkeeper, clock).await?, Some(thread)))
}

/// Restores the limit states of client addresses, and saves all limit states from now on. The control plane restores
/// those of keys and accounts.
async fn restored_limits(
    store: Option<Arc<LimitStore>>,
    bookkeeper: &Bookkeeper,
    clock: &Clock,
) -> Result<Arc<Limits>, LedgerError> {
    let limits = Arc::new(Limits::shared(store));
    let mut reader = bookkeeper.view()?;
    let (now, wall) = (clock.now(), clock.wall());
    reader.each_limit(&mut |owner, states, saved| {
        if let Some(Owner::Address(address)) = Owner::from_bytes(owner) {
            limits.restore(address, Meter::read(states, elapsed(saved, wall), now));
        }
    })?;
    let (source, now) = (Arc::clone(&limits), clock.clone());
    bookkeeper.save_limits_from(Box::new(move || source.drain(now.now()))).await?;
    Ok(limits)
}

/// Raises the soft limit of file descriptors to the hard limit. Returns `asked`, or the number of connections that
/// the limit allows if that is lower: each needs one descriptor for the client and one for the upstream.
fn max_connections(asked: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let _ = setrlimit(Resource::Nofile, raised); // if this fails, the current limit applies
    }
    let Some(descriptors) = getrlimit(Resource::Nofile).current else { return asked };
    let most =
        usize::try_from(descriptors.saturating_sub(RESERVED_DESCRIPTORS) / 2).unwrap_or(usize::MAX).max(1);
    if most < asked {
        tracing::warn!(
            asked,
            most,
            descriptors,
            "max_connections was lowered because of the limit of open files (ulimit -n)"
        );
    }
    asked.min(most)
}
