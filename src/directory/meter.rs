//! Keeps the limit states and the number of requests in flight of a key, an account or a client address.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use crate::policy::limit::{Counter, LimitState, take_array};
use crate::types::{AccountNum, KeyId, Moment, NameId, RouteNum};

/// The key, account or client address whose requests a meter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A key.
    Key(KeyId),
    /// An account, for all its keys together.
    Account(AccountNum),
    /// A client address.
    Address(IpAddr),
}

impl Owner {
    /// The bytes that identify the owner where limit states are saved.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Key(id) => [&b"K"[..], &id.0.to_be_bytes()].concat(),
            Self::Account(num) => [&b"A"[..], &num.0.to_be_bytes()].concat(),
            Self::Address(IpAddr::V4(address)) => [&b"4"[..], &address.octets()].concat(),
            Self::Address(IpAddr::V6(address)) => [&b"6"[..], &address.octets()].concat(),
        }
    }

    /// Parses the bytes that [`Owner::to_bytes`] returned; `None` if they are invalid.
    #[must_use]
    pub fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let [kind] = take_array(&mut bytes)?;
        match kind {
            b'K' => Some(Self::Key(KeyId(u64::from_be_bytes(bytes.try_into().ok()?)))),
            b'A' => Some(Self::Account(AccountNum(u32::from_be_bytes(bytes.try_into().ok()?)))),
            b'4' => Some(Self::Address(<[u8; 4]>::try_from(bytes).ok()?.into())),
            b'6' => Some(Self::Address(<[u8; 16]>::try_from(bytes).ok()?.into())),
            _ => None,
        }
    }
}

/// The state of one limit; of a limit per key and route, the state for one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitSlot {
    /// The limit.
    pub limit: NameId,
    /// The route, for limits of scope `key+route`; otherwise 0.
    pub route: RouteNum,
    /// What it has counted.
    pub counter: Counter,
}

/// The limit states of one owner. Most owners have one, which is stored without an allocation.
pub type Slots = SmallVec<[LimitSlot; 1]>;

/// Limit states and requests in flight of one owner. Allocates nothing further until an owner has more than one state.
#[derive(Debug)]
pub struct Meter {
    owner: Owner,
    in_flight: AtomicU32,
    /// True if the meter is in a [`Dirty`] list.
    dirty: AtomicBool,
    /// True if the ledger may have states of this meter, which must be deleted there once they are fresh.
    saved: AtomicBool,
    /// The limit states. Locked while the limits of a request are checked: under a microsecond (`benches/decide.rs`).
    slots: Mutex<Slots>,
}

impl Meter {
    /// Creates a meter that is not in the ledger.
    #[must_use]
    pub fn new(owner: Owner) -> Self {
        Self { saved: AtomicBool::new(false), ..Self::with(owner, Slots::new()) }
    }

    /// Creates a meter with states that were restored from the ledger.
    #[must_use]
    pub fn with(owner: Owner, slots: Slots) -> Self {
        let (in_flight, dirty, saved) = (AtomicU32::new(0), AtomicBool::new(false), AtomicBool::new(true));
        Self { owner, in_flight, dirty, saved, slots: Mutex::new(slots) }
    }

    /// Whose requests it counts.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Locks the states while the limits of one request are checked.
    pub fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock()
    }

    /// Number of requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Counts one more request in flight, if there are then at most `limit`; otherwise returns false. Each success must
    /// be followed by one [`Meter::leave`].
    #[must_use]
    pub fn enter(&self, limit: u32) -> bool {
        let next = |now: u32| (now < limit).then(|| now + 1);
        self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok()
    }

    /// Counts one request less in flight.
    pub fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    /// True if the ledger may have states of this meter.
    #[must_use]
    pub fn is_saved(&self) -> bool {
        self.saved.load(Ordering::Relaxed)
    }

    /// True if these states must be saved, or deleted from the ledger. False if the ledger has none of them and all
    /// will be fresh by `saved_at`, when they would be saved. True for several states, because saving also removes the
    /// states of limits that a reload dropped.
    #[must_use]
    pub fn must_be_saved(&self, slots: &[LimitSlot], saved_at: Moment) -> bool {
        self.is_saved() || slots.len() > 1 || !slots.iter().all(|slot| slot.counter.is_fresh(saved_at))
    }

    /// True if the meter can be removed without effect: no request is in flight, and every limit is fully available.
    #[must_use]
    pub fn is_fresh(&self, now: Moment) -> bool {
        self.in_flight() == 0 && self.lock().iter().all(|slot| slot.counter.is_fresh(now))
    }

    /// Removes states that are fresh, and returns the others as bytes; empty if none is left.
    fn save(&self, now: Moment) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut slots = self.lock();
        slots.retain(|slot| !slot.counter.is_fresh(now));
        for slot in &*slots {
            bytes.extend_from_slice(&slot.limit.0.to_le_bytes());
            bytes.extend_from_slice(&slot.route.0.to_le_bytes());
            slot.counter.own.save(now, &mut bytes);
        }
        bytes
    }

    /// Parses saved states and ages them by `elapsed`, the time since they were saved. Stops at the first bytes that
    /// are not a state.
    #[must_use]
    pub fn read(mut bytes: &[u8], elapsed: Duration, now: Moment) -> Slots {
        let mut slots = Slots::new();
        let mut next = || {
            let limit = NameId(u64::from_le_bytes(take_array(&mut bytes)?));
            let route = RouteNum(u32::from_le_bytes(take_array(&mut bytes)?));
            let counter = LimitState::restore(&mut bytes, elapsed, now)?.into();
            Some(LimitSlot { limit, route, counter })
        };
        while let Some(slot) = next() {
            if !slot.counter.is_fresh(now) {
                slots.push(slot);
            }
        }
        slots
    }
}

/// The meters that changed since they were last saved. Each is in the list at most once.
#[derive(Debug, Default)]
pub struct Dirty(Mutex<Vec<Arc<Meter>>>);

impl Dirty {
    /// Adds a meter to the list, unless it is already in it.
    pub fn mark(&self, meter: &Arc<Meter>) {
        if !meter.dirty.load(Ordering::Relaxed) && !meter.dirty.swap(true, Ordering::SeqCst) {
            self.0.lock().push(Arc::clone(meter));
        }
    }

    /// Removes all meters from the list, and returns owner and states of each as bytes; empty states mean that the
    /// ledger must delete them. Leaves out meters that have no states to save and none in the ledger: with many keys
    /// whose limits recover quickly, these are nearly all.
    pub fn drain(&self, now: Moment) -> Vec<(Vec<u8>, Vec<u8>)> {
        let meters = std::mem::take(&mut *self.0.lock());
        let save = |meter: Arc<Meter>| {
            meter.dirty.store(false, Ordering::SeqCst);
            let states = meter.save(now);
            let was_saved = meter.saved.swap(!states.is_empty(), Ordering::Relaxed); // the only place that changes it
            (was_saved || !states.is_empty()).then(|| (meter.owner.to_bytes(), states))
        };
        meters.into_iter().filter_map(save).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_survive_bytes() {
        let owners = [
            Owner::Key(KeyId(u64::MAX - 1)),
            Owner::Account(AccountNum(7)),
            Owner::Address("192.0.2.1".parse().unwrap()),
            Owner::Address("2001:db8::1".parse().unwrap()),
        ];
        for owner in owners {
            assert_eq!(Owner::from_bytes(&owner.to_bytes()), Some(owner));
        }
        assert_eq!(Owner::from_bytes(b"X12345678"), None);
    }

    #[test]
    fn only_what_says_something_is_saved_and_then_forgotten() {
        let (dirty, owner) = (Dirty::default(), Owner::Account(AccountNum(1)));
        let saved = |meter: &Arc<Meter>, now| {
            dirty.mark(meter);
            dirty.drain(Moment(now)).pop().map(|(_, states)| states.is_empty())
        };
        let meter = Arc::new(Meter::new(owner));
        assert_eq!(saved(&meter, 5), None, "it never said anything");
        let state = LimitState::Gcra { arrival: 100, interval: 10 };
        meter.lock().push(LimitSlot { limit: NameId(1), route: RouteNum(0), counter: state.into() });
        assert_eq!(
            [saved(&meter, 5), saved(&meter, 200), saved(&meter, 200)],
            [Some(false), Some(true), None]
        );
        assert_eq!(
            saved(&Arc::new(Meter::with(owner, Slots::new())), 5),
            Some(true),
            "it stands in the ledger"
        );
    }

    #[test]
    fn what_is_soon_fresh_is_not_saved_unless_there_is_more_to_drop() {
        let meter = Meter::new(Owner::Account(AccountNum(1)));
        let slot = |name| LimitSlot {
            limit: NameId(name),
            route: RouteNum(0),
            counter: LimitState::Gcra { arrival: 100, interval: 10 }.into(),
        };
        assert!(!meter.must_be_saved(&[slot(1)], Moment(100)));
        assert!(meter.must_be_saved(&[slot(1)], Moment(99)));
        assert!(meter.must_be_saved(&[slot(1), slot(2)], Moment(100)), "renamed limits do not pile up");
    }

    #[test]
    fn no_more_than_the_limit_are_in_flight() {
        let meter = Meter::with(Owner::Account(AccountNum(1)), Slots::new());
        assert!(meter.enter(2) && meter.enter(2) && !meter.enter(2));
        meter.leave();
        assert!(meter.enter(2));
    }
}
