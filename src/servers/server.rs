//! One server of an upstream: an address, and what is known about it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::origin::Origin;
use super::queue::WaitQueue;
use crate::types::{Moment, WallTime};

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
    /// Requests that failed because of the server.
    failures: AtomicU64,
    /// Failed requests since the last one that did not fail.
    failures_in_a_row: AtomicU32,
    /// Until when the server is left out because requests failed, in nanoseconds of [`Moment`]; 0 if it is not.
    ejected_until: AtomicU64,
    /// True if the health checks failed.
    is_down: AtomicBool,
    /// Since when the server is available again, in nanoseconds of [`Moment`]; 0 if it always was.
    back_since: AtomicU64,
    last_failure: Mutex<Option<Failure>>,
}

/// Whether requests are sent to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// Health checks failed.
    Down,
    /// Requests failed, so it is left out for a while.
    Ejected,
    /// It is available: always was, or again since this time.
    Up(Option<Duration>),
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
            failures: AtomicU64::new(0),
            failures_in_a_row: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            is_down: AtomicBool::new(false),
            back_since: AtomicU64::new(0),
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
        if most == 0 {
            self.started.fetch_add(1, Ordering::SeqCst);
            return true;
        }
        let next = |started: u64| {
            let in_flight = started.saturating_sub(self.ended.load(Ordering::SeqCst));
            (in_flight < u64::from(most)).then_some(started + 1)
        };
        self.started.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok()
    }

    /// Ends a request that [`super::ServerGroup::select`] started.
    pub fn end(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
        self.queue.freed();
    }

    /// Counts a failed request. Returns how many failed in a row.
    pub(super) fn count_failure(&self, at: WallTime, cause: String) -> u32 {
        *self.last_failure.lock() = Some(Failure { at, cause });
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.failures_in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// A request succeeded.
    #[inline]
    pub fn succeeded(&self) {
        // Written only if it changes, since all workers read it.
        if self.failures_in_a_row.load(Ordering::Relaxed) != 0 {
            self.failures_in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// Records why a health check failed.
    pub fn check_failed(&self, at: WallTime, cause: String) {
        *self.last_failure.lock() = Some(Failure { at, cause });
    }

    /// Requests that failed because of the server.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The server's state, as far as it decides whether requests are sent to it.
    #[must_use]
    pub fn state(&self, now: Moment) -> ServerState {
        if self.is_down.load(Ordering::Relaxed) {
            return ServerState::Down;
        }
        let until = self.ejected_until.load(Ordering::Relaxed);
        if now.0 < until {
            return ServerState::Ejected;
        }
        // An ejection that has passed is where slow start begins.
        match self.back_since.load(Ordering::Relaxed).max(until) {
            0 => ServerState::Up(None),
            since => ServerState::Up(Some(now.since(Moment(since)))),
        }
    }

    /// Leaves the server out until a moment.
    pub(super) fn eject(&self, until: Moment) {
        self.ejected_until.store(until.0, Ordering::Relaxed);
        self.failures_in_a_row.store(0, Ordering::Relaxed);
    }

    /// Sets what the health checks showed.
    pub fn set_down(&self, is_down: bool, now: Moment) {
        self.is_down.store(is_down, Ordering::Relaxed);
        if !is_down {
            self.back_since.store(now.0, Ordering::Relaxed);
        }
        self.queue.freed_all();
    }

    /// The last failure.
    #[must_use]
    pub fn last_failure(&self) -> Option<Failure> {
        self.last_failure.lock().clone()
    }
}
