//! Defines the rows of single requests, which are compared with the bills of upstreams.

use crate::types::{AccountId, AccountNum, Credits, KeyId, KeyNum, RequestId, RouteNum, WallTime};

/// What a request was charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChargedRequest {
    /// The request's id.
    pub id: RequestId,
    /// The account that paid.
    pub account: AccountNum,
    /// The key of the request.
    pub key: KeyNum,
    /// The route of the request.
    pub route: RouteNum,
    /// The credits charged; 0 if its hold was released.
    pub charge: Credits,
    /// When the batch with its hold was written.
    pub at: WallTime,
}

/// What a request was charged, as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRow {
    /// The request's id.
    pub id: RequestId,
    /// The account that paid.
    pub account: AccountId,
    /// The key of the request.
    pub key: Option<KeyId>,
    /// The name of the request's route.
    pub route: String,
    /// The credits charged, less those that were given back.
    pub charge: Credits,
    /// When its hold was written.
    pub at: WallTime,
}
