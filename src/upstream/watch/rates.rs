//! What is computed once a second from the counters of servers: rates of failures, and the budgets of retries.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::servers::{Server, ServerState};
use crate::snapshot::Upstream;
use crate::types::Moment;

/// How many seconds of requests and failures count.
const WINDOW: usize = 10;

/// The counters of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Rates {
    /// Requests and failures of each server at the last ticks, the oldest first.
    counts: HashMap<u64, VecDeque<(u64, u64)>>,
    /// The upstreams without an available server.
    in_panic: HashSet<String>,
}

impl Rates {
    /// Leaves out servers whose rate of failures is too high, and renews the budgets of retries.
    pub(super) fn tick(&mut self, upstreams: &[Arc<Upstream>], now: Moment) {
        let mut counts = HashMap::new();
        let mut in_panic = HashSet::new();
        for upstream in upstreams {
            let group = &upstream.servers;
            group.budget().tick(group.started(), upstream.retries.budget);
            let servers = group.servers();
            for (server, _) in &servers {
                let mut recent = self.counts.remove(&server.num).unwrap_or_default();
                if is_rate_exceeded(upstream, server, &mut recent)
                    && group.eject(server, &upstream.ejection, now)
                {
                    recent.clear();
                    let (upstream, server) = (&upstream.name, &server.name);
                    tracing::warn!(upstream, server, "a server is left out: too many requests to it failed");
                }
                counts.insert(server.num, recent);
            }
            let is_available = |server: &Server| matches!(server.state(now), ServerState::Up(_));
            if !servers.is_empty() && !servers.iter().any(|(server, _)| is_available(server)) {
                in_panic.insert(upstream.name.clone());
            }
        }
        for upstream in in_panic.difference(&self.in_panic) {
            tracing::warn!(upstream, "no server is available; all of them are tried");
        }
        for upstream in self.in_panic.difference(&in_panic) {
            tracing::info!(upstream, "a server is available again");
        }
        (self.counts, self.in_panic) = (counts, in_panic); // servers that are no longer listed are forgotten
    }
}

fn is_rate_exceeded(upstream: &Upstream, server: &Server, recent: &mut VecDeque<(u64, u64)>) -> bool {
    let counts = (server.started(), server.failures());
    let first = recent.front().copied().unwrap_or(counts);
    if recent.len() >= WINDOW {
        recent.pop_front();
    }
    recent.push_back(counts);
    let (requests, failed) = (counts.0.saturating_sub(first.0), counts.1.saturating_sub(first.1));
    upstream.ejection.is_rate_exceeded(requests, failed)
}
