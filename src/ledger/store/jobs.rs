//! Defines the rows of jobs: holds that outlived their requests.

use crate::types::{AccountId, Credits, KeyId, RequestId, WallTime};

/// A job of an upstream, which a request opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRow {
    /// The id of the request that opened it.
    pub id: RequestId,
    /// The account that pays.
    pub account: AccountId,
    /// The key of the request; `None` if it is gone.
    pub key: Option<KeyId>,
    /// The name of the route of the request.
    pub route: String,
    /// The upstream's id of the job.
    pub external_id: String,
    /// The credits that are or were held.
    pub amount: Credits,
    /// When it was opened.
    pub opened: WallTime,
    /// When an open job is settled automatically.
    pub deadline: Option<WallTime>,
    /// What became of it; `None` while it is open.
    pub settled: Option<SettledJobRow>,
}

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettledJobRow {
    /// The credits that were charged.
    pub charge: Credits,
    /// When it was settled.
    pub at: WallTime,
    /// Its number among the settled jobs.
    pub number: i64,
}

/// Selects jobs.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Only those of this account.
    pub account: Option<AccountId>,
    /// Only those with this id of the upstream.
    pub external_id: Option<String>,
    /// Only settled ones with a smaller number.
    pub before: Option<i64>,
}
