//! Defines where credits go and come from, how lots end, how accounts are refilled, and which spending limits began anew.

use super::{Booking, GroupId};
use crate::policy::credit::{LotId, LotTerms, Split};
use crate::types::{AccountId, AccountNum, Credits, KeyNum, WallTime};

/// Most lots of an account. Grants with the same bucket and expiry share a lot.
pub const MAX_LOTS: usize = 1_000;

/// Where the credits of an entry come from or go to.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// What is added goes to the rest. What is taken comes from the lots in their order; `Some`: when the hold was made.
    Any(Option<WallTime>),
    /// The lot with these terms, or a new one.
    NewLot(&'a LotTerms),
    /// A lot.
    Lot(LotId),
    /// The buckets that paid, in lots that do not expire.
    Back(&'a Split),
}

/// Credits of a lot that expire. The lot ends, even if the amount is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LotEnd {
    /// The account.
    pub account: AccountNum,
    /// The lot.
    pub lot: LotId,
    /// The credits that expire now. What else is left is for holds in flight.
    pub amount: Credits,
}

/// An account whose refill is due, or that is on a plan which may have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueRefill {
    /// The account's number.
    pub num: AccountNum,
    /// The account's id.
    pub account: AccountId,
    /// When the account was created: the anchor of its periods.
    pub created: WallTime,
    /// The plan.
    pub plan: String,
    /// The start of the last period that was refilled; `None` if none was on this plan.
    pub refilled: Option<WallTime>,
}

impl Booking {
    /// Where its credits go.
    #[must_use]
    pub fn place(&self) -> Place<'_> {
        self.lot.as_ref().map_or(Place::Any(None), Place::NewLot)
    }
}

/// The spending limits whose period has begun, and by how much each now leaves more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begun {
    /// Those of keys.
    pub keys: Vec<(KeyNum, Credits)>,
    /// Those of groups of keys.
    pub groups: Vec<(GroupId, Credits)>,
    /// Those of accounts.
    pub accounts: Vec<(AccountNum, Credits)>,
}

/// The refill of one account.
#[derive(Clone, Debug)]
pub struct RefillBooking {
    /// The account's number.
    pub num: AccountNum,
    /// The plan.
    pub plan: String,
    /// The lots that end.
    pub ends: Vec<LotEnd>,
    /// The grant; `None` if there is nothing to grant.
    pub grant: Option<Booking>,
    /// The state after it.
    pub state: RefillState,
}

/// When an account is refilled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefillState {
    /// When it is to be looked at next; `None` if its plan has no refill.
    pub due: Option<WallTime>,
    /// The start of the last period that was refilled; `None` if that does not count.
    pub refilled: Option<WallTime>,
    /// True if the configuration does not have the account or its plan.
    pub is_absent: bool,
}
