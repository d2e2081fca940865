//! Defines the changes that the control plane makes: bookings, new accounts, and changes of accounts and keys.

use ipnet::IpNet;

use super::{AccountState, KeyRow};
use crate::ledger::entry::{Entry, EntryKind};
use crate::policy::credit::{LotTerms, SpendLimit};
use crate::policy::key::{KeyState, Scopes};
use crate::types::{AccountId, Credits, GroupName, KeyHash, KeyNum, WallTime};

/// A grant or an adjustment.
#[derive(Clone, Debug)]
pub struct Booking {
    /// The account whose balance changes.
    pub account: AccountId,
    /// [`EntryKind::Grant`] or [`EntryKind::Adjustment`].
    pub kind: EntryKind,
    /// The change of the balance; positive for a grant.
    pub amount: Credits,
    /// A unique reference. A second booking with the same reference changes nothing and returns the first.
    pub reference: String,
    /// Who books, which is recorded in the entry.
    pub actor: String,
    /// The key that is charged, if it is one.
    pub key: Option<KeyNum>,
    /// The bucket and the expiry of granted credits; `None` for the default bucket, without expiry. Credits that are taken
    /// away come from the buckets as a charge does.
    pub lot: Option<LotTerms>,
}

/// The result of a booking.
#[derive(Clone, Debug)]
pub struct Booked {
    /// The entry of this booking, or of the first booking with the same reference.
    pub entry: Entry,
    /// True if the booking existed already, so that nothing changed.
    pub repeated: bool,
}

/// An account to create.
#[derive(Clone, Debug)]
pub struct NewAccount {
    /// The account's id, chosen by the operator.
    pub id: AccountId,
    /// A name for people; may be empty.
    pub name: String,
    /// The account's plan.
    pub plan: Option<String>,
    /// The opening grant, and who books it.
    pub opening: Option<(Credits, String)>,
}

/// A change of an account. Fields that are `None` stay as they are.
#[derive(Clone, Debug, Default)]
pub struct AccountChange {
    /// The version that the change is based on; `None` for any.
    pub version: Option<u64>,
    /// A new name.
    pub name: Option<String>,
    /// A new plan, or none. Only for accounts that were created by command.
    pub plan: Option<Option<String>>,
    /// A new state. [`AccountState::Closed`] revokes all keys, and is final.
    pub state: Option<AccountState>,
}

/// An object of the ledger before and after a change.
#[derive(Clone, Debug)]
pub struct Changed<T> {
    /// The object before the change.
    pub before: T,
    /// The object after the change.
    pub after: T,
}

/// A key and the id of its account.
pub type OwnedKey = (KeyRow, AccountId);

/// A change of a key, and the version that it is based on.
#[derive(Clone, Debug)]
pub struct KeyEdit {
    /// The version that the change is based on; `None` for any.
    pub version: Option<u64>,
    /// The change.
    pub change: KeyChange,
}

/// The rules of a key that an operator may edit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyTerms {
    /// The label, for operators.
    pub label: String,
    /// Name patterns of the routes that the key may use; `None` for every route.
    pub scopes: Option<Scopes>,
    /// Networks from which clients may use the key; `None` for any.
    pub allow_from: Option<Vec<IpNet>>,
    /// The time from which on the key is refused; `None` if it does not expire.
    pub expires: Option<WallTime>,
    /// The limits that replace those of the account's plan, as JSON; `None` if the plan's limits apply.
    pub limits: Option<String>,
    /// The most that the key may spend; `None` for no limit.
    pub spend_limit: Option<SpendLimit>,
    /// The group that the key is in.
    pub group: Option<GroupName>,
}

/// A change of a key that was created by command, or of the state of a key in the configuration file.
#[derive(Clone, Debug)]
pub enum KeyChange {
    /// Disable, enable or revoke the key.
    State(KeyState),
    /// Replace the terms.
    Terms(KeyTerms),
    /// Replace the secret. The old one is accepted until `overlap_until`, or refused immediately if that is `None`.
    Rotate {
        /// SHA-256 of the new secret.
        hash: KeyHash,
        /// The hint of the new secret, by which operators recognise it.
        hint: String,
        /// The time until which the old secret is accepted.
        overlap_until: Option<WallTime>,
    },
    /// Refuse the old secret from now on, before its overlap ends.
    EndOverlap,
}
