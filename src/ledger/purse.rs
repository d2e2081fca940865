//! Keeps in memory the credits that each account can spend.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::RwLock;

use crate::policy::credit::after_hold;
use crate::types::{AccountNum, Credits};

/// The credits that an account can spend: its balance minus its open holds.
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

    /// The balance minus open holds.
    #[must_use]
    pub fn available(&self) -> Credits {
        Credits::from_millionths(self.available.load(Ordering::SeqCst))
    }

    /// Subtracts `amount` if that much is available; otherwise returns false.
    pub(super) fn try_take(&self, amount: Credits) -> bool {
        let left = |now| after_hold(Credits::from_millionths(now), amount).map(Credits::millionths);
        self.available.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok()
    }

    /// Adds credits that were returned or booked. Every booking keeps balances below
    /// [`crate::policy::credit::MAX_BALANCE`], so this never overflows.
    pub(super) fn give(&self, amount: Credits) {
        self.available.fetch_add(amount.millionths(), Ordering::SeqCst);
    }

    /// At start-up, subtracts the amount of a kept hold that an earlier process made.
    pub(super) fn take_kept(&self, amount: Credits) {
        self.available.fetch_sub(amount.millionths(), Ordering::SeqCst);
    }
}

/// The purses of all accounts, by account number. The ledger numbers accounts from 1 without gaps, so the list takes 8
/// bytes per account.
#[derive(Debug, Default)]
pub(super) struct Purses(RwLock<Vec<Option<Arc<Purse>>>>);

impl Purses {
    pub(super) fn get(&self, num: AccountNum) -> Option<Arc<Purse>> {
        self.0.read().get(num.0 as usize).cloned().flatten()
    }

    /// Returns the purse of an account. If there is none, creates it with this balance.
    pub(super) fn add(&self, num: AccountNum, balance: Credits) -> Arc<Purse> {
        let (mut purses, at) = (self.0.write(), num.0 as usize);
        if purses.len() <= at {
            purses.resize(at + 1, None);
        }
        Arc::clone(purses[at].get_or_insert_with(|| Arc::new(Purse::new(num, balance))))
    }
}
