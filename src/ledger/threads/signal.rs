//! How a sleeping thread of the ledger is woken: at most once per sleep, and never in vain.
//!
//! `tests/wakeups.rs` checks every interleaving of this file with loom. Loom knows no total order of plain loads and stores,
//! so the flags on both sides are exchanged rather than stored and loaded.

use std::sync::OnceLock;
use std::time::Duration;

use super::sync::{AtomicBool, AtomicU8, Ordering, Thread, current, park_timeout};

/// The thread is running, or about to look for work.
const RUNNING: u8 = 0;
/// The thread sleeps for a short time, after which it looks for work itself.
const DOZING: u8 = 1;
/// The thread sleeps until it is woken.
const ASLEEP: u8 = 2;

/// Wakes one thread.
#[derive(Debug)]
pub(super) struct Signal {
    thread: OnceLock<Thread>,
    sleep: AtomicU8,
    /// Work is wanted at once.
    is_urgent: AtomicBool,
}

impl Signal {
    pub(super) fn new() -> Self {
        Self { thread: OnceLock::new(), sleep: AtomicU8::new(RUNNING), is_urgent: AtomicBool::new(false) }
    }

    /// Makes the current thread the one to wake.
    pub(super) fn attach(&self) {
        let _ = self.thread.set(current()); // a thread attaches once
    }

    /// There is work that can wait for a short time: wakes the thread if it sleeps until it is woken. Called after the
    /// work was added under a lock that `has_work` of [`Signal::sleep`] takes too.
    pub(super) fn work_added(&self) {
        if self.sleep.load(Ordering::SeqCst) == ASLEEP {
            self.wake();
        }
    }

    /// There is work that somebody waits for.
    pub(super) fn work_wanted(&self) {
        self.is_urgent.swap(true, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        if self.sleep.swap(RUNNING, Ordering::SeqCst) != RUNNING
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Takes the wish for work at once: the thread must look for work after this call.
    pub(super) fn take_urgent(&self) -> bool {
        self.is_urgent.swap(false, Ordering::SeqCst)
    }

    fn is_urgent(&self) -> bool {
        self.is_urgent.fetch_or(false, Ordering::SeqCst)
    }

    /// Sleeps for `time` at most, or until work is wanted.
    pub(super) fn doze(&self, time: Duration) {
        self.sleep.swap(DOZING, Ordering::SeqCst);
        if !self.is_urgent() {
            park_timeout(time);
        }
        self.sleep.swap(RUNNING, Ordering::SeqCst);
    }

    /// Sleeps for `time` at most, or until work is added or wanted. `has_work` looks for work that was added before
    /// the thread was known to be asleep.
    pub(super) fn sleep(&self, time: Duration, has_work: impl FnOnce() -> bool) {
        self.sleep.swap(ASLEEP, Ordering::SeqCst);
        if !self.is_urgent() && !has_work() {
            park_timeout(time);
        }
        self.sleep.swap(RUNNING, Ordering::SeqCst);
    }
}
