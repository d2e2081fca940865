//! Defines credits of which this gateway may spend a part at once: all, or what it has leased.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use crate::ledger::store::{Elsewhere, LeaseOf};
use crate::policy::credit::after_hold;
use crate::types::Credits;

/// Credits of which this gateway may spend a part at once: all, or what it has leased.
#[derive(Debug)]
pub(in crate::ledger) struct Pot {
    /// What this gateway may spend: all, or what was leased.
    local: AtomicI64,
    /// What there is besides, as far as is known: always zero if all is this gateway's.
    elsewhere: AtomicI64,
    /// More is to be leased once less than this is left.
    low: AtomicI64,
    /// True if some are leased: then what is elsewhere is read every second.
    has_lease: AtomicBool,
    /// True if credits that come in are not this gateway's until it leases them.
    is_leased: bool,
}

impl Pot {
    pub(in crate::ledger) fn new(credits: Credits, is_leased: bool) -> Self {
        let (local, elsewhere) =
            if is_leased { (0, credits.millionths()) } else { (credits.millionths(), 0) };
        Self {
            local: AtomicI64::new(local),
            elsewhere: AtomicI64::new(elsewhere),
            low: AtomicI64::new(0),
            has_lease: AtomicBool::new(false),
            is_leased,
        }
    }

    /// What there is, as far as is known, less the holds of this gateway.
    pub(in crate::ledger) fn available(&self) -> Credits {
        let elsewhere = self.elsewhere.load(Ordering::SeqCst);
        Credits::from_millionths(self.local.load(Ordering::SeqCst).saturating_add(elsewhere))
    }

    /// What this gateway may spend at once.
    pub(in crate::ledger) fn local(&self) -> Credits {
        Credits::from_millionths(self.local.load(Ordering::SeqCst))
    }

    /// Subtracts `amount` if that much is here; otherwise returns false.
    pub(in crate::ledger) fn try_take(&self, amount: Credits) -> bool {
        let left = |now| after_hold(Credits::from_millionths(now), amount).map(Credits::millionths);
        self.local.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok()
    }

    /// Subtracts `most`, or what is here if that is less. Returns how much.
    pub(in crate::ledger) fn take_at_most(&self, most: Credits) -> Credits {
        let part = |now: i64| now.min(most.millionths()).max(0);
        let before = self.local.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| Some(now - part(now)));
        Credits::from_millionths(before.map(part).unwrap_or_default())
    }

    /// Adds credits that were returned, or subtracts those of a hold that is open at the start.
    pub(in crate::ledger) fn give(&self, amount: Credits) {
        self.local.fetch_add(amount.millionths(), Ordering::SeqCst);
    }

    /// Adds credits that came in.
    pub(in crate::ledger) fn receive(&self, amount: Credits) {
        let pot = if self.is_leased { &self.elsewhere } else { &self.local };
        pot.fetch_add(amount.millionths(), Ordering::SeqCst);
    }

    /// Adds credits that were leased.
    pub(in crate::ledger) fn lease(&self, granted: Credits) {
        self.has_lease.store(true, Ordering::SeqCst);
        self.give(granted);
        let low = if granted.is_zero() { 0 } else { self.local().millionths() / 2 };
        self.low.store(low, Ordering::SeqCst);
    }

    /// At start-up, adds what an earlier process leased.
    pub(in crate::ledger) fn adopt(&self, leased: Credits) {
        self.has_lease.store(true, Ordering::SeqCst);
        self.elsewhere.fetch_sub(leased.millionths(), Ordering::SeqCst);
        self.give(leased);
    }

    /// What there is was read. Where this gateway has leased nothing, nothing else tells.
    pub(in crate::ledger) fn saw(&self, credits: Credits) {
        if self.is_leased && !self.has_lease.load(Ordering::SeqCst) {
            self.set_elsewhere(credits);
        }
    }

    /// What there is besides, as far as is known.
    pub(in crate::ledger) fn set_elsewhere(&self, credits: Credits) {
        self.elsewhere.store(credits.millionths(), Ordering::SeqCst);
    }

    /// True, once, if more is to be leased.
    pub(in crate::ledger) fn runs_low(&self) -> bool {
        let low = self.low.load(Ordering::Relaxed);
        low > 0 && self.local.load(Ordering::Relaxed) < low && self.low.swap(0, Ordering::SeqCst) > 0
    }

    /// Takes all that this gateway may spend, to return it. Also what it has spent more, if that is possible: of a spending limit
    /// that was set since.
    pub(in crate::ledger) fn take_local(&self, with_debt: bool) -> Credits {
        let taken = match with_debt {
            true => Credits::from_millionths(self.local.swap(0, Ordering::SeqCst)),
            false => self.take_at_most(Credits::MAX),
        };
        self.elsewhere.fetch_add(taken.millionths(), Ordering::SeqCst);
        self.low.store(0, Ordering::SeqCst);
        self.has_lease.store(false, Ordering::SeqCst);
        taken
    }

    /// Takes back what was to be returned.
    pub(in crate::ledger) fn put_local(&self, amount: Credits) {
        self.elsewhere.fetch_sub(amount.millionths(), Ordering::SeqCst);
        self.give(amount);
    }
}

/// Something that gateways of a fleet lease parts of.
pub(in crate::ledger) trait Lessee: std::fmt::Debug + Send + Sync {
    /// What it is.
    fn of(&self) -> LeaseOf;
    fn pot(&self) -> &Pot;
    /// What there is besides was read.
    fn set_elsewhere(&self, elsewhere: Elsewhere) {
        self.pot().set_elsewhere(elsewhere.credits);
    }
}
