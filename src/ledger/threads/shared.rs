//! What all handles share with the ledger's threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use super::barrier::Barrier;
use super::handoff::Handoff;
use super::signal::Signal;
use crate::ledger::outbox::Outbox;
use crate::ledger::purse::Purses;

/// What all handles share with the ledger's threads.
#[derive(Debug)]
pub(in crate::ledger) struct Shared {
    /// One for each worker, then the books thread's own.
    pub(in crate::ledger) outboxes: Vec<Arc<Outbox>>,
    pub(super) commit_signal: Signal,
    pub(super) books_signal: Signal,
    pub(super) handoff: Handoff,
    pub(in crate::ledger) barrier: Barrier,
    /// How long a record may wait to be committed while nobody waits for it.
    pub(super) commit_delay: Duration,
    /// The last commit succeeded; otherwise no credits are held.
    pub(in crate::ledger) is_healthy: AtomicBool,
    pub(in crate::ledger) purses: Purses,
    pub(in crate::ledger) counters: Counters,
    /// The books thread must write everything and end.
    pub(in crate::ledger) books_must_end: AtomicBool,
    /// The commit thread must write everything and end.
    pub(in crate::ledger) commit_must_end: AtomicBool,
}

/// What the ledger counted since it was opened.
#[derive(Debug, Default)]
pub struct Counters {
    /// Batches committed.
    pub commits: AtomicU64,
    /// Bytes of records in them.
    pub bytes: AtomicU64,
    /// Commits that failed.
    pub failures: AtomicU64,
}

impl Shared {
    /// For so many workers.
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
            counters: Counters::default(),
            books_must_end: AtomicBool::new(false),
            commit_must_end: AtomicBool::new(false),
        }
    }

    /// A worker left a record that nobody waits for yet.
    pub(in crate::ledger) fn record_added(&self) {
        self.commit_signal.work_added();
    }

    /// A worker has nothing to do until a record is committed.
    pub(in crate::ledger) fn commit_wanted(&self) {
        self.commit_signal.work_wanted();
    }

    /// The books thread has a job.
    pub(in crate::ledger) fn job_added(&self) {
        self.books_signal.work_wanted();
    }
}
