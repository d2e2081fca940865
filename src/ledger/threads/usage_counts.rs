//! Counts usage in the ledger's store: what workers counted, and the entries since the last time.

use crate::clock::Clock;
use crate::ledger::store::{Books, MINUTE, Result, UsageRetention, UsageStep};
use crate::policy::outcome::usage::UsagePart;
use crate::types::{Moment, Repeats};

/// Most parts whose write failed that are kept for the next try. Further ones are dropped.
const MAX_UNCOUNTED: usize = 4_096;
/// Old rows that are deleted at a time.
const PRUNED_AT_ONCE: usize = 2_000;
/// How many times as long as it takes counting pauses, so that it takes at most a part of the thread's time.
const PAUSE: u32 = 20;

/// Takes what workers have counted since its last call, and says how long usage is kept.
pub trait UsageSource: Send {
    /// The counts since the last call.
    fn take(&mut self) -> Vec<UsagePart>;
    /// How long usage is kept in intervals of a minute, of an hour and of a day, in minutes.
    fn kept(&self) -> [i64; 3];
}

/// The source of counts, and those that could not be written.
#[derive(Default)]
pub(super) struct UsageCounts {
    source: Option<Box<dyn UsageSource>>,
    uncounted: Vec<UsagePart>,
    due_at: Moment,
    failures: Repeats,
}

impl UsageCounts {
    pub(super) fn set_source(&mut self, source: Box<dyn UsageSource>) {
        self.source = Some(source);
    }

    /// Counts usage after a fold, unless counting takes too much of the thread's time. A failure is logged, and the
    /// counts are kept for the next try.
    pub(super) fn count_if_due(&mut self, books: &mut dyn Books, clock: &Clock) {
        let started = clock.now();
        if self.source.is_none() || started < self.due_at {
            return;
        }
        let counted = self.count(books).and_then(|()| self.prune(books, clock));
        let ended = clock.now();
        self.due_at = ended.plus(ended.since(started) * PAUSE);
        if let Err(error) = counted
            && let Some(more) = self.failures.should_log(ended)
        {
            tracing::error!(%error, more, "usage could not be counted; trying again");
        }
    }

    /// Counts usage now.
    ///
    /// # Errors
    /// If the store cannot be written. The counts are kept for the next try.
    pub(super) fn count(&mut self, books: &mut dyn Books) -> Result<()> {
        if let Some(source) = &mut self.source {
            self.uncounted.extend(source.take());
            self.uncounted.truncate(MAX_UNCOUNTED);
        }
        books.count_usage(&self.uncounted)?;
        self.uncounted.clear();
        Ok(())
    }

    fn prune(&self, books: &mut dyn Books, clock: &Clock) -> Result<()> {
        let Some(source) = &self.source else { return Ok(()) };
        let now = clock.wall().0.div_euclid(MINUTE);
        let [minutes, hours, days] = source.kept();
        let start = |kept: i64, step: UsageStep| step.floor(now - kept);
        let keep = UsageRetention {
            minutes: start(minutes, UsageStep::Hour),
            hours: start(hours, UsageStep::Day),
            days: start(days, UsageStep::Day),
        };
        books.prune_usage(&keep, PRUNED_AT_ONCE).map(drop) // the rest is done after the next fold
    }
}
