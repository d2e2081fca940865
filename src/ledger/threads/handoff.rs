//! Passes committed batches from the commit thread to the books thread, and the number of the last folded batch back.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::types::WallTime;

/// Most bytes of batches that wait for the books thread. Above it, commits fail, as they do when the journal is full:
/// the ledger's file cannot be written.
pub(super) const MAX_WAITING: usize = if cfg!(test) { 64 * 1024 } else { 128 * 1024 * 1024 };

/// Bytes of waiting batches from which on the books thread is woken to fold early: about 60,000 requests.
const FOLD_AT: usize = if cfg!(test) { MAX_WAITING / 2 } else { 4 * 1024 * 1024 };

/// Number of waiting batches from which on it is woken too. Each batch takes at least one block of the journal, so
/// these are at least 32 MiB of it.
const FOLD_AT_BATCHES: usize = 8_192;

/// Batches that are on disk and not folded yet, in order.
#[derive(Debug, Default)]
pub(super) struct Batches {
    /// Of each batch: its number, its time, and the end of its records in `records`.
    list: Vec<(u64, WallTime, usize)>,
    records: Vec<u8>,
}

impl Batches {
    fn must_be_folded(&self) -> bool {
        self.records.len() >= FOLD_AT || self.list.len() >= FOLD_AT_BATCHES
    }

    /// Calls `each` with the number, time and records of every batch, and removes the batches.
    pub(super) fn drain(&mut self, mut each: impl FnMut(u64, WallTime, &[u8])) {
        let mut start = 0;
        for (seq, at, end) in self.list.drain(..) {
            each(seq, at, &self.records[start..end]);
            start = end;
        }
        self.records.clear();
    }
}

/// The data that the two threads exchange.
#[derive(Debug, Default)]
pub(super) struct Handoff {
    batches: Mutex<Batches>,
    /// The last batch that is folded.
    folded: AtomicU64,
}

impl Handoff {
    /// Passes a committed batch to the books thread. Returns true if so much waits that it must fold early.
    pub(super) fn push(&self, seq: u64, at: WallTime, records: &[u8]) -> bool {
        let mut batches = self.batches.lock();
        batches.records.extend_from_slice(records);
        let end = batches.records.len();
        batches.list.push((seq, at, end));
        batches.must_be_folded()
    }

    /// True if so much waits that the books thread must fold early.
    pub(super) fn must_fold(&self) -> bool {
        self.batches.lock().must_be_folded()
    }

    /// Bytes of batches that wait for the books thread.
    pub(super) fn waiting(&self) -> usize {
        self.batches.lock().records.len()
    }

    /// Takes every batch, in exchange for an empty list.
    pub(super) fn take(&self, into: &mut Batches) {
        std::mem::swap(&mut *self.batches.lock(), into);
    }

    /// Tells the commit thread that every batch up to this one is folded, so that the journal need not keep them.
    pub(super) fn set_folded(&self, upto: u64) {
        self.folded.store(upto, Ordering::SeqCst);
    }

    pub(super) fn folded(&self) -> u64 {
        self.folded.load(Ordering::SeqCst)
    }
}
