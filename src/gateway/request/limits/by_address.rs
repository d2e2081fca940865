//! Maps client addresses to values, in many small parts with a lock each: to sweep one part takes less than 0.1 ms,
//! however many addresses there are.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Most client addresses that are counted separately. Further addresses share one meter: a flood of addresses then
/// exhausts the limit that it shares, and no address that is near its limit is forgotten.
pub const MAX_ADDRESSES: usize = 262_144;
/// Parts of the map: each has about a thousand addresses at most.
const PARTS: usize = 256;
/// Parts that one sweep covers, in less than a millisecond; 32 sweeps cover the map.
const PARTS_PER_SWEEP: usize = PARTS / 32;

/// A value for each client address.
#[derive(Debug)]
pub(super) struct ByAddress<V> {
    parts: Box<[Mutex<HashMap<IpAddr, V>>]>,
    count: AtomicUsize,
    hasher: RandomState,
    /// The part to sweep next.
    next: AtomicUsize,
}

impl<V> Default for ByAddress<V> {
    fn default() -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Self { parts, count: AtomicUsize::new(0), hasher: RandomState::new(), next: AtomicUsize::new(0) }
    }
}

impl<V: Clone> ByAddress<V> {
    fn part(&self, address: &IpAddr) -> &Mutex<HashMap<IpAddr, V>> {
        let hash = self.hasher.hash_one(address).to_le_bytes();
        &self.parts[usize::from(hash[7]) % PARTS]
    }

    /// True if the map is empty; does not lock it.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    pub(super) fn get(&self, address: &IpAddr) -> Option<V> {
        self.part(address).lock().get(address).cloned()
    }

    /// Changes the value of an address, which is created if it is missing, and returns the changed value; `None` for a
    /// new address beyond [`MAX_ADDRESSES`].
    pub(super) fn update(
        &self,
        address: IpAddr,
        new: impl FnOnce() -> V,
        change: impl FnOnce(&mut V),
    ) -> Option<V> {
        match self.part(&address).lock().entry(address) {
            Entry::Occupied(mut known) => {
                change(known.get_mut());
                Some(known.get().clone())
            }
            Entry::Vacant(place) => {
                if self.count.fetch_add(1, Ordering::Relaxed) >= MAX_ADDRESSES {
                    self.count.fetch_sub(1, Ordering::Relaxed);
                    return None;
                }
                let value = place.insert(new());
                change(value);
                Some(value.clone())
            }
        }
    }

    pub(super) fn each(&self, mut each: impl FnMut(&V)) {
        self.parts.iter().for_each(|part| part.lock().values().for_each(&mut each));
    }

    /// Sweeps a 32nd of the map: removes what `keep` rejects.
    pub(super) fn sweep_some(&self, mut keep: impl FnMut(&IpAddr, &V) -> bool) {
        let from = self.next.fetch_add(PARTS_PER_SWEEP, Ordering::Relaxed);
        for at in from..from + PARTS_PER_SWEEP {
            let mut part = self.parts[at % PARTS].lock();
            let before = part.len();
            part.retain(|address, value| keep(address, value));
            self.count.fetch_sub(before - part.len(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: usize) -> IpAddr {
        IpAddr::from(u32::try_from(number).unwrap().to_be_bytes())
    }

    #[test]
    fn addresses_are_bounded_and_swept_in_parts() {
        let all = ByAddress::<usize>::default();
        for number in 0..MAX_ADDRESSES {
            assert_eq!(all.update(address(number), || number, |_| {}), Some(number));
        }
        assert_eq!(all.update(address(MAX_ADDRESSES), || 0, |_| {}), None, "beyond the bound");
        assert_eq!(all.update(address(7), || 0, |value| *value += 1), Some(8), "known ones still count");
        let mut looked = 0;
        all.sweep_some(|_, _| {
            looked += 1;
            false
        });
        assert!(looked < MAX_ADDRESSES / 24, "{looked} in one sweep");
        for _ in 0..32 {
            all.sweep_some(|_, _| false);
        }
        assert!(all.is_empty() && all.get(&address(7)).is_none());
    }
}
