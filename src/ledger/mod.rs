//! Money: holds in memory at once, on disk in batches; books that add up.
//!
//! The data plane gets a [`Spender`], which can only hold and settle. The control plane gets a
//! [`Bookkeeper`], which can only book. Both speak to one thread that owns the [`store`].
//!
//! How promise 2 survives a crash: credits that a settlement returns can be spent again at once,
//! so the record of that settlement must never reach the disk after the record of the hold that
//! spent them. Each batch is therefore cut from all outboxes under all their locks, and every
//! booking is preceded by a batch.

pub mod fold;
pub mod journal;
pub mod memory;
pub mod sqlite;
pub mod store;
pub mod verify;
mod writer;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};

use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::policy::credit::{after_hold, returned};
use crate::types::{AccountId, AccountNum, Credits, KeyId, KeyNum, RequestId, RouteNum};
use journal::{NotDurable, Outbox, Record, Ticket, Waiters};
use store::{
    AccountRow, AccountState, Booked, Booking, Books, KeyChange, KeyRow, LedgerError, Reader,
    Registered, Registration, Result, Store,
};
use writer::Writer;

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
    /// The last commit succeeded; while it did not, nothing is held.
    healthy: AtomicBool,
    stopping: AtomicBool,
    purses: RwLock<HashMap<AccountNum, Arc<Purse>>>,
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
        let left = |now| {
            after_hold(Credits::from_millionths(now), amount).map(Credits::millionths)
        };
        self.available.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok()
    }

    /// Returns or adds credits. Bounded by [`crate::policy::credit::MAX_BALANCE`] at every booking, so it never overflows.
    fn give(&self, amount: Credits) {
        self.available.fetch_add(amount.millionths(), Ordering::SeqCst);
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
    /// Accounts, keys and limit states; the journal is folded in already.
    pub books: Books,
    /// Holds that a crash left open, now charged and listed.
    pub doubts: usize,
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
        Some(SpenderSeed { shared: Arc::clone(&self.shared), outbox: Arc::clone(outbox) })
    }

    /// The control plane's handle.
    #[must_use]
    pub fn bookkeeper(&self) -> Bookkeeper {
        Bookkeeper { shared: Arc::clone(&self.shared), jobs: self.jobs.clone() }
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

/// What a worker's thread makes its [`Spender`] from; unlike that, it may cross threads.
#[derive(Clone, Debug)]
pub struct SpenderSeed {
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
}

impl SpenderSeed {
    /// Makes the handle, on the thread that uses it.
    #[must_use]
    pub fn plant(self) -> Spender {
        let waiters = Waiters::new(Arc::clone(&self.outbox));
        Spender(Rc::new(Inner { shared: self.shared, outbox: self.outbox, waiters }))
    }
}

/// The data plane's handle on the ledger: it can hold and settle, nothing else.
#[derive(Clone, Debug)]
pub struct Spender(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    waiters: Waiters,
}

/// Why nothing was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// The balance less holds in flight is below the amount.
    #[error("not enough credits")]
    Insufficient,
    /// The ledger cannot write, or too much waits to be written.
    #[error("the ledger is unavailable")]
    Unavailable,
}

impl Spender {
    /// Sets credits aside for a request; in memory when this returns, on disk when
    /// [`Hold::committed`] does.
    ///
    /// # Errors
    /// Nothing is held then, and nothing was charged.
    pub fn hold(
        &self,
        purse: &Arc<Purse>,
        key: KeyNum,
        route: RouteNum,
        amount: Credits,
        id: RequestId,
    ) -> Result<Hold, HoldError> {
        if !self.0.shared.healthy.load(Ordering::Relaxed) {
            return Err(HoldError::Unavailable);
        }
        if !purse.try_take(amount) {
            return Err(HoldError::Insufficient);
        }
        let record = Record::Hold { id, account: purse.num, key, route, amount };
        let Some(ticket) = self.0.outbox.push(record) else {
            purse.give(amount);
            return Err(HoldError::Unavailable);
        };
        self.0.shared.wake();
        let open = Open { purse: Arc::clone(purse), spender: self.clone(), id, amount, ticket };
        Ok(Hold(Some(open)))
    }

    /// Wakes this worker's waiters; runs on its thread for as long as it lives.
    pub async fn pump(&self) {
        self.0.waiters.pump().await;
    }
}

/// Credits set aside. Dropped without being settled, it is released: the request costs nothing.
#[derive(Debug)]
pub struct Hold(Option<Open>);

#[derive(Debug)]
struct Open {
    purse: Arc<Purse>,
    spender: Spender,
    id: RequestId,
    amount: Credits,
    ticket: Ticket,
}

impl Hold {
    /// Waits until the hold is on disk; one atomic load where it is already.
    ///
    /// # Errors
    /// [`NotDurable`] where its commit failed: release it, and let no charged answer leave.
    pub async fn committed(&self) -> Result<(), NotDurable> {
        match &self.0 {
            Some(open) => open.spender.0.waiters.durable(open.ticket).await,
            None => Ok(()),
        }
    }

    /// Turns the hold into its charge, at most the hold; the rest returns at once.
    pub fn settle(mut self, charge: Credits) -> Settled {
        match self.0.take() {
            Some(open) => open.settle(charge),
            None => Settled(None),
        }
    }
}

impl Open {
    fn settle(self, charge: Credits) -> Settled {
        let back = returned(self.amount, charge);
        let charge = self.amount.checked_sub(back).unwrap_or(self.amount);
        let inner = &self.spender.0;
        // The record first: who spends what returns must come after it in the journal.
        let ticket = inner.outbox.push(Record::Settle { id: self.id, charge });
        self.purse.give(back);
        inner.shared.wake();
        let wait = ticket.filter(|_| !back.is_zero());
        Settled(wait.map(|ticket| (self.spender.clone(), ticket)))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            open.settle(Credits::ZERO);
        }
    }
}

/// A hold that became a charge.
#[derive(Debug)]
pub struct Settled(Option<(Spender, Ticket)>);

impl Settled {
    /// Waits until the charge is on disk. A charge equal to its hold has nothing to wait for:
    /// a crash would charge the same.
    ///
    /// # Errors
    /// [`NotDurable`] where its commit failed: let the last byte of the answer not leave.
    pub async fn committed(&self) -> Result<(), NotDurable> {
        match &self.0 {
            Some((spender, ticket)) => spender.0.waiters.durable(*ticket).await,
            None => Ok(()),
        }
    }

    /// Whether there is anything to wait for.
    #[must_use]
    pub fn must_wait(&self) -> bool {
        self.0.is_some()
    }
}

/// The control plane's handle on the ledger: it books and reads, and holds nothing.
#[derive(Clone, Debug)]
pub struct Bookkeeper {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
}

impl Bookkeeper {
    /// Runs a job on the ledger's thread, after a batch.
    async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let (answer, wait) = oneshot::channel();
        let job: Job = Box::new(move |writer| {
            let _ = answer.send(job(writer)); // whoever asked may be gone
        });
        self.jobs.send(job).await.map_err(|_| LedgerError::Closed)?;
        self.shared.wake_now();
        wait.await.map_err(|_| LedgerError::Closed)?
    }

    /// Gives numbers to what a configuration names, and opening grants to new accounts.
    ///
    /// # Errors
    /// Where the store fails; nothing is registered then.
    pub async fn register(&self, wanted: Registration) -> Result<Registered> {
        self.run(move |writer| writer.register(&wanted)).await
    }

    /// Makes an account of the store.
    ///
    /// # Errors
    /// Where it exists already, or the store fails.
    pub async fn create_account(&self, id: AccountId, plan: Option<String>) -> Result<AccountRow> {
        self.run(move |writer| writer.create_account(&id, plan.as_deref())).await
    }

    /// Suspends or resumes an account in the books.
    ///
    /// # Errors
    /// Where there is no such account, or the store fails.
    pub async fn set_account_state(&self, id: AccountId, state: AccountState) -> Result<()> {
        self.run(move |writer| writer.store().set_account_state(&id, state)).await
    }

    /// Grants or adjusts; in force when this returns.
    ///
    /// # Errors
    /// Where the account is unknown, less than that is available, the reference stands for
    /// another amount, or the store fails.
    pub async fn book(&self, booking: Booking) -> Result<Booked> {
        self.run(move |writer| writer.book(&booking)).await
    }

    /// Makes a key of the store.
    ///
    /// # Errors
    /// Where its hash or id exists already, or the store fails.
    pub async fn create_key(&self, row: KeyRow) -> Result<KeyNum> {
        self.run(move |writer| writer.store().create_key(&row)).await
    }

    /// Changes a key in the books.
    ///
    /// # Errors
    /// Where there is no such key, or the store fails.
    pub async fn change_key(&self, id: KeyId, change: KeyChange) -> Result<()> {
        self.run(move |writer| writer.store().change_key(id, &change)).await
    }

    /// Returns a hold in doubt, once.
    ///
    /// # Errors
    /// Where there is no such hold, or the store fails.
    pub async fn give_back(&self, id: RequestId) -> Result<Booked> {
        self.run(move |writer| writer.give_back(id)).await
    }

    /// Folds the journal now and opens a view for long reads.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn reader(&self) -> Result<Box<dyn Reader>> {
        self.run(|writer| {
            writer.fold()?;
            writer.store().reader()
        })
        .await
    }

    /// Where the ledger's thread gets limit states from, once a second and at the end.
    ///
    /// # Errors
    /// Where the ledger is closed.
    pub async fn save_limits_from(&self, source: LimitSource) -> Result<()> {
        self.run(move |writer| {
            writer.set_limits(source);
            Ok(())
        })
        .await
    }

    /// What an account can spend.
    #[must_use]
    pub fn purse(&self, account: AccountNum) -> Option<Arc<Purse>> {
        self.shared.purses.read().get(&account).cloned()
    }

    /// Whether the last commit succeeded.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.shared.healthy.load(Ordering::SeqCst)
    }

    /// What the ledger counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}
