//! Keeps in memory the credits that each account can spend.

mod pot;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::RwLock;

use super::caps::SpendCap;
use super::store::{Elsewhere, LeaseOf};
use crate::policy::credit::{SpendLimit, Split, Wallet};
use crate::types::{AccountNum, Credits};

pub(super) use pot::{Lessee, Pot};

/// The credits that an account can spend: its balance minus its open holds.
///
/// One atomic per account, not sharded, so that exactly one of a thousand concurrent requests gets the last credit.
#[derive(Debug)]
pub struct Purse {
    pub(super) num: AccountNum,
    /// Open jobs of this gateway, and requests that may open one.
    jobs: AtomicU32,
    /// Open jobs of the fleet, as far as is known.
    shared_jobs: AtomicU32,
    pot: Pot,
    /// True if the account has or had buckets or a cap: one load tells that requests need not look for them.
    has_more: AtomicBool,
    /// The account's buckets when they changed last, apart from charges; `None` if it has only the default one.
    buckets: ArcSwapOption<Wallet>,
    /// The cap of the account, if it has a spending limit.
    cap: ArcSwapOption<SpendCap>,
}

impl Purse {
    fn new(num: AccountNum, balance: Credits, is_leased: bool) -> Self {
        Self {
            num,
            jobs: AtomicU32::new(0),
            shared_jobs: AtomicU32::new(0),
            pot: Pot::new(balance, is_leased),
            has_more: AtomicBool::new(false),
            buckets: ArcSwapOption::empty(),
            cap: ArcSwapOption::empty(),
        }
    }

    /// The balance minus open holds, of which a fleet knows those of this gateway.
    #[must_use]
    pub fn available(&self) -> Credits {
        self.pot.available()
    }

    /// The buckets that pay for a charge that was just taken from the purse, if the account has several: as it looks now,
    /// with all holds in flight charged in full and before this one. Which bucket pays is decided when charges are folded.
    #[must_use]
    pub fn split(&self, charged: Credits) -> Option<Split> {
        if !self.has_more.load(Ordering::Acquire) {
            return None;
        }
        let buckets = self.buckets.load();
        let mut wallet = Wallet::clone(buckets.as_deref()?);
        let before = wallet.total().checked_sub(self.available())?.checked_sub(charged)?;
        wallet.draw(before.max(Credits::ZERO), None);
        Some(wallet.draw(charged, None).negated())
    }

    /// The cap of the account, if it has a spending limit.
    #[must_use]
    pub fn cap(&self) -> Option<Arc<SpendCap>> {
        if self.has_more.load(Ordering::Acquire) { self.cap.load_full() } else { None }
    }

    /// Sets the cap of the account, or removes it.
    pub(super) fn set_cap(&self, cap: Option<Arc<SpendCap>>) {
        let has_cap = cap.is_some();
        self.cap.store(cap);
        if has_cap {
            self.has_more.store(true, Ordering::Release);
        }
    }

    /// The spending limit of the account.
    #[must_use]
    pub fn spend_limit(&self) -> Option<SpendLimit> {
        self.cap.load().as_deref().map(SpendCap::limit)
    }

    /// Shows the account's buckets to [`Purse::split`].
    pub(super) fn show(&self, mut wallet: Wallet) {
        wallet.lots.retain(|lot| lot.ended.is_none()); // ended ones pay only for older holds
        let has_several = wallet.lots.iter().any(|lot| !lot.bucket.is_default());
        self.buckets.store(has_several.then(|| Arc::new(wallet)));
        if has_several {
            self.has_more.store(true, Ordering::Release);
        }
    }

    /// Number of open jobs, and of requests that may open one.
    #[must_use]
    pub fn jobs(&self) -> u32 {
        self.jobs.load(Ordering::SeqCst).saturating_add(self.shared_jobs.load(Ordering::SeqCst))
    }

    /// Reserves a place for a job, if there are fewer than `most`.
    #[must_use]
    pub fn reserve_job(self: &Arc<Self>, most: Option<u32>) -> Option<JobSlot> {
        let most = most.unwrap_or(u32::MAX - 1).saturating_sub(self.shared_jobs.load(Ordering::SeqCst));
        let more = |now: u32| (now < most).then_some(now + 1);
        self.jobs.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(JobSlot(Some(Arc::clone(self))))
    }

    /// At start-up, counts an open job.
    pub(super) fn add_job(&self) {
        self.jobs.fetch_add(1, Ordering::SeqCst);
    }

    /// A job is settled.
    pub(super) fn end_job(&self) {
        self.jobs.fetch_sub(1, Ordering::SeqCst);
    }

    /// A job of this gateway is the fleet's now, which is told how many it has from time to time.
    pub(super) fn share_job(&self) {
        self.shared_jobs.fetch_add(1, Ordering::SeqCst);
        self.end_job();
    }

    /// A job of the fleet is this gateway's now.
    pub(super) fn take_job(&self) {
        self.add_job();
        let less = |jobs: u32| Some(jobs.saturating_sub(1));
        let _ = self.shared_jobs.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less); // never fails
    }

    /// Subtracts `amount` if that much is available; otherwise returns false.
    pub(super) fn try_take(&self, amount: Credits) -> bool {
        self.pot.try_take(amount)
    }

    /// Subtracts `most`, or what is available if that is less. Returns how much.
    pub(super) fn take_at_most(&self, most: Credits) -> Credits {
        self.pot.take_at_most(most)
    }

    /// Adds credits that were returned. Every booking keeps balances below [`crate::policy::credit::MAX_BALANCE`], so this
    /// never overflows.
    pub(super) fn give(&self, amount: Credits) {
        self.pot.give(amount);
    }

    /// Adds credits that were booked.
    pub(super) fn receive(&self, amount: Credits) {
        self.pot.receive(amount);
    }

    /// The balance was read, less what jobs of the fleet hold.
    pub fn saw(&self, unheld: Credits) {
        self.pot.saw(unheld);
    }

    /// At start-up, subtracts the amount of a kept hold that an earlier process made.
    pub(super) fn take_kept(&self, amount: Credits) {
        self.pot.give(Credits::ZERO.checked_sub(amount).unwrap_or_default());
    }
}

impl Lessee for Purse {
    fn of(&self) -> LeaseOf {
        LeaseOf::Account(self.num)
    }

    fn pot(&self) -> &Pot {
        &self.pot
    }

    fn set_elsewhere(&self, elsewhere: Elsewhere) {
        self.pot.set_elsewhere(elsewhere.credits);
        self.shared_jobs.store(elsewhere.jobs, Ordering::SeqCst);
    }
}

/// A place for a job of an account. It is free again when this is dropped, unless a job was opened.
#[derive(Debug)]
pub struct JobSlot(Option<Arc<Purse>>);

impl JobSlot {
    /// A job was opened: the place is free when it is settled.
    pub(super) fn fill(mut self) {
        self.0 = None;
    }
}

impl Drop for JobSlot {
    fn drop(&mut self) {
        if let Some(purse) = self.0.take() {
            purse.end_job();
        }
    }
}

/// The purses of all accounts, by account number. The ledger numbers accounts from 1 without gaps, so the list takes 8
/// bytes per account.
#[derive(Debug, Default)]
pub(super) struct Purses {
    all: RwLock<Vec<Option<Arc<Purse>>>>,
    /// True if the gateways of a fleet share the credits.
    are_leased: bool,
}

impl Purses {
    pub(super) fn new(are_leased: bool) -> Self {
        Self { are_leased, ..Self::default() }
    }

    pub(super) fn get(&self, num: AccountNum) -> Option<Arc<Purse>> {
        self.all.read().get(num.0 as usize).cloned().flatten()
    }

    /// Returns the purse of an account. If there is none, creates it with this balance.
    pub(super) fn add(&self, num: AccountNum, balance: Credits) -> Arc<Purse> {
        let (mut purses, at) = (self.all.write(), num.0 as usize);
        if purses.len() <= at {
            purses.resize(at + 1, None);
        }
        Arc::clone(purses[at].get_or_insert_with(|| Arc::new(Purse::new(num, balance, self.are_leased))))
    }
}
