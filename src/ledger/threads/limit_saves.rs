//! Saves limit states to the ledger's store, once a second and when the ledger is closed.

use std::time::Duration;

use crate::clock::Clock;
use crate::ledger::LIMITS_SAVED_EVERY;
use crate::ledger::store::{Books, Result};
use crate::types::{Moment, Repeats, WallTime};

/// Limit states as bytes: owner and state of each.
type States = Vec<(Vec<u8>, Vec<u8>)>;

/// A function that returns the limit states that changed since its last call.
pub type LimitSource = Box<dyn FnMut() -> States + Send>;

/// The source of limit states, and the time of the next save.
#[derive(Default)]
pub(super) struct LimitSaves {
    source: Option<LimitSource>,
    /// States whose save failed, with the wall time at which they were read.
    unsaved: Option<(States, WallTime)>,
    due_at: Moment,
    failures: Repeats,
}

impl LimitSaves {
    pub(super) fn set_source(&mut self, source: LimitSource) {
        self.source = Some(source);
    }

    /// Saves changed states if a save is due. A failure is logged, and the save is tried again a second later.
    pub(super) fn save_if_due(&mut self, books: &mut dyn Books, clock: &Clock) {
        let now = clock.now();
        if now < self.due_at {
            return;
        }
        self.due_at = now.plus(LIMITS_SAVED_EVERY);
        if let Err(error) = self.save(books, clock)
            && let Some(more) = self.failures.should_log(now)
        {
            tracing::error!(%error, more, "limit states could not be saved; trying again");
        }
    }

    /// Time until the next save; `None` if there is no source.
    pub(super) fn time_left(&self, now: Moment) -> Option<Duration> {
        self.source.as_ref().map(|_| self.due_at.since(now))
    }

    /// Saves every state that changed.
    ///
    /// # Errors
    /// If the store cannot be written. The states are then saved at the next call.
    pub(super) fn save(&mut self, books: &mut dyn Books, clock: &Clock) -> Result<()> {
        if let Some((states, at)) = &self.unsaved {
            books.save_limits(states, *at)?;
            self.unsaved = None;
        }
        let Some(source) = &mut self.source else { return Ok(()) };
        let (states, at) = (source(), clock.wall());
        if states.is_empty() {
            return Ok(());
        }
        let saved = books.save_limits(&states, at);
        if saved.is_err() {
            self.unsaved = Some((states, at));
        }
        saved
    }
}
