//! Holds a claim of an idempotency key until the response has begun.

use crate::gateway::request::services::Services;
use crate::ledger::{Claim, JobSlot};
use crate::snapshot::Idempotency;
use crate::types::WallTime;
use crate::types::seal::SealKey;

/// A request's claim of its idempotency key, until the response has begun.
#[derive(Debug)]
pub(in crate::gateway::request) struct Claimed {
    pub(in crate::gateway::request) claim: Claim,
    pub(super) settings: Idempotency,
    pub(super) seal: SealKey,
    /// The place of the job that the request opens.
    pub(super) job: Option<JobSlot>,
}

impl Claimed {
    /// Until when a repeated request gets the same response.
    pub(in crate::gateway::request) fn until(&self, services: &Services) -> WallTime {
        services.connections.clock.wall().plus(self.settings.keep)
    }
}
