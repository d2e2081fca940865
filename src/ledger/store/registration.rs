//! Defines what a configuration registers in the ledger before it can be published.

use super::AccountRow;
use crate::policy::key::KeyState;
use crate::types::{AccountId, BucketName, Credits, KeyId, KeyNum, RouteName, RouteNum};

/// An account of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFileAccount {
    /// The account's id.
    pub id: AccountId,
    /// Its opening grant, which is booked when the ledger first sees it.
    pub opening: Option<Credits>,
    /// Its plan.
    pub plan: Option<String>,
}

impl NewFileAccount {
    /// An account without a plan.
    #[must_use]
    pub fn new(id: AccountId, opening: Option<Credits>) -> Self {
        Self { id, opening, plan: None }
    }
}

/// The accounts, keys and routes of a configuration, which need ledger numbers before it can be published.
#[derive(Clone, Debug, Default)]
pub struct Registration {
    /// Accounts of the file.
    pub accounts: Vec<NewFileAccount>,
    /// Buckets, with their priorities.
    pub buckets: Vec<(BucketName, u32)>,
    /// The plans with a refill, and these refills as text; `None` if this registration is not about them.
    pub refills: Option<Vec<(String, String)>>,
    /// True if each request is to be listed with its charge; `None` if this registration is not about that.
    pub lists_requests: Option<bool>,
    /// Keys of the file: id, account, label.
    pub keys: Vec<(KeyId, AccountId, String)>,
    /// Names of all routes.
    pub routes: Vec<RouteName>,
}

/// The result of a [`Registration`]: the ledger numbers, each list in the order of the registration's list.
#[derive(Clone, Debug, Default)]
pub struct Registered {
    /// The accounts, after registration.
    pub accounts: Vec<AccountRow>,
    /// Numbers of the keys, and their states, which commands may have changed.
    pub keys: Vec<(KeyNum, KeyState)>,
    /// Numbers of the routes.
    pub routes: Vec<RouteNum>,
}
