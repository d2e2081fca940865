//! One server of an upstream: an address, and what is known about it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::origin::Origin;
use super::queue::WaitQueue;
use crate::types::WallTime;

/// One server: an address of an [`Origin`].
#[derive(Debug)]
pub struct Server {
    /// Identifies the server in this process; never used again.
    pub num: u64,
    /// The name of its upstream.
    pub upstream: Arc<str>,
    /// What the configuration says about it.
    pub origin: Arc<Origin>,
    /// Its address.
    pub address: SocketAddr,
    /// Its address as text, for logs.
    pub name: String,
    /// Requests that were started.
    started: AtomicU64,
    /// Requests that ended.
    ended: AtomicU64,
    /// The requests that wait for a server of the same upstream.
    queue: Arc<WaitQueue>,
    last_failure: Mutex<Option<Failure>>,
}

/// Why a request to a server failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When it failed.
    pub at: WallTime,
    /// The cause.
    pub cause: String,
}

impl Server {
    pub(super) fn new(
        upstream: Arc<str>,
        origin: Arc<Origin>,
        address: SocketAddr,
        queue: Arc<WaitQueue>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            num: NEXT.fetch_add(1, Ordering::Relaxed),
            upstream,
            origin,
            address,
            name: address.to_string(),
            started: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            queue,
            last_failure: Mutex::new(None),
        }
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        let ended = self.ended.load(Ordering::SeqCst); // before the others, so that the difference is never negative
        self.started.load(Ordering::SeqCst).saturating_sub(ended)
    }

    /// Requests that were started since the server is known.
    #[must_use]
    pub fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// Counts a request; false if `most` are in flight (0: no limit).
    pub(super) fn try_start(&self, most: u32) -> bool {
        let before = self.started.fetch_add(1, Ordering::SeqCst);
        if most == 0 || before - self.ended.load(Ordering::SeqCst).min(before) < u64::from(most) {
            return true;
        }
        self.started.fetch_sub(1, Ordering::SeqCst);
        false
    }

    /// Ends a request that [`super::ServerGroup::select`] started.
    pub fn end(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
        self.queue.freed();
    }

    /// Records why a request failed.
    pub fn failed(&self, at: WallTime, cause: String) {
        *self.last_failure.lock() = Some(Failure { at, cause });
    }

    /// The last failure.
    #[must_use]
    pub fn last_failure(&self) -> Option<Failure> {
        self.last_failure.lock().clone()
    }
}
