//! Bounds what reading pages of the dashboard takes from requests: of the cores, and of the ledger's time.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::types::Moment;

/// Pages that are read at the same time.
const AT_ONCE: usize = 2;
/// Longest time that a page waits for others.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// How often the ledger folds for pages at most, and at least.
const AGE: Duration = Duration::from_secs(1);
const MAX_AGE: Duration = Duration::from_secs(10);
/// How many times as long as it took it folds for no page.
const PAUSE: u32 = 100;

/// The places of pages that are read, and when the ledger folds for the next one.
#[derive(Debug)]
pub(super) struct PageReads {
    places: Arc<Semaphore>,
    fold_at: Mutex<Moment>,
}

impl Default for PageReads {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)), fold_at: Mutex::default() }
    }
}

impl PageReads {
    /// A place, which is free again once it is dropped. `None` if none becomes free in time.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        tokio::time::timeout(MAX_WAIT, Arc::clone(&self.places).acquire_owned()).await.ok()?.ok()
    }

    /// True if the ledger folds for a page now: then [`PageReads::folded`] follows.
    pub(super) fn folds(&self, now: Moment) -> bool {
        let mut fold_at = self.fold_at.lock();
        let is_due = now >= *fold_at;
        if is_due {
            *fold_at = now.plus(AGE);
        }
        is_due
    }

    /// The ledger has folded for a page.
    pub(super) fn folded(&self, started: Moment, ended: Moment) {
        let pause = (ended.since(started) * PAUSE).clamp(AGE, MAX_AGE);
        *self.fold_at.lock() = ended.plus(pause);
    }
}
