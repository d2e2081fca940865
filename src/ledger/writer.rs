//! The ledger's thread: outboxes → one frame → one commit; in between, see [`housekeeping`].

mod housekeeping;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;

use super::fold::Tally;
use super::store::{
    AccountRow, Booked, Booking, LedgerError, Registered, Registration, Result, Store, each_account,
};
use super::{Job, Opened, Purse, Shared};
use crate::clock::Clock;
use crate::policy::credit::MAX_BALANCE;
use crate::types::{AccountId, Credits, Moment, RequestId};
use housekeeping::{Folds, Saves};

/// Least time from the start of one commit to the next under load: what costs is a commit, not
/// a record, so a fuller batch is a cheaper one.
const COMMIT_GAP: Duration = Duration::from_millis(1);
/// Longest that a commit then waits for a worker to idle: while all are busy nobody gains by an early one.
const BUSY: Duration = Duration::from_millis(2);
/// How long to look whether more is coming before a commit that follows another within the gap.
const PROBE: Duration = Duration::from_micros(50);
/// Bytes of records that come within a probe where there is load: some three requests. With fewer,
/// waiting for more would only add to their latency.
const LOAD: usize = 150;
/// Commits without a look after one that saw nothing come: a look is a sleep of the thread, and
/// where commits are few it is one for each.
const CALM: u8 = 8;
/// Bytes of a batch after which the next is sure to fill: it is not looked.
const FULL: usize = 1_000;
/// How long a settlement that nobody waits for may lie in its outbox before it is written.
const LAG: Duration = Duration::from_millis(10);
/// How long to wait after a failed commit.
const RETRY: Duration = Duration::from_millis(250);

pub(super) struct Writer {
    store: Box<dyn Store>,
    shared: Arc<Shared>,
    jobs: mpsc::Receiver<Job>,
    clock: Clock,
    tally: Tally,
    /// Records taken from the outboxes that are not on disk: empty unless a commit failed.
    pending: Vec<u8>,
    /// Of each outbox: the last batch taken, and room that goes back and forth.
    batches: Vec<u64>,
    taken: Vec<Vec<u8>>,
    committed_at: Moment,
    /// Bytes of the last batch.
    committed: usize,
    folds: Folds,
    saves: Saves,
    /// What the books were off by when they were opened.
    off_by: i128,
    /// Commits that go without a look at what is coming.
    calm: u8,
}

impl Writer {
    pub(super) fn open(
        mut store: Box<dyn Store>,
        shared: Arc<Shared>,
        jobs: mpsc::Receiver<Job>,
        clock: Clock,
    ) -> Result<(Self, Opened)> {
        let books = store.load()?;
        let mut tally = Tally::new(books.open_holds, books.folded);
        for (number, at, records) in books.journal {
            let contradicts =
                |error| LedgerError::Unusable(format!("the ledger contradicts itself: {error}"));
            tally.apply(number, at, &records).map_err(contradicts)?;
        }
        // In one, whatever it holds: it ends a fold that a crash left written in part.
        let unfinished = tally.records() > 0 || books.folded.part.is_some();
        let fold = tally.recover();
        let doubts = fold.doubts.len();
        if unfinished || doubts > 0 || !fold.closed.is_empty() {
            store.fold(&fold, clock.wall())?;
        }
        let mut reader = store.reader()?;
        let mut off_by = reader.sides()?.sum();
        each_account(&mut *reader, |row| {
            off_by += i128::from(row.balance.millionths());
            shared.purses.add(row.num, row.balance);
            ControlFlow::Continue(())
        })?;
        drop(reader);
        let batches = vec![0; shared.outboxes.len()];
        let taken = vec![Vec::new(); shared.outboxes.len()];
        let now = clock.now();
        let writer = Self {
            store,
            shared,
            jobs,
            clock,
            tally,
            pending: Vec::new(),
            batches,
            taken,
            committed_at: now,
            committed: 0,
            folds: Folds::default(),
            saves: Saves::default(),
            off_by,
            calm: 0,
        };
        Ok((writer, Opened { doubts, off_by }))
    }

    /// Runs until [`super::Ledger::close`].
    pub(super) fn run(mut self) -> Result<()> {
        loop {
            self.turn();
            if self.shared.stopping.load(Ordering::SeqCst) {
                return self.finish();
            }
            self.rest();
        }
    }

    /// All that there is to do now.
    pub(super) fn turn(&mut self) {
        while let Ok(job) = self.jobs.try_recv() {
            // A booking never comes before a record that made it possible.
            self.commit();
            job(self);
        }
        self.commit();
        self.keep_books();
    }

    /// Sleeps until there is work: a commit's gap, or until somebody wakes the thread.
    fn rest(&mut self) {
        if !self.shared.healthy.load(Ordering::SeqCst) {
            // A journal that is full has room again once it is folded.
            if !self.has_books_to_keep() {
                std::thread::park_timeout(RETRY);
            }
            return;
        }
        let full = self.committed >= FULL;
        if !full && !self.has_books_to_keep() {
            self.await_work();
        }
        let (clock, committed_at) = (self.clock.clone(), self.committed_at);
        let left = || COMMIT_GAP.checked_sub(clock.now().since(committed_at)).unwrap_or_default();
        if left().is_zero() {
            return;
        }
        if !full && !self.probe(left()) {
            return;
        }
        std::thread::sleep(left());
        self.shared.gathering.store(true, Ordering::SeqCst);
        if self.waiting() > 0 && !self.shared.outboxes.iter().any(|outbox| outbox.is_idling()) {
            std::thread::park_timeout(BUSY);
        }
        self.shared.gathering.store(false, Ordering::SeqCst);
    }

    /// Whether more is coming, as far as it is looked.
    fn probe(&mut self, left: Duration) -> bool {
        if self.calm > 0 {
            self.calm -= 1;
            return false;
        }
        let before = self.waiting();
        std::thread::sleep(PROBE.min(left));
        let comes = self.waiting() >= before + LOAD;
        self.calm = if comes { 0 } else { CALM };
        comes
    }

    fn await_work(&self) {
        self.shared.idle.store(true, Ordering::SeqCst);
        if self.waiting() == 0 && self.jobs.is_empty() && !self.shared.stopping.load(Ordering::SeqCst) {
            // Settlements that nobody waits for wake nobody: while holds are open, look for them.
            std::thread::park_timeout(if self.tally.open_holds() > 0 { LAG } else { housekeeping::EVERY });
        }
        self.shared.idle.store(false, Ordering::SeqCst);
    }

    /// Bytes of records that wait in the outboxes.
    fn waiting(&self) -> usize {
        self.shared.outboxes.iter().map(|outbox| outbox.lock().bytes.len()).sum()
    }

    /// Cuts one batch from all outboxes at once and writes it.
    fn commit(&mut self) {
        self.cut();
        self.committed = self.pending.len();
        if self.pending.is_empty() {
            return;
        }
        self.committed_at = self.clock.now();
        let (seq, at) = (self.tally.upto() + 1, self.clock.wall());
        let result = self.store.append(seq, at, &self.pending);
        let committed = result.is_ok();
        match result {
            Ok(()) => {
                if let Err(error) = self.tally.apply(seq, at, &self.pending) {
                    tracing::error!(%error, "the journal contradicts itself");
                }
                let bytes = self.pending.len() as u64;
                self.shared.counters.commits.fetch_add(1, Ordering::Relaxed);
                self.shared.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
                self.pending.clear();
            }
            Err(error) => {
                self.shared.counters.failures.fetch_add(1, Ordering::Relaxed);
                if self.shared.healthy.load(Ordering::SeqCst) {
                    tracing::error!(%error, "charging stops until the ledger can be written again");
                }
            }
        }
        if self.shared.healthy.swap(committed, Ordering::SeqCst) != committed && committed {
            tracing::info!("the ledger can be written again");
        }
        for (outbox, batch) in self.shared.outboxes.iter().zip(&self.batches) {
            outbox.finish(*batch, committed);
        }
    }

    /// Under all locks together: a record that made another one possible is never left behind. They are
    /// held for as long as it takes to exchange pointers.
    fn cut(&mut self) {
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

    /// Nothing is booked on books that do not balance: it would bury what is wrong.
    fn is_balanced(&self) -> Result<()> {
        if self.off_by == 0 { Ok(()) } else { Err(LedgerError::Refused(super::unbalanced(self.off_by))) }
    }

    /// Nothing is booked while a batch waits to be written: a booking must not come before it.
    pub(super) fn is_written(&self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        Err(LedgerError::Failed("its last batch is not on disk yet".to_owned()))
    }

    /// Writes everything, folds, and saves limit states.
    pub(super) fn finish(mut self) -> Result<()> {
        while let Ok(job) = self.jobs.try_recv() {
            self.commit();
            job(&mut self);
        }
        self.commit();
        if !self.pending.is_empty() {
            let _ = self.fold(); // a journal that is full has room then
            self.commit();
        }
        if !self.pending.is_empty() {
            return Err(LedgerError::Failed("what was charged last is not on disk".to_owned()));
        }
        self.fold()?;
        self.save_limits()
    }

    pub(super) fn store(&mut self) -> &mut dyn Store {
        &mut *self.store
    }

    fn purse(&self, row: &AccountRow) -> Arc<Purse> {
        self.shared.purses.add(row.num, row.balance)
    }

    pub(super) fn register(&mut self, wanted: &Registration) -> Result<Registered> {
        let registered = self.store.register(wanted, self.clock.wall())?;
        for row in &registered.accounts {
            self.purse(row);
        }
        Ok(registered)
    }

    pub(super) fn create_account(&mut self, id: &AccountId, plan: Option<&str>) -> Result<AccountRow> {
        let row = self.store.create_account(id, plan, self.clock.wall())?;
        self.purse(&row);
        Ok(row)
    }

    /// Books once: a reference that stands in the books already is answered, not applied.
    pub(super) fn book(&mut self, booking: &Booking) -> Result<Booked> {
        self.is_balanced()?;
        let account = self.account(&booking.account)?;
        if let Some(entry) = self.store.find_booking(account.num, booking)? {
            if entry.amount != booking.amount {
                return Err(LedgerError::Refused(format!(
                    "reference {:?} stands for {} credits already",
                    booking.reference, entry.amount
                )));
            }
            return Ok(Booked { entry, repeated: true });
        }
        let purse = self.purse(&account);
        if booking.amount.is_negative() {
            // In memory first, so that no request can spend meanwhile what is being taken away.
            let amount = Credits::ZERO.checked_sub(booking.amount).unwrap_or(Credits::MAX);
            if !purse.try_take(amount) {
                let available = purse.available();
                let message = format!("account {} has only {available} credits available", account.id);
                return Err(LedgerError::Refused(message));
            }
            // Then the settlements that returned what was just taken: found without them after a
            // crash, it would be overspent.
            self.commit();
            let written = self.is_written();
            let entry = written.and_then(|()| self.store.book(&account, booking, self.clock.wall()));
            let entry = entry.inspect_err(|_| purse.give(amount))?;
            return Ok(Booked { entry, repeated: false });
        }
        let after = purse.available().checked_add(booking.amount);
        if after.is_none_or(|after| after > MAX_BALANCE) {
            let message = format!("a balance is at most {MAX_BALANCE} credits");
            return Err(LedgerError::Refused(message));
        }
        let entry = self.store.book(&account, booking, self.clock.wall())?;
        purse.give(entry.amount);
        Ok(Booked { entry, repeated: false })
    }

    pub(super) fn give_back(&mut self, id: RequestId) -> Result<Booked> {
        self.is_balanced()?;
        let booked = self.store.give_back(id, self.clock.wall())?;
        if !booked.repeated {
            let account = self.account(&booked.entry.account)?;
            self.purse(&account).give(booked.entry.amount);
        }
        Ok(booked)
    }

    fn account(&mut self, id: &AccountId) -> Result<AccountRow> {
        let unknown = || LedgerError::Refused(format!("there is no account {id}"));
        self.store.account(id)?.ok_or_else(unknown)
    }
}
