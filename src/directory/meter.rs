//! The small changing state of a key, an account or an address.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use crate::policy::limit::{LimitState, take_array};
use crate::types::{AccountNum, KeyId, Moment, NameId, RouteNum};

/// Whose requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// One key's.
    Key(KeyId),
    /// All keys' of an account.
    Account(AccountNum),
    /// One client address's.
    Address(IpAddr),
}

impl Owner {
    /// The bytes under which its states are saved.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Key(id) => [&b"K"[..], &id.0.to_be_bytes()].concat(),
            Self::Account(num) => [&b"A"[..], &num.0.to_be_bytes()].concat(),
            Self::Address(IpAddr::V4(address)) => [&b"4"[..], &address.octets()].concat(),
            Self::Address(IpAddr::V6(address)) => [&b"6"[..], &address.octets()].concat(),
        }
    }

    /// Reads what [`Owner::to_bytes`] wrote.
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

/// The state of one limit; a limit per route has one for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitSlot {
    /// Which limit.
    pub limit: NameId,
    /// Which route, for `key+route`; 0 for all.
    pub route: RouteNum,
    /// What it remembers.
    pub state: LimitState,
}

/// An owner's states: most have one, which needs no place of its own.
pub type Slots = SmallVec<[LimitSlot; 1]>;

/// Limit states and requests in flight of one owner. Costs nothing on the heap until it is used.
#[derive(Debug)]
pub struct Meter {
    owner: Owner,
    in_flight: AtomicU32,
    /// Whether it waits to be saved.
    dirty: AtomicBool,
    /// Whether the ledger may have states of it, which are then to be forgotten there.
    saved: AtomicBool,
    /// Held while a request is judged, under a microsecond (`benches/decide.rs`).
    slots: Mutex<Slots>,
}

impl Meter {
    /// A meter that was never saved.
    #[must_use]
    pub fn new(owner: Owner) -> Self {
        Self { saved: AtomicBool::new(false), ..Self::with(owner, Slots::new()) }
    }

    /// A meter with the states that were saved.
    #[must_use]
    pub fn with(owner: Owner, slots: Slots) -> Self {
        let (in_flight, dirty, saved) = (AtomicU32::new(0), AtomicBool::new(false), AtomicBool::new(true));
        Self { owner, in_flight, dirty, saved, slots: Mutex::new(slots) }
    }

    /// The states, for as long as one request is judged.
    pub fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock()
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// One more in flight, if that is at most `limit`. Give it back with [`Meter::leave`].
    #[must_use]
    pub fn enter(&self, limit: u32) -> bool {
        let next = |now: u32| (now < limit).then(|| now + 1);
        self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok()
    }

    /// One less in flight.
    pub fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether the ledger may know states of it.
    #[must_use]
    pub fn is_saved(&self) -> bool {
        self.saved.load(Ordering::Relaxed)
    }

    /// Whether the ledger has to know these states of it, or to forget those that it knows: not where
    /// all will be fresh by the time they would be saved. Where there are several, the saving also drops
    /// those of limits that a reload took away.
    #[must_use]
    pub fn must_be_saved(&self, slots: &[LimitSlot], saved_at: Moment) -> bool {
        self.is_saved() || slots.len() > 1 || !slots.iter().all(|slot| slot.state.is_fresh(saved_at))
    }

    /// Whether forgetting it would change nothing.
    #[must_use]
    pub fn is_fresh(&self, now: Moment) -> bool {
        self.in_flight() == 0 && self.lock().iter().all(|slot| slot.state.is_fresh(now))
    }

    /// The states as bytes; empty if none says anything any more.
    fn save(&self, now: Moment) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut slots = self.lock();
        slots.retain(|slot| !slot.state.is_fresh(now));
        for slot in &*slots {
            bytes.extend_from_slice(&slot.limit.0.to_le_bytes());
            bytes.extend_from_slice(&slot.route.0.to_le_bytes());
            slot.state.save(now, &mut bytes);
        }
        bytes
    }

    /// Reads saved states, `elapsed` after they were saved. What is not a state ends the reading.
    #[must_use]
    pub fn read(mut bytes: &[u8], elapsed: Duration, now: Moment) -> Slots {
        let mut slots = Slots::new();
        let mut next = || {
            let limit = NameId(u64::from_le_bytes(take_array(&mut bytes)?));
            let route = RouteNum(u32::from_le_bytes(take_array(&mut bytes)?));
            let state = LimitState::restore(&mut bytes, elapsed, now)?;
            Some(LimitSlot { limit, route, state })
        };
        while let Some(slot) = next() {
            if !slot.state.is_fresh(now) {
                slots.push(slot);
            }
        }
        slots
    }
}

/// Meters that changed since they were last saved: each at most once, so no longer than the
/// list of all meters.
#[derive(Debug, Default)]
pub struct Dirty(Mutex<Vec<Arc<Meter>>>);

impl Dirty {
    /// Marks a meter.
    pub fn mark(&self, meter: &Arc<Meter>) {
        if !meter.dirty.load(Ordering::Relaxed) && !meter.dirty.swap(true, Ordering::SeqCst) {
            self.0.lock().push(Arc::clone(meter));
        }
    }

    /// Takes all that changed: owner and states as bytes, which are empty for one to be forgotten.
    /// One that says nothing any more and was never saved costs no row: with many keys whose limits
    /// are soon full again, that is nearly all.
    pub fn drain(&self, now: Moment) -> Vec<(Vec<u8>, Vec<u8>)> {
        let meters = std::mem::take(&mut *self.0.lock());
        let save = |meter: Arc<Meter>| {
            meter.dirty.store(false, Ordering::SeqCst);
            let states = meter.save(now);
            let was_saved = meter.saved.swap(!states.is_empty(), Ordering::Relaxed); // only here
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
        meter.lock().push(LimitSlot { limit: NameId(1), route: RouteNum(0), state });
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
            state: LimitState::Gcra { arrival: 100, interval: 10 },
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
