//! Money: holds in memory at once, on disk in batches; books that add up.
//!
//! The data plane gets a [`Spender`], which can only hold and settle. The control plane gets a
//! [`Bookkeeper`], which can only book. Both speak to one thread that owns the [`store`].
//!
//! How promise 2 survives a crash: credits that a settlement returns can be spent again at once,
//! so the record of that settlement must never reach the disk after the record of the hold that
//! spent them. Each batch is therefore cut from all outboxes under all their locks, and every
//! booking is preceded by a batch.

mod bookkeeper;
pub mod entry;
pub mod fold;
pub mod journal;
pub mod memory;
#[cfg(test)]
mod simulation;
mod spender;
pub mod sqlite;
pub mod store;
pub mod verify;
mod writer;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::mpsc;

pub use bookkeeper::Bookkeeper;
pub use spender::{Hold, HoldError, Settled, Spender, SpenderSeed};

use crate::clock::Clock;
use crate::policy::credit::after_hold;
use crate::types::{AccountNum, Credits};
use journal::Outbox;
use store::{LedgerError, Result, Store};
use writer::Writer;

/// How often limit states are saved: after a crash at most the last second of them is forgotten. That
/// holds for some 100,000 states that change in a second; more take longer to write.
pub const LIMITS_SAVED_EVERY: Duration = Duration::from_secs(1);
/// Most bookings that wait for the ledger's thread; further ones wait for a place.
const MAX_JOBS: usize = 64;

/// Something for the ledger's thread to do between two batches.
type Job = Box<dyn FnOnce(&mut Writer) + Send>;
/// Gathers the limit states that changed since it was last called: owner and state.
pub type LimitSource = Box<dyn FnMut() -> Vec<(Vec<u8>, Vec<u8>)> + Send>;

/// What all handles share with the ledger's thread.
#[derive(Debug, Default)]
struct Shared {
    outboxes: Vec<Arc<Outbox>>,
    thread: OnceLock<Thread>,
    /// The thread sleeps until somebody has work for it.
    idle: AtomicBool,
    /// It waits for a worker to idle.
    gathering: AtomicBool,
    /// The last commit succeeded; while it did not, nothing is held.
    healthy: AtomicBool,
    stopping: AtomicBool,
    purses: Purses,
    counters: Counters,
}

/// What the ledger counted since it was opened.
#[derive(Debug, Default)]
pub struct Counters {
    /// Batches committed.
    pub commits: AtomicU64,
    /// Bytes of records in them.
    pub bytes: AtomicU64,
    /// Commits that failed.
    pub failures: AtomicU64,
}

impl Shared {
    fn wake(&self) {
        if self.idle.load(Ordering::SeqCst) && self.idle.swap(false, Ordering::SeqCst) {
            self.wake_now();
        }
    }

    fn wake_now(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// What an account can spend: its balance less holds in flight.
///
/// One atomic per account, not sharded, so that exactly one of a thousand wins the last credit.
#[derive(Debug)]
pub struct Purse {
    num: AccountNum,
    available: AtomicI64,
}

impl Purse {
    fn new(num: AccountNum, available: Credits) -> Self {
        Self { num, available: AtomicI64::new(available.millionths()) }
    }

    /// The balance less holds in flight.
    #[must_use]
    pub fn available(&self) -> Credits {
        Credits::from_millionths(self.available.load(Ordering::SeqCst))
    }

    /// Sets `amount` aside if it suffices.
    fn try_take(&self, amount: Credits) -> bool {
        let left = |now| after_hold(Credits::from_millionths(now), amount).map(Credits::millionths);
        self.available.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok()
    }

    /// Returns or adds credits. Bounded by [`crate::policy::credit::MAX_BALANCE`] at every booking, so it never overflows.
    fn give(&self, amount: Credits) {
        self.available.fetch_add(amount.millionths(), Ordering::SeqCst);
    }
}

/// Every account's purse by its number. The ledger counts accounts from 1, so the list has no holes
/// and 8 bytes an account.
#[derive(Debug, Default)]
struct Purses(RwLock<Vec<Option<Arc<Purse>>>>);

impl Purses {
    fn get(&self, num: AccountNum) -> Option<Arc<Purse>> {
        self.0.read().get(num.0 as usize).cloned().flatten()
    }

    /// The purse of an account; a new one has this balance.
    fn add(&self, num: AccountNum, balance: Credits) -> Arc<Purse> {
        let (mut purses, at) = (self.0.write(), num.0 as usize);
        if purses.len() <= at {
            purses.resize(at + 1, None);
        }
        Arc::clone(purses[at].get_or_insert_with(|| Arc::new(Purse::new(num, balance))))
    }
}

/// An open ledger: the thread that owns the store, and the handles to it.
#[derive(Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    thread: JoinHandle<Result<()>>,
}

/// What was found when the ledger was opened.
#[derive(Debug)]
pub struct Opened {
    /// Holds that a crash left open, now charged and listed.
    pub doubts: usize,
    /// The sum over all accounts and the operator's sides, in millionths: zero in sound books.
    pub off_by: i128,
}

/// What is said of books whose sum over all accounts and sides is not zero.
#[must_use]
pub fn unbalanced(off_by: i128) -> String {
    format!(
        "the books do not balance (by {off_by} millionths of a credit), so the file was damaged or changed; \
         `tollgate ledger verify` says where, then restore a backup: see the README"
    )
}

impl Ledger {
    /// Opens a store for `workers` spenders: folds what a crash left, then starts the thread.
    ///
    /// # Errors
    /// Where the store cannot be read, or its journal contradicts itself.
    pub fn open(store: Box<dyn Store>, workers: usize, clock: Clock) -> Result<(Self, Opened)> {
        let outboxes = (0..workers).map(|_| Arc::default()).collect();
        let shared = Arc::new(Shared { outboxes, ..Shared::default() });
        shared.healthy.store(true, Ordering::SeqCst);
        let (jobs, queue) = mpsc::channel(MAX_JOBS);
        let (writer, opened) = Writer::open(store, Arc::clone(&shared), queue, clock)?;
        let thread = std::thread::Builder::new()
            .name("tollgate-ledger".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| LedgerError::Unusable(format!("no thread for the ledger: {error}")))?;
        let _ = shared.thread.set(thread.thread().clone()); // set once, here
        shared.wake_now();
        Ok((Self { shared, jobs, thread }, opened))
    }

    /// The handle of one worker, to be made on its thread. Each worker has its own number.
    #[must_use]
    pub fn spender(&self, worker: usize) -> Option<SpenderSeed> {
        let outbox = self.shared.outboxes.get(worker)?;
        Some(SpenderSeed::new(Arc::clone(&self.shared), Arc::clone(outbox)))
    }

    /// The control plane's handle.
    #[must_use]
    pub fn bookkeeper(&self) -> Bookkeeper {
        Bookkeeper::new(Arc::clone(&self.shared), self.jobs.clone())
    }

    /// Writes everything, folds, saves limit states and ends the thread.
    ///
    /// # Errors
    /// Where the last commit failed; what it held is lost then.
    pub fn close(self) -> Result<()> {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.wake_now();
        drop(self.jobs);
        self.thread.join().map_err(|_| LedgerError::Failed("its thread panicked".to_owned()))?
    }
}
