//! Counters of the whole process.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};

/// What the gateway counted since it started.
#[derive(Debug, Default)]
pub struct Stats {
    /// One for each worker.
    lanes: Mutex<Vec<Arc<Lane>>>,
    /// Configurations that were put in force after the first one.
    pub reloads: AtomicU64,
    /// Configurations that were refused.
    pub reloads_refused: AtomicU64,
}

/// What one worker counts. On cache lines of its own (adjacent ones are fetched in pairs), so that
/// counting never waits for another core.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Lane {
    /// Connections that are open; a tunnel may end on another thread than it began.
    pub connections: AtomicI64,
    /// Connections that were closed at once, since their client's address had its share.
    pub crowded_out: AtomicU64,
    /// Requests that were read.
    pub requests: AtomicU64,
    /// Requests that were refused.
    pub refused: AtomicU64,
    /// Charges that the upstream wanted higher than the hold.
    pub capped: AtomicU64,
    /// Charges that could not be read, so that the hold was charged.
    pub unreadable: AtomicU64,
    /// Answers whose client had gone before they began.
    pub abandoned: AtomicU64,
}

impl Stats {
    /// The counters of one more worker.
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
        json!({
            "connections": lanes.iter().map(|lane| lane.connections.load(Ordering::Relaxed)).sum::<i64>(),
            "connections_crowded_out": sum(|lane| &lane.crowded_out),
            "requests": sum(|lane| &lane.requests),
            "refused": sum(|lane| &lane.refused),
            "charges_capped": sum(|lane| &lane.capped),
            "charges_unreadable": sum(|lane| &lane.unreadable),
            "abandoned_by_client": sum(|lane| &lane.abandoned),
            "reloads": self.reloads.load(Ordering::Relaxed),
            "reloads_refused": self.reloads_refused.load(Ordering::Relaxed),
        })
    }
}
