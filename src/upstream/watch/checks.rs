//! Schedules the health checks of all servers.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use std::cell::Cell;

use super::probe::probe;
use crate::clock::Clock;
use crate::policy::upstream::health::{Health, HealthCheck};
use crate::servers::Server;
use crate::snapshot::Upstream;
use crate::types::Moment;

/// The health checks of all servers; at most one of each server runs.
#[derive(Debug, Default)]
pub(super) struct Checks(HashMap<u64, Rc<Checked>>);

/// What is known about a server that is checked.
#[derive(Debug)]
struct Checked {
    health: Cell<Health>,
    /// When the next check starts; `None` while one runs.
    due: Cell<Option<Moment>>,
}

impl Checks {
    /// Starts the checks that are due.
    pub(super) fn start_due(&mut self, upstreams: &[Arc<Upstream>], clock: &Clock) {
        let mut listed = HashMap::new();
        for upstream in upstreams {
            for (server, _) in upstream.servers.servers() {
                let known = self.0.remove(&server.num);
                let Some(check) = &upstream.health else {
                    if known.is_some_and(|known| known.health.get().is_down) {
                        server.set_down(false, clock.now()); // it is no longer checked
                    }
                    continue;
                };
                let checked = known.unwrap_or_else(|| Rc::new(Checked::new(clock.now())));
                listed.insert(server.num, Rc::clone(&checked));
                if checked.due.get().is_some_and(|due| clock.now() >= due) {
                    checked.due.set(None);
                    let (upstream, check, clock) = (Arc::clone(upstream), check.clone(), clock.clone());
                    tokio::task::spawn_local(run(upstream, server, check, checked, clock));
                }
            }
        }
        self.0 = listed; // servers that are no longer listed are forgotten
    }
}

impl Checked {
    fn new(now: Moment) -> Self {
        Self { health: Cell::default(), due: Cell::new(Some(now)) }
    }
}

/// Checks a server once.
async fn run(
    upstream: Arc<Upstream>,
    server: Arc<Server>,
    check: HealthCheck,
    checked: Rc<Checked>,
    clock: Clock,
) {
    let started = clock.now();
    let result = probe(&upstream, &server, &check).await;
    if Rc::strong_count(&checked) == 1 {
        return; // the server is no longer checked
    }
    checked.due.set(Some(started.plus(check.interval)));
    let mut health = checked.health.get();
    let has_changed = health.note(result.is_ok(), &check);
    checked.health.set(health);
    if let Err(cause) = &result {
        server.check_failed(clock.wall(), cause.clone());
    }
    if !has_changed {
        return;
    }
    server.set_down(health.is_down, clock.now());
    let (upstream, server) = (&upstream.name, &server.name);
    match result {
        Ok(()) => tracing::info!(upstream, server, "a server is up"),
        Err(cause) => tracing::warn!(upstream, server, cause, "a server is down"),
    }
}
