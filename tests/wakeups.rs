//! Checks every interleaving of waking the ledger's threads, with loom: no thread sleeps while it has work, even if no
//! sleep ever ended by itself.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use signal::Signal;

/// loom's replacement for what `signal.rs` uses of the standard library. A sleep has no time limit here, so that loom
/// reports a missed wake-up as a deadlock. Parking is built from a mutex and a condition variable, because loom's own
/// parking loses an unpark that arrives while the thread waits for something else.
mod sync {
    use std::cell::RefCell;

    use loom::sync::{Arc, Condvar, Mutex};

    pub(super) use loom::sync::atomic::{AtomicBool, AtomicU8, Ordering};

    #[derive(Clone, Debug, Default)]
    pub(super) struct Thread(Arc<(Mutex<bool>, Condvar)>);

    loom::thread_local! {
        static OWN: RefCell<Thread> = RefCell::default();
    }

    pub(super) fn current() -> Thread {
        OWN.with(|own| own.borrow().clone())
    }

    impl Thread {
        pub(super) fn unpark(&self) {
            let (is_unparked, changed) = &*self.0;
            *is_unparked.lock().unwrap() = true;
            changed.notify_one();
        }
    }

    pub(super) fn park_timeout(_: std::time::Duration) {
        let own = current();
        let (is_unparked, changed) = &*own.0;
        let mut token = is_unparked.lock().unwrap();
        while !*token {
            token = changed.wait(token).unwrap();
        }
        *token = false;
    }
}

#[path = "../src/ledger/threads/signal.rs"]
mod signal;

const ANY: Duration = Duration::from_secs(1);

/// State that the threads share.
struct World {
    signal: Signal,
    /// Records that are not committed yet. Read-modify-write operations stand in for the outboxes' locks, which order
    /// accesses in the same way, because loom loses an unpark of a thread that waits for a lock.
    left: AtomicUsize,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self { signal: Signal::new(), left: AtomicUsize::new(0) })
    }

    /// Runs the commit thread until `records` records are committed; `rest` is how it waits.
    fn commit_until(&self, records: usize, rest: impl Fn(&Self)) {
        self.signal.attach();
        let mut committed = 0;
        loop {
            self.signal.take_urgent();
            committed += self.left.swap(0, Ordering::SeqCst);
            if committed == records {
                return;
            }
            rest(self);
        }
    }
}

fn has_records(world: &World) -> bool {
    world.left.fetch_add(0, Ordering::SeqCst) > 0
}

#[test]
fn a_record_wakes_a_thread_that_sleeps_until_it_is_woken() {
    loom::model(|| {
        let world = World::new();
        let own = Arc::clone(&world);
        let commit = thread::spawn(move || {
            own.commit_until(1, |own| own.signal.sleep(ANY, || has_records(own)));
        });
        world.left.fetch_add(1, Ordering::SeqCst);
        world.signal.work_added();
        commit.join().unwrap();
    });
}

#[test]
fn a_worker_that_waits_wakes_a_thread_however_that_sleeps() {
    for dozes in [false, true] {
        loom::model(move || {
            let world = World::new();
            let own = Arc::clone(&world);
            let commit = thread::spawn(move || {
                own.commit_until(1, |own| match dozes {
                    true => own.signal.doze(ANY),
                    false => own.signal.sleep(ANY, || false),
                });
            });
            world.left.fetch_add(1, Ordering::SeqCst);
            world.signal.work_wanted(); // the worker has nothing else to do
            commit.join().unwrap();
        });
    }
}

/// Waits as the commit thread does: it dozes while there are records, and sleeps while there are none.
#[test]
fn two_workers_that_leave_records_and_wait_are_both_served() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let world = World::new();
        let own = Arc::clone(&world);
        let commit = thread::spawn(move || {
            own.commit_until(2, |own| match has_records(own) {
                true => own.signal.doze(ANY),
                false => own.signal.sleep(ANY, || has_records(own)),
            });
        });
        let other = Arc::clone(&world);
        let worker = thread::spawn(move || leave_and_wait(&other));
        leave_and_wait(&world);
        worker.join().unwrap();
        commit.join().unwrap();
    });
}

fn leave_and_wait(world: &World) {
    world.left.fetch_add(1, Ordering::SeqCst);
    world.signal.work_added();
    world.signal.work_wanted();
}
