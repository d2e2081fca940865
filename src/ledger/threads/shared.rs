//! Defines the state that all handles share with the ledger's threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::barrier::Barrier;
use super::handoff::{Handoff, MAX_WAITING};
use super::signal::Signal;
use crate::ledger::adoption::Successor;
use crate::ledger::caps::{Caps, SpendCap, SpendCaps};
use crate::ledger::claims::Claims;
use crate::ledger::fleet::Desk;
use crate::ledger::jobs::{Jobs, OpenJob};
use crate::ledger::outbox::{Outbox, Ticket};
use crate::ledger::purse::{Lessee, Purse, Purses};
use crate::ledger::record::Record;
use crate::ledger::store::{Changes, LeaseOf};
use crate::policy::credit::returned;
use crate::types::{Credits, Histogram, KeyNum, SHORT, SIZES, StatusClass};

/// The state that all handles share with the ledger's threads.
#[derive(Debug)]
pub(in crate::ledger) struct Shared {
    /// One outbox for each worker, then that of the books thread.
    pub(in crate::ledger) outboxes: Vec<Arc<Outbox>>,
    pub(super) commit_signal: Signal,
    pub(super) books_signal: Signal,
    pub(super) handoff: Handoff,
    pub(in crate::ledger) barrier: Barrier,
    /// Longest time that a record waits for its commit while no task waits for it.
    pub(super) commit_delay: Duration,
    /// True if the last commit succeeded. Otherwise no credits are held.
    pub(in crate::ledger) is_healthy: AtomicBool,
    /// True if the last fold succeeded.
    pub(super) is_folding: AtomicBool,
    pub(in crate::ledger) purses: Purses,
    pub(in crate::ledger) caps: SpendCaps,
    pub(in crate::ledger) jobs: Jobs,
    pub(in crate::ledger) claims: Claims,
    /// Where requests wait for credits to be leased; `None` if all credits are this gateway's.
    pub(in crate::ledger) desk: Option<Arc<Desk>>,
    /// True if this gateway does what one of a fleet does at a time.
    pub(in crate::ledger) leads: AtomicBool,
    /// Where changes of other gateways are passed on.
    pub(in crate::ledger) feed: Mutex<Option<mpsc::Sender<Changes>>>,
    /// True if a request waits for what a fold writes.
    pub(super) is_fold_wanted: AtomicBool,
    /// True if other gateways of the fleet are to know soon what a fold writes.
    pub(super) is_fold_wanted_soon: AtomicBool,
    pub(in crate::ledger) counters: Counters,
    /// Where settlements go once the ledger was handed over to another process.
    pub(in crate::ledger) successor: Successor,
    /// True if the books thread must write everything and end.
    pub(in crate::ledger) books_must_end: AtomicBool,
    /// True if the commit thread must write everything and end.
    pub(in crate::ledger) commit_must_end: AtomicBool,
}

/// Counters since the ledger was opened.
#[derive(Debug)]
pub struct Counters {
    /// Number of batches committed.
    pub commits: AtomicU64,
    /// Bytes of records in the committed batches.
    pub bytes: AtomicU64,
    /// Number of failed commits.
    pub failures: AtomicU64,
    /// How long commits took.
    pub commit_times: Histogram,
    /// Number of records in the committed batches.
    pub batch_sizes: Histogram,
    /// How long it took to lease credits.
    pub lease_times: Histogram,
    /// Number of times that credits could not be leased or returned, or the gateway could not say that it lives.
    pub lease_failures: AtomicU64,
    /// Number of gateways of the fleet that live.
    pub nodes: AtomicU64,
    /// When this gateway last said that it lives, in milliseconds since 1970; 0 before.
    pub beaten: AtomicI64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            commits: AtomicU64::default(),
            bytes: AtomicU64::default(),
            failures: AtomicU64::default(),
            commit_times: Histogram::new(SHORT),
            batch_sizes: Histogram::new(SIZES),
            lease_times: Histogram::new(SHORT),
            lease_failures: AtomicU64::default(),
            nodes: AtomicU64::default(),
            beaten: AtomicI64::default(),
        }
    }
}

impl Shared {
    /// Creates the state for this many workers. `is_fleet`: credits are leased.
    pub(in crate::ledger) fn new(workers: usize, commit_delay: Duration, is_fleet: bool) -> Self {
        Self {
            outboxes: (0..=workers).map(|_| Arc::default()).collect(),
            commit_signal: Signal::new(),
            books_signal: Signal::new(),
            handoff: Handoff::default(),
            barrier: Barrier::default(),
            commit_delay,
            is_healthy: AtomicBool::new(true),
            is_folding: AtomicBool::new(true),
            purses: Purses::new(is_fleet),
            caps: SpendCaps::default(),
            jobs: Jobs::default(),
            claims: Claims::default(),
            desk: is_fleet.then(Arc::default),
            leads: AtomicBool::new(!is_fleet),
            feed: Mutex::default(),
            is_fold_wanted: AtomicBool::new(false),
            is_fold_wanted_soon: AtomicBool::new(false),
            counters: Counters::default(),
            successor: Successor::default(),
            books_must_end: AtomicBool::new(false),
            commit_must_end: AtomicBool::new(false),
        }
    }

    /// True if an answer of so many bytes can be recorded without keeping charges from the disk.
    pub(in crate::ledger) fn can_keep_answer(&self, outbox: &Outbox, bytes: usize) -> bool {
        if outbox.is_closed() {
            return true; // the successor keeps it
        }
        self.is_healthy.load(Ordering::Relaxed)
            && self.is_folding.load(Ordering::Relaxed)
            && self.handoff.waiting() + bytes <= MAX_WAITING / 4
            && outbox.has_room(bytes)
    }

    /// True if no committed batch waits to be folded.
    pub(in crate::ledger) fn is_folded(&self) -> bool {
        self.handoff.waiting() == 0
    }

    /// Notifies the commit thread that a record was added which no task waits for yet.
    pub(in crate::ledger) fn record_added(&self) {
        self.commit_signal.work_added();
    }

    /// Requests a commit immediately: a worker has nothing else to do until a record is committed.
    pub(in crate::ledger) fn commit_wanted(&self) {
        self.commit_signal.work_wanted();
    }

    /// What gateways of a fleet lease parts of; `None` for a spending limit that is gone.
    pub(in crate::ledger) fn lessee(&self, of: LeaseOf) -> Option<Arc<dyn Lessee>> {
        let cap = match of {
            LeaseOf::Account(account) => return Some(self.purses.get(account)?),
            LeaseOf::Limit(account) => self.purses.get(account)?.cap(),
            LeaseOf::Key(key) => self.caps.get(key).own,
            LeaseOf::Group(_) => self.caps.group_of_number(of),
        };
        Some(cap?)
    }

    /// Has what is leased of a spending limit returned, which was changed.
    pub(in crate::ledger) fn return_lease(&self, cap: &Arc<SpendCap>) {
        self.desk.iter().for_each(|desk| desk.give_back(Arc::clone(cap) as _));
    }

    /// The caps that holds of a key count against.
    #[inline]
    pub(in crate::ledger) fn caps_of(&self, key: KeyNum, purse: Option<&Arc<Purse>>) -> Caps {
        if self.caps.is_empty() {
            return Caps::default();
        }
        Caps { key: self.caps.get(key), account: purse.and_then(|purse| purse.cap()) }
    }

    /// Settles the hold of a job that was taken from the list: charges at most its amount, and returns the rest. The record
    /// goes to the last outbox, behind those that made the hold and kept it, and before the credits are returned. Returns
    /// the charge, and the record's ticket unless the ledger was handed over.
    pub(in crate::ledger) fn settle_job(
        &self,
        job: &OpenJob,
        charge: Credits,
        outcome: StatusClass,
    ) -> (Credits, Option<Ticket>) {
        let back = returned(job.amount, charge);
        let charge = job.amount.checked_sub(back).unwrap_or(job.amount);
        let own_outbox = self.outboxes.last();
        let ticket = own_outbox.and_then(|it| it.push(&Record::Settle { id: job.hold, charge, outcome }));
        let purse = self.purses.get(job.account);
        if let Some(purse) = &purse {
            purse.give(back);
            purse.end_job();
        }
        self.caps_of(job.key, purse.as_ref()).change(back);
        self.record_added();
        (charge, ticket)
    }

    /// Has the books thread fold soon: a request waits for it.
    pub(in crate::ledger) fn want_fold(&self) {
        self.is_fold_wanted.store(true, Ordering::SeqCst);
        self.books_signal.work_wanted();
    }

    /// Has the books thread of a fleet's gateway fold soon, for other gateways.
    pub(in crate::ledger) fn want_fold_soon(&self) {
        if self.desk.is_some() && !self.is_fold_wanted_soon.swap(true, Ordering::SeqCst) {
            self.books_signal.work_wanted();
        }
    }

    /// Wakes the books thread, which has a job.
    pub(in crate::ledger) fn job_added(&self) {
        self.books_signal.work_wanted();
    }
}
