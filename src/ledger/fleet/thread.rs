//! Runs the thread that leases credits, returns those that other gateways need, and says that this gateway lives.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::desk::{Desk, Taken, Want};
use super::recovery::Recovery;
use crate::clock::Clock;
use crate::ledger::purse::Lessee;
use crate::ledger::store::{Beat, Changes, Hint, LeaseOf, LeaseWanted, Leases, Result, Storage};
use crate::ledger::threads::{Shared, WaitForCommit, Written};
use crate::policy::credit::lease;
use crate::types::{Credits, Moment, Repeats};

/// Longest wait of the thread. What could not be leased is tried again after a quarter of it.
const TICK: Duration = Duration::from_millis(100);
/// How often changes, and calls of other gateways, are read without a hint.
const READ_EVERY: Duration = Duration::from_millis(500);
/// Shortest time between two reads after hints.
const MIN_READ_GAP: Duration = Duration::from_millis(20);
/// How often the gateway says that it lives.
const BEAT: Duration = Duration::from_secs(1);
/// How long credits stay leased that are not spent.
const IDLE: Duration = Duration::from_secs(30);
/// How long what was leased is not returned, although another gateway needs it.
const KEPT: Duration = Duration::from_millis(150);
/// How long a gateway goes on with what it has leased while it cannot reach the database.
const MAX_CUT_OFF: Duration = Duration::from_secs(60);
/// Most accounts that are leased in one transaction.
const MAX_AT_ONCE: usize = 256;

/// What is known of an account, or a spending limit, of which credits are leased.
struct Leased {
    purse: Arc<dyn Lessee>,
    /// What was in the purse when credits were last leased, and when that was.
    then: (Credits, Moment),
    /// What was last seen in the purse, and since when.
    seen: (Credits, Moment),
}

/// Ends all waits when the thread ends, also by a panic.
struct EndGuard(Arc<Desk>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.shut();
    }
}

pub(in crate::ledger) struct LeaseThread {
    leases: Box<dyn Leases>,
    desk: Arc<Desk>,
    shared: Arc<Shared>,
    clock: Clock,
    lessees: HashMap<LeaseOf, Leased>,
    /// The version of the last change that was passed on.
    version: u64,
    /// When changes, and calls of other gateways, are to be read.
    read_at: Moment,
    /// When they were last read.
    last_read: Moment,
    beaten: Option<Moment>,
    /// When the database was last reached.
    reached: Moment,
    recovery: Recovery,
    written: Box<dyn Written>,
    failures: Repeats,
}

impl LeaseThread {
    /// `version`: that of the last change that this gateway knows of. `own`: what an earlier process leased.
    pub(in crate::ledger) fn new(
        leases: Box<dyn Leases>,
        desk: Arc<Desk>,
        shared: Arc<Shared>,
        clock: Clock,
        (version, own): (u64, Vec<Arc<dyn Lessee>>),
        settle: fn(Storage, Clock) -> Result<usize>,
    ) -> Self {
        let (last_read, failures) = (clock.now(), Repeats::default());
        let (mut leases, hinted, recovery) =
            (leases, Arc::clone(&desk), Recovery::new(clock.clone(), settle));
        leases.on_hint(Box::new(move |hint| hinted.add_hint(hint)));
        let lessee = |purse: Arc<dyn Lessee>| {
            let now = (purse.pot().local(), last_read);
            (purse.of(), Leased { purse, then: now, seen: now })
        };
        let lessees = own.into_iter().map(lessee).collect();
        Self {
            leases,
            desk,
            shared,
            clock,
            lessees,
            version,
            read_at: last_read,
            last_read,
            beaten: None,
            reached: last_read,
            recovery,
            written: Box::new(WaitForCommit),
            failures,
        }
    }

    /// Replaces the way in which barriers are waited for, since the simulation has no separate commit thread.
    #[cfg(test)]
    pub(in crate::ledger) fn with_barrier(self, written: Box<dyn Written>) -> Self {
        Self { written, ..self }
    }

    /// Waits until no lost gateway is being settled. True if one was settled.
    #[cfg(test)]
    pub(in crate::ledger) fn join_recovery(&mut self) -> bool {
        self.recovery.join()
    }

    /// Runs until the ledger is closed.
    pub(in crate::ledger) fn run(mut self) -> Result<()> {
        let _end = EndGuard(Arc::clone(&self.desk));
        while let Some(pause) = self.run_once(TICK) {
            std::thread::sleep(pause);
        }
        self.end()
    }

    /// Waits until something is wanted, at most `longest`, and does what is due. Returns how long to pause; `None` if the ledger
    /// is being closed.
    pub(in crate::ledger) fn run_once(&mut self, longest: Duration) -> Option<Duration> {
        self.beat_if_due();
        let until_read = self.read_at.since(self.clock.now());
        let Taken { wants, returns, hints, must_end } = self.desk.take(longest.min(until_read));
        let returned = self.give_back(&returns);
        self.note(&returned);
        let claimed = self.desk.claims.work(&mut *self.leases, &self.desk);
        if claimed.is_err() {
            self.desk.claims.clear(); // the requests are told
        }
        self.note(&claimed);
        if must_end {
            wants.into_iter().for_each(Want::refuse);
            return None;
        }
        let pause = self.lease(wants);
        if hints.iter().any(|hint| self.concerns(hint)) {
            self.read_at = self.read_at.min(self.last_read.plus(MIN_READ_GAP));
        }
        self.read_if_due();
        Some(if claimed.is_err() { TICK } else { pause })
    }

    /// True if something is to be read because of a hint.
    fn concerns(&self, hint: &Hint) -> bool {
        match hint {
            Hint::Changed => true,
            Hint::Called(of) => of.iter().any(|of| self.lessees.contains_key(of)),
        }
    }

    /// Reads calls of other gateways and changes, and does what they ask for.
    fn read_if_due(&mut self) {
        let now = self.clock.now();
        if now < self.read_at {
            return;
        }
        (self.last_read, self.read_at) = (now, now.plus(READ_EVERY));
        let done = self.return_called().and_then(|is_called| {
            let has_more = self.pass_changes_on()?;
            Ok(is_called || has_more)
        });
        self.note(&done);
        if done.unwrap_or(true) {
            self.read_at = now.plus(TICK);
        }
    }

    /// Returns the credits that this gateway does not need, unless another process takes over.
    pub(in crate::ledger) fn end(mut self) -> Result<()> {
        self.shared.leads.store(false, Ordering::SeqCst);
        self.recovery.join();
        // A successor has the same leases. What is not written or folded needs them at the next start.
        if self.shared.successor.is_open() || !self.desk.is_settled() {
            return Ok(());
        }
        self.leases.leave()
    }

    /// Says that this gateway lives, and learns what others did.
    fn beat_if_due(&mut self) {
        let now = self.clock.now();
        if self.beaten.is_some_and(|beaten| now.since(beaten) < BEAT) {
            return;
        }
        self.beaten = Some(now);
        let beat = self.leases.beat();
        self.note(&beat);
        self.recovery.set_reached(beat.is_ok());
        match beat {
            Ok(Beat { leads, nodes, elsewhere }) => {
                self.shared.leads.store(leads, Ordering::SeqCst);
                self.reached = self.clock.now();
                self.shared.counters.nodes.store(nodes as u64, Ordering::Relaxed);
                self.shared.counters.beaten.store(self.clock.wall().0, Ordering::Relaxed);
                for (of, elsewhere) in elsewhere {
                    self.shared.lessee(of).iter().for_each(|purse| purse.set_elsewhere(elsewhere));
                }
            }
            Err(_) => self.shared.leads.store(false, Ordering::SeqCst),
        }
        let unreached = self.clock.now().since(self.reached);
        if unreached >= MAX_CUT_OFF && !self.desk.is_cut_off() {
            tracing::error!(
                seconds = unreached.as_secs(),
                "nothing is charged until the database is reached again"
            );
        }
        self.desk.set_cut_off(unreached >= MAX_CUT_OFF);
        let done = self.return_idle(now).and_then(|()| match self.shared.leads.load(Ordering::SeqCst) {
            true => self.recovery.settle_lost(&mut *self.leases),
            false => Ok(()),
        });
        self.note(&done);
    }

    fn note<T>(&mut self, done: &Result<T>) {
        let Err(error) = done else { return };
        self.shared.counters.lease_failures.fetch_add(1, Ordering::Relaxed);
        if let Some(more) = self.failures.should_log(self.clock.now()) {
            tracing::error!(%error, more, "credits cannot be leased, or idempotency keys claimed; going on with those that are");
        }
    }

    /// Leases what is wanted. Returns how long to pause, before others could have returned something.
    fn lease(&mut self, mut wants: Vec<Want>) -> Duration {
        let mut unsatisfied = Vec::new();
        while !wants.is_empty() {
            let rest = wants.split_off(wants.len().min(MAX_AT_ONCE));
            let some = std::mem::replace(&mut wants, rest);
            unsatisfied.extend(self.lease_some(some));
        }
        if unsatisfied.is_empty() {
            return Duration::ZERO;
        }
        self.desk.put_back(unsatisfied);
        TICK / 4
    }

    /// Leases what is wanted of some accounts. Returns those of which there may still be more.
    fn lease_some(&mut self, wants: Vec<Want>) -> Vec<Want> {
        let now = self.clock.now();
        let wanted: Vec<LeaseWanted> = wants.iter().map(|want| self.wanted(want, now)).collect();
        let leased = self.leases.lease(&wanted);
        self.shared.counters.lease_times.add_duration(self.clock.now().since(now));
        self.note(&leased);
        let Ok(leased) = leased else {
            wants.into_iter().for_each(Want::refuse);
            return Vec::new();
        };
        let mut unsatisfied = Vec::new();
        for (mut want, leased) in wants.into_iter().zip(leased) {
            let purse = Arc::clone(&want.purse);
            purse.set_elsewhere(leased.elsewhere);
            purse.pot().lease(leased.granted);
            let local = purse.pot().local();
            let known = Leased { purse: Arc::clone(&purse), then: (local, now), seen: (local, now) };
            match self.lessees.get_mut(&purse.of()).filter(|known| Arc::ptr_eq(&known.purse, &purse)) {
                Some(known) if leased.granted.is_zero() => known.seen = (local, now),
                _ => drop(self.lessees.insert(purse.of(), known)),
            }
            // Requests that took credits from the purse meanwhile are not in what was asked for.
            let may_come = leased.others.checked_add(leased.free).unwrap_or(Credits::MAX);
            if want.settle(may_come, now) {
                unsatisfied.push(want);
            }
        }
        unsatisfied
    }

    fn wanted(&self, want: &Want, now: Moment) -> LeaseWanted {
        let (of, local) = (want.purse.of(), want.purse.pot().local());
        let beyond = |amount: Credits| amount.checked_sub(local).unwrap_or_default().max(Credits::ZERO);
        let (need, least) = (beyond(want.need()), beyond(want.least()));
        let (spent, within) = match self.lessees.get(&of) {
            Some(lessee) => (lessee.then.0.checked_sub(local).unwrap_or_default(), now.since(lessee.then.1)),
            None => (Credits::ZERO, Duration::from_secs(1)),
        };
        LeaseWanted { of, need, least, target: lease::target(need, spent, within) }
    }

    /// Returns what other gateways need. True if they need something: what is held now may be returned soon.
    fn return_called(&mut self) -> Result<bool> {
        let (called, now) = (self.leases.called_in()?, self.clock.now());
        // What was just leased is for requests that are about to take it.
        let is_new =
            |of: &LeaseOf| self.lessees.get(of).is_some_and(|lessee| now.since(lessee.then.1) < KEPT);
        let is_called = !called.is_empty();
        let called = called.into_iter().filter(|of| !is_new(of));
        let purses: Vec<Arc<dyn Lessee>> = called.filter_map(|of| self.shared.lessee(of)).collect();
        self.give_back(&purses)?;
        Ok(is_called)
    }

    /// Passes changes of other gateways on, if somebody listens and has room. True if there may be more.
    fn pass_changes_on(&mut self) -> Result<bool> {
        let Some(feed) = self.shared.feed.lock().clone() else { return Ok(false) };
        let Ok(place) = feed.try_reserve() else { return Ok(true) };
        let changes = self.leases.changes(self.version)?;
        let last = match &changes {
            Changes::Some(some) => some.last().map(|change| change.version),
            Changes::Lost(version) => Some(*version),
        };
        if let Some(last) = last {
            self.version = last;
            place.send(changes);
        }
        Ok(last.is_some())
    }

    /// Returns what was not spent for a while.
    fn return_idle(&mut self, now: Moment) -> Result<()> {
        let mut idle = Vec::new();
        self.lessees.retain(|_, lessee| {
            let local = lessee.purse.pot().local();
            if local != lessee.seen.0 {
                lessee.seen = (local, now);
            }
            let is_idle = now.since(lessee.seen.1) >= IDLE;
            idle.extend(is_idle.then(|| Arc::clone(&lessee.purse)));
            !is_idle
        });
        self.give_back(&idle)
    }

    /// Returns what is in purses. First waits until what returned it to them is on disk: after a crash, the lease must be
    /// enough for what was spent.
    fn give_back(&mut self, purses: &[Arc<dyn Lessee>]) -> Result<()> {
        let take = |purse: &Arc<dyn Lessee>| {
            let with_debt = !matches!(purse.of(), LeaseOf::Account(_));
            (Arc::clone(purse), purse.pot().take_local(with_debt))
        };
        // What is leased of a limit that was removed ends when it is set again.
        let is_current = |purse: &&Arc<dyn Lessee>| {
            self.shared.lessee(purse.of()).is_some_and(|current| Arc::ptr_eq(&current, purse))
        };
        let current = purses.iter().filter(is_current);
        let idle: Vec<_> = current.map(take).filter(|(_, amount)| !amount.is_zero()).collect();
        if idle.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.written.wait(&self.shared) {
            idle.iter().for_each(|(purse, amount)| purse.pot().put_local(*amount));
            return Err(error);
        }
        // If this fails, it may be returned or not. So it stays out of the purses until this gateway ends.
        let returned: Vec<_> = idle.iter().map(|(purse, amount)| (purse.of(), *amount)).collect();
        self.leases.give_back(&returned).inspect_err(|_| {
            // What was spent more is not forgotten.
            let debts = idle.iter().filter(|(_, amount)| amount.is_negative());
            debts.for_each(|(purse, amount)| purse.pot().put_local(*amount));
        })
    }
}
