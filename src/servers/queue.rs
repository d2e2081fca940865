//! The queue of requests that wait for a server of an upstream while all have as many requests as they may.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The requests that wait for a server. They are served in the order in which they came.
#[derive(Debug, Default)]
pub struct WaitQueue {
    waiting: AtomicUsize,
    freed: Notify,
}

/// The place of one request in a queue.
#[derive(Debug)]
pub struct Place<'a>(&'a WaitQueue);

impl WaitQueue {
    /// Takes a place; `None` if `most` requests wait.
    pub fn enter(&self, most: usize) -> Option<Place<'_>> {
        let place = Place(self);
        (self.waiting.fetch_add(1, Ordering::SeqCst) < most).then_some(place)
    }

    /// The number of requests that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// True if no request waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Servers may take any number of requests more.
    pub(super) fn freed_all(&self) {
        self.freed.notify_waiters();
    }

    /// A server can take one more request.
    pub(super) fn freed(&self) {
        if !self.is_empty() {
            self.freed.notify_one();
        }
    }
}

impl Place<'_> {
    /// Waits until a server can take one more request. The wait begins when this is called: poll it after another look
    /// for a server, or a server that was freed in between is missed.
    pub fn freed(&self) -> tokio::sync::futures::Notified<'_> {
        self.0.freed.notified()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
