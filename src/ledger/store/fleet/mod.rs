//! What a store has besides for the gateways of a fleet.

mod leases;
mod nodes;

pub use leases::{
    Beat, Change, ChangedWhat, Changes, Elsewhere, LeaseOf, LeaseWanted, Leased, Leases, OpenAs,
};
pub use nodes::NodeRow;
