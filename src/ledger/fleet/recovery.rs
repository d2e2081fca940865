//! Settles what lost gateways left: folds their journals, charges what they held, as after a crash, and returns their leases.

use std::collections::HashMap;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::Clock;
use crate::ledger::store::{Leases, LedgerError, Result, Storage};
use crate::types::Moment;

/// Pause until what a lost gateway left is tried to be settled again.
const AGAIN: Duration = Duration::from_secs(15);
/// How long this gateway must have reached the database before it settles others: after an outage of the database, living gateways
/// have had this time to say that they live.
const REACHED_FOR: Duration = Duration::from_secs(10);

/// Settles lost gateways, one at a time, on a thread of its own.
pub(super) struct Recovery {
    clock: Clock,
    /// Opens the ledger of a lost gateway, and closes it. Returns the number of holds that were charged.
    settle: fn(Storage, Clock) -> Result<usize>,
    /// Since when the database has been reached; `None` if it was not reached when last tried.
    reached_since: Option<Moment>,
    /// When it was last tried for each gateway.
    tried: HashMap<String, Moment>,
    /// Returns true if the gateway was settled.
    thread: Option<JoinHandle<bool>>,
}

impl Recovery {
    pub(super) fn new(clock: Clock, settle: fn(Storage, Clock) -> Result<usize>) -> Self {
        Self { clock, settle, reached_since: None, tried: HashMap::new(), thread: None }
    }

    /// The database was reached, or was not.
    pub(super) fn set_reached(&mut self, is_reached: bool) {
        let now = self.clock.now();
        self.reached_since = is_reached.then(|| self.reached_since.unwrap_or(now));
    }

    /// Begins to settle a lost gateway, if there is one. This process does so as that gateway, which cannot serve meanwhile.
    pub(super) fn settle_lost(&mut self, leases: &mut dyn Leases) -> Result<()> {
        let now = self.clock.now();
        let is_new = self.reached_since.is_none_or(|since| now.since(since) < REACHED_FOR);
        if is_new || self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return Ok(());
        }
        let is_due = |name: &String| self.tried.get(name).is_none_or(|tried| now.since(*tried) >= AGAIN);
        let Some(name) = leases.lost()?.into_iter().find(is_due) else { return Ok(()) };
        self.tried.insert(name.clone(), now);
        let (open, clock, settle) = (leases.opener(), self.clock.clone(), self.settle);
        let recover = move || match open(&name).and_then(|storage| settle(storage, clock)) {
            Ok(holds) => {
                tracing::warn!(node = name, holds, "a gateway was lost: what it held was charged");
                true
            }
            Err(error) => {
                tracing::error!(node = name, %error, "what a lost gateway left is not settled yet");
                false
            }
        };
        let thread = std::thread::Builder::new().name("tollgate-recover".to_owned()).spawn(recover);
        self.thread =
            Some(thread.map_err(|error| LedgerError::Failed(format!("cannot start a thread: {error}")))?);
        Ok(())
    }

    /// Waits until nothing is being settled. True if a gateway was settled.
    pub(super) fn join(&mut self) -> bool {
        self.thread.take().is_some_and(|thread| thread.join().unwrap_or(false))
    }
}
