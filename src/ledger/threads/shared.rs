//! Defines the state that all handles share with the ledger's threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use super::barrier::Barrier;
use super::handoff::Handoff;
use super::signal::Signal;
use crate::ledger::adoption::Successor;
use crate::ledger::outbox::Outbox;
use crate::ledger::purse::{Purses, SpendCaps};
use crate::types::{Histogram, SHORT, SIZES};

/// The state that all handles share with the ledger's threads.
#[derive(Debug)]
pub(in crate::ledger) struct Shared {
    /// One outbox for each worker, then that of the books thread.
    pub(in crate::ledger) outboxes: Vec<Arc<Outbox>>,
    pub(super) commit_signal: Signal,
    pub(super) books_signal: Signal,
    pub(super) handoff: Handoff,
    pub(in crate::ledger) barrier: Barrier,
    /// Longest time that a record waits for its commit while no task waits for it.
    pub(super) commit_delay: Duration,
    /// True if the last commit succeeded. Otherwise no credits are held.
    pub(in crate::ledger) is_healthy: AtomicBool,
    pub(in crate::ledger) purses: Purses,
    pub(in crate::ledger) caps: SpendCaps,
    pub(in crate::ledger) counters: Counters,
    /// Where settlements go once the ledger was handed over to another process.
    pub(in crate::ledger) successor: Successor,
    /// True if the books thread must write everything and end.
    pub(in crate::ledger) books_must_end: AtomicBool,
    /// True if the commit thread must write everything and end.
    pub(in crate::ledger) commit_must_end: AtomicBool,
}

/// Counters since the ledger was opened.
#[derive(Debug)]
pub struct Counters {
    /// Number of batches committed.
    pub commits: AtomicU64,
    /// Bytes of records in the committed batches.
    pub bytes: AtomicU64,
    /// Number of failed commits.
    pub failures: AtomicU64,
    /// How long commits took.
    pub commit_times: Histogram,
    /// Number of records in the committed batches.
    pub batch_sizes: Histogram,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            commits: AtomicU64::default(),
            bytes: AtomicU64::default(),
            failures: AtomicU64::default(),
            commit_times: Histogram::new(SHORT),
            batch_sizes: Histogram::new(SIZES),
        }
    }
}

impl Shared {
    /// Creates the state for this many workers.
    pub(in crate::ledger) fn new(workers: usize, commit_delay: Duration) -> Self {
        Self {
            outboxes: (0..=workers).map(|_| Arc::default()).collect(),
            commit_signal: Signal::new(),
            books_signal: Signal::new(),
            handoff: Handoff::default(),
            barrier: Barrier::default(),
            commit_delay,
            is_healthy: AtomicBool::new(true),
            purses: Purses::default(),
            caps: SpendCaps::default(),
            counters: Counters::default(),
            successor: Successor::default(),
            books_must_end: AtomicBool::new(false),
            commit_must_end: AtomicBool::new(false),
        }
    }

    /// Notifies the commit thread that a record was added which no task waits for yet.
    pub(in crate::ledger) fn record_added(&self) {
        self.commit_signal.work_added();
    }

    /// Requests a commit immediately: a worker has nothing else to do until a record is committed.
    pub(in crate::ledger) fn commit_wanted(&self) {
        self.commit_signal.work_wanted();
    }

    /// Wakes the books thread, which has a job.
    pub(in crate::ledger) fn job_added(&self) {
        self.books_signal.work_wanted();
    }
}
