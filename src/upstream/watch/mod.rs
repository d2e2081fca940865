//! Watches the servers of all upstreams in one thread of its own, so that workers only read what it finds: resolves their
//! names, checks their health, leaves out those that fail too often, and renews the budgets of retries.

mod checks;
mod names;
mod probe;
mod rates;

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::LocalRuntime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::checks::Checks;
use self::names::Names;
use self::rates::Rates;
use crate::clock::Clock;
use crate::servers::{Host, ServerGroup};
use crate::snapshot::SnapshotReader;
use crate::threads;

/// How often the watcher looks for what is due.
const EVERY: Duration = Duration::from_millis(100);
/// Longest time that a start waits for the first addresses.
const MAX_FIRST_WAIT: Duration = Duration::from_secs(5);

/// The thread that watches servers.
#[derive(Debug)]
pub struct Watcher {
    thread: Option<JoinHandle<()>>,
    stop: CancellationToken,
    /// True once each name was looked up.
    is_resolved: watch::Receiver<bool>,
}

impl Watcher {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the thread or its runtime cannot be started.
    pub fn start(view: SnapshotReader, clock: Clock) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let (resolved, is_resolved) = watch::channel(false);
        let stopped = stop.clone();
        let run = move |runtime: LocalRuntime| {
            runtime.block_on(stopped.run_until_cancelled(watch_servers(view, clock, resolved)));
            runtime.shutdown_background(); // a name may still be looked up
        };
        let thread = threads::start("tollgate-upstreams".to_owned(), |_| {}, run)?;
        Ok(Self { thread: Some(thread), stop, is_resolved })
    }

    /// Waits until each name was looked up, at most [`MAX_FIRST_WAIT`].
    pub async fn resolved(&self) {
        let mut is_resolved = self.is_resolved.clone();
        let _ = tokio::time::timeout(MAX_FIRST_WAIT, is_resolved.wait_for(|resolved| *resolved)).await;
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it only ends early by a panic, which was reported
        }
    }
}

async fn watch_servers(view: SnapshotReader, clock: Clock, resolved: watch::Sender<bool>) {
    let (mut names, mut checks, mut rates) = (Names::new(clock.clone()), Checks::default(), Rates::default());
    let mut next_tick = clock.now();
    loop {
        let snapshot = view.load();
        names.look_up(&snapshot.upstreams).await;
        checks.start_due(&snapshot.upstreams, &clock);
        if clock.now() >= next_tick {
            next_tick = next_tick.plus(Duration::from_secs(1)).max(clock.now());
            rates.tick(&snapshot.upstreams, clock.now());
        }
        if !*resolved.borrow() && snapshot.upstreams.iter().all(|upstream| is_resolved(&upstream.servers)) {
            resolved.send_replace(true);
        }
        drop(snapshot);
        tokio::time::sleep(EVERY).await;
    }
}

fn is_resolved(servers: &ServerGroup) -> bool {
    servers.origins().iter().all(|status| {
        matches!(status.origin.host, Host::Address(_))
            || status.error.is_some()
            || !status.addresses.is_empty()
    })
}
