//! Keeps in memory what keys, groups of keys and accounts with a spending limit may still spend.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};

use super::purse::{Lessee, Pot};
use super::store::{GroupId, LeaseOf};
use crate::policy::credit::{SpendLimit, Spending};
use crate::types::{AccountNum, Credits, KeyNum, NumberMap};

/// The credits that a key, a group of keys or an account may still spend: its limit less what it has spent and its open holds.
#[derive(Debug)]
pub struct SpendCap {
    of: LeaseOf,
    /// The limit, which changes rarely.
    limit: Mutex<SpendLimit>,
    pot: Pot,
}

impl SpendCap {
    /// The cap that follows from what was spent; `None` without a limit. `is_leased`: gateways of a fleet lease it.
    pub(super) fn new(of: LeaseOf, spending: &Spending, is_leased: bool) -> Option<Self> {
        let (limit, left) = (spending.limit?, spending.left()?);
        Some(Self { of, limit: Mutex::new(limit), pot: Pot::new(left, is_leased) })
    }

    /// True if it is the cap of this limit.
    pub(super) fn is_of(&self, of: LeaseOf) -> bool {
        self.of == of
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> SpendLimit {
        *self.limit.lock()
    }

    /// The limit less what was spent and the open holds; negative if the limit was lowered below that. A fleet knows the holds
    /// of this gateway.
    #[must_use]
    pub fn left(&self) -> Credits {
        self.pot.available()
    }

    /// Subtracts `amount` if that much is left; otherwise returns false.
    pub(super) fn try_take(&self, amount: Credits) -> bool {
        self.pot.try_take(amount)
    }

    /// Adds credits that were returned, or subtracts those of a hold that is open at the start.
    pub(super) fn change(&self, amount: Credits) {
        self.pot.give(amount);
    }

    /// More may be spent: a period has begun, or a charge was given back.
    pub(super) fn receive(&self, more: Credits) {
        self.pot.receive(more);
    }

    /// Sets another limit, which leaves this much more. Holds in flight stay subtracted.
    pub(super) fn set_limit(&self, limit: SpendLimit, more: Credits) {
        *self.limit.lock() = limit;
        self.pot.receive(more);
    }

    /// What was spent was read. True if the limit is another one.
    pub(super) fn saw(&self, spending: &Spending) -> bool {
        let (Some(limit), Some(left)) = (spending.limit, spending.left()) else { return false };
        self.pot.saw(left);
        std::mem::replace(&mut *self.limit.lock(), limit) != limit
    }
}

impl Lessee for SpendCap {
    fn of(&self) -> LeaseOf {
        self.of
    }

    fn pot(&self) -> &Pot {
        &self.pot
    }
}

/// The caps of a key: its own, and that of its group.
#[derive(Clone, Debug, Default)]
pub struct KeyCaps {
    /// That of the key; `None` without a spending limit.
    pub own: Option<Arc<SpendCap>>,
    /// That of the key's group; `None` if it is in none.
    pub group: Option<Arc<SpendCap>>,
}

impl KeyCaps {
    /// The caps of a key without a spending limit.
    pub const NONE: Self = Self { own: None, group: None };

    /// True if the key has no spending limit, and is in no group.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.own.is_none() && self.group.is_none()
    }

    /// Both caps, with the limits that a hold may exceed.
    pub fn all(&self) -> impl Iterator<Item = (Capped, &Arc<SpendCap>)> {
        let own = self.own.iter().map(|cap| (Capped::Key, cap));
        own.chain(self.group.iter().map(|cap| (Capped::Group, cap)))
    }
}

/// Two keys have the same caps if these are the same objects.
impl PartialEq for KeyCaps {
    fn eq(&self, other: &Self) -> bool {
        is_same(&self.own, &other.own) && is_same(&self.group, &other.group)
    }
}

fn is_same(one: &Option<Arc<SpendCap>>, other: &Option<Arc<SpendCap>>) -> bool {
    one.as_ref().map(Arc::as_ptr) == other.as_ref().map(Arc::as_ptr)
}

/// The caps that a hold counts against.
#[derive(Clone, Debug, Default)]
pub(super) struct Caps {
    pub(super) key: KeyCaps,
    pub(super) account: Option<Arc<SpendCap>>,
}

/// The limit that a hold would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capped {
    /// That of the key.
    Key,
    /// That of the key's group.
    Group,
    /// That of the account.
    Account,
}

impl Capped {
    /// Whose limit it is.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Group => "group",
            Self::Account => "account",
        }
    }
}

impl Caps {
    pub(super) fn all(&self) -> impl Iterator<Item = (Capped, &Arc<SpendCap>)> {
        self.key.all().chain(self.account.iter().map(|cap| (Capped::Account, cap)))
    }

    /// Subtracts `amount` from all caps or from none.
    pub(super) fn try_take(&self, amount: Credits) -> Result<(), Capped> {
        for (count, (capped, cap)) in self.all().enumerate() {
            if !cap.try_take(amount) {
                self.all().take(count).for_each(|(_, taken)| taken.change(amount));
                return Err(capped);
            }
        }
        Ok(())
    }

    /// Adds credits that were returned.
    pub(super) fn change(&self, amount: Credits) {
        self.all().for_each(|(_, cap)| cap.change(amount));
    }

    /// Passes what was taken from these caps on to those that the key and the account have now, where these are others.
    pub(super) fn pass_on(&self, to: &Self, amount: Credits) {
        let taken = Credits::ZERO.checked_sub(amount).unwrap_or_default();
        let pairs =
            [(&self.key.own, &to.key.own), (&self.key.group, &to.key.group), (&self.account, &to.account)];
        for (from, to) in pairs.into_iter().filter(|(from, to)| !is_same(from, to)) {
            from.iter().for_each(|cap| cap.change(amount));
            to.iter().for_each(|cap| cap.change(taken));
        }
    }
}

/// The caps of all keys with a spending limit, or in a group, by the key's number, and those of all groups.
#[derive(Debug, Default)]
pub(super) struct SpendCaps {
    keys: RwLock<NumberMap<KeyNum, KeyCaps>>,
    groups: RwLock<HashMap<GroupId, Arc<SpendCap>>>,
    /// True if a key, a group or an account has or had a cap.
    has_some: AtomicBool,
}

impl SpendCaps {
    pub(super) fn get(&self, key: KeyNum) -> KeyCaps {
        if self.is_empty() { KeyCaps::NONE } else { self.keys.read().get(&key).cloned().unwrap_or_default() }
    }

    /// True if nobody ever had a cap; one atomic load.
    pub(super) fn is_empty(&self) -> bool {
        !self.has_some.load(Ordering::Acquire)
    }

    /// Sets the caps of a key.
    pub(super) fn set(&self, key: KeyNum, caps: KeyCaps) {
        if caps.is_empty() {
            self.keys.write().remove(&key);
        } else {
            self.keys.write().insert(key, caps);
            self.note();
        }
    }

    /// Notes that there is a cap, before it is set.
    pub(super) fn note(&self) {
        self.has_some.store(true, Ordering::Release);
    }

    pub(super) fn group(&self, id: &GroupId) -> Option<Arc<SpendCap>> {
        self.groups.read().get(id).cloned()
    }

    /// Adds the cap of a group that had none.
    pub(super) fn add_group(&self, id: GroupId, cap: Arc<SpendCap>) {
        self.note();
        self.groups.write().insert(id, cap);
    }

    /// The groups of an account.
    pub(super) fn groups_of(&self, account: AccountNum) -> Vec<GroupId> {
        self.groups.read().keys().filter(|(of, _)| *of == account).cloned().collect()
    }

    /// The cap of a group with this number.
    pub(super) fn group_of_number(&self, of: LeaseOf) -> Option<Arc<SpendCap>> {
        self.groups.read().values().find(|cap| cap.of == of).cloned()
    }

    pub(super) fn remove_group(&self, id: &GroupId) {
        self.groups.write().remove(id);
    }
}
