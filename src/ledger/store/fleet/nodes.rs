//! The gateways of a fleet.

use crate::types::Credits;

/// A gateway of a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// Its number.
    pub num: i64,
    /// Its name.
    pub name: String,
    /// How long ago it was last seen, in milliseconds; `None` if it ended cleanly.
    pub seen: Option<u64>,
    /// Number of accounts of which it has leased credits.
    pub accounts: u64,
    /// The credits that it has leased.
    pub leased: Credits,
    /// True if its journal is in files of its machine.
    pub is_local: bool,
}
