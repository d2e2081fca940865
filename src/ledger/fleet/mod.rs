//! Lets the gateways of a fleet share the credits of accounts: each leases some of them ahead of need. Also lets them share
//! idempotency keys.

mod bookkeeper;
mod claims;
mod desk;
mod recovery;
mod thread;

pub(super) use claims::{Claiming, FleetClaim};
pub(super) use desk::Desk;
pub use desk::{Lease, NoLease};
pub(super) use thread::LeaseThread;
