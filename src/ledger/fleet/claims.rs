//! Claims idempotency keys for requests, where the gateways of a fleet share them: one request of all of them is the first.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::desk::{Desk, MAX_ANSWER, NoLease};
use crate::ledger::store::{Leases, RepeatRow, Result};
use crate::types::{KeyHash, RequestId, WallTime};

/// Most requests that wait for a claim. Further ones are refused.
const MAX_CLAIMING: usize = 10_000;
/// Most claims that wait to be given up. Requests with the keys of further ones are refused until the gateway is restarted.
const MAX_GIVEN_UP: usize = 100_000;
/// Most claims of one transaction.
const MAX_AT_ONCE: usize = 256;

/// What became of a claim.
#[derive(Debug)]
pub(in crate::ledger) enum Claiming {
    /// The request is the first one of the fleet.
    First(FleetClaim),
    /// This one was the first. It has no answer while it is in progress.
    Known(RepeatRow),
}

/// A claim that the fleet knows of, but no record of the journal. If it is dropped, it is given up.
#[derive(Debug)]
pub(in crate::ledger) struct FleetClaim {
    desk: Arc<Desk>,
    claim: Option<(KeyHash, RequestId)>,
}

impl FleetClaim {
    /// The claim is in the journal.
    pub(in crate::ledger) fn recorded(&mut self) {
        self.claim = None;
    }
}

impl Drop for FleetClaim {
    fn drop(&mut self) {
        self.desk.claims.give_up(self.claim.take());
    }
}

#[derive(Debug)]
struct Asked {
    row: RepeatRow,
    now: WallTime,
    told: oneshot::Sender<Result<Claiming, NoLease>>,
}

/// Requests that wait for a claim, and claims that are given up.
#[derive(Debug, Default)]
pub(super) struct ClaimQueue {
    asked: Mutex<VecDeque<Asked>>,
    given_up: Mutex<Vec<(KeyHash, RequestId)>>,
}

impl ClaimQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.asked.lock().is_empty()
    }

    /// Ends all waits: the ledger is closed.
    pub(super) fn clear(&self) {
        self.asked.lock().clear();
    }

    fn give_up(&self, claims: impl IntoIterator<Item = (KeyHash, RequestId)>) {
        let mut given_up = self.given_up.lock();
        let room = MAX_GIVEN_UP.saturating_sub(given_up.len());
        given_up.extend(claims.into_iter().take(room));
    }

    /// Claims what is asked for, at most [`MAX_AT_ONCE`], and gives up what is not needed any more.
    ///
    /// # Errors
    /// If the store fails: what is given up is tried again.
    pub(super) fn work(&self, leases: &mut dyn Leases, desk: &Arc<Desk>) -> Result<()> {
        let given_up = std::mem::take(&mut *self.given_up.lock());
        if !given_up.is_empty()
            && let Err(error) = leases.give_up_claims(&given_up)
        {
            self.give_up(given_up);
            return Err(error);
        }
        let some: Vec<Asked> = {
            let mut asked = self.asked.lock();
            asked.retain(|asked| !asked.told.is_closed()); // it has waited for too long
            let count = asked.len().min(MAX_AT_ONCE);
            asked.drain(..count).collect()
        };
        let Some(now) = some.iter().map(|asked| asked.now).max() else { return Ok(()) };
        let (rows, told): (Vec<_>, Vec<_>) = some.into_iter().map(|asked| (asked.row, asked.told)).unzip();
        let known = leases.claim(&rows, now).inspect_err(|_| {
            self.give_up(rows.iter().map(|row| (row.id, row.hold)));
        })?;
        for ((row, told), known) in rows.into_iter().zip(told).zip(known) {
            let first = || FleetClaim { desk: Arc::clone(desk), claim: Some((row.id, row.hold)) };
            let claiming = known.map_or_else(|| Claiming::First(first()), Claiming::Known);
            let _ = told.send(Ok(claiming)); // if nobody waits, it is dropped, and given up
        }
        Ok(())
    }
}

impl Desk {
    /// Claims an idempotency key for a request of the fleet, unless there was one before.
    ///
    /// # Errors
    /// [`NoLease`] if the database does not answer, or too many wait.
    pub(in crate::ledger) async fn claim(&self, row: RepeatRow, now: WallTime) -> Result<Claiming, NoLease> {
        let (told, wait) = oneshot::channel();
        {
            let mut asked = self.claims.asked.lock();
            if asked.len() >= MAX_CLAIMING {
                return Err(NoLease);
            }
            asked.push_back(Asked { row, now, told });
        }
        if !self.wake() {
            return Err(NoLease);
        }
        let told = tokio::time::timeout(MAX_ANSWER, wait).await;
        told.map_or(Err(NoLease), |told| told.unwrap_or(Err(NoLease)))
    }
}
