//! Counters of the whole process.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

/// What the gateway counted since it started.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections that are open.
    pub connections: AtomicU64,
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
    /// Configurations that were put in force after the first one.
    pub reloads: AtomicU64,
    /// Configurations that were refused.
    pub reloads_refused: AtomicU64,
}

impl Stats {
    /// All counters, for `tollgate status`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "connections": read(&self.connections),
            "requests": read(&self.requests),
            "refused": read(&self.refused),
            "charges_capped": read(&self.capped),
            "charges_unreadable": read(&self.unreadable),
            "abandoned_by_client": read(&self.abandoned),
            "reloads": read(&self.reloads),
            "reloads_refused": read(&self.reloads_refused),
        })
    }
}
