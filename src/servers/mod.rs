//! The servers of upstreams: which addresses there are, and the state of each. Workers and the control plane share it,
//! and it outlives reloads, so that a reload keeps counts and connections of the servers that stay.

mod budget;
mod group;
mod origin;
mod queue;
mod selection;
mod server;

pub use budget::RetryBudget;
pub use group::{MAX_ADDRESSES, OriginStatus, ServerGroup};
pub use origin::{Host, HttpVersions, Origin};
pub use queue::{Place, WaitQueue};
pub use selection::{NoServer, Selection};
pub use server::{Server, ServerState};
