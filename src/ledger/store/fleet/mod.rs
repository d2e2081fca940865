//! What a store has besides for the gateways of a fleet.

mod leases;
mod nodes;

pub use leases::{
    Beat, Change, ChangedWhat, Changes, Elsewhere, Hint, LeaseOf, LeaseWanted, Leased, Leases, OnHint, OpenAs,
};
pub use nodes::NodeRow;
