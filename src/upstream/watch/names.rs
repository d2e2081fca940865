//! Resolves the host names of servers again and again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::servers::MAX_ADDRESSES;
use crate::snapshot::Upstream;
use crate::types::Moment;

/// After how long a name that could not be resolved is tried again, at most.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// When the names of all upstreams are resolved next.
#[derive(Debug)]
pub(super) struct Names {
    due: HashMap<(String, String), Lookup>,
    clock: Clock,
}

#[derive(Debug)]
enum Lookup {
    /// At this moment.
    Due(Moment),
    /// It is being looked up.
    Running(tokio::task::JoinHandle<Result<Vec<SocketAddr>, String>>),
}

impl Names {
    pub(super) fn new(clock: Clock) -> Self {
        Self { due: HashMap::new(), clock }
    }

    /// Starts the lookups that are due, and takes the results of those that ended.
    pub(super) async fn look_up(&mut self, upstreams: &[Arc<Upstream>]) {
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
            tracing::warn!(upstream, name, "a server's name has no address; the former ones stay in use");
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
