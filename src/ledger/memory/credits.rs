//! Defines the lots and refills of the in-memory store.

use std::collections::{BTreeMap, BTreeSet};

use crate::ledger::store::RefillState;
use crate::policy::credit::Lot;
use crate::types::{AccountNum, BucketName};

/// Lots, buckets and refills.
#[derive(Clone, Debug, Default)]
pub(super) struct CreditData {
    pub(super) lots: Vec<(AccountNum, Lot)>,
    pub(super) buckets: BTreeMap<BucketName, u32>,
    pub(super) refills: BTreeMap<AccountNum, PlanOf>,
    pub(super) plan_refills: Vec<(String, String)>,
    /// Accounts that have or had lots.
    pub(super) known: BTreeSet<AccountNum>,
}

/// The plan of an account.
#[derive(Clone, Debug)]
pub(super) struct PlanOf {
    pub(super) plan: String,
    pub(super) state: RefillState,
}
