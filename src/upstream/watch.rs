//! Watches the servers of all upstreams in one thread of its own, so that workers only read what it finds: resolves their
//! names again and again, and renews the budgets of retries.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::servers::{Host, MAX_ADDRESSES, ServerGroup};
use crate::snapshot::{SnapshotReader, Upstream};
use crate::types::Moment;

/// How often the watcher looks for what is due.
const EVERY: Duration = Duration::from_millis(100);
/// After how long a name that could not be resolved is tried again, at most.
const RETRY_AFTER: Duration = Duration::from_secs(5);
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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stopped = stop.clone();
        let run = move || {
            let names = Names { due: HashMap::new(), clock: clock.clone() };
            runtime.block_on(stopped.run_until_cancelled(run(view, clock, names, resolved)));
            runtime.shutdown_background(); // a name may still be looked up
        };
        let thread = std::thread::Builder::new().name("tollgate-upstreams".to_owned()).spawn(run)?;
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

async fn run(view: SnapshotReader, clock: Clock, mut names: Names, resolved: watch::Sender<bool>) {
    let mut next_tick = clock.now();
    loop {
        let snapshot = view.load();
        names.look_up(&snapshot.upstreams).await;
        if clock.now() >= next_tick {
            next_tick = next_tick.plus(Duration::from_secs(1)).max(clock.now());
            for upstream in &snapshot.upstreams {
                upstream.servers.budget().tick(upstream.servers.started(), upstream.retries.budget);
            }
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

/// When the names of all upstreams are resolved next.
struct Names {
    due: HashMap<(String, String), Lookup>,
    clock: Clock,
}

enum Lookup {
    /// At this moment.
    Due(Moment),
    /// It is being looked up.
    Running(tokio::task::JoinHandle<Result<Vec<SocketAddr>, String>>),
}

impl Names {
    /// Starts the lookups that are due, and takes the results of those that ended.
    async fn look_up(&mut self, upstreams: &[Arc<Upstream>]) {
        let mut listed = Vec::new();
        for upstream in upstreams {
            for name in upstream.servers.names() {
                let id = (upstream.name.clone(), name);
                let before = self.due.remove(&id);
                let next = self.next(upstream, &id.1, before).await;
                listed.push((id, next));
            }
        }
        self.due = listed.into_iter().collect(); // names that are no longer listed are forgotten
    }

    async fn next(&self, upstream: &Upstream, name: &str, before: Option<Lookup>) -> Lookup {
        match before {
            Some(Lookup::Due(due)) if self.clock.now() < due => Lookup::Due(due),
            Some(Lookup::Running(task)) if !task.is_finished() => Lookup::Running(task),
            Some(Lookup::Running(task)) => {
                let found = task.await.unwrap_or_else(|error| Err(error.to_string())); // it has ended
                let wait = match &found {
                    Ok(found) if !found.is_empty() => upstream.resolve_every,
                    _ => upstream.resolve_every.min(RETRY_AFTER),
                };
                note(upstream, name, &found);
                Lookup::Due(self.clock.now().plus(wait))
            }
            None | Some(Lookup::Due(_)) => Lookup::Running(tokio::spawn(resolve(name.to_owned()))),
        }
    }
}

/// Passes the result of a lookup to the upstream's servers, and logs what is new.
fn note(upstream: &Upstream, name: &str, found: &Result<Vec<SocketAddr>, String>) {
    let result = found.as_ref().map(Vec::as_slice).map_err(String::as_str);
    if !upstream.servers.resolved(name, result) {
        return;
    }
    let upstream = &upstream.name;
    match found {
        Ok(found) if !found.is_empty() => {
            tracing::info!(
                upstream,
                name,
                addresses = found.len().min(MAX_ADDRESSES),
                "addresses of servers changed"
            );
        }
        Ok(_) => {
            tracing::warn!(upstream, name, "a server's name has no address; the former ones stay in use")
        }
        Err(error) => {
            tracing::warn!(
                upstream,
                name,
                error,
                "a server's name cannot be resolved; its addresses stay in use"
            );
        }
    }
}

/// Looks a name up as other programs of the system do (`getaddrinfo`).
async fn resolve(name: String) -> Result<Vec<SocketAddr>, String> {
    match tokio::net::lookup_host((name, 0)).await {
        Ok(found) => Ok(found.collect()),
        Err(error) => Err(error.to_string()),
    }
}
