//! What accounts can spend, in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::RwLock;

use crate::policy::credit::after_hold;
use crate::types::{AccountNum, Credits};

/// What an account can spend: its balance less open holds.
///
/// One atomic per account, not sharded, so that exactly one of a thousand concurrent requests gets the last credit.
#[derive(Debug)]
pub struct Purse {
    pub(super) num: AccountNum,
    available: AtomicI64,
}

impl Purse {
    fn new(num: AccountNum, available: Credits) -> Self {
        Self { num, available: AtomicI64::new(available.millionths()) }
    }

    /// The balance less open holds.
    #[must_use]
    pub fn available(&self) -> Credits {
        Credits::from_millionths(self.available.load(Ordering::SeqCst))
    }

    /// Takes `amount` if that much is available.
    pub(super) fn try_take(&self, amount: Credits) -> bool {
        let left = |now| after_hold(Credits::from_millionths(now), amount).map(Credits::millionths);
        self.available.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok()
    }

    /// Returns or adds credits. Every booking keeps balances below [`crate::policy::credit::MAX_BALANCE`], so this never
    /// overflows.
    pub(super) fn give(&self, amount: Credits) {
        self.available.fetch_add(amount.millionths(), Ordering::SeqCst);
    }

    /// Takes what a kept hold of an earlier process holds, at start-up.
    pub(super) fn take_kept(&self, amount: Credits) {
        self.available.fetch_sub(amount.millionths(), Ordering::SeqCst);
    }
}

/// Every account's purse by its number. The ledger numbers accounts from 1, so the list has no gaps and takes 8 bytes
/// per account.
#[derive(Debug, Default)]
pub(super) struct Purses(RwLock<Vec<Option<Arc<Purse>>>>);

impl Purses {
    pub(super) fn get(&self, num: AccountNum) -> Option<Arc<Purse>> {
        self.0.read().get(num.0 as usize).cloned().flatten()
    }

    /// The purse of an account; a new one has this balance.
    pub(super) fn add(&self, num: AccountNum, balance: Credits) -> Arc<Purse> {
        let (mut purses, at) = (self.0.write(), num.0 as usize);
        if purses.len() <= at {
            purses.resize(at + 1, None);
        }
        Arc::clone(purses[at].get_or_insert_with(|| Arc::new(Purse::new(num, balance))))
    }
}
