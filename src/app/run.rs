//! A running gateway until it stops, or passes its work to another process.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::background::watch;
use super::error::StartError;
use super::handover::{MAX_TAKEOVERS, Takeover};
use super::{App, service};
use crate::config::reload::EVERY;
use crate::control::Control;
use crate::control::operations::Caller;
use crate::control::socket::ControlSocket;
use crate::gateway::PassedSocket;
use crate::ledger::PassedOn;
use crate::limit_store::StoreThread;

/// Longest time in which a process that is to take over connects.
const MAX_CONNECT: Duration = Duration::from_secs(60);

/// Why a gateway ends.
enum End {
    /// A signal arrived.
    Stop,
    /// A worker thread ended.
    LostWorker,
    /// Another process takes over.
    HandOver(Takeover),
}

impl App {
    /// Serves until SIGTERM or SIGINT arrives, a worker ends, or another process takes over. Reloads when the
    /// configuration changes and on SIGHUP; SIGUSR2 starts the program's current file, which takes over. A second
    /// SIGTERM or SIGINT stops the gateway without waiting for requests in flight.
    ///
    /// # Errors
    /// If a worker ended, a second signal arrived, the ledger's last commit failed, or no process could take over.
    pub async fn run(mut self) -> Result<(), StartError> {
        let Some(mut signals) = self.signals.take() else { return Err(other("the gateway runs already")) };
        let watch = tokio::spawn(watch(Arc::clone(self.control()), self.path.clone(), self.clock.clone()));
        service::ready();
        let end = loop {
            tokio::select! {
                () = signals.stop.next() => break End::Stop,
                _ = signals.hangup.recv() => {
                    service::reloading();
                    let _ = self.control().reload(&Caller::signal()).await; // it logs its errors
                    service::ready();
                }
                _ = signals.upgrade.recv() => match &signals.program {
                    Ok(program) => start_successor(program, &self.path),
                    Err(error) => tracing::error!(%error, "the program's file is unknown; this process goes on"),
                },
                Some(stream) = self.takeovers.recv() => match self.offer(stream).await {
                    Ok(takeover) => break End::HandOver(takeover),
                    Err(error) => tracing::error!(%error, "a process could not take over; this one goes on"),
                },
                () = tokio::time::sleep(EVERY) => {
                    if self.workers.iter().any(JoinHandle::is_finished) {
                        break End::LostWorker;
                    }
                    if service::watchdog().is_some() {
                        service::alive();
                    }
                }
            }
        };
        watch.abort();
        let is_lost = matches!(end, End::LostWorker);
        let is_handed_over = matches!(end, End::HandOver(_));
        let ending = async {
            match end {
                End::HandOver(takeover) => self.hand_over(takeover).await,
                End::Stop | End::LostWorker => {
                    service::stopping();
                    tracing::info!("stopping: waiting for requests in flight");
                    self.stop().await
                }
            }
        };
        tokio::select! {
            result = ending => result?,
            () = signals.stop.next_but(usize::from(is_handed_over)) => {
                return Err(StartError::Other("second signal: stopped immediately".to_owned()));
            }
        }
        if is_lost {
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
        drop(self.listening); // with the workers' own ones, so that connections are refused
        let (workers, ledger) = (self.workers, self.plane.ledger);
        let (limits, directory) = (self.limits, self.plane.control.directory());
        let counters = self.plane.control.stats();
        let longest = self.plane.control.view().load().settings.stream_drain_timeout;
        let store_thread = self.store_thread;
        let ended = spawn_blocking(move || {
            join(workers);
            store_thread.into_iter().for_each(StoreThread::end);
        });
        ended.await.map_err(other)?;
        if let Some(succession) = self.succession {
            let _ = tokio::time::timeout(longest, succession).await; // what is left is in doubt at the next start
        }
        for task in self.background.into_iter().chain([self.control_socket]) {
            task.abort();
            let _ = task.await; // its sockets are closed before another process gets the ledger
        }
        let ended = spawn_blocking(move || {
            limits.mark_all(&directory);
            ledger.close()
        });
        let closed = ended.await.map_err(|error| StartError::Other(error.to_string()))?;
        self.plane.control.export_last_traces().await;
        tracing::info!(counters = %counters.to_json(), "served");
        Ok(closed?)
    }

    /// Offers the sockets to a process that wants to take over. Nothing has changed if it is not ready in time.
    async fn offer(&self, stream: UnixStream) -> std::io::Result<Takeover> {
        if self.succession.as_ref().is_some_and(|succession| !succession.is_finished()) {
            return Err(std::io::Error::other("the process before this one has not ended yet"));
        }
        let listening: Result<Vec<PassedSocket>, _> =
            self.listening.iter().map(PassedSocket::try_clone).collect();
        let listening = listening?;
        spawn_blocking(move || Takeover::offer(stream, &listening)).await.map_err(std::io::Error::other)?
    }

    /// Passes the gateway to another process, and finishes the requests in flight.
    async fn hand_over(self, takeover: Takeover) -> Result<(), StartError> {
        tracing::info!("another process takes over: waiting for requests in flight");
        self.draining.store(true, Ordering::SeqCst);
        self.stop.cancel();
        let workers = u32::try_from(self.workers.len()).unwrap_or(u32::MAX);
        let _ = self.wound_down.acquire_many(workers).await; // never closed
        for task in self.background.into_iter().chain([self.control_socket]) {
            task.abort();
            let _ = task.await; // its sockets are closed when this returns
        }
        self.limits.mark_all(&self.plane.control.directory());
        let ledger = self.plane.ledger;
        let settlements: mpsc::Receiver<PassedOn> =
            spawn_blocking(move || ledger.hand_over()).await.map_err(other)??;
        let takeover = match spawn_blocking(move || takeover.release()).await.map_err(other)? {
            Ok(takeover) => {
                drop(self.listening); // the other process has them
                takeover
            }
            Err(error) => {
                tracing::error!(%error, "the process that took over failed; starting this program again");
                bring_back(&self.path, &self.plane.control, self.listening).await?
            }
        };
        let ended = CancellationToken::new();
        let relay = tokio::spawn(takeover.relay(settlements, ended.clone()));
        let (all, store_thread) = (self.workers, self.store_thread);
        let all_ended = spawn_blocking(move || {
            join(all);
            store_thread.into_iter().for_each(StoreThread::end);
        });
        all_ended.await.map_err(other)?;
        ended.cancel();
        if let Err(error) = relay.await.map_err(other)? {
            tracing::error!(%error, "charges could not be passed on; `tollgate ledger in-doubt` lists them");
        }
        Ok(())
    }
}

fn other(error: impl std::fmt::Display) -> StartError {
    StartError::Other(error.to_string())
}

fn join(workers: Vec<JoinHandle<()>>) {
    for worker in workers {
        if worker.join().is_err() {
            tracing::error!("a worker thread panicked");
        }
    }
}

/// Starts a program that is to take over. If it fails, this process goes on.
fn start_successor(program: &Path, config: &Path) {
    tracing::info!(program = %program.display(), "starting a process that takes over");
    let mut command = Command::new(program);
    // These are about this process.
    for variable in ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        command.env_remove(variable);
    }
    match command.args(["serve", "--upgrade", "--config"]).arg(config).spawn() {
        Err(error) => tracing::error!(%error, "the program cannot be started; this process goes on"),
        Ok(mut child) => {
            std::thread::spawn(move || match child.wait() {
                Ok(status) => tracing::error!(%status, "the process that was to take over has ended"),
                Err(error) => tracing::error!(%error, "the process that was to take over is unknown"),
            });
        }
    }
}

/// Starts the program that this process runs again, after another one has failed to take over.
async fn bring_back(
    path: &Path,
    control: &Arc<Control>,
    listening: Vec<PassedSocket>,
) -> Result<Takeover, StartError> {
    let (sender, mut takeovers) = mpsc::channel(MAX_TAKEOVERS);
    let serving = tokio::spawn(ControlSocket::bind(path)?.serve(Arc::clone(control), sender));
    start_successor(Path::new("/proc/self/exe"), path); // this program, even if its file was replaced
    let stream = tokio::time::timeout(MAX_CONNECT, takeovers.recv()).await;
    serving.abort();
    let _ = serving.await; // its socket is removed when this returns
    let Ok(Some(stream)) = stream else {
        return Err(other("the gateway has ended: no process could take over"));
    };
    let passed = spawn_blocking(move || Takeover::offer(stream, &listening).and_then(Takeover::release));
    passed.await.map_err(other)?.map_err(|error| other(format!("the gateway has ended: {error}")))
}
