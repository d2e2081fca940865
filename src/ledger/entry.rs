//! Entries: the lines of the books. Pure: what an entry says, against whom it stands, and how it
//! is chained to the one before it.
//!
//! Double-entry: whatever an account gets or pays stands against one of the operator's sides, so
//! that the sum over all accounts and sides is zero. Chained: each entry carries the SHA-256 of
//! itself and of the link before it, per account; what was changed, lost or put elsewhere breaks it.

use std::fmt::{self, Write};

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::types::{AccountId, Credits, WallTime};

/// Why an entry stands in the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// Credits given, the opening grant among them.
    Grant,
    /// A correction by the operator, up or down.
    Adjustment,
    /// What requests cost: one entry per account, route and fold.
    Charge,
    /// Requests whose hold was released, since they cost nothing: as charges, with an amount of 0.
    Release,
    /// A hold that a crash left open, charged in full.
    InDoubt,
    /// Such a hold, returned by command.
    GivenBack,
}

impl EntryKind {
    const ALL: [Self; 6] =
        [Self::Grant, Self::Adjustment, Self::Charge, Self::Release, Self::InDoubt, Self::GivenBack];

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
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Against whom it stands.
    #[must_use]
    pub const fn side(self) -> Side {
        match self {
            Self::Grant => Side::Granted,
            Self::Adjustment => Side::Adjusted,
            Self::Charge | Self::Release | Self::InDoubt | Self::GivenBack => Side::Earned,
        }
    }
}

/// The operator's side of an entry: it changes by the opposite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What was given away: never above zero.
    Granted,
    /// Corrections.
    Adjusted,
    /// What requests paid.
    Earned,
}

impl Side {
    /// Every side.
    pub const ALL: [Self; 3] = [Self::Granted, Self::Adjusted, Self::Earned];

    /// The name in the store and in exports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Adjusted => "adjusted",
            Self::Earned => "earned",
        }
    }
}

/// What stands on each of the operator's sides, in millionths: wider than one account's balance,
/// since there are many accounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sides {
    /// [`Side::Granted`].
    pub granted: i128,
    /// [`Side::Adjusted`].
    pub adjusted: i128,
    /// [`Side::Earned`].
    pub earned: i128,
}

impl Sides {
    /// One side.
    pub fn of(&mut self, side: Side) -> &mut i128 {
        match side {
            Side::Granted => &mut self.granted,
            Side::Adjusted => &mut self.adjusted,
            Side::Earned => &mut self.earned,
        }
    }

    /// The other half of an entry. Entries are 64 bits wide and counted by 64 bits: never overflows.
    pub fn take(&mut self, kind: EntryKind, amount: Credits) {
        *self.of(kind.side()) -= i128::from(amount.millionths());
    }

    /// All sides together.
    #[must_use]
    pub fn sum(&self) -> i128 {
        self.granted + self.adjusted + self.earned
    }
}

/// The SHA-256 that chains an entry to those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Link(pub [u8; 32]);

impl fmt::Display for Link {
    /// 64 hex digits.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl Serialize for Link {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One line of the ledger. Append-only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Entries of a ledger are numbered from 1, without a gap.
    pub id: u64,
    /// When it was written.
    pub at: WallTime,
    /// Whose.
    pub account: AccountId,
    /// Why.
    pub kind: EntryKind,
    /// What the balance changed by.
    pub amount: Credits,
    /// The account's balance after it.
    pub balance_after: Credits,
    /// The route, for charges.
    pub route: Option<String>,
    /// Requests that a charge sums up.
    pub requests: u64,
    /// What makes repeating a grant harmless, or the request's id.
    pub reference: Option<String>,
    /// Who did it: `file`, `command`, `requests`, `recovery`.
    pub actor: String,
    /// Chains it to the account's entry before it.
    pub link: Link,
}

impl Entry {
    /// The link that belongs to it behind `before`, the zero link for an account's first entry.
    #[must_use]
    pub fn link_behind(&self, before: &Link) -> Link {
        Link(Sha256::digest(self.text_behind(before)).into())
    }

    /// What a link is the SHA-256 of: the link before, and the fields as statements and exports
    /// print them, a tab between each; nothing where a field is absent. The reference, the only one
    /// that is free text, comes last.
    #[must_use]
    pub fn text_behind(&self, before: &Link) -> String {
        let Self { id, at, account, kind, amount, balance_after, requests, actor, .. } = self;
        let mut text = String::with_capacity(256);
        for byte in before.0 {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            text.extend([byte >> 4, byte & 15].map(|digit| char::from(DIGITS[usize::from(digit)])));
        }
        let (kind, route) = (kind.name(), self.route.as_deref().unwrap_or_default());
        let reference = self.reference.as_deref().unwrap_or_default();
        let written = write!(
            text,
            "\t{id}\t{at}\t{account}\t{kind}\t{amount}\t{balance_after}\t{route}\t{requests}\t{actor}\t{reference}"
        );
        debug_assert!(written.is_ok(), "a string takes everything");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            id: 7,
            at: WallTime(1_800_000_000_123),
            account: "acme".parse().unwrap(),
            kind: EntryKind::Charge,
            amount: Credits::from_millionths(-250_000),
            balance_after: Credits::from_millionths(8_499_750_000),
            route: Some("people.enrich".to_owned()),
            requests: 1,
            reference: None,
            actor: "requests".to_owned(),
            link: Link::default(),
        }
    }

    /// What the README tells customers to feed to sha256sum.
    #[test]
    fn a_link_can_be_recomputed_with_standard_tools() {
        let zeros = "0".repeat(64);
        let expected = format!(
            "{zeros}\t7\t2027-01-15T08:00:00.123Z\tacme\tcharge\t-0.25\t8499.75\tpeople.enrich\t1\trequests\t"
        );
        assert_eq!(entry().text_behind(&Link::default()), expected);
        let link = Link(Sha256::digest(expected).into());
        assert_eq!(entry().link_behind(&Link::default()), link);
        assert_ne!(entry().link_behind(&link), link);
    }

    #[test]
    fn names_are_those_of_one_kind_each() {
        for kind in EntryKind::ALL {
            assert_eq!(EntryKind::named(kind.name()), Some(kind));
        }
        assert_eq!(EntryKind::named("chargé"), None);
    }

    #[test]
    fn what_an_account_gets_its_side_gives() {
        let mut sides = Sides::default();
        sides.take(EntryKind::Grant, Credits::from_millionths(10));
        sides.take(EntryKind::Adjustment, Credits::from_millionths(-2));
        sides.take(EntryKind::Charge, Credits::from_millionths(-5));
        sides.take(EntryKind::GivenBack, Credits::from_millionths(1));
        assert_eq!(sides, Sides { granted: -10, adjusted: 2, earned: 4 });
        assert_eq!(sides.sum(), -(10 - 2 - 5 + 1));
    }
}
