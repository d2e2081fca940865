//! Runs the books thread: folds the journal into the ledger, and executes the control plane's bookings and reads.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::barrier::{WaitForCommit, Written};
use super::handoff::Batches;
use super::limit_saves::{LimitSaves, LimitSource};
use super::opening;
use super::shared::Shared;
use super::usage_counts::{UsageCounts, UsageSource};
use crate::clock::Clock;
use crate::ledger::caps::Caps;
use crate::ledger::purse::Purse;
use crate::ledger::store::{Books, Journal, LedgerError, Result};
use crate::ledger::tally::{Fold, OpenHold, Tally};
#[cfg(test)]
use crate::types::AccountNum;
use crate::types::{Credits, Moment, Repeats, RequestId, WallTime};

/// Longest time between folds. Each fold writes an entry for every key that was charged, so a longer time means fewer
/// entries.
/// Unit tests fold more often, because the runs of the simulation are short.
const FOLD_EVERY: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });

/// Shortest time between two folds that requests wait for.
const FOLD_GAP: Duration = Duration::from_millis(20);
/// Shortest time between two folds that other gateways of a fleet are to know of soon.
const FOLD_SOON: Duration = Duration::from_millis(100);

/// A job for the books thread.
pub(in crate::ledger) type Job = Box<dyn FnOnce(&mut BooksThread) + Send>;

pub(in crate::ledger) struct BooksThread {
    pub(super) books: Box<dyn Books>,
    pub(super) shared: Arc<Shared>,
    jobs: mpsc::Receiver<Job>,
    pub(super) clock: Clock,
    written: Box<dyn Written>,
    /// The state since the last fold.
    pub(super) tally: Tally,
    batches: Batches,
    /// A fold whose write failed, to be tried again.
    pub(super) unwritten: Option<Fold>,
    /// Jobs of the fleet that a transaction may have taken whose outcome is not known.
    pub(super) perhaps_taken: BTreeSet<RequestId>,
    fold_at: Moment,
    /// When a fold was last made for other gateways.
    folded_at: Moment,
    failures: Repeats,
    limits: LimitSaves,
    usage: UsageCounts,
    /// Open holds of the process that handed the ledger over.
    pub(super) adopted: HashSet<RequestId>,
    /// Credits that settlements of kept holds returned, for the simulation.
    #[cfg(test)]
    pub(super) kept_settled: Vec<(AccountNum, Credits)>,
    /// Changes of balances by expiries and refills, for the simulation.
    #[cfg(test)]
    pub(super) moved: Vec<(AccountNum, Credits)>,
    /// Credits that a failed booking took. They are returned once a crash can no longer find the booking.
    pub(super) withheld: Vec<(Arc<Purse>, Caps, Credits)>,
    /// The sum over all accounts when the ledger was opened: zero unless the ledger is damaged.
    pub(super) off_by: i128,
}

/// The state that was found when a ledger was opened.
#[derive(Debug)]
pub(in crate::ledger) struct Recovered {
    /// Holds that a crash left open, now charged and listed as in doubt.
    pub(in crate::ledger) doubts: usize,
    /// The sum over all customers' and the operator's accounts, in millionths: zero unless the ledger is damaged.
    pub(in crate::ledger) off_by: i128,
    /// The number of the last batch.
    pub(in crate::ledger) last_seq: u64,
    /// The number of this start, which is higher than at each earlier start of this ledger.
    pub(in crate::ledger) epoch: u32,
}

impl BooksThread {
    /// Opens the ledger, and folds the records that a crash left in the journal. `adopts`: another process handed the
    /// ledger over, so its open holds are not in doubt.
    pub(in crate::ledger) fn open(
        mut books: Box<dyn Books>,
        journal: &mut dyn Journal,
        shared: Arc<Shared>,
        jobs: mpsc::Receiver<Job>,
        clock: Clock,
        adopts: bool,
    ) -> Result<(Self, Recovered)> {
        let now = clock.wall();
        let loaded = books.load(now)?;
        let mut tally = Tally::new(loaded.open_holds, loaded.folded);
        tally.note_less_needed(loaded.ended.iter().map(|(account, _)| *account));
        tally.set_ended(loaded.ended);
        tally.list_requests(loaded.lists_requests);
        for (seq, at, records) in journal.read(loaded.folded)? {
            let contradicts =
                |error| LedgerError::Unusable(format!("the ledger contradicts itself: {error}"));
            tally.apply(seq, at, &records).map_err(contradicts)?;
        }
        if shared.desk.is_some() {
            tally.kept_holds().into_iter().for_each(|id| tally.share(id));
        }
        let last_seq = tally.upto();
        let is_behind = tally.records() > 0;
        let mut fold = if adopts { tally.fold() } else { tally.recover() };
        if !adopts {
            opening::lose_claims(&mut fold, &mut *books.reader()?)?;
        }
        let open = tally.open_holds().filter(|hold| hold.kept.is_none());
        let adopted = open.map(|hold| hold.id).collect();
        let doubts = fold.doubts.len();
        let is_empty = fold.closed.is_empty() && fold.claims.is_empty() && fold.shared.is_empty();
        if is_behind || doubts > 0 || !is_empty {
            books.fold(&fold, now)?;
        }
        books.release_claims()?;
        shared.handoff.set_folded(last_seq);
        let off_by = opening::fill(&shared, &mut *books.reader()?)?;
        if adopts {
            opening::adopt_claims(&shared, &mut *books.reader()?)?;
        }
        let folded = fold.jobs.iter().map(|job| (job.hold.account, job.external_id.clone()));
        for (account, external_id) in loaded.settled_jobs.into_iter().chain(folded) {
            shared.jobs.remember(account, &external_id);
        }
        let mut open: Vec<&OpenHold> = tally.open_holds().collect();
        open.sort_by_key(|hold| (hold.at, hold.id));
        open.into_iter().for_each(|hold| opening::take_open(&shared, hold));
        let thread = Self {
            books,
            shared,
            jobs,
            fold_at: clock.now(),
            folded_at: clock.now(),
            clock,
            written: Box::new(WaitForCommit),
            tally,
            batches: Batches::default(),
            unwritten: None,
            perhaps_taken: BTreeSet::new(),
            failures: Repeats::default(),
            limits: LimitSaves::default(),
            usage: UsageCounts::default(),
            adopted,
            #[cfg(test)]
            kept_settled: Vec::new(),
            #[cfg(test)]
            moved: Vec::new(),
            withheld: Vec::new(),
            off_by,
        };
        Ok((thread, Recovered { doubts, off_by, last_seq, epoch: loaded.epoch }))
    }

    /// Replaces the way in which barriers are waited for, since the simulation has no separate commit thread.
    #[cfg(test)]
    pub(in crate::ledger) fn with_barrier(self, written: Box<dyn Written>) -> Self {
        Self { written, ..self }
    }

    #[cfg(test)]
    pub(in crate::ledger) fn take_kept_settled(&mut self) -> Vec<(AccountNum, Credits)> {
        std::mem::take(&mut self.kept_settled)
    }

    #[cfg(test)]
    pub(in crate::ledger) fn take_moved(&mut self) -> Vec<(AccountNum, Credits)> {
        std::mem::take(&mut self.moved)
    }

    #[cfg(test)]
    pub(in crate::ledger) fn withheld_from(&self, account: AccountNum) -> i64 {
        let own = self.withheld.iter().filter(|(purse, ..)| purse.num == account);
        own.map(|(.., credits)| credits.millionths()).sum()
    }

    /// Runs until the ledger is closed.
    ///
    /// # Errors
    /// If the records could not be committed or folded at the end, or limit states could not be saved.
    pub(in crate::ledger) fn run(mut self) -> Result<()> {
        self.shared.books_signal.attach();
        loop {
            self.shared.books_signal.take_urgent();
            let must_end = self.shared.books_must_end.load(Ordering::SeqCst);
            self.work();
            if must_end {
                return self.finish();
            }
            let now = self.clock.now();
            let until_fold = self.fold_at.since(now);
            let left = self.limits.time_left(now).map_or(until_fold, |left| left.min(until_fold));
            let left = self.until_fold_wanted(now).map_or(left, |wanted| left.min(wanted));
            let must_fold = || self.shared.handoff.must_fold();
            self.shared.books_signal.sleep(left.max(Duration::from_millis(1)), must_fold);
        }
    }

    /// Runs all waiting jobs, and folds and saves limit states if that is due.
    pub(in crate::ledger) fn work(&mut self) {
        while let Ok(job) = self.jobs.try_recv() {
            job(self);
        }
        self.settle_wanted();
        let now = self.clock.now();
        if now >= self.fold_at || self.shared.handoff.must_fold() {
            self.fold_at = now.plus(FOLD_EVERY);
            self.settle_due_holds();
            let folded = self.fold_committed().and_then(|()| self.confirm());
            let done = folded.and_then(|()| self.do_what_is_due());
            self.note(&done);
            self.usage.count_if_due(&mut *self.books, &self.clock);
        }
        self.fold_if_wanted();
        self.limits.save_if_due(&mut *self.books, &self.clock);
    }

    /// Folds what was recorded before, if a request waits for that, or other gateways are to know.
    fn fold_if_wanted(&mut self) {
        let now = self.clock.now();
        if self.until_fold_wanted(now).is_none_or(|left| !left.is_zero()) {
            return;
        }
        self.shared.is_fold_wanted.store(false, Ordering::SeqCst);
        self.shared.is_fold_wanted_soon.store(false, Ordering::SeqCst);
        self.folded_at = now;
        let folded = self.fold();
        if folded.is_err() {
            self.shared.want_fold_soon();
        }
        self.note(&folded);
    }

    /// Time until a fold that a request waits for, or that other gateways are to know of.
    fn until_fold_wanted(&self, now: Moment) -> Option<Duration> {
        let is_set = |flag: &AtomicBool, gap| flag.load(Ordering::SeqCst).then_some(gap);
        let gap = is_set(&self.shared.is_fold_wanted, FOLD_GAP);
        let gap = gap.or_else(|| is_set(&self.shared.is_fold_wanted_soon, FOLD_SOON))?;
        Some(self.folded_at.plus(gap).since(now))
    }

    /// Logs an error of a fold.
    pub(super) fn note(&mut self, folded: &Result<()>) {
        if let Err(error) = folded
            && let Some(more) = self.failures.should_log(self.clock.now())
        {
            tracing::error!(%error, more, "the journal could not be folded into the ledger; trying again");
        }
    }

    /// Begins periods of spending limits, ends lots, and settles jobs of a fleet: of its gateways, one does.
    fn do_what_is_due(&mut self) -> Result<()> {
        if self.is_leased() {
            self.settle_due_of_fleet()?;
        }
        if !self.shared.leads.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.begin_periods()?;
        self.end_due_lots()
    }

    /// Folds every record that was added before, and counts it as usage.
    pub(in crate::ledger) fn count_usage(&mut self) -> Result<()> {
        self.fold()?;
        self.usage.count(&mut *self.books)
    }

    pub(in crate::ledger) fn set_usage(&mut self, source: Box<dyn UsageSource>) {
        self.usage.set_source(source);
    }

    /// Runs the remaining jobs, commits and folds all records, and saves limit states.
    pub(in crate::ledger) fn finish(mut self) -> Result<()> {
        while let Ok(job) = self.jobs.try_recv() {
            job(&mut self);
        }
        self.settle_wanted();
        if self.wait_until_written().is_err() {
            self.fold_committed()?; // a journal that is full has space again after a fold
            self.wait_until_written()?;
        }
        self.fold_committed()?;
        let counted = self.usage.count(&mut *self.books);
        self.limits.save(&mut *self.books, &self.clock).and(counted)
    }

    /// Waits until every record that was added before is on disk.
    pub(super) fn wait_until_written(&mut self) -> Result<()> {
        self.written.wait(&self.shared)
    }

    /// Commits and folds every record that was added before, so that a read sees it.
    pub(in crate::ledger) fn fold(&mut self) -> Result<()> {
        self.wait_until_written()?;
        self.fold_committed()
    }

    /// Folds every committed batch.
    pub(super) fn fold_committed(&mut self) -> Result<()> {
        if self.shared.desk.is_some() {
            // Another gateway may have ended some. If this fails, no batch is taken.
            self.tally.set_ended(self.books.ended_lots()?);
        }
        self.apply_committed();
        loop {
            if self.unwritten.is_none() {
                self.share_kept();
                self.unwritten = self.tally.has_changes().then(|| self.tally.fold());
            }
            let Some(fold) = &self.unwritten else { return Ok(()) };
            let folded = self.books.fold(fold, self.clock.wall());
            self.shared.is_folding.store(folded.is_ok(), Ordering::Relaxed);
            folded?;
            self.shared.handoff.set_folded(fold.upto);
            self.shared.claims.folded(&fold.claims);
            self.shared_kept(fold);
            self.unwritten = None;
            self.return_withheld();
            self.books.checkpoint();
        }
    }

    /// Applies every committed batch, without folding it.
    pub(super) fn apply_committed(&mut self) {
        self.shared.handoff.take(&mut self.batches);
        let tally = &mut self.tally;
        self.batches.drain(|seq, at, records| {
            if let Err(error) = tally.apply(seq, at, records) {
                tracing::error!(%error, "the journal contradicts itself");
            }
        });
    }

    pub(in crate::ledger) fn set_limits(&mut self, source: LimitSource) {
        self.limits.set_source(source);
    }

    pub(in crate::ledger) fn books(&mut self) -> &mut dyn Books {
        &mut *self.books
    }

    /// Changes the books, at the current time.
    pub(in crate::ledger) fn write<R>(
        &mut self,
        change: impl FnOnce(&mut dyn Books, WallTime) -> Result<R>,
    ) -> Result<R> {
        change(&mut *self.books, self.clock.wall())
    }
}
