//! Defines what the list of claims knows of each.

use std::sync::Arc;

use tokio::sync::watch;

use crate::ledger::outbox::{Outbox, Ticket};
use crate::ledger::store::RepeatRow;
use crate::types::{KeyHash, RequestId, WallTime};

/// A claim.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) request: KeyHash,
    /// The first request, once it has recorded its claim.
    pub(super) hold: Option<RequestId>,
    pub(super) until: WallTime,
    pub(super) state: State,
    /// The request whose claim was released before, if no fold has stored that yet.
    pub(super) released: Option<Released>,
}

/// A claim that was released. The next one is made only once that is on disk: records of one batch have no order among
/// workers.
#[derive(Clone, Debug)]
pub(super) struct Released {
    pub(super) hold: RequestId,
    pub(super) outbox: Arc<Outbox>,
    pub(super) ticket: Ticket,
}

impl Released {
    pub(super) fn is_durable(&self) -> bool {
        self.outbox.state(self.ticket) == Some(Ok(()))
    }
}

/// What is known of a claim.
#[derive(Debug)]
pub(super) enum State {
    /// The store is being read. The receiver gets what it has.
    Reading(watch::Receiver<Option<Arc<RepeatRow>>>),
    InProgress,
    /// In progress in the process that handed the ledger over.
    Adopted,
    /// Answered; a repeated request gets the answer once it is on disk.
    Answered(Arc<[u8]>, Arc<Outbox>, Ticket),
    Lost,
    Released(Released),
}

impl State {
    /// The state of a claim whose answer is recorded; an answer without a byte was not kept.
    pub(super) fn of(sealed: Vec<u8>, outbox: &Arc<Outbox>, ticket: Ticket) -> Self {
        match sealed.is_empty() {
            true => Self::Lost,
            false => Self::Answered(sealed.into(), Arc::clone(outbox), ticket),
        }
    }
}
