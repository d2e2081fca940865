//! Holds the ledger's simulated threads, so that one of them can continue during another one's call of the storage.

use std::cell::RefCell;

use super::workers::Workers;
use crate::ledger::store::{LedgerError, Result};
use crate::ledger::threads::{BooksThread, CommitThread, Shared, Written};

thread_local! {
    static WORKERS: RefCell<Option<Workers>> = const { RefCell::new(None) };
    static COMMIT: RefCell<Option<CommitThread>> = const { RefCell::new(None) };
    static BOOKS: RefCell<Option<BooksThread>> = const { RefCell::new(None) };
}

/// Lets other threads continue during a call of the storage: of the journal if `is_batch`, otherwise of the books.
pub(super) fn meanwhile(is_batch: bool) {
    let other = with_workers(|workers| {
        for _ in 0..workers.random.u32(..3) {
            workers.step();
        }
        workers.random.u32(..4) == 0
    });
    if other == Some(true) {
        if is_batch { work() } else { commit() }
    }
}

/// Calls a function with the workers, if a process is running.
pub(super) fn with_workers<T>(what: impl FnOnce(&mut Workers) -> T) -> Option<T> {
    WORKERS.with_borrow_mut(|workers| workers.as_mut().map(what))
}

/// Calls a function with the books thread, unless the thread is within a call of the storage.
pub(super) fn with_books<T>(what: impl FnOnce(&mut BooksThread) -> T) -> Option<T> {
    BOOKS.with(|books| books.try_borrow_mut().ok()?.as_mut().map(what))
}

/// Runs a commit of the commit thread, unless the thread is within a call of the storage.
pub(super) fn commit() {
    COMMIT.with(|commit| {
        if let Ok(mut commit) = commit.try_borrow_mut()
            && let Some(commit) = commit.as_mut()
        {
            commit.commit();
        }
    });
}

/// Runs the due work of the books thread, unless the thread is within a call of the storage.
pub(super) fn work() {
    with_books(BooksThread::work);
}

/// Sets the threads of a process that starts, or removes those of a process that ended.
pub(super) fn set(threads: Option<(Workers, BooksThread, CommitThread)>) {
    let (workers, books, commit) = match threads {
        Some((workers, books, commit)) => (Some(workers), Some(books), Some(commit)),
        None => (None, None, None),
    };
    let workers = WORKERS.replace(workers);
    drop(workers); // open holds are released into outboxes that no thread reads any more
    drop((BOOKS.replace(books), COMMIT.replace(commit)));
}

/// Ends both threads cleanly, the books thread first.
pub(super) fn finish() -> Result<()> {
    let Some(books) = BOOKS.take() else { return Ok(()) };
    books.finish()?;
    let Some(commit) = COMMIT.take() else { return Ok(()) };
    commit.finish()
}

/// Waits for a barrier by letting the commit thread commit.
pub(super) struct SimulatedBarrier;

impl Written for SimulatedBarrier {
    fn wait(&mut self, shared: &Shared) -> Result<()> {
        let number = shared.barrier.request();
        commit();
        // There is no outcome if the commit thread itself is within a call, and waiting for it is impossible here.
        let unfinished = || Err(LedgerError::Failed("simulated".to_owned()));
        shared.barrier.outcome(number).unwrap_or_else(unfinished)
    }
}
