//! Passes records from the workers to the commit thread, through one outbox per worker.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Poll, Waker};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::record::Record;

/// Most bytes of records that wait in one outbox: over 100,000 holds. When it is full, holds are refused.
pub const MAX_OUTBOX: usize = 4 * 1024 * 1024;

/// Identifies the batch that contains a record. The batches of an outbox are numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// The records of one worker that wait to be committed. Aligned to its own cache lines, since only its worker and the
/// commit thread use it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Outbox {
    queue: Mutex<Queue>,
    /// The last batch that is on disk.
    durable: AtomicU64,
    /// The last batch whose commit failed. The commit is tried again, but tasks that wait for the batch get an error.
    failed: AtomicU64,
    /// True while a task of the worker waits for a record.
    is_awaited: AtomicBool,
    notify: Notify,
}

/// The records since the last batch was taken.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) bytes: Vec<u8>,
    /// Number of batches taken so far. The records in `bytes` belong to the next batch.
    taken: u64,
    /// The last batch was taken: no further record is accepted.
    pub(super) is_closed: bool,
}

impl Outbox {
    /// Adds a record to the current batch; `None` if the outbox is full or closed. A settlement is accepted by a full one,
    /// since it follows a hold that was accepted.
    pub fn push(&self, record: &Record) -> Option<Ticket> {
        self.push_all(std::slice::from_ref(record))
    }

    /// Adds records to the current batch, all or none, as [`Outbox::push`] does. The last one may be a hold.
    pub(super) fn push_all(&self, records: &[Record]) -> Option<Ticket> {
        let mut queue = self.queue.lock();
        let is_full = queue.bytes.len() >= MAX_OUTBOX && matches!(records.last(), Some(Record::Hold { .. }));
        if is_full || queue.is_closed {
            return None;
        }
        records.iter().for_each(|record| record.write(&mut queue.bytes));
        Some(Ticket(queue.taken + 1))
    }

    /// True if an answer of so many bytes can be added without delaying holds.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let waiting = self.queue.lock().bytes.len();
        waiting == 0 || waiting + bytes <= MAX_OUTBOX / 2
    }

    /// True if no further record is accepted.
    pub(super) fn is_closed(&self) -> bool {
        self.queue.lock().is_closed
    }

    pub(super) fn lock(&self) -> parking_lot::MutexGuard<'_, Queue> {
        self.queue.lock()
    }

    /// Notifies the worker that all batches up to this one are on disk, or that the commit of this one failed.
    pub(super) fn finish(&self, batch: u64, committed: bool) {
        let reached = if committed { &self.durable } else { &self.failed };
        reached.store(batch, Ordering::SeqCst);
        if self.is_awaited.swap(false, Ordering::SeqCst) {
            self.notify.notify_one();
        }
    }

    /// True if a task of the worker waits for a record.
    pub(super) fn is_awaited(&self) -> bool {
        self.is_awaited.load(Ordering::SeqCst)
    }

    pub(super) fn state(&self, ticket: Ticket) -> Option<Result<(), NotDurable>> {
        if self.durable.load(Ordering::SeqCst) >= ticket.0 {
            return Some(Ok(()));
        }
        (self.failed.load(Ordering::SeqCst) >= ticket.0).then_some(Err(NotDurable))
    }
}

impl Queue {
    /// Takes the records in exchange for an empty buffer, and returns the number of their batch. Later records belong
    /// to the next batch.
    pub(super) fn take(&mut self, into: &mut Vec<u8>) -> u64 {
        std::mem::swap(&mut self.bytes, into);
        self.taken += 1;
        self.taken
    }
}

/// The commit of a record failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger could not be written")]
pub struct NotDurable;

/// The tasks of one worker that wait for their records. Only one notification per batch crosses threads; the worker
/// wakes its own tasks.
#[derive(Clone, Debug)]
pub struct Waiters {
    outbox: Arc<Outbox>,
    list: Rc<RefCell<Vec<(Ticket, Waker)>>>,
}

impl Waiters {
    /// Creates the list of waiting tasks for an outbox.
    #[must_use]
    pub fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox, list: Rc::default() }
    }

    /// Waits until a record is on disk; one atomic load if it already is.
    ///
    /// # Errors
    /// [`NotDurable`] if the commit of the record failed.
    pub async fn durable(&self, ticket: Ticket) -> Result<(), NotDurable> {
        let mut known: Option<Waker> = None;
        poll_fn(|context| {
            if let Some(state) = self.outbox.state(ticket) {
                return Poll::Ready(state);
            }
            // Each task is listed only once, although it may be polled any number of times while a disk does not
            // respond.
            if !known.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
                known = Some(context.waker().clone());
                self.list.borrow_mut().push((ticket, context.waker().clone()));
            }
            self.outbox.is_awaited.store(true, Ordering::SeqCst);
            // The commit thread may have finished the batch before `is_awaited` was set.
            self.outbox.state(ticket).map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Wakes the tasks whose batch is committed or failed. Never returns; is dropped with its worker.
    pub async fn pump(&self) {
        loop {
            self.outbox.notify.notified().await;
            let outbox = &self.outbox;
            self.list.borrow_mut().retain(|(ticket, waker)| {
                let is_finished = outbox.state(*ticket).is_some();
                if is_finished {
                    waker.wake_by_ref();
                }
                !is_finished
            });
            if !self.list.borrow().is_empty() {
                self.outbox.is_awaited.store(true, Ordering::SeqCst);
                if self.list.borrow().iter().any(|(ticket, _)| outbox.state(*ticket).is_some()) {
                    self.outbox.notify.notify_one();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{AccountNum, Credits, KeyNum, RequestId, RouteNum, StatusClass};

    /// A request that is polled any number of times, while a disk does not respond, waits only once.
    #[test]
    fn a_waiting_task_is_listed_once() {
        struct Nobody;
        impl std::task::Wake for Nobody {
            fn wake(self: Arc<Self>) {}
        }
        let (waiters, waker) = (Waiters::new(Arc::default()), Waker::from(Arc::new(Nobody)));
        let mut waiting = std::pin::pin!(waiters.durable(Ticket(1)));
        for _ in 0..1000 {
            let polled = waiting.as_mut().poll(&mut std::task::Context::from_waker(&waker));
            assert!(polled.is_pending());
        }
        assert_eq!(waiters.list.borrow().len(), 1);
    }

    #[test]
    fn a_full_outbox_refuses_holds_and_takes_settlements() {
        let outbox = Outbox::default();
        outbox.lock().bytes = vec![0; MAX_OUTBOX];
        let id = RequestId(1);
        let (account, key, route) = (AccountNum(1), KeyNum(1), RouteNum(1));
        let hold = Record::Hold { id, account, key, route, amount: Credits::ZERO };
        assert_eq!(outbox.push(&hold), None);
        let settle = Record::Settle { id, charge: Credits::ZERO, outcome: StatusClass::None };
        assert_eq!(outbox.push(&settle), Some(Ticket(1)));
    }
}
