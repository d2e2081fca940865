//! Defines the changes that a fold writes.

use super::OpenHold;
use crate::ledger::claims::ClaimChange;
use crate::ledger::record::ExternalId;
use crate::ledger::store::ChargedRequest;
use crate::types::{AccountNum, Credits, KeyHash, KeyNum, RequestId, RouteNum, StatusClass, WallTime};

/// The group that charges are summed up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChargeKey {
    /// The account that pays.
    pub account: AccountNum,
    /// The key of the requests.
    pub key: KeyNum,
    /// The route of the requests.
    pub route: RouteNum,
    /// The outcome of the requests.
    pub outcome: StatusClass,
    /// When the hold was made, if a lot of the account has ended since: that lot pays for it.
    pub held: Option<WallTime>,
}

/// The sum of the charges of one [`ChargeKey`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChargeSum {
    /// The sum of the charges.
    pub amount: Credits,
    /// Number of requests that were charged.
    pub requests: u64,
    /// Number of requests that cost nothing, since their holds were released.
    pub released: u64,
}

/// The changes that one fold writes to the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fold {
    /// The last batch that the fold includes.
    pub upto: u64,
    /// Charges since the last fold, in the order of their keys. Each key occurs once.
    pub charges: Vec<(ChargeKey, ChargeSum)>,
    /// Open holds to store, including stored holds to overwrite because they have been kept since.
    pub opened: Vec<OpenHold>,
    /// Stored holds that are settled.
    pub closed: Vec<RequestId>,
    /// Open holds to charge in full and to list as in doubt.
    pub doubts: Vec<OpenHold>,
    /// Kept holds that are the fleet's from now on.
    pub shared: Vec<OpenHold>,
    /// Kept holds that are settled.
    pub jobs: Vec<SettledJob>,
    /// Claims of idempotency keys that were made or decided.
    pub claims: Vec<(KeyHash, ClaimChange)>,
    /// What requests were charged, if they are listed.
    pub requests: Vec<ChargedRequest>,
}

/// A kept hold that is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettledJob {
    /// The hold.
    pub hold: OpenHold,
    /// The id by which it was settled.
    pub external_id: ExternalId,
    /// The credits charged.
    pub charge: Credits,
    /// When the batch with the settlement was written.
    pub at: WallTime,
}
