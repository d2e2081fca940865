//! Counts requests, connections, charges and reloads of the whole process.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::WorkerTelemetry;
use super::decisions::Decisions;
use super::lines::{Dropped, Lines};
use super::routes::RouteMetrics;
use super::traces::Traces;
use super::usage::Usage;
use crate::policy::outcome::Outcome;

/// Counters since the gateway started.
#[derive(Debug, Default)]
pub struct Stats {
    /// The counters of each worker.
    lanes: Mutex<Vec<Arc<Lane>>>,
    /// The counters of routes.
    pub routes: Arc<RouteMetrics>,
    /// What was decided about the newest requests.
    pub decisions: Arc<Decisions>,
    /// Traced requests that wait to be exported.
    pub traces: Arc<Traces>,
    dropped: OnceLock<Dropped>,
    /// Number of configurations that were reloaded successfully.
    pub reloads: AtomicU64,
    /// Number of reloads that were refused.
    pub reloads_refused: AtomicU64,
}

/// Counters of one worker. They are on their own cache lines (of which processors fetch adjacent pairs), so that
/// counting never waits for another core.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Lane {
    /// Number of open connections. Signed, because a tunnel may end on another thread than it began.
    pub connections: AtomicI64,
    /// Connections closed immediately because their client address held its share of the connection slots.
    pub connections_over_share: AtomicU64,
    /// Requests whose head was read.
    pub requests: AtomicU64,
    /// Finished requests by outcome: see [`Outcome::index`].
    pub outcomes: [AtomicU64; Outcome::COUNT],
    /// Charges whose price exceeded the hold, so that the hold was charged.
    pub capped: AtomicU64,
    /// Charges whose price could not be read, so that the hold was charged.
    pub unreadable: AtomicU64,
    /// The worker's runtime, once it has started.
    pub runtime: OnceLock<Handle>,
    /// Number of requests in flight that hold credits.
    pub holds: AtomicI64,
    /// Responses whose client had disconnected before they began.
    pub abandoned: AtomicU64,
}

impl Stats {
    /// Adds counters for one more worker. Returns what it reports to.
    #[must_use]
    pub fn worker(&self, lines: Option<Lines>, usage: Arc<Usage>) -> WorkerTelemetry {
        if let Some(lines) = &lines {
            let _ = self.dropped.set(lines.dropped()); // the same for all workers
        }
        let stats = Arc::new(Lane::default());
        self.lanes.lock().push(Arc::clone(&stats));
        WorkerTelemetry {
            stats,
            lines,
            routes: Arc::clone(&self.routes),
            decisions: Arc::clone(&self.decisions),
            traces: Arc::clone(&self.traces),
            usage,
        }
    }

    /// Log lines that were dropped because the log was read too slowly.
    #[must_use]
    pub fn dropped_lines(&self) -> u64 {
        self.dropped.get().map_or(0, |dropped| dropped.lines() as u64)
    }

    /// The runtimes of the workers that have started.
    #[must_use]
    pub fn runtimes(&self) -> Vec<Handle> {
        self.lanes.lock().iter().filter_map(|lane| lane.runtime.get().cloned()).collect()
    }

    /// The sums of all workers' open connections, and of their requests that hold credits.
    #[must_use]
    pub fn gauges(&self) -> (i64, i64) {
        let lanes = self.lanes.lock();
        let sum = |gauge: fn(&Lane) -> &AtomicI64| {
            lanes.iter().map(|lane| gauge(lane).load(Ordering::Relaxed)).sum()
        };
        (sum(|lane| &lane.connections), sum(|lane| &lane.holds))
    }

    /// All counters, for `tollgate status`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let lanes = self.lanes.lock();
        let sum = |counter: fn(&Lane) -> &AtomicU64| {
            lanes.iter().map(|lane| counter(lane).load(Ordering::Relaxed)).sum::<u64>()
        };
        let outcomes = Outcome::all().map(|outcome| {
            let of_lane = |lane: &Arc<Lane>| lane.outcomes[outcome.index()].load(Ordering::Relaxed);
            (outcome, lanes.iter().map(of_lane).sum::<u64>())
        });
        let outcomes: Vec<(Outcome, u64)> = outcomes.filter(|(_, count)| *count > 0).collect();
        let refused = outcomes.iter().filter(|(outcome, _)| matches!(outcome, Outcome::Refused(_)));
        let refused: u64 = refused.map(|(_, count)| count).sum();
        let outcomes = outcomes.iter().map(|(outcome, count)| (outcome.code().to_owned(), (*count).into()));
        json!({
            "connections": lanes.iter().map(|lane| lane.connections.load(Ordering::Relaxed)).sum::<i64>(),
            "connections_over_share": sum(|lane| &lane.connections_over_share),
            "requests": sum(|lane| &lane.requests),
            "refused": refused,
            "outcomes": Value::Object(outcomes.collect()),
            "charges_capped": sum(|lane| &lane.capped),
            "charges_unreadable": sum(|lane| &lane.unreadable),
            "abandoned_by_client": sum(|lane| &lane.abandoned),
            "reloads": self.reloads.load(Ordering::Relaxed),
            "reloads_refused": self.reloads_refused.load(Ordering::Relaxed),
        })
    }
}
