//! Counts requests, connections, charges and reloads of the whole process.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::policy::outcome::Outcome;

/// Counters since the gateway started.
#[derive(Debug, Default)]
pub struct Stats {
    /// The counters of each worker.
    lanes: Mutex<Vec<Arc<Lane>>>,
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
    /// Responses whose client had disconnected before they began.
    pub abandoned: AtomicU64,
}

impl Stats {
    /// Adds counters for one more worker.
    #[must_use]
    pub fn lane(&self) -> Arc<Lane> {
        let lane = Arc::new(Lane::default());
        self.lanes.lock().push(Arc::clone(&lane));
        lane
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
