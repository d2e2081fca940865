//! Defines ledger entries: their content, their contra account, and their link to the account's previous entry. Pure
//! functions.
//!
//! Double entry: what an account receives or pays is booked against one of the operator's accounts, so that the sum
//! over all accounts is zero. Chained: each entry of an account contains the SHA-256 of its own text and of the
//! previous entry's link, so that a changed, missing or moved entry is detected.

use std::fmt::{self, Write};

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::policy::credit::Split;
use crate::types::{AccountId, Credits, KeyId, StatusClass, WallTime};

/// The kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// Credits granted, including the opening grant.
    Grant,
    /// A correction by the operator, up or down.
    Adjustment,
    /// The cost of requests: one entry per account, key, route, outcome and fold.
    Charge,
    /// Requests that cost nothing: grouped like charges, with an amount of 0.
    Release,
    /// A hold that a crash left open, charged in full.
    InDoubt,
    /// The credits of a hold in doubt, returned by command.
    GivenBack,
    /// Credits that expired, or that a refill ended.
    Expiry,
}

impl EntryKind {
    const ALL: [Self; 7] = [
        Self::Grant,
        Self::Adjustment,
        Self::Charge,
        Self::Release,
        Self::InDoubt,
        Self::GivenBack,
        Self::Expiry,
    ];

    /// The name in the store and in exports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Adjustment => "adjustment",
            Self::Charge => "charge",
            Self::Release => "release",
            Self::InDoubt => "in_doubt",
            Self::GivenBack => "given_back",
            Self::Expiry => "expiry",
        }
    }

    /// The kind with this name; `None` if there is none.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The operator's account that an entry of this kind is booked against.
    #[must_use]
    pub const fn contra(self) -> OperatorAccount {
        match self {
            Self::Grant => OperatorAccount::Granted,
            Self::Adjustment => OperatorAccount::Adjusted,
            Self::Charge | Self::Release | Self::InDoubt | Self::GivenBack => OperatorAccount::Earned,
            Self::Expiry => OperatorAccount::Expired,
        }
    }
}

/// An account of the operator. Its balance changes by the opposite of each entry that is booked against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorAccount {
    /// Credits granted. Its balance is never above zero.
    Granted,
    /// Corrections of balances by the operator.
    Adjusted,
    /// Revenue: the charges of requests.
    Earned,
    /// Credits that expired unspent.
    Expired,
}

impl OperatorAccount {
    /// Every account of the operator.
    pub const ALL: [Self; 4] = [Self::Granted, Self::Adjusted, Self::Earned, Self::Expired];

    /// The name in the store and in exports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Adjusted => "adjusted",
            Self::Earned => "earned",
            Self::Expired => "expired",
        }
    }
}

/// The balances of the operator's accounts, in millionths. Wider than a customer's balance, since they add up those of
/// many customers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperatorBalances {
    /// [`OperatorAccount::Granted`].
    pub granted: i128,
    /// [`OperatorAccount::Adjusted`].
    pub adjusted: i128,
    /// [`OperatorAccount::Earned`].
    pub earned: i128,
    /// [`OperatorAccount::Expired`].
    pub expired: i128,
}

impl OperatorBalances {
    /// The balance of one of the accounts.
    pub fn of(&mut self, account: OperatorAccount) -> &mut i128 {
        match account {
            OperatorAccount::Granted => &mut self.granted,
            OperatorAccount::Adjusted => &mut self.adjusted,
            OperatorAccount::Earned => &mut self.earned,
            OperatorAccount::Expired => &mut self.expired,
        }
    }

    /// Books an entry against its contra account. Amounts and the number of entries have 64 bits, so the balances never
    /// overflow.
    pub fn book(&mut self, kind: EntryKind, amount: Credits) {
        *self.of(kind.contra()) -= i128::from(amount.millionths());
    }

    /// The sum of the balances.
    #[must_use]
    pub fn sum(&self) -> i128 {
        self.granted + self.adjusted + self.earned + self.expired
    }
}

/// The link of an entry: the SHA-256 that chains it to the account's earlier entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Link(pub [u8; 32]);

impl fmt::Display for Link {
    /// Writes 64 hex digits.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 64];
        let encoded = hex::encode_to_slice(self.0, &mut digits).is_ok(); // the lengths fit
        debug_assert!(encoded);
        out.write_str(std::str::from_utf8(&digits).unwrap_or_default())
    }
}

impl Serialize for Link {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An entry. Entries are only appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The number of the entry: an account's entries are numbered from 1, without gaps.
    pub number: u64,
    /// When the entry was written.
    pub at: WallTime,
    /// The account.
    pub account: AccountId,
    /// The kind.
    pub kind: EntryKind,
    /// The change of the balance.
    pub amount: Credits,
    /// The account's balance after the entry.
    pub balance_after: Credits,
    /// The buckets that the amount was added to or taken from.
    pub split: Split,
    /// The key of the requests, for charges.
    pub key: Option<KeyId>,
    /// The route of the requests, for charges.
    pub route: Option<String>,
    /// The outcome of the requests, for charges.
    pub outcome: Option<StatusClass>,
    /// The number of requests that a charge or release sums up.
    pub requests: u64,
    /// The reference of a booking, by which a repetition is recognised; or the request's id, for holds in doubt.
    pub reference: Option<String>,
    /// The origin of the entry: `file`, `command`, `requests` or `recovery`.
    pub actor: String,
    /// The link that chains the entry to the account's previous entry.
    pub link: Link,
}

impl Entry {
    /// Computes the link of this entry. `before`: the link of the account's previous entry, or zeros for its first
    /// entry.
    #[must_use]
    pub fn link_after(&self, before: &Link) -> Link {
        Link(Sha256::digest(self.text_after(before)).into())
    }

    /// The text whose SHA-256 is the link: the previous link, and the fields as statements and exports print them,
    /// separated by tabs; an absent field is empty. The reference is last, since it is the only free text.
    #[must_use]
    pub fn text_after(&self, before: &Link) -> String {
        let Self { number, at, account, kind, amount, balance_after, requests, actor, .. } = self;
        let (kind, bucket) = (kind.name(), self.split.text().unwrap_or_default());
        let key = self.key.map(|key| key.to_string()).unwrap_or_default();
        let route = self.route.as_deref().unwrap_or_default();
        let outcome = self.outcome.map(StatusClass::name).unwrap_or_default();
        let reference = self.reference.as_deref().unwrap_or_default();
        let mut text = String::with_capacity(256);
        let written = write!(
            text,
            "{before}\t{number}\t{at}\t{account}\t{kind}\t{amount}\t{balance_after}\t{bucket}\t{key}\t{route}\t{outcome}\t{requests}\t{actor}\t{reference}"
        );
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            number: 7,
            at: WallTime(1_800_000_000_123),
            account: "acme".parse().unwrap(),
            kind: EntryKind::Charge,
            amount: Credits::from_millionths(-250_000),
            balance_after: Credits::from_millionths(8_499_750_000),
            split: Split::default(),
            key: Some(KeyId(11)),
            route: Some("people.enrich".to_owned()),
            outcome: Some(StatusClass::Success),
            requests: 1,
            reference: None,
            actor: "requests".to_owned(),
            link: Link::default(),
        }
    }

    /// The text that the README tells customers to hash with sha256sum.
    #[test]
    fn a_link_can_be_recomputed_with_standard_tools() {
        let zeros = "0".repeat(64);
        let expected = format!(
            "{zeros}\t7\t2027-01-15T08:00:00.123Z\tacme\tcharge\t-0.25\t8499.75\t\t{}\tpeople.enrich\t2xx\t1\trequests\t",
            KeyId(11)
        );
        assert_eq!(entry().text_after(&Link::default()), expected);
        let link = Link(Sha256::digest(expected).into());
        assert_eq!(entry().link_after(&Link::default()), link);
        assert_ne!(entry().link_after(&link), link);
    }

    #[test]
    fn names_are_unique() {
        for kind in EntryKind::ALL {
            assert_eq!(EntryKind::named(kind.name()), Some(kind));
        }
        assert_eq!(EntryKind::named("chargé"), None);
    }

    #[test]
    fn what_an_account_gets_the_operator_gives() {
        let mut balances = OperatorBalances::default();
        balances.book(EntryKind::Grant, Credits::from_millionths(10));
        balances.book(EntryKind::Adjustment, Credits::from_millionths(-2));
        balances.book(EntryKind::Charge, Credits::from_millionths(-5));
        balances.book(EntryKind::GivenBack, Credits::from_millionths(1));
        balances.book(EntryKind::Expiry, Credits::from_millionths(-3));
        assert_eq!(balances, OperatorBalances { granted: -10, adjusted: 2, earned: 4, expired: 3 });
        assert_eq!(balances.sum(), -(10 - 2 - 5 + 1 - 3));
    }
}
