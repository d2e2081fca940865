//! What is computed once a second from the counters of servers: rates of failures, and the budgets of retries.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::snapshot::Upstream;
use crate::types::Moment;

/// How many seconds of requests and failures count.
const WINDOW: usize = 10;

/// The counters of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Rates {
    servers: HashMap<u64, Window>,
    /// The upstreams without an available server.
    in_panic: HashSet<String>,
}

/// Counters of a server. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    requests: u64,
    failures: u64,
}

/// The counters of a server at the last ticks, the oldest first.
#[derive(Debug, Default)]
struct Window(VecDeque<Counts>);

impl Window {
    /// Adds the current counters. Returns what was counted within the window, and how many seconds long it is.
    fn tick(&mut self, counts: Counts) -> (Counts, u64) {
        let (first, seconds) = (self.0.front().copied().unwrap_or(counts), self.0.len());
        if seconds >= WINDOW {
            self.0.pop_front();
        }
        self.0.push_back(counts);
        let requests = counts.requests.saturating_sub(first.requests);
        let failures = counts.failures.saturating_sub(first.failures);
        (Counts { requests, failures }, seconds as u64)
    }
}

impl Rates {
    /// Leaves out servers whose rate of failures is too high, and renews the budgets of retries.
    pub(super) fn tick(&mut self, upstreams: &[Arc<Upstream>], now: Moment) {
        let mut servers = HashMap::new();
        let mut in_panic = HashSet::new();
        for upstream in upstreams {
            let group = &upstream.servers;
            let mut requests = 0;
            for (server, _) in group.servers() {
                let mut window = self.servers.remove(&server.num).unwrap_or_default();
                let counts = Counts { requests: server.started(), failures: server.failures() };
                let (recent, seconds) = window.tick(counts);
                requests += recent.requests / seconds.max(1);
                if upstream.ejection.is_rate_exceeded(recent.requests, recent.failures)
                    && group.eject(&server, &upstream.ejection, now)
                {
                    window = Window::default();
                    let (upstream, server) = (&upstream.name, &server.name);
                    tracing::warn!(upstream, server, "a server is left out: too many requests to it failed");
                }
                servers.insert(server.num, window);
            }
            group.budget().renew(requests, upstream.retries.budget);
            if group.is_in_panic(now) {
                in_panic.insert(upstream.name.clone());
            }
        }
        for upstream in in_panic.difference(&self.in_panic) {
            tracing::warn!(upstream, "no server is available; all of them are tried");
        }
        for upstream in self.in_panic.difference(&in_panic) {
            tracing::info!(upstream, "a server is available again");
        }
        (self.servers, self.in_panic) = (servers, in_panic); // servers that are no longer listed are forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_seconds_count() {
        let mut window = Window::default();
        let at = |second: u64| Counts { requests: 100 * second, failures: 3 * second };
        for second in 0..=30 {
            let seconds = second.min(WINDOW as u64);
            assert_eq!(window.tick(at(second)), (at(seconds), seconds), "second {second}");
        }
        for _ in 1..WINDOW {
            window.tick(at(30));
        }
        assert_eq!(window.tick(at(30)), (at(0), WINDOW as u64), "the requests are long ago");
    }
}
