//! Holds a claim of an idempotency key until the response has begun.

use crate::gateway::request::services::Services;
use crate::ledger::outbox::NotDurable;
use crate::ledger::{Claim, Hold};
use crate::snapshot::Idempotency;
use crate::types::seal::SealKey;

/// A request's claim of its idempotency key, until the response has begun.
#[derive(Debug)]
pub(in crate::gateway::request) struct Claimed {
    pub(super) claim: Claim,
    pub(super) settings: Idempotency,
    pub(super) seal: SealKey,
}

impl Claimed {
    /// Records the claim for a hold. Both are on disk when this returns.
    ///
    /// # Errors
    /// [`NotDurable`] if they cannot be written: release both.
    pub(in crate::gateway::request) async fn record(
        &mut self,
        hold: &Hold,
        services: &Services,
    ) -> Result<(), NotDurable> {
        let Some(id) = hold.id() else { return Err(NotDurable) };
        let until = services.connections.clock.wall().plus(self.settings.keep);
        self.claim.record(id, until).await
    }
}
