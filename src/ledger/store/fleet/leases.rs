//! Leases: what the gateways of a fleet may spend of the credits that they share.
//!
//! Of each account, a gateway has leased some credits, which are its purse. What is not leased by any is free. A charge is
//! paid from the lease of the gateway that made it, in the transaction that books it. So the free credits of an account
//! become fewer only by being leased.

use crate::ledger::store::{RepeatRow, Result, Storage};
use crate::types::{AccountId, AccountNum, Credits, KeyHash, KeyId, KeyNum, RequestId, WallTime};

/// What gateways lease parts of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseOf {
    /// The credits of an account.
    Account(AccountNum),
    /// What the spending limit of a key leaves.
    Key(KeyNum),
    /// What the spending limit of a group of keys leaves, by the group's number.
    Group(u32),
    /// What the spending limit of an account leaves.
    Limit(AccountNum),
}

impl LeaseOf {
    /// As one number: which of the four in the bits above the lowest 32.
    #[must_use]
    pub fn number(self) -> i64 {
        let (kind, num) = match self {
            Self::Account(account) => (0, account.0),
            Self::Key(key) => (1, key.0),
            Self::Group(group) => (2, group),
            Self::Limit(account) => (3, account.0),
        };
        (kind << 32) | i64::from(num)
    }

    /// From [`LeaseOf::number`].
    #[must_use]
    pub fn of_number(number: i64) -> Option<Self> {
        let num = u32::try_from(number & i64::from(u32::MAX)).ok()?;
        match number >> 32 {
            0 => Some(Self::Account(AccountNum(num))),
            1 => Some(Self::Key(KeyNum(num))),
            2 => Some(Self::Group(num)),
            3 => Some(Self::Limit(AccountNum(num))),
            _ => None,
        }
    }
}

/// Credits that a gateway wants to lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseWanted {
    /// What of.
    pub of: LeaseOf,
    /// What requests wait for. If less is free, other gateways are asked to return what they do not need.
    pub need: Credits,
    /// What the request needs that needs least: less is of no use.
    pub least: Credits,
    /// What is to be leased if there is enough; at least `need`.
    pub target: Credits,
}

/// What was leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leased {
    /// The credits that were leased now, perhaps none.
    pub granted: Credits,
    /// What there is besides.
    pub elsewhere: Elsewhere,
    /// What other gateways have leased.
    pub others: Credits,
    /// What no gateway has leased now.
    pub free: Credits,
}

/// What a gateway learns when it says that it lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// True if this gateway does what one at a time does.
    pub leads: bool,
    /// Number of gateways that live.
    pub nodes: usize,
    /// What there is besides of everything that this gateway has leased a part of.
    pub elsewhere: Vec<(LeaseOf, Elsewhere)>,
}

/// What there is besides what a gateway has leased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// The credits, less what jobs of the fleet hold.
    pub credits: Credits,
    /// Number of jobs of the fleet that an account has open.
    pub jobs: u32,
}

/// A change that all gateways must know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its number. Later changes have higher ones.
    pub version: u64,
    /// What was changed.
    pub what: ChangedWhat,
    /// Secrets that no longer belong to a key.
    pub gone: Vec<KeyHash>,
}

/// What was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangedWhat {
    /// An account.
    Account(AccountId),
    /// A key.
    Key(KeyId),
    /// A token of the admin API.
    Tokens,
}

/// The changes after a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// All of them, the first ones first.
    Some(Vec<Change>),
    /// Some are not stored any more: read everything again. Has the version of the last one.
    Lost(u64),
}

/// A hint that another gateway did something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Something was changed.
    Changed,
    /// Another gateway needs credits of these.
    Called(Vec<LeaseOf>),
}

/// Receives hints, on any thread.
pub type OnHint = Box<dyn Fn(Hint) + Send + Sync>;

/// Opens the ledger as another gateway.
pub type OpenAs = Box<dyn Fn(&str) -> Result<Storage> + Send>;

/// The part of a store that the gateways of a fleet share credits through. All calls are made by one thread.
#[expect(clippy::missing_errors_doc, reason = "LedgerError says what each call can meet")]
pub trait Leases: Send {
    /// What this gateway has leased, and not spent.
    fn own(&mut self) -> Result<Vec<(LeaseOf, Credits)>>;
    /// Leases credits.
    fn lease(&mut self, wanted: &[LeaseWanted]) -> Result<Vec<Leased>>;
    /// Returns leased credits. They were taken from their purse before, and the settlements that returned them to it are on disk.
    fn give_back(&mut self, idle: &[(LeaseOf, Credits)]) -> Result<()>;
    /// What other gateways need, and this one has leased.
    fn called_in(&mut self) -> Result<Vec<LeaseOf>>;
    /// Says that this gateway lives.
    fn beat(&mut self) -> Result<Beat>;
    /// Says that this gateway ends, with everything folded, and returns all that it has leased and does not hold.
    fn leave(&mut self) -> Result<()>;
    /// Claims idempotency keys for requests, whose rows have no answer. Returns for each the request that did so before, if
    /// its time is not over, with its answer if it has one; `None`: it is claimed.
    fn claim(&mut self, wanted: &[RepeatRow], now: WallTime) -> Result<Vec<Option<RepeatRow>>>;
    /// Gives up claims of requests that no journal has.
    fn give_up_claims(&mut self, claims: &[(KeyHash, RequestId)]) -> Result<()>;
    /// Sets a function to be called at hints of other gateways. Hints may be lost, so changes and calls must be read regularly, too.
    fn on_hint(&mut self, hinted: OnHint);
    /// The version of the last change.
    fn version(&mut self) -> Result<u64>;
    /// The changes after a version.
    fn changes(&mut self, after: u64) -> Result<Changes>;
    /// The names of gateways that were lost, and whose journals can be read from here.
    fn lost(&mut self) -> Result<Vec<String>>;
    /// Opens the ledger as a gateway that was lost.
    fn opener(&self) -> OpenAs;
}
