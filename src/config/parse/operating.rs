//! Parses the sections about how the gateway is operated.

pub(super) mod admin;
pub(super) mod dashboard;
pub(super) mod idempotency;
pub(super) mod ledger;
pub(super) mod limit_store;
pub(super) mod payments;
pub(super) mod traces;
pub(super) mod usage;
pub(super) mod webhooks;
