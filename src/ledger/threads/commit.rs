//! Runs the commit thread: takes the records of all outboxes as one batch, and writes it to the journal.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::handoff::MAX_WAITING;
use super::shared::Shared;
use crate::clock::Clock;
use crate::ledger::record::Record;
use crate::ledger::store::{Journal, LedgerError, Result};
use crate::types::Moment;

/// Shortest time between the starts of two commits under load: a commit is expensive, a further record in it is cheap.
const COMMIT_GAP: Duration = Duration::from_millis(1);
/// Size of a batch in bytes from which on the ledger counts as under load.
const FULL_BATCH: usize = 1_000;
/// Longest time that a record waits for its commit if a task waits for the record. While all workers are busy, an
/// earlier commit would gain nothing, since the task could not run.
const BUSY_DELAY: Duration = Duration::from_millis(2);
/// Number of successive checks without a record, after which the thread sleeps until a record is added.
const EMPTY_LOOKS: u32 = 2;
/// Pause after a failed commit.
const RETRY: Duration = Duration::from_millis(250);
/// Longest sleep without records.
const MAX_SLEEP: Duration = Duration::from_secs(1);

pub(in crate::ledger) struct CommitThread {
    journal: Box<dyn Journal>,
    shared: Arc<Shared>,
    clock: Clock,
    /// The number of the next batch.
    next_seq: u64,
    /// Records that were taken from the outboxes and are not on disk. Empty unless a commit failed.
    pending: Vec<u8>,
    /// The number of the last batch taken from each outbox.
    batches: Vec<u64>,
    taken: Vec<Vec<u8>>,
    committed_at: Moment,
    /// Size of the last batch in bytes.
    committed_bytes: usize,
    /// The last batch that the journal was told is folded.
    reset_upto: u64,
    /// Number of checks since a record was last found.
    empty_looks: u32,
}

/// Marks the ledger as failed and closes the barrier when the thread ends, also by a panic, so that nothing waits for
/// it.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.is_healthy.store(false, Ordering::SeqCst);
        self.0.barrier.close();
    }
}

impl CommitThread {
    /// Creates the thread's state. `last_seq`: the number of the journal's last batch.
    pub(in crate::ledger) fn new(
        journal: Box<dyn Journal>,
        shared: Arc<Shared>,
        last_seq: u64,
        clock: Clock,
    ) -> Self {
        let outboxes = shared.outboxes.len();
        Self {
            journal,
            shared,
            next_seq: last_seq + 1,
            pending: Vec::new(),
            batches: vec![0; outboxes],
            taken: vec![Vec::new(); outboxes],
            committed_at: clock.now(),
            committed_bytes: 0,
            reset_upto: 0,
            empty_looks: 0,
            clock,
        }
    }

    /// Runs until the ledger is closed.
    ///
    /// # Errors
    /// If the last batch could not be written.
    pub(in crate::ledger) fn run(mut self) -> Result<()> {
        let _end = EndGuard(Arc::clone(&self.shared));
        self.shared.commit_signal.attach();
        loop {
            self.shared.commit_signal.take_urgent();
            let must_end = self.shared.commit_must_end.load(Ordering::SeqCst);
            self.commit();
            if must_end {
                return self.finish();
            }
            self.rest();
        }
    }

    /// Commits the remaining records, and fails if they could not be written. No further record is accepted.
    pub(in crate::ledger) fn finish(mut self) -> Result<()> {
        // All are locked together, for the reason given at `take_batch`.
        let mut queues: Vec<_> = self.shared.outboxes.iter().map(|outbox| outbox.lock()).collect();
        queues.iter_mut().for_each(|queue| queue.is_closed = true);
        drop(queues);
        self.commit();
        self.reset();
        if self.pending.is_empty() {
            return Ok(());
        }
        Err(LedgerError::Failed("the last charges are not on disk".to_owned()))
    }

    /// Sleeps until a commit is due: a record has waited for `commit_delay`, or a task waits for one.
    fn rest(&mut self) {
        if !self.shared.is_healthy.load(Ordering::SeqCst) {
            return std::thread::sleep(RETRY);
        }
        if self.committed_bytes >= FULL_BATCH {
            let since = self.clock.now().since(self.committed_at);
            std::thread::sleep(COMMIT_GAP.saturating_sub(since));
        }
        let signal = &self.shared.commit_signal;
        let delay = self.shared.commit_delay;
        if self.shared.outboxes.iter().any(|outbox| outbox.is_awaited()) {
            return signal.doze(BUSY_DELAY.min(delay));
        }
        if self.has_records() || self.empty_looks < EMPTY_LOOKS {
            return signal.doze(delay);
        }
        signal.sleep(MAX_SLEEP, || self.has_records());
        if self.has_records() {
            signal.doze(delay); // lets further records join the batch of the first one
        }
    }

    fn has_records(&self) -> bool {
        self.shared.outboxes.iter().any(|outbox| !outbox.lock().bytes.is_empty())
    }

    /// Takes one batch from all outboxes and writes it.
    pub(in crate::ledger) fn commit(&mut self) {
        self.reset();
        let barriers = self.shared.barrier.requested(); // before the batch is taken
        self.take_batch();
        self.committed_bytes = self.pending.len();
        self.empty_looks = if self.pending.is_empty() { self.empty_looks.saturating_add(1) } else { 0 };
        if !self.pending.is_empty() {
            self.committed_at = self.clock.now();
            let result = self.append();
            self.note(&result);
            for (outbox, batch) in self.shared.outboxes.iter().zip(&self.batches) {
                outbox.finish(*batch, result.is_ok());
            }
        }
        self.shared.barrier.finish(barriers, self.pending.is_empty());
    }

    fn append(&mut self) -> Result<()> {
        if self.shared.handoff.waiting() + self.pending.len() > MAX_WAITING {
            self.shared.books_signal.work_wanted();
            return Err(LedgerError::Failed("too many batches wait to be folded".to_owned()));
        }
        let (seq, at) = (self.next_seq, self.clock.wall());
        self.journal.append(seq, at, &self.pending)?;
        self.next_seq += 1;
        if self.shared.handoff.push(seq, at, &self.pending) {
            self.shared.books_signal.work_added();
        }
        let bytes = self.pending.len() as u64;
        self.shared.counters.commits.fetch_add(1, Ordering::Relaxed);
        self.shared.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.shared.counters.commit_times.add_duration(self.clock.now().since(self.committed_at));
        self.shared.counters.batch_sizes.add(Record::count(&self.pending));
        self.pending.clear();
        Ok(())
    }

    /// Counts and logs the outcome of a commit. After a failed commit, no credits are held until a commit succeeds.
    fn note(&self, result: &Result<()>) {
        let was_healthy = self.shared.is_healthy.swap(result.is_ok(), Ordering::SeqCst);
        match result {
            Ok(()) if !was_healthy => tracing::info!("the ledger can be written again"),
            Ok(()) => {}
            Err(error) => {
                self.shared.counters.failures.fetch_add(1, Ordering::Relaxed);
                if was_healthy {
                    tracing::error!(%error, "charging stops until the ledger can be written again");
                }
            }
        }
    }

    /// Takes the records of all outboxes while all of them are locked, so that a batch never contains a record without
    /// an earlier record that made it possible. The locks are held only while buffers are exchanged.
    fn take_batch(&mut self) {
        let mut queues: Vec<_> = self.shared.outboxes.iter().map(|outbox| outbox.lock()).collect();
        if queues.iter().all(|queue| queue.bytes.is_empty()) {
            return;
        }
        for ((queue, batch), taken) in queues.iter_mut().zip(&mut self.batches).zip(&mut self.taken) {
            *batch = queue.take(taken);
        }
        drop(queues);
        for taken in &mut self.taken {
            self.pending.append(taken);
        }
    }

    /// Tells the journal which batches are folded, so that it can reuse their space.
    fn reset(&mut self) {
        let folded = self.shared.handoff.folded();
        if folded > self.reset_upto {
            self.journal.reset(folded);
            self.reset_upto = folded;
        }
    }
}
