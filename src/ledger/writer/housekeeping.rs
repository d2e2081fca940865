//! Between two commits: journal → entries, and limit states to the store; a part at a time, so that
//! no commit waits for all of it.

use std::collections::VecDeque;
use std::time::Duration;

use super::Writer;
use crate::ledger::fold::Fold;
use crate::ledger::store::Result;
use crate::ledger::{LIMITS_SAVED_EVERY, LimitSource};
use crate::types::{Moment, Repeats, WallTime};

/// How often the journal is folded at most.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// A fold that took long is followed by so many times as long without one. Each account that was charged
/// costs an entry of 3.5 µs: with very many of them fewer folds are less work.
const PAUSE: u32 = 40;
/// And yet by no more than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Records after which it is folded sooner, so that a restart stays quick: 62 MB of journal.
const MAX_RECORDS: u64 = 2_000_000;
/// And batches, of which each takes a block of 4 KiB or more of the journal: 64 MB.
const MAX_ROWS: u64 = 16_384;
/// Charges, or limit states, that are written between two commits: 2 to 3 ms. The last part of a fold has
/// the holds that are open, too.
const PART: usize = if cfg!(test) { 2 } else { 500 };

/// When the journal is folded, and what is left of a fold that began.
#[derive(Default)]
pub(super) struct Folds {
    begun: Option<Fold>,
    /// How long it took so far.
    took: Duration,
    /// When to begin, or to go on.
    at: Moment,
    failures: Repeats,
}

/// When limit states are saved, and those that are not yet.
#[derive(Default)]
pub(super) struct Saves {
    source: Option<LimitSource>,
    unsaved: VecDeque<(Vec<u8>, Vec<u8>)>,
    /// When to gather, or to go on.
    at: Moment,
    /// When they were gathered, which is what they are relative to.
    gathered_at: Moment,
    gathered: WallTime,
    failures: Repeats,
}

impl Writer {
    /// A part of what there is to fold and to save, if it is time. What fails is tried again.
    pub(super) fn keep_books(&mut self) {
        self.keep_folding();
        self.keep_saving();
    }

    fn keep_folding(&mut self) {
        let now = self.clock.now();
        let many = self.tally.records() >= MAX_RECORDS || self.tally.rows() >= MAX_ROWS;
        if now >= self.folds.at || many && self.folds.begun.is_none() {
            // What is one part is folded without a commit in between: then the journal starts over.
            let done = self.fold_part();
            let after = self.clock.now();
            self.folds.took += after.since(now);
            self.folds.at = match done {
                Err(error) => {
                    if let Some(more) = self.folds.failures.says(after) {
                        tracing::error!(%error, more, "the ledger could not be folded; it will be tried again");
                    }
                    after.plus(EVERY)
                }
                Ok(()) if self.folds.begun.is_some() => after,
                Ok(()) => {
                    self.store.tidy();
                    let took = std::mem::take(&mut self.folds.took);
                    after.plus((took * PAUSE).clamp(EVERY, LONGEST_PAUSE))
                }
            };
        }
    }

    fn keep_saving(&mut self) {
        let now = self.clock.now();
        if now >= self.saves.at {
            self.gather();
            let done = self.save_part();
            self.saves.at = match done {
                Err(error) => {
                    if let Some(more) = self.saves.failures.says(now) {
                        tracing::error!(%error, more, "limit states could not be saved; it will be tried again");
                    }
                    now.plus(EVERY)
                }
                Ok(()) if self.saves.unsaved.is_empty() => self.saves.gathered_at.plus(LIMITS_SAVED_EVERY),
                Ok(()) => now,
            };
        }
    }

    /// Whether the next part can be written at once.
    pub(super) fn has_books_to_keep(&self) -> bool {
        let now = self.clock.now();
        let (folds, saves) = (&self.folds, &self.saves);
        folds.begun.is_some() && now >= folds.at || !saves.unsaved.is_empty() && now >= saves.at
    }

    /// Turns all of the journal into entries, as it is now; commits go on in between.
    pub(in crate::ledger) fn fold(&mut self) -> Result<()> {
        // What began before does not hold what came since.
        for _ in 0..2 {
            self.fold_part()?;
            while self.folds.begun.is_some() {
                self.commit();
                self.keep_saving();
                self.fold_part()?;
            }
        }
        Ok(())
    }

    /// The next part of the fold that began, or the first of a new one.
    fn fold_part(&mut self) -> Result<()> {
        if self.folds.begun.is_none() && self.tally.records() > 0 {
            self.folds.begun = Some(self.tally.fold());
        }
        let Some(fold) = &self.folds.begun else { return Ok(()) };
        let part = fold.part(PART);
        self.store.fold(&part, self.clock.wall())?;
        self.folds.begun = self.folds.begun.take().and_then(|fold| fold.written(&part));
        Ok(())
    }

    pub(in crate::ledger) fn set_limits(&mut self, source: LimitSource) {
        self.saves.source = Some(source);
    }

    /// Saves all limit states that changed.
    pub(super) fn save_limits(&mut self) -> Result<()> {
        while !self.saves.unsaved.is_empty() {
            self.save_part()?;
        }
        self.gather();
        while !self.saves.unsaved.is_empty() {
            self.save_part()?;
        }
        Ok(())
    }

    /// States that changed since the last time, once those are saved.
    fn gather(&mut self) {
        if let Some(source) = self.saves.source.as_mut().filter(|_| self.saves.unsaved.is_empty()) {
            (self.saves.gathered_at, self.saves.gathered) = (self.clock.now(), self.clock.wall());
            self.saves.unsaved.extend(source());
        }
    }

    fn save_part(&mut self) -> Result<()> {
        let states = self.saves.unsaved.as_slices().0;
        let part = &states[..states.len().min(PART)];
        if !part.is_empty() {
            self.store.save_limits(part, self.saves.gathered)?;
            let saved = part.len();
            self.saves.unsaved.drain(..saved);
        }
        Ok(())
    }
}
