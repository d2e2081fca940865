//! The meters whose limits cover a request, locked while it is counted.

use std::sync::Arc;

use parking_lot::MutexGuard;

use crate::directory::{LimitSlot, Meter, Slots};
use crate::policy::limit::{Counter, Limit, Scope};
use crate::types::RouteNum;

/// The meters whose limits cover a request.
pub(super) struct Meters<'a> {
    pub(super) key: Option<&'a Arc<Meter>>,
    pub(super) account: Option<&'a Arc<Meter>>,
    pub(super) address: Option<Arc<Meter>>,
}

/// The same, locked.
pub(super) struct LockedMeters<'a> {
    key: Option<LockedMeter<'a>>,
    account: Option<LockedMeter<'a>>,
    address: Option<LockedMeter<'a>>,
}

/// A locked meter.
pub(super) struct LockedMeter<'a> {
    pub(super) meter: &'a Arc<Meter>,
    pub(super) slots: MutexGuard<'a, Slots>,
}

impl Meters<'_> {
    /// Locks them, in one order: key, account, address.
    pub(super) fn lock(&self) -> LockedMeters<'_> {
        fn lock(meter: &Arc<Meter>) -> LockedMeter<'_> {
            LockedMeter { meter, slots: meter.lock() }
        }
        LockedMeters {
            key: self.key.map(lock),
            account: self.account.map(lock),
            address: self.address.as_ref().map(lock),
        }
    }
}

impl<'a> LockedMeters<'a> {
    /// The meter that a limit of this scope counts with.
    pub(super) fn of(&mut self, scope: Scope) -> Option<&mut LockedMeter<'a>> {
        match scope {
            Scope::Key | Scope::KeyRoute => self.key.as_mut(),
            Scope::Account => self.account.as_mut(),
            Scope::Address => self.address.as_mut(),
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &LockedMeter<'a>> {
        [&self.key, &self.account, &self.address].into_iter().flatten()
    }
}

impl LockedMeter<'_> {
    /// The index of a limit's slot, which is created on first use. No slot is removed while a request is checked, so the
    /// index stays valid.
    pub(super) fn slot_index(&mut self, limit: &Limit, route: RouteNum) -> usize {
        let route = if limit.scope == Scope::KeyRoute { route } else { RouteNum(0) };
        let known = self.slots.iter().position(|slot| slot.limit == limit.id && slot.route == route);
        known.unwrap_or_else(|| {
            self.slots.push(LimitSlot { limit: limit.id, route, counter: Counter::fresh(limit) });
            self.slots.len() - 1
        })
    }
}
