//! Connects all parts of the gateway, and starts and stops them in order.
//!
//! Start: configuration → ledger and its lock → control plane → control socket → admin address → public addresses →
//! workers. Stop: the workers finish the requests in flight, then the ledger writes their charges, then the other
//! parts end.

mod signals;
#[cfg(test)]
mod waiting_payments;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::LocalOptions;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::signals::Signals;
use crate::clock::Clock;
use crate::config::reload::{EVERY, Look};
use crate::config::{LoadedConfig, Report};
use crate::control::health::Admin;
use crate::control::socket::ControlSocket;
use crate::control::{Control, Failure, Refused};
use crate::directory::{Meter, Owner, elapsed};
use crate::gateway::limits::Limits;
use crate::gateway::{self, ConnectionSlots, PublicAddress, WorkerSeed};
use crate::ledger::sqlite;
use crate::ledger::store::{BooksReader, LedgerError, Storage, unbalanced};
use crate::ledger::{Bookkeeper, Ledger, Opened};
use crate::snapshot::Settings;
use crate::telemetry::lines::Lines;
use crate::types::RequestIdStart;
use crate::upstream::Watcher;

/// File descriptors reserved for everything but connections.
const RESERVED_DESCRIPTORS: u64 = 128;
/// How often meters of dropped keys are pruned.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Why the gateway did not start, or why it stopped.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is invalid.
    #[error("{0}")]
    Config(Box<Report>),
    /// Any other error, as a message for the operator.
    #[error("{0}")]
    Other(String),
}

impl From<LedgerError> for StartError {
    fn from(error: LedgerError) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<Failure> for StartError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Config(report) => Self::Config(report),
            Failure::Message(message) => Self::Other(message),
        }
    }
}

impl From<String> for StartError {
    fn from(message: String) -> Self {
        Self::Other(message)
    }
}

/// An open ledger and its control plane. Commands use it without a gateway.
#[derive(Debug)]
pub struct ControlPlane {
    /// The control plane.
    pub control: Arc<Control>,
    ledger: Ledger,
}

impl ControlPlane {
    /// Opens the ledger of a configuration and takes its lock. `reads`: the command only reads, so no accounts are
    /// created.
    ///
    /// # Errors
    /// If another process uses the ledger, or the ledger cannot be opened.
    pub async fn open(
        path: &Path,
        loaded: LoadedConfig,
        reads: bool,
        clock: &Clock,
    ) -> Result<Self, StartError> {
        let storage = sqlite::open(&loaded.snapshot.settings.ledger)?;
        let (plane, _, _) = Self::open_for(storage, path, loaded, (0, !reads), clock).await?;
        Ok(plane)
    }

    async fn open_for(
        storage: Storage,
        path: &Path,
        loaded: LoadedConfig,
        (workers, grants): (usize, bool),
        clock: &Clock,
    ) -> Result<(Self, Bookkeeper, u32), StartError> {
        let delay = loaded.snapshot.settings.commit_delay;
        let (ledger, Opened { doubts, off_by, epoch }) =
            Ledger::open(storage, workers, delay, clock.clone())?;
        // Commands still work, since `ledger verify` finds the fault; the ledger refuses bookings.
        if off_by != 0 && workers > 0 {
            return Err(StartError::Other(format!(
                "ledger {}: {}",
                loaded.snapshot.settings.ledger.display(),
                unbalanced(off_by)
            )));
        }
        if doubts > 0 {
            tracing::warn!(
                holds = doubts,
                "holds that a crash left open were charged in full; `tollgate ledger in-doubt` lists them"
            );
        }
        let bookkeeper = ledger.bookkeeper();
        let control = Control::boot(path, loaded, grants, bookkeeper.clone(), clock.clone()).await?;
        Ok((Self { control: Arc::new(control), ledger }, bookkeeper, epoch))
    }

    /// Writes pending records and releases the lock.
    ///
    /// # Errors
    /// If the last commit failed.
    pub fn close(self) -> Result<(), LedgerError> {
        self.ledger.close()
    }
}

/// A running gateway.
#[derive(Debug)]
pub struct App {
    /// Addresses that clients connect to.
    pub public: Vec<PublicAddress>,
    /// Address of the operators' listener.
    pub admin: SocketAddr,
    plane: ControlPlane,
    path: PathBuf,
    clock: Clock,
    limits: Arc<Limits>,
    workers: Vec<JoinHandle<()>>,
    stop: CancellationToken,
    draining: Arc<AtomicBool>,
    background: Vec<tokio::task::JoinHandle<()>>,
    _watcher: Watcher,
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
        let storage = sqlite::open(&loaded.snapshot.settings.ledger)?;
        Self::start_with(storage, path, loaded, clock, lines).await
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
        let settings = loaded.snapshot.settings.clone();
        let (plane, bookkeeper, epoch) =
            ControlPlane::open_for(storage, path, loaded, (settings.threads, true), &clock).await?;
        let limits = Arc::new(restored_limits(&mut *bookkeeper.view().await?, &clock)?);
        let (source, now) = (Arc::clone(&limits), clock.clone());
        bookkeeper.save_limits_from(Box::new(move || source.drain(now.now()))).await?;
        let control = Arc::clone(&plane.control);
        let mut background = Vec::new();
        let socket = ControlSocket::bind(path)?;
        background.push(tokio::spawn(socket.serve(Arc::clone(&control))));
        let admin = Admin::bind(settings.admin_listen).await?;
        let (admin_address, draining) = (admin.address().unwrap_or(settings.admin_listen), admin.draining());
        background.push(tokio::spawn(admin.serve(Arc::clone(&control))));

        background.push(tokio::spawn(prune_meters(Arc::clone(&control))));
        let no_watcher =
            |error| StartError::Other(format!("the servers of upstreams cannot be watched: {error}"));
        let watcher = Watcher::start(control.view(), clock.clone()).map_err(no_watcher)?;
        watcher.resolved().await;
        let (sockets, public) = gateway::bind(&addresses(&settings), settings.threads)?;
        let slots = Arc::new(ConnectionSlots::new(max_connections(settings.max_connections)));
        let stop = CancellationToken::new();
        let mut workers = Vec::new();
        for (number, sockets) in sockets.into_iter().enumerate() {
            let no_spender = || StartError::Other("the ledger was opened for fewer workers".to_owned());
            let seed = WorkerSeed {
                view: control.view(),
                directory: control.directory(),
                limits: Arc::clone(&limits),
                stats: control.stats().lane(),
                lines: lines.clone(),
                spender: plane.ledger.spender(number).ok_or_else(no_spender)?,
                clock: clock.clone(),
                sockets,
                slots: Arc::clone(&slots),
                stop: stop.clone(),
                id_start: RequestIdStart::new(epoch, u16::try_from(number).unwrap_or(u16::MAX)),
            };
            workers.push(spawn_worker(number, seed)?);
        }
        let path = path.to_owned();
        Ok(Self {
            public,
            admin: admin_address,
            plane,
            path,
            clock,
            limits,
            workers,
            stop,
            draining,
            background,
            _watcher: watcher,
        })
    }

    /// The control plane.
    #[must_use]
    pub fn control(&self) -> &Arc<Control> {
        &self.plane.control
    }

    /// Serves until SIGTERM or SIGINT arrives or a worker ends. Reloads when the configuration changes and on
    /// SIGHUP. A second SIGTERM or SIGINT stops the gateway without waiting for requests in flight.
    ///
    /// # Errors
    /// If signals cannot be received, a worker ended, a second signal arrived, or the ledger's last commit failed.
    pub async fn run(self) -> Result<(), StartError> {
        let no_signals = |error: std::io::Error| StartError::Other(format!("no signal handling: {error}"));
        let mut signals = Signals::listen().map_err(no_signals)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(no_signals)?;
        let watch = tokio::spawn(watch(Arc::clone(self.control()), self.path.clone(), self.clock.clone()));
        let lost = loop {
            tokio::select! {
                () = signals.next() => break false,
                _ = hangup.recv() => { let _ = self.control().reload().await; } // `reload` logs its errors
                () = tokio::time::sleep(EVERY) => {
                    if self.workers.iter().any(JoinHandle::is_finished) {
                        break true;
                    }
                }
            }
        };
        watch.abort();
        tracing::info!("stopping: waiting for requests in flight");
        tokio::select! {
            result = self.stop() => result?,
            () = signals.next() => return Err(StartError::Other("second signal: stopped immediately".to_owned())),
        }
        if lost {
            return Err(StartError::Other("stopped because a worker thread ended".to_owned()));
        }
        tracing::info!("stopped");
        Ok(())
    }

    /// Stops accepting, waits for requests in flight, and writes the ledger.
    ///
    /// # Errors
    /// If the ledger's last commit failed.
    pub async fn stop(self) -> Result<(), StartError> {
        self.draining.store(true, Ordering::SeqCst);
        self.stop.cancel();
        let (workers, ledger) = (self.workers, self.plane.ledger);
        let (limits, directory) = (self.limits, self.plane.control.directory());
        let counters = self.plane.control.stats();
        let ended = tokio::task::spawn_blocking(move || {
            for worker in workers {
                if worker.join().is_err() {
                    tracing::error!("a worker thread panicked");
                }
            }
            limits.mark_all(&directory);
            ledger.close()
        });
        let closed = ended.await.map_err(|error| StartError::Other(error.to_string()))?;
        for task in self.background {
            task.abort();
        }
        tracing::info!(counters = %counters.to_json(), "served");
        Ok(closed?)
    }
}

/// The configured client addresses.
fn addresses(settings: &Settings) -> Vec<PublicAddress> {
    let plain = settings.listen.iter().map(|&address| PublicAddress { address, is_tls: false });
    plain.chain(settings.tls_listen.iter().map(|&address| PublicAddress { address, is_tls: true })).collect()
}

fn spawn_worker(number: usize, seed: WorkerSeed) -> Result<JoinHandle<()>, StartError> {
    let failed = |error: std::io::Error| StartError::Other(format!("a worker cannot start: {error}"));
    // A local runtime cannot be moved to another thread, so it is built on the worker's.
    let (started, starts) = std::sync::mpsc::sync_channel(1);
    let on_park = seed.spender.on_park();
    let run = move || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.on_thread_park(on_park);
        match builder.enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => {
                let _ = started.send(Ok(())); // the receiver is waiting
                runtime.block_on(gateway::run(seed));
            }
            Err(error) => drop(started.send(Err(error))),
        }
    };
    let name = format!("tollgate-worker-{number}");
    let thread = std::thread::Builder::new().name(name).spawn(run).map_err(failed)?;
    starts.recv().unwrap_or_else(|_| Err(std::io::Error::other("its thread ended"))).map_err(failed)?;
    Ok(thread)
}

/// Restores the limit states of client addresses. The control plane restores those of keys and accounts.
fn restored_limits(reader: &mut dyn BooksReader, clock: &Clock) -> Result<Limits, LedgerError> {
    let limits = Limits::default();
    let (now, wall) = (clock.now(), clock.wall());
    reader.each_limit(&mut |owner, states, saved| {
        if let Some(Owner::Address(address)) = Owner::from_bytes(owner) {
            limits.restore(address, Meter::read(states, elapsed(saved, wall), now));
        }
    })?;
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

/// Prunes meters of dropped keys periodically, so that they do not accumulate between reloads.
async fn prune_meters(control: Arc<Control>) {
    loop {
        tokio::time::sleep(PRUNE_EVERY).await;
        control.prune_meters();
    }
}

/// Reloads when the files change. An invalid file is reported once it no longer changes, so that a half-written file
/// is not reported.
async fn watch(control: Arc<Control>, path: PathBuf, clock: Clock) {
    let mut last = Look::default();
    let mut refused: Option<Refused> = None;
    loop {
        tokio::time::sleep(EVERY).await;
        let look = Look::at(&path, &control.watched().await);
        let settled = refused.is_none_or(|refused| refused.is_reported);
        if look == last && settled && !look.is_fresh(clock.wall().0) {
            continue;
        }
        last = look;
        refused = control.refresh(refused).await;
    }
}
