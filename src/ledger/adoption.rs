//! Hands a ledger over to another process while requests are in flight. The old process closes the ledger with their
//! holds open; the new one adopts these holds, and the old one passes it their settlements. Holds that are still open
//! when the old process is gone become holds in doubt, as after a crash.

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::outbox::NotDurable;
use super::record::Kept;
use crate::types::{Credits, KeyHash, RequestId, StatusClass};

/// Most settlements that wait to be passed on. Further ones are lost: their holds become holds in doubt.
const MAX_PASSED_ON: usize = 65_536;

/// Most settlements that wait, from which on answers are not passed on. An answer has at most some 1 MiB.
const MAX_ANSWERS: usize = 256;

/// A settlement of a hold that another process adopted.
#[derive(Debug)]
pub struct PassedOn {
    /// The request's id.
    pub id: RequestId,
    /// What happens to its hold.
    pub settlement: Settlement,
    done: watch::Sender<Option<bool>>,
}

/// What happens to a hold at the end of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It is charged, and the rest is returned.
    Charge(Credits, StatusClass),
    /// It outlives its request.
    Keep(Kept),
    /// It was kept by an earlier request, and is charged now, unless it is settled already.
    Job(Credits, StatusClass),
    /// Its claim of an idempotency key has this encrypted answer; `None`: it is released.
    Claim(KeyHash, Option<Vec<u8>>),
}

impl PassedOn {
    /// Reports whether the settlement is on disk. If the value is dropped instead, it counts as not on disk.
    pub fn finish(self, is_durable: bool) {
        self.done.send_replace(Some(is_durable));
    }
}

/// Passes settlements on, once the ledger was handed over.
#[derive(Debug, Default)]
pub(super) struct Successor(Mutex<Option<mpsc::Sender<PassedOn>>>);

impl Successor {
    /// From now on settlements are passed on to the receiver.
    pub(super) fn open(&self) -> mpsc::Receiver<PassedOn> {
        let (sender, receiver) = mpsc::channel(MAX_PASSED_ON);
        *self.0.lock() = Some(sender);
        receiver
    }

    /// True if the ledger was handed over.
    pub(super) fn is_open(&self) -> bool {
        self.0.lock().is_some()
    }

    /// Passes a settlement on.
    pub(super) fn pass_on(&self, id: RequestId, settlement: Settlement) -> Awaited {
        let (done, awaited) = watch::channel(None);
        if let Some(sender) = &*self.0.lock() {
            let is_busy = sender.max_capacity() - sender.capacity() > MAX_ANSWERS;
            let settlement = match settlement {
                Settlement::Claim(id, Some(_)) if is_busy => Settlement::Claim(id, Some(Vec::new())),
                other => other,
            };
            let _ = sender.try_send(PassedOn { id, settlement, done }); // dropping it reports the loss
        }
        Awaited(awaited)
    }
}

/// Waits until a settlement that was passed on is on disk.
#[derive(Clone, Debug)]
pub(super) struct Awaited(watch::Receiver<Option<bool>>);

impl Awaited {
    /// # Errors
    /// [`NotDurable`] if it could not be written, or nobody takes it.
    pub(super) async fn durable(&self) -> Result<(), NotDurable> {
        let mut awaited = self.0.clone();
        let done = awaited.wait_for(Option::is_some).await.map(|done| *done);
        if matches!(done, Ok(Some(true))) { Ok(()) } else { Err(NotDurable) }
    }
}
