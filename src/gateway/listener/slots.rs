//! Connection slots, and the limit of slots per client address.
//!
//! One client must not occupy all slots: an address may hold at most [`SHARE`] times as many as are free, the
//! dynamic threshold of Choudhury and Hahne (IEEE/ACM Transactions on Networking 6(2), 1998). A single greedy
//! address gets 16 of 17 slots; two of them together leave one in 33 to others.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::policy::client_address::client_network;
use crate::telemetry::Lane;

/// An address may hold at most this many times as many slots as are free.
const SHARE: usize = 16;

/// The connection slots of all workers.
#[derive(Debug)]
pub struct ConnectionSlots {
    free: Arc<Semaphore>,
    /// How many slots each address holds; at most as many entries as slots.
    held: DashMap<IpAddr, usize>,
}

impl ConnectionSlots {
    /// Creates `count` free slots.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS))), held: DashMap::new() }
    }

    /// Waits for a free slot. Never `None`, since the semaphore is never closed.
    pub(super) async fn acquire(self: &Arc<Self>, stats: &Arc<Lane>) -> Option<ConnectionSlot> {
        let permit = Arc::clone(&self.free).acquire_owned().await.ok()?;
        stats.connections.fetch_add(1, Ordering::Relaxed);
        let (slots, stats) = (Arc::clone(self), Arc::clone(stats));
        Some(ConnectionSlot { _permit: permit, slots, stats, address: None })
    }
}

/// The slot of an open connection, or of a tunnel. Dropping it frees the slot.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    _permit: OwnedSemaphorePermit,
    slots: Arc<ConnectionSlots>,
    stats: Arc<Lane>,
    /// The client address that the slot counts for.
    address: Option<IpAddr>,
}

impl ConnectionSlot {
    /// Counts the slot for a client address, and no longer for an earlier one. Returns false, and counts a refused
    /// connection, if the address holds too many.
    pub(super) fn assign(&mut self, address: IpAddr) -> bool {
        self.unassign();
        let address = client_network(address.to_canonical());
        let mut held = self.slots.held.entry(address).or_default();
        // This slot counts as free, since it was acquired for this check.
        let is_within_limit = *held <= SHARE * (self.slots.free.available_permits() + 1);
        if is_within_limit {
            *held += 1;
            self.address = Some(address);
        } else {
            self.stats.connections_over_share.fetch_add(1, Ordering::Relaxed);
        }
        is_within_limit
    }

    fn unassign(&mut self) {
        let Some(address) = self.address.take() else { return };
        if let Entry::Occupied(mut held) = self.slots.held.entry(address) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.unassign();
        self.stats.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Acquires slots for one address, until its limit is reached or no slot is free.
    async fn grab(slots: &Arc<ConnectionSlots>, last: u8) -> Vec<ConnectionSlot> {
        let (stats, mut taken) = (Arc::default(), Vec::new());
        while slots.free.available_permits() > 0 {
            let mut slot = slots.acquire(&stats).await.unwrap();
            if !slot.assign(IpAddr::from([192, 0, 2, last])) {
                break;
            }
            taken.push(slot);
        }
        taken
    }

    #[tokio::test]
    async fn a_greedy_address_leaves_slots_to_others() {
        let slots = Arc::new(ConnectionSlots::new(1_700));
        let greedy = grab(&slots, 1).await;
        assert_eq!(greedy.len(), 1_601);
        let second = grab(&slots, 2).await;
        assert_eq!(second.len(), 94);
        assert_eq!(grab(&slots, 3).await.len(), 5);
        drop(greedy);
        assert_eq!(grab(&slots, 3).await.len(), 1_512);
        drop(second);
        assert!(slots.held.is_empty());
    }

    #[tokio::test]
    async fn a_single_address_gets_all_of_few_slots() {
        assert_eq!(grab(&Arc::new(ConnectionSlots::new(17)), 1).await.len(), 17);
    }
}
