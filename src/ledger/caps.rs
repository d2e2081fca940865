//! Keeps in memory what keys and accounts with a spending limit may still spend.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::policy::credit::{SpendLimit, Spending, after_hold};
use crate::types::{Credits, KeyNum, NumberMap};

/// The credits that a key or an account may still spend: its limit less what it has spent and its open holds.
#[derive(Debug)]
pub struct SpendCap {
    /// The limit, which changes rarely.
    limit: Mutex<SpendLimit>,
    left: AtomicI64,
}

impl SpendCap {
    pub(super) fn new(limit: SpendLimit, left: Credits) -> Self {
        Self { limit: Mutex::new(limit), left: AtomicI64::new(left.millionths()) }
    }

    /// The cap that follows from what was spent; `None` without a limit.
    pub(super) fn of(spending: &Spending) -> Option<Self> {
        Some(Self::new(spending.limit?, spending.left()?))
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> SpendLimit {
        *self.limit.lock()
    }

    /// The limit less what was spent and the open holds; negative if the limit was lowered below that.
    #[must_use]
    pub fn left(&self) -> Credits {
        Credits::from_millionths(self.left.load(Ordering::SeqCst))
    }

    /// Subtracts `amount` if that much is left; otherwise returns false.
    pub(super) fn try_take(&self, amount: Credits) -> bool {
        let left = |now| after_hold(Credits::from_millionths(now), amount).map(Credits::millionths);
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok()
    }

    /// Adds credits that were returned, or subtracts those of a hold that is open at the start.
    pub(super) fn change(&self, amount: Credits) {
        self.left.fetch_add(amount.millionths(), Ordering::SeqCst);
    }

    /// Sets another limit, which leaves this much more. Holds in flight stay subtracted.
    pub(super) fn set_limit(&self, limit: SpendLimit, more: Credits) {
        *self.limit.lock() = limit;
        self.change(more);
    }
}

/// The caps that a hold counts against.
#[derive(Clone, Debug, Default)]
pub(super) struct Caps {
    pub(super) key: Option<Arc<SpendCap>>,
    pub(super) account: Option<Arc<SpendCap>>,
}

/// The limit that a hold would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capped {
    /// That of the key.
    Key,
    /// That of the account.
    Account,
}

impl Caps {
    fn all(&self) -> impl Iterator<Item = &Arc<SpendCap>> {
        self.key.iter().chain(&self.account)
    }

    /// Subtracts `amount` from all caps or from none.
    pub(super) fn try_take(&self, amount: Credits) -> Result<(), Capped> {
        if self.key.as_ref().is_some_and(|cap| !cap.try_take(amount)) {
            return Err(Capped::Key);
        }
        if self.account.as_ref().is_some_and(|cap| !cap.try_take(amount)) {
            self.key.iter().for_each(|cap| cap.change(amount));
            return Err(Capped::Account);
        }
        Ok(())
    }

    /// Adds credits that were returned.
    pub(super) fn change(&self, amount: Credits) {
        self.all().for_each(|cap| cap.change(amount));
    }

    /// Those of these caps that are not among others.
    pub(super) fn besides(self, others: &Self) -> Self {
        let is_other = |one: &Arc<SpendCap>, other: &Option<Arc<SpendCap>>| {
            other.as_ref().is_none_or(|other| !Arc::ptr_eq(one, other))
        };
        Self {
            key: self.key.filter(|cap| is_other(cap, &others.key)),
            account: self.account.filter(|cap| is_other(cap, &others.account)),
        }
    }
}

/// The caps of all keys with a spending limit, by the key's number.
#[derive(Debug, Default)]
pub(super) struct SpendCaps {
    caps: RwLock<NumberMap<KeyNum, Arc<SpendCap>>>,
    /// True if a key has or had a cap.
    has_some: AtomicBool,
}

impl SpendCaps {
    pub(super) fn get(&self, key: KeyNum) -> Option<Arc<SpendCap>> {
        if self.is_empty() { None } else { self.caps.read().get(&key).cloned() }
    }

    /// True if no key ever had a cap; one atomic load.
    pub(super) fn is_empty(&self) -> bool {
        !self.has_some.load(Ordering::Acquire)
    }

    /// Sets the cap of a key that had none.
    pub(super) fn add(&self, key: KeyNum, cap: SpendCap) {
        self.caps.write().insert(key, Arc::new(cap));
        self.has_some.store(true, Ordering::Release);
    }

    pub(super) fn remove(&self, key: KeyNum) {
        self.caps.write().remove(&key);
    }
}
