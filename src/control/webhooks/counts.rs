//! Counts attempts to deliver webhooks, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::ledger::store::AfterAttempt;

/// Attempts since the start, by what became of them.
#[derive(Debug, Default)]
pub(in crate::control) struct DeliveryCounts([AtomicU64; RESULTS.len()]);

const RESULTS: [&str; 4] = ["delivered", "failed", "given_up", "disabled"];

impl DeliveryCounts {
    /// Counts an attempt. Returns the name of what became of it.
    pub(super) fn count(&self, then: &AfterAttempt) -> &'static str {
        let index = match then {
            AfterAttempt::Delivered => 0,
            AfterAttempt::Retry(_) => 1,
            AfterAttempt::GiveUp => 2,
            AfterAttempt::Disable => 3,
        };
        self.0[index].fetch_add(1, Ordering::Relaxed);
        RESULTS[index]
    }

    /// The counts, each with its name.
    pub(in crate::control) fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> {
        RESULTS.into_iter().zip(self.0.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}
