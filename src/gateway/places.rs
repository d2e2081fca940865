//! Places for connections, and each client address's share of them.
//!
//! One client must not take all places: an address may hold at most [`SHARE`] times as many as are
//! free, the dynamic threshold of Choudhury and Hahne (IEEE/ACM Transactions on Networking 6(2),
//! 1998). Alone it gets 16 of 17 places; two that want all leave a 33rd part to others.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::counted;
use crate::telemetry::Lane;

/// How many times as many places as are free one address may hold.
const SHARE: usize = 16;

/// Places of all workers.
#[derive(Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    /// How many each address has: no more addresses than places.
    held: DashMap<IpAddr, usize>,
}

impl Places {
    /// So many.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS))), held: DashMap::new() }
    }

    /// Waits for a place. `None` never comes: the places are not closed.
    pub(super) async fn take(self: &Arc<Self>, stats: &Arc<Lane>) -> Option<Place> {
        let permit = Arc::clone(&self.free).acquire_owned().await.ok()?;
        stats.connections.fetch_add(1, Ordering::Relaxed);
        Some(Place { _permit: permit, places: Arc::clone(self), stats: Arc::clone(stats), client: None })
    }
}

/// A place among the connections that are open, tunnels too; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    places: Arc<Places>,
    stats: Arc<Lane>,
    /// In whose share it counts.
    client: Option<IpAddr>,
}

impl Place {
    /// Counts it in a client's share; says whether it is within that.
    pub(super) fn is_within_share_of(&mut self, address: IpAddr) -> bool {
        self.leave();
        let address = counted(address.to_canonical());
        let mut held = self.places.held.entry(address).or_default();
        // This place was free a moment ago.
        let within = *held <= SHARE * (self.places.free.available_permits() + 1);
        if within {
            *held += 1;
            self.client = Some(address);
        } else {
            self.stats.crowded_out.fetch_add(1, Ordering::Relaxed);
        }
        within
    }

    fn leave(&mut self) {
        let Some(address) = self.client.take() else { return };
        if let Entry::Occupied(mut held) = self.places.held.entry(address) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
        self.stats.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many places as an address gets.
    async fn grab(places: &Arc<Places>, last: u8) -> Vec<Place> {
        let (stats, mut taken) = (Arc::default(), Vec::new());
        while places.free.available_permits() > 0 {
            let mut place = places.take(&stats).await.unwrap();
            if !place.is_within_share_of(IpAddr::from([192, 0, 2, last])) {
                break;
            }
            taken.push(place);
        }
        taken
    }

    #[tokio::test]
    async fn who_wants_all_places_leaves_some_to_others() {
        let places = Arc::new(Places::new(1_700));
        let greedy = grab(&places, 1).await;
        assert_eq!(greedy.len(), 1_601);
        let second = grab(&places, 2).await;
        assert_eq!(second.len(), 94);
        assert_eq!(grab(&places, 3).await.len(), 5);
        drop(greedy);
        assert_eq!(grab(&places, 3).await.len(), 1_512);
        drop(second);
        assert!(places.held.is_empty());
    }

    #[tokio::test]
    async fn few_places_are_there_for_one_client_too() {
        assert_eq!(grab(&Arc::new(Places::new(17)), 1).await.len(), 17);
    }
}
