//! Lets the books thread wait until every record that was added before is on disk.
//!
//! A booking that takes credits away depends on it (promise 2): a settlement may have returned the credits, and a crash
//! must not leave the booking on disk without the settlement.

use parking_lot::{Condvar, Mutex};

use super::shared::Shared;
use crate::ledger::store::{LedgerError, Result};

#[derive(Debug, Default)]
struct BarrierState {
    /// Number of barriers requested so far.
    requested: u64,
    /// The last barrier that was passed.
    passed: u64,
    /// The last barrier whose commit failed.
    failed: u64,
    /// True if the commit thread has ended, so that no further barrier is passed.
    is_closed: bool,
}

/// Barriers, numbered from 1.
#[derive(Debug, Default)]
pub(in crate::ledger) struct Barrier {
    state: Mutex<BarrierState>,
    changed: Condvar,
}

impl Barrier {
    /// Requests a barrier, and returns its number.
    pub(in crate::ledger) fn request(&self) -> u64 {
        let mut state = self.state.lock();
        state.requested += 1;
        state.requested
    }

    /// The number of the newest barrier. The commit thread reads it before it takes a batch.
    pub(super) fn requested(&self) -> u64 {
        self.state.lock().requested
    }

    /// Finishes all barriers up to this one: the records that were added before they were requested are on disk, or
    /// their commit failed.
    pub(super) fn finish(&self, upto: u64, is_committed: bool) {
        let mut state = self.state.lock();
        let reached = if is_committed { &mut state.passed } else { &mut state.failed };
        if *reached < upto {
            *reached = upto;
            self.changed.notify_all();
        }
    }

    /// Fails all waits, because the commit thread ends or has panicked.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// The outcome of a barrier; `None` if it is not finished.
    #[cfg(test)]
    pub(in crate::ledger) fn outcome(&self, number: u64) -> Option<Result<()>> {
        outcome(&self.state.lock(), number)
    }

    fn wait(&self, number: u64) -> Result<()> {
        let mut state = self.state.lock();
        loop {
            match outcome(&state, number) {
                Some(outcome) => return outcome,
                None => self.changed.wait(&mut state),
            }
        }
    }
}

fn outcome(state: &BarrierState, number: u64) -> Option<Result<()>> {
    if state.passed >= number {
        return Some(Ok(()));
    }
    if state.is_closed {
        return Some(Err(LedgerError::Closed));
    }
    let failed = || Err(LedgerError::Failed("the last batch is not on disk yet".to_owned()));
    (state.failed >= number).then(failed)
}

/// Waits until every record that was added before is on disk. The simulation has its own implementation, which runs the
/// commit thread meanwhile.
pub(in crate::ledger) trait Written: Send {
    /// Requests a barrier and waits for it.
    ///
    /// # Errors
    /// If the commit failed.
    fn wait(&mut self, shared: &Shared) -> Result<()>;
}

/// Waits for the real commit thread.
pub(in crate::ledger) struct WaitForCommit;

impl Written for WaitForCommit {
    fn wait(&mut self, shared: &Shared) -> Result<()> {
        let number = shared.barrier.request();
        shared.commit_signal.work_wanted();
        shared.barrier.wait(number)
    }
}
