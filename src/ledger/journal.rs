//! Records, and the outboxes in which workers leave them for the ledger's thread.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Poll, Waker};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::policy::limit::take_array;
use crate::types::{AccountNum, Credits, KeyNum, RequestId, RouteNum};

/// Most bytes of records that wait in one outbox: over 100,000 holds. Past it, holds are refused.
pub const MAX_OUTBOX: usize = 4 * 1024 * 1024;

/// One record of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// Credits set aside: 37 bytes.
    Hold {
        /// The request's id.
        id: RequestId,
        /// Whose credits.
        account: AccountNum,
        /// Which key asked.
        key: KeyNum,
        /// For which route.
        route: RouteNum,
        /// How much.
        amount: Credits,
    },
    /// A hold turned into its charge, 0 for a release: 25 bytes.
    Settle {
        /// The request's id.
        id: RequestId,
        /// What it cost.
        charge: Credits,
    },
}

impl Record {
    /// Appends the record's bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hold { id, account, key, route, amount } => {
                out.push(b'H');
                out.extend_from_slice(&id.0.to_le_bytes());
                out.extend_from_slice(&account.0.to_le_bytes());
                out.extend_from_slice(&key.0.to_le_bytes());
                out.extend_from_slice(&route.0.to_le_bytes());
                out.extend_from_slice(&amount.millionths().to_le_bytes());
            }
            Self::Settle { id, charge } => {
                out.push(b'S');
                out.extend_from_slice(&id.0.to_le_bytes());
                out.extend_from_slice(&charge.millionths().to_le_bytes());
            }
        }
    }

    /// Reads one record off the front; `None` where there is none.
    pub fn read(bytes: &mut &[u8]) -> Option<Self> {
        let [kind] = take_array(bytes)?;
        let id = RequestId(u128::from_le_bytes(take_array(bytes)?));
        let mut number = || take_array(bytes).map(u32::from_le_bytes);
        match kind {
            b'H' => Some(Self::Hold {
                id,
                account: AccountNum(number()?),
                key: KeyNum(number()?),
                route: RouteNum(number()?),
                amount: Credits::from_millionths(i64::from_le_bytes(take_array(bytes)?)),
            }),
            b'S' => Some(Self::Settle {
                id,
                charge: Credits::from_millionths(i64::from_le_bytes(take_array(bytes)?)),
            }),
            _ => None,
        }
    }
}

/// Names the batch that a record is in. Batches of an outbox are numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Where one worker leaves its records. On cache lines of its own: only the ledger's thread comes by.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Outbox {
    queue: Mutex<Queue>,
    /// The last batch that is on disk.
    durable: AtomicU64,
    /// The last batch whose commit failed. It is tried again, but those who wait are told.
    failed: AtomicU64,
    /// Whether the worker has anybody to wake.
    waiting: AtomicBool,
    /// Whether the worker has nothing to do at the moment.
    parked: AtomicBool,
    notify: Notify,
}

/// Records since the last batch was taken.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) bytes: Vec<u8>,
    /// Batches taken before; the one being filled is the next.
    taken: u64,
}

impl Outbox {
    /// Leaves a record. Settlements always fit, since each follows a hold that did.
    pub fn push(&self, record: Record) -> Option<Ticket> {
        let mut queue = self.queue.lock();
        if queue.bytes.len() >= MAX_OUTBOX && matches!(record, Record::Hold { .. }) {
            return None;
        }
        record.write(&mut queue.bytes);
        Some(Ticket(queue.taken + 1))
    }

    pub(super) fn lock(&self) -> parking_lot::MutexGuard<'_, Queue> {
        self.queue.lock()
    }

    /// Says that all batches up to this one are on disk, or that this one's commit failed.
    pub(super) fn finish(&self, batch: u64, committed: bool) {
        let reached = if committed { &self.durable } else { &self.failed };
        reached.store(batch, Ordering::SeqCst);
        if self.waiting.swap(false, Ordering::SeqCst) {
            self.notify.notify_one();
        }
    }

    /// Whether the worker idles for those who wait for their records.
    pub(super) fn is_idling(&self) -> bool {
        self.parked.load(Ordering::SeqCst) && self.waiting.load(Ordering::SeqCst)
    }

    pub(super) fn set_parked(&self, parked: bool) {
        // Before it is looked whether the ledger's thread waits for it: that looks the other way round.
        self.parked.store(parked, Ordering::SeqCst);
    }

    fn state(&self, ticket: Ticket) -> Option<Result<(), NotDurable>> {
        if self.durable.load(Ordering::SeqCst) >= ticket.0 {
            return Some(Ok(()));
        }
        (self.failed.load(Ordering::SeqCst) >= ticket.0).then_some(Err(NotDurable))
    }
}

impl Queue {
    /// Takes the records for an empty list; later ones belong to the next batch.
    pub(super) fn take(&mut self, into: &mut Vec<u8>) -> u64 {
        std::mem::swap(&mut self.bytes, into);
        self.taken += 1;
        self.taken
    }
}

/// The commit of a record failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger could not write")]
pub struct NotDurable;

/// Those of one worker who wait for their records. One notification crosses threads per batch;
/// the worker wakes its own.
#[derive(Clone, Debug)]
pub struct Waiters {
    outbox: Arc<Outbox>,
    list: Rc<RefCell<Vec<(Ticket, Waker)>>>,
}

impl Waiters {
    /// Nobody waits yet.
    #[must_use]
    pub fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox, list: Rc::default() }
    }

    /// Waits until a record is on disk; one atomic load where it is already.
    ///
    /// # Errors
    /// [`NotDurable`] where its commit failed.
    pub async fn durable(&self, ticket: Ticket) -> Result<(), NotDurable> {
        let mut known: Option<Waker> = None;
        poll_fn(|context| {
            if let Some(state) = self.outbox.state(ticket) {
                return Poll::Ready(state);
            }
            // Once for each task: while a disk hangs, it may be polled any number of times.
            if !known.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
                known = Some(context.waker().clone());
                self.list.borrow_mut().push((ticket, context.waker().clone()));
            }
            self.outbox.waiting.store(true, Ordering::SeqCst);
            // The ledger's thread may have finished in between and seen nobody waiting.
            self.outbox.state(ticket).map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Wakes those whose batch is finished; runs on the worker for as long as it lives.
    pub async fn pump(&self) {
        loop {
            self.outbox.notify.notified().await;
            let outbox = &self.outbox;
            self.list.borrow_mut().retain(|(ticket, waker)| {
                let done = outbox.state(*ticket).is_some();
                if done {
                    waker.wake_by_ref();
                }
                !done
            });
            if !self.list.borrow().is_empty() {
                self.outbox.waiting.store(true, Ordering::SeqCst);
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
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_survive_bytes(id: u128, numbers: (u32, u32, u32), amount: i64) {
            let amount = Credits::from_millionths(amount);
            let hold = Record::Hold {
                id: RequestId(id),
                account: AccountNum(numbers.0),
                key: KeyNum(numbers.1),
                route: RouteNum(numbers.2),
                amount,
            };
            let settle = Record::Settle { id: RequestId(id), charge: amount };
            let mut bytes = Vec::new();
            hold.write(&mut bytes);
            settle.write(&mut bytes);
            let mut rest = &*bytes;
            prop_assert_eq!(Record::read(&mut rest), Some(hold));
            prop_assert_eq!(Record::read(&mut rest), Some(settle));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let mut rest = &*bytes;
            while Record::read(&mut rest).is_some() {}
        }
    }

    /// While a disk hangs, a request may be polled any number of times: it waits once.
    #[test]
    fn who_waits_is_kept_once() {
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
        assert_eq!(outbox.push(hold), None);
        assert_eq!(outbox.push(Record::Settle { id, charge: Credits::ZERO }), Some(Ticket(1)));
    }
}
