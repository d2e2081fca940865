//! Wakes a sleeping thread of the ledger: at most once per sleep, without losing a wake-up.
//!
//! `tests/wakeups.rs` checks every interleaving of this file with loom. Loom does not model a total order of plain
//! loads and stores, so the flags on both sides are exchanged instead of stored and loaded.

use std::sync::OnceLock;
use std::time::Duration;

use super::sync::{AtomicBool, AtomicU8, Ordering, Thread, current, park_timeout};

/// The thread is running, or about to check for work.
const RUNNING: u8 = 0;
/// The thread sleeps for a short time, after which it checks for work.
const DOZING: u8 = 1;
/// The thread sleeps until it is woken.
const ASLEEP: u8 = 2;

/// Wakes one thread.
#[derive(Debug)]
pub(super) struct Signal {
    thread: OnceLock<Thread>,
    sleep: AtomicU8,
    /// True if a task waits for work that the thread must do.
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

    /// Reports work that can wait for a short time: wakes the thread only if it sleeps until it is woken. The caller
    /// must have added the work under a lock that `has_work` of [`Signal::sleep`] takes too.
    pub(super) fn work_added(&self) {
        if self.sleep.load(Ordering::SeqCst) == ASLEEP {
            self.wake();
        }
    }

    /// Reports work that a task waits for: marks it as urgent, and wakes the thread if it sleeps.
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

    /// Clears the flag for urgent work, and returns it. The thread must check for work after this call.
    pub(super) fn take_urgent(&self) -> bool {
        self.is_urgent.swap(false, Ordering::SeqCst)
    }

    fn is_urgent(&self) -> bool {
        self.is_urgent.fetch_or(false, Ordering::SeqCst)
    }

    /// Sleeps for at most `time`, or until [`Signal::work_wanted`] is called.
    pub(super) fn doze(&self, time: Duration) {
        self.sleep.swap(DOZING, Ordering::SeqCst);
        if !self.is_urgent() {
            park_timeout(time);
        }
        self.sleep.swap(RUNNING, Ordering::SeqCst);
    }

    /// Sleeps for at most `time`, or until work is added or wanted. `has_work` checks for work that was added before
    /// the thread was marked as asleep.
    pub(super) fn sleep(&self, time: Duration, has_work: impl FnOnce() -> bool) {
        self.sleep.swap(ASLEEP, Ordering::SeqCst);
        if !self.is_urgent() && !has_work() {
            park_timeout(time);
        }
        self.sleep.swap(RUNNING, Ordering::SeqCst);
    }
}
