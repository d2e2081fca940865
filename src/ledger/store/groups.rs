//! Defines named groups of an account's keys that have a spending limit together.

use super::{LedgerError, Result};
use crate::policy::credit::Spending;
use crate::types::{AccountNum, GroupName};

/// Most groups of an account.
pub const MAX_GROUPS: usize = 100;

/// What identifies a group: its account, and its name.
pub type GroupId = (AccountNum, GroupName);

/// A group of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRow {
    /// The account, and the group's name.
    pub id: GroupId,
    /// Its number in the ledger.
    pub num: u32,
    /// What its keys have spent while they were in it, at the last fold, and its limit.
    pub spending: Spending,
    /// How many keys that are not revoked are in it.
    pub keys: usize,
}

impl GroupRow {
    /// Refuses to delete a group that keys are in.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if there are some.
    pub fn check_unused(&self) -> Result<()> {
        match self.keys {
            0 => Ok(()),
            keys => {
                let (what, name) = (if keys == 1 { "key is" } else { "keys are" }, &self.id.1);
                Err(LedgerError::Refused(format!(
                    "{keys} {what} in the group {name}: move or revoke them first"
                )))
            }
        }
    }
}
