//! Counts usage on the workers, without a lock for each request, and passes the counts to the ledger.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::policy::outcome::usage::{RefusedRequest, UsageCount, UsageKey, UsagePart};
use crate::types::{NumberMap, WallTime};

/// How often a worker passes its counts on.
pub const PASSED_EVERY: Duration = Duration::from_secs(1);
/// Most keys that a worker counts before it passes its counts on.
const MAX_KEYS: usize = 16_384;
/// Most refusals that a worker keeps before it passes them on. Further ones are counted, but not listed.
const MAX_REFUSALS: usize = 1_024;
/// Most parts that wait for the ledger. When there are more, the newest are dropped and counted.
const MAX_PARTS: usize = 1_024;

/// The counts of all workers that wait for the ledger.
#[derive(Debug, Default)]
pub struct Usage {
    parts: Mutex<Vec<UsagePart>>,
    dropped: AtomicU64,
}

impl Usage {
    /// Takes all counts that were passed on.
    #[must_use]
    pub fn take(&self) -> Vec<UsagePart> {
        std::mem::take(&mut self.parts.lock())
    }

    /// Number of parts that were dropped, because the ledger did not take them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn pass(&self, part: UsagePart) {
        let mut parts = self.parts.lock();
        if parts.len() >= MAX_PARTS {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        parts.push(part);
    }
}

/// The counts of one worker.
#[derive(Debug)]
pub struct UsageLane {
    shared: Arc<Usage>,
    own: RefCell<Own>,
}

#[derive(Debug, Default)]
struct Own {
    counts: NumberMap<UsageKey, UsageCount>,
    refusals: Vec<RefusedRequest>,
}

impl UsageLane {
    /// A worker that has counted nothing.
    #[must_use]
    pub fn new(shared: Arc<Usage>) -> Self {
        Self { shared, own: RefCell::default() }
    }

    /// Counts a request. `held`: it held credits, so that the ledger counts it. `at`: the time now.
    pub fn count(
        &self,
        key: UsageKey,
        held: bool,
        bytes: (u64, u64),
        duration: Duration,
        refusal: Option<RefusedRequest>,
        at: impl FnOnce() -> WallTime,
    ) {
        let mut own = self.own.borrow_mut();
        own.counts.entry(key).or_default().add(held, bytes.0, bytes.1, duration);
        if let Some(refusal) = refusal.filter(|_| own.refusals.len() < MAX_REFUSALS) {
            own.refusals.push(refusal);
        }
        if own.counts.len() >= MAX_KEYS {
            drop(own);
            self.pass(at());
        }
    }

    /// Passes the counts on.
    pub fn pass(&self, at: WallTime) {
        let mut own = self.own.borrow_mut();
        if own.counts.is_empty() {
            return;
        }
        let counts = own.counts.drain().collect();
        self.shared.pass(UsagePart { at, counts, refusals: std::mem::take(&mut own.refusals) });
    }
}
