//! A barrier that the books thread waits for: every record that was left before is on disk.
//!
//! A booking that takes credits away relies on it (promise 2): the credits may have been returned by a settlement, and
//! a crash must not find the booking without the settlement.

use parking_lot::{Condvar, Mutex};

use super::shared::Shared;
use crate::ledger::store::{LedgerError, Result};

#[derive(Debug, Default)]
struct BarrierState {
    /// Barriers requested so far.
    requested: u64,
    /// Barriers up to this one are passed.
    passed: u64,
    /// The commit for barriers up to this one failed.
    failed: u64,
    /// The commit thread has ended: no barrier is passed any more.
    is_closed: bool,
}

/// Barriers, numbered from 1.
#[derive(Debug, Default)]
pub(in crate::ledger) struct Barrier {
    state: Mutex<BarrierState>,
    changed: Condvar,
}

impl Barrier {
    /// Requests a barrier. Returns its number.
    pub(in crate::ledger) fn request(&self) -> u64 {
        let mut state = self.state.lock();
        state.requested += 1;
        state.requested
    }

    /// The newest barrier that was requested: the commit thread asks before it takes a batch.
    pub(super) fn requested(&self) -> u64 {
        self.state.lock().requested
    }

    /// Everything that was left before these barriers were requested is on disk, or its commit failed.
    pub(super) fn finish(&self, upto: u64, is_committed: bool) {
        let mut state = self.state.lock();
        let reached = if is_committed { &mut state.passed } else { &mut state.failed };
        if *reached < upto {
            *reached = upto;
            self.changed.notify_all();
        }
    }

    /// The commit thread ends, or panicked: nothing waits for it any more.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// The outcome of a barrier, once it has one.
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
    let failed = || Err(LedgerError::Failed("its last batch is not on disk yet".to_owned()));
    (state.failed >= number).then(failed)
}

/// Waits until every record that was left before is on disk. The simulation has its own, which runs the commit
/// thread's work meanwhile.
pub(in crate::ledger) trait Written: Send {
    /// Waits for a barrier of its own.
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
