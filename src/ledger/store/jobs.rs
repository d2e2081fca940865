//! Defines the rows of jobs: holds that outlived their requests.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use crate::ledger::tally::OpenHold;
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

/// An open job that a gateway of a fleet took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenJobs {
    /// Its hold.
    pub id: RequestId,
    /// All holds of its account with its external id, of which one pays for it.
    pub holds: Vec<OpenHold>,
}

/// What became of a job of a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FleetJob {
    /// It is open, and no gateway is settling it.
    Open(OpenHold),
    /// A gateway is settling it.
    BeingSettled,
    /// It is settled.
    Settled,
    /// There is none, or several accounts have one.
    Unknown,
}

/// Selects jobs.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Only those of this account.
    pub account: Option<AccountId>,
    /// Only those with this id of the upstream.
    pub external_id: Option<String>,
    /// Only those after this one in the list.
    pub after: Option<JobPlace>,
}

/// The place of a job in the list: open ones first, by descending id, then those that were settled, the last one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobPlace {
    /// An open job.
    Open(RequestId),
    /// A settled job, by its number.
    Settled(i64),
}

impl JobRow {
    /// The place of the job in the list.
    #[must_use]
    pub fn place(&self) -> JobPlace {
        self.settled.map_or(JobPlace::Open(self.id), |settled| JobPlace::Settled(settled.number))
    }
}

impl fmt::Display for JobPlace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(id) => write!(out, "o{}", id.0),
            Self::Settled(number) => write!(out, "s{number}"),
        }
    }
}

impl FromStr for JobPlace {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        match text.strip_prefix('o') {
            Some(id) => id.parse().map(|id| Self::Open(RequestId(id))),
            None => text.strip_prefix('s').unwrap_or_default().parse().map(Self::Settled),
        }
    }
}
