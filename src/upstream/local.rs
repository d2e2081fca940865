//! A worker's side of a server: its idle HTTP/1.1 connections, and its requests in flight.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::fault::SendError;
use super::http1::Http1Connection;
use crate::clock::Clock;
use crate::servers::Server;
use crate::snapshot::Upstream;
use crate::types::{Moment, Repeats};

/// Most idle connections of one worker to one server.
const MAX_IDLE: usize = 512;
/// How long an idle connection is kept: shorter than the keep-alive of most servers, so that a request rarely meets a
/// connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection is closed this long before the server would close it, if the server says when.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(1);

/// A worker's side of a server.
#[derive(Debug)]
pub struct LocalServer {
    pub(super) shared: Arc<Server>,
    idle: RefCell<Vec<Idle>>,
    /// The HTTP version that the server selected last, if it may select.
    pub(super) selected_http2: Cell<Option<bool>>,
    /// Whose turn it is to open an HTTP/2 connection.
    pub(super) connecting: Connecting,
    /// Limits how often failures are logged: otherwise every request could log one.
    failures: RefCell<Repeats>,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Http1Connection>,
    until: Moment,
}

impl LocalServer {
    pub(super) fn new(shared: &Arc<Server>) -> Self {
        Self {
            shared: Arc::clone(shared),
            idle: RefCell::default(),
            selected_http2: Cell::new(None),
            connecting: Connecting::default(),
            failures: RefCell::default(),
        }
    }

    /// The server's address, for logs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Takes the most recently used idle connection that is still open.
    pub(super) fn take_idle(&self, now: Moment) -> Option<Box<Http1Connection>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { mut connection, until }) = idle.pop() {
            if now < until && connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, connection: Box<Http1Connection>, now: Moment) {
        let announced = connection.keep_alive().map(|time| time.saturating_sub(KEEP_ALIVE_MARGIN));
        let time = announced.map_or(IDLE_TIMEOUT, |time| time.min(IDLE_TIMEOUT));
        if time.is_zero() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= MAX_IDLE {
            idle.remove(0);
        }
        idle.push(Idle { connection, until: now.plus(time) });
    }

    /// Closes connections that were idle for too long, or that the server closed. Logs how many failures were left out
    /// of the log. Returns true if the server is still in use.
    pub(super) fn sweep(&self, now: Moment) -> bool {
        let mut idle = self.idle.borrow_mut();
        idle.retain_mut(|idle| now < idle.until && idle.connection.is_quiet());
        let mut failures = self.failures.borrow_mut();
        if let Some(more) = failures.suppressed(now) {
            let (upstream, server) = (&*self.shared.upstream, self.name());
            tracing::warn!(upstream, server, more, "further requests to the server failed");
        }
        !idle.is_empty() || !failures.is_over(now) || self.shared.in_flight() > 0
    }

    /// Counts and logs a request that failed because of this server. It is logged at a limited rate.
    pub fn note_failure(&self, upstream: &Upstream, error: &SendError, clock: &Clock) {
        let (now, wall) = (clock.now(), clock.wall());
        let Server { origin, name, .. } = &*self.shared;
        let (upstream_name, server) = (upstream.name.as_str(), name.as_str());
        if let Some(more) = self.failures.borrow_mut().should_log(now) {
            let (stage, url) = (error.stage.name(), &origin.url);
            tracing::warn!(
                upstream = upstream_name, server, url, stage, %error, more,
                "a request to the server failed"
            );
        }
        if upstream.servers.failed(&self.shared, error.to_string(), &upstream.ejection, (now, wall)) {
            let seconds = upstream.ejection.time.as_secs();
            tracing::warn!(
                upstream = upstream_name,
                server,
                seconds,
                "a server is left out: requests to it failed"
            );
        }
    }
}

/// The turn of one request to open an HTTP/2 connection.
pub(super) type Turn = OwnedSemaphorePermit;

/// Lets one request after the other open an HTTP/2 connection. If one fails, those that waited for it fail too: each would
/// wait as long again.
#[derive(Debug)]
pub(super) struct Connecting {
    turn: Arc<Semaphore>,
    failures: Cell<u64>,
    last: RefCell<Option<SendError>>,
}

impl Default for Connecting {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), failures: Cell::new(0), last: RefCell::default() }
    }
}

impl Connecting {
    /// Waits for the turn; it ends when the result is dropped.
    pub(super) async fn turn(&self) -> Option<Turn> {
        Arc::clone(&self.turn).acquire_owned().await.ok()
    }

    /// How many attempts to connect failed so far.
    pub(super) fn failures(&self) -> u64 {
        self.failures.get()
    }

    /// The last error, if an attempt failed after there were `failures`.
    pub(super) fn failed_since(&self, failures: u64) -> Option<SendError> {
        self.last.borrow().clone().filter(|_| self.failures.get() != failures)
    }

    pub(super) fn fail(&self, error: &SendError) {
        self.failures.set(self.failures.get() + 1);
        *self.last.borrow_mut() = Some(error.clone());
    }
}

/// A request that a server has in flight. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct InFlight(Rc<LocalServer>);

impl InFlight {
    /// Takes over a request that [`crate::servers::ServerGroup::select`] started.
    pub(super) fn new(server: Rc<LocalServer>) -> Self {
        Self(server)
    }

    pub(super) fn server(&self) -> &Rc<LocalServer> {
        &self.0
    }

    /// Ends the request, and keeps its connection for the next one.
    pub(super) fn keep(self, connection: Box<Http1Connection>, now: Moment) {
        self.0.keep(connection, now);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.shared.end();
    }
}
