//! All client connections of one worker, and the state that they share.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::task::Waker;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::deadlines::request::RequestDeadlines;
use super::protocol::Protocol;
use super::state::Connection;
use crate::clock::{Clock, CoarseClock};
use crate::snapshot::Views;
use crate::types::KeyHash;

/// Connections, or tunnels, that are checked before other tasks of the worker run.
const MAX_CHECKED_AT_ONCE: usize = 1024;

/// The client connections of one worker.
#[derive(Debug)]
pub(in crate::gateway) struct Connections {
    pub(in crate::gateway) views: Views,
    pub(in crate::gateway) clock: Clock,
    /// The time of the current poll of a connection or stream.
    pub(in crate::gateway) time: CoarseClock,
    /// Connections, streams, tunnels and detached requests; the drain waits for them.
    pub(in crate::gateway) tasks: TaskTracker,
    /// Cancelled when no further connection is accepted.
    pub(in crate::gateway) stop: CancellationToken,
    /// The next response of each connection is its last.
    is_winding_down: Cell<bool>,
    /// Connections finish the requests in flight and close.
    is_draining: Cell<bool>,
    /// Cancelled when connections that have no protocol yet are closed.
    draining: CancellationToken,
    /// Accepted connections that have no protocol yet.
    opening: Cell<usize>,
    /// The worker ends: no task is spawned any more.
    is_ended: Cell<bool>,
    /// Open connections, and the wakers of their tasks.
    open: RefCell<HashMap<u64, (Waker, Weak<Connection>)>>,
    /// Deadlines of tunnels: of all open ones, and of ones that ended since the last check of the keys.
    tunnels: RefCell<Vec<Weak<RequestDeadlines>>>,
    next_number: Cell<u64>,
}

/// A connection that was accepted, and has no protocol yet.
#[derive(Debug)]
pub(in crate::gateway) struct Opening(Rc<Connections>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.opening.set(self.0.opening.get() - 1);
    }
}

impl Connections {
    pub(in crate::gateway) fn new(views: Views, clock: Clock, stop: CancellationToken) -> Self {
        Self {
            views,
            time: CoarseClock::new(clock.clone()),
            clock,
            tasks: TaskTracker::new(),
            stop,
            is_winding_down: Cell::new(false),
            is_draining: Cell::new(false),
            draining: CancellationToken::new(),
            opening: Cell::new(0),
            is_ended: Cell::new(false),
            open: RefCell::default(),
            tunnels: RefCell::default(),
            next_number: Cell::new(0),
        }
    }

    /// A number for a new connection.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number.replace(self.next_number.get() + 1)
    }

    /// Registers a connection, with the waker of its task.
    pub(super) fn register(&self, number: u64, waker: &Waker, connection: &Arc<Connection>) {
        self.open.borrow_mut().insert(number, (waker.clone(), Arc::downgrade(connection)));
    }

    pub(super) fn unregister(&self, number: u64) {
        self.open.borrow_mut().remove(&number);
    }

    /// Registers the deadlines of a tunnel, which no connection has among its requests.
    pub(in crate::gateway) fn register_tunnel(&self, deadlines: &Arc<RequestDeadlines>) {
        self.tunnels.borrow_mut().push(Arc::downgrade(deadlines));
    }

    /// Makes the next response of each HTTP/1.1 connection its last, and announces the end of HTTP/2 connections.
    pub(in crate::gateway) fn wind_down(&self) {
        self.is_winding_down.set(true);
        self.wake_all();
    }

    /// True if the next response of each connection is its last.
    pub(in crate::gateway) fn is_winding_down(&self) -> bool {
        self.is_winding_down.get()
    }

    /// Counts a connection that was accepted, until the returned value is dropped: when it has a protocol.
    pub(in crate::gateway) fn start_opening(self: &Rc<Self>) -> Opening {
        self.opening.set(self.opening.get() + 1);
        Opening(Rc::clone(self))
    }

    /// Waits until connections that have no protocol yet must be closed.
    pub(in crate::gateway) async fn drain_begun(&self) {
        self.draining.cancelled().await;
    }

    /// True if the client of a connection may send a request to it, because no response said that it closes: one that
    /// was just accepted, waits for a request, or is in a response that began before.
    pub(in crate::gateway) fn has_untold(&self) -> bool {
        let is_untold = |connection: Arc<Connection>| {
            let is_http1 = connection.protocol == Protocol::Http1; // GOAWAY tells clients of HTTP/2
            connection.is_idle() || is_http1 && connection.is_streaming()
        };
        self.opening.get() > 0
            || self.open.borrow().values().filter_map(|(_, connection)| connection.upgrade()).any(is_untold)
    }

    /// True if a response has begun and has not ended, or a tunnel is open.
    pub(in crate::gateway) fn has_streams(&self) -> bool {
        let has_tunnels = self.tunnels.borrow().iter().any(|tunnel| tunnel.strong_count() > 0);
        let open = self.open.borrow();
        has_tunnels
            || open.values().filter_map(|(_, connection)| connection.upgrade()).any(|it| it.is_streaming())
    }

    /// True if connections must finish the requests in flight and close.
    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// Makes every connection finish the requests in flight and close.
    pub(in crate::gateway) fn drain(&self) {
        self.is_draining.set(true);
        self.draining.cancel();
        self.wake_all();
    }

    fn wake_all(&self) {
        for (waker, _) in self.open.borrow().values() {
            waker.wake_by_ref();
        }
    }

    /// Ends the worker: no task is spawned any more.
    pub(in crate::gateway) fn end(&self) {
        self.is_ended.set(true);
    }

    /// Spawns a task that outlives its client's connection. A worker that ends drops it instead.
    pub(in crate::gateway) fn spawn_detached(&self, task: impl Future<Output = ()> + 'static) {
        if !self.is_ended.get() {
            self.tasks.spawn_local(task);
        }
    }

    /// Cancels every request in flight, tunnels too, whose key does not work any more.
    pub(in crate::gateway) async fn check_keys(self: &Rc<Self>, works: impl Fn(&KeyHash) -> bool) {
        let numbers: Vec<u64> = self.open.borrow().keys().copied().collect();
        for numbers in numbers.chunks(MAX_CHECKED_AT_ONCE) {
            numbers.iter().for_each(|number| self.check_keys_of(*number, &works));
            tokio::task::yield_now().await;
        }
        let tunnels: Vec<Arc<RequestDeadlines>> = {
            let mut tunnels = self.tunnels.borrow_mut();
            tunnels.retain(|tunnel| tunnel.strong_count() > 0);
            tunnels.iter().filter_map(Weak::upgrade).collect()
        };
        for tunnels in tunnels.chunks(MAX_CHECKED_AT_ONCE) {
            let revoked = tunnels.iter().filter(|tunnel| tunnel.check_key(&works));
            revoked.for_each(|tunnel| tunnel.cancel());
            tokio::task::yield_now().await;
        }
    }

    fn check_keys_of(&self, number: u64, works: impl Fn(&KeyHash) -> bool) {
        let known = self.open.borrow().get(&number).cloned();
        let Some((waker, connection)) = known else { return };
        if connection.upgrade().is_some_and(|connection| connection.cancel_requests(works)) {
            waker.wake();
        }
    }
}
