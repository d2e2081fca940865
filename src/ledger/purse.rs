//! Keeps in memory the credits that each account can spend.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::RwLock;

use super::caps::SpendCap;
use super::store::Elsewhere;
use crate::policy::credit::{SpendLimit, Split, Wallet, after_hold};
use crate::types::{AccountNum, Credits};

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
    /// What this gateway may spend: all that the account has, or what was leased of it.
    local: AtomicI64,
    /// What the account has besides, as far as is known: always zero if all of it is this gateway's.
    elsewhere: AtomicI64,
    /// More is to be leased once less than this is left.
    low: AtomicI64,
    /// True if some are leased: then what is elsewhere is read every second.
    has_lease: AtomicBool,
    /// True if credits that come in are not this gateway's until it leases them.
    is_leased: bool,
    /// True if the account has or had buckets or a cap: one load tells that requests need not look for them.
    has_more: AtomicBool,
    /// The account's buckets when they changed last, apart from charges; `None` if it has only the default one.
    buckets: ArcSwapOption<Wallet>,
    /// The cap of the account, if it has a spending limit.
    cap: ArcSwapOption<SpendCap>,
}

impl Purse {
    fn new(num: AccountNum, balance: Credits, is_leased: bool) -> Self {
        let (local, elsewhere) =
            if is_leased { (0, balance.millionths()) } else { (balance.millionths(), 0) };
        Self {
            num,
            jobs: AtomicU32::new(0),
            shared_jobs: AtomicU32::new(0),
            local: AtomicI64::new(local),
            elsewhere: AtomicI64::new(elsewhere),
            low: AtomicI64::new(0),
            has_lease: AtomicBool::new(false),
            is_leased,
            has_more: AtomicBool::new(false),
            buckets: ArcSwapOption::empty(),
            cap: ArcSwapOption::empty(),
        }
    }

    /// The balance minus open holds, of which a fleet knows those of this gateway.
    #[must_use]
    pub fn available(&self) -> Credits {
        let elsewhere = self.elsewhere.load(Ordering::SeqCst);
        Credits::from_millionths(self.local.load(Ordering::SeqCst).saturating_add(elsewhere))
    }

    /// What this gateway may spend at once.
    pub(super) fn local(&self) -> Credits {
        Credits::from_millionths(self.local.load(Ordering::SeqCst))
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
    pub(super) fn set_cap(&self, cap: Option<SpendCap>) {
        let has_cap = cap.is_some();
        self.cap.store(cap.map(Arc::new));
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
        let left = |now| after_hold(Credits::from_millionths(now), amount).map(Credits::millionths);
        self.local.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok()
    }

    /// Subtracts `most`, or what is available if that is less. Returns how much.
    pub(super) fn take_at_most(&self, most: Credits) -> Credits {
        let part = |now: i64| now.min(most.millionths()).max(0);
        let before = self.local.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| Some(now - part(now)));
        Credits::from_millionths(before.map(part).unwrap_or_default())
    }

    /// Adds credits that were returned. Every booking keeps balances below [`crate::policy::credit::MAX_BALANCE`], so this
    /// never overflows.
    pub(super) fn give(&self, amount: Credits) {
        self.local.fetch_add(amount.millionths(), Ordering::SeqCst);
    }

    /// Adds credits that were booked.
    pub(super) fn receive(&self, amount: Credits) {
        let purse = if self.is_leased { &self.elsewhere } else { &self.local };
        purse.fetch_add(amount.millionths(), Ordering::SeqCst);
    }

    /// Adds credits that were leased.
    pub(super) fn lease(&self, granted: Credits, elsewhere: Elsewhere) {
        self.has_lease.store(true, Ordering::SeqCst);
        self.set_elsewhere(elsewhere);
        self.give(granted);
        let low = if granted.is_zero() { 0 } else { self.local().millionths() / 2 };
        self.low.store(low, Ordering::SeqCst);
    }

    /// At start-up, adds what an earlier process leased.
    pub(super) fn adopt(&self, leased: Credits) {
        self.has_lease.store(true, Ordering::SeqCst);
        self.elsewhere.fetch_sub(leased.millionths(), Ordering::SeqCst);
        self.give(leased);
    }

    /// The balance was read, less what jobs of the fleet hold. Of an account that this gateway has leased no credits of, nothing
    /// else tells what it has.
    pub fn saw(&self, unheld: Credits) {
        if self.is_leased && !self.has_lease.load(Ordering::SeqCst) {
            self.elsewhere.store(unheld.millionths(), Ordering::SeqCst);
        }
    }

    /// What the account has besides, as far as is known.
    pub(super) fn set_elsewhere(&self, elsewhere: Elsewhere) {
        self.elsewhere.store(elsewhere.credits.millionths(), Ordering::SeqCst);
        self.shared_jobs.store(elsewhere.jobs, Ordering::SeqCst);
    }

    /// True, once, if more is to be leased.
    pub(super) fn runs_low(&self) -> bool {
        let low = self.low.load(Ordering::Relaxed);
        low > 0 && self.local.load(Ordering::Relaxed) < low && self.low.swap(0, Ordering::SeqCst) > 0
    }

    /// Takes all that this gateway may spend, to return it.
    pub(super) fn take_local(&self) -> Credits {
        let taken = self.take_at_most(Credits::MAX);
        self.elsewhere.fetch_add(taken.millionths(), Ordering::SeqCst);
        self.low.store(0, Ordering::SeqCst);
        self.has_lease.store(false, Ordering::SeqCst);
        taken
    }

    /// Takes back what was to be returned.
    pub(super) fn put_local(&self, amount: Credits) {
        self.elsewhere.fetch_sub(amount.millionths(), Ordering::SeqCst);
        self.give(amount);
    }

    /// At start-up, subtracts the amount of a kept hold that an earlier process made.
    pub(super) fn take_kept(&self, amount: Credits) {
        self.local.fetch_sub(amount.millionths(), Ordering::SeqCst);
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
