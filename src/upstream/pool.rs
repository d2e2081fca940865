//! Sends requests to servers: selects a server, connects, renders the head, and exchanges; again where that can do no
//! harm.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::body::{UpstreamResponse, over_any};
use super::connect::{NewConnection, connect};
use super::connection_count::ConnectionCount;
use super::fault::{Cause, SendError, Sent, Stage};
use super::http1::Http1Connection;
use super::http2::{Http2Connections, Http2Stream};
use super::local::{InFlight, LocalServer, Turn};
use super::outgoing::Outgoing;
use super::request::{HeadBuffers, OutgoingRequest};
use crate::clock::Clock;
use crate::policy::upstream::balance::Balance;
use crate::servers::{HttpVersions, NoServer, Selection, Server};
use crate::snapshot::Upstream;
use crate::types::{Moment, NumberMap};

/// The connections of one worker to its upstreams, for requests of type `R`.
#[derive(Debug)]
pub struct Pool<R: OutgoingRequest> {
    servers: RefCell<NumberMap<u64, Rc<LocalServer>>>,
    http2: Http2Connections<R::Body>,
    count: ConnectionCount,
    head_buffers: HeadBuffers,
    random: RefCell<fastrand::Rng>,
    clock: Clock,
}

/// A connection for one request.
enum Connection<R: OutgoingRequest> {
    Http1 { connection: Box<Http1Connection>, is_new: bool },
    Http2 { stream: Http2Stream<R::Body>, is_new: bool },
}

/// What the connection for a request must be like.
struct Wanted<'a> {
    upstream: &'a Upstream,
    server: &'a Rc<LocalServer>,
    versions: HttpVersions,
    /// Open connections are not used: one of them just failed.
    is_fresh: bool,
    now: Moment,
}

/// A try that failed.
struct FailedAttempt {
    error: SendError,
    /// It used a connection that was open before.
    is_reused: bool,
}

impl FailedAttempt {
    fn to_connect(error: SendError) -> Self {
        Self { error, is_reused: false }
    }
}

impl<R: OutgoingRequest> Pool<R> {
    /// A pool without connections. `seed`: for the random choice of servers.
    #[must_use]
    pub fn new(clock: Clock, seed: u64) -> Self {
        Self {
            servers: RefCell::default(),
            http2: Http2Connections::default(),
            count: ConnectionCount::default(),
            head_buffers: HeadBuffers::default(),
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
            clock,
        }
    }

    /// Sends a request and waits for the response head. A request that failed is sent again where
    /// [`crate::policy::upstream::retry`] and the upstream's budget allow it; whatever the budget is, if the server may
    /// just have closed an idle connection. `on_server` is told each server that is tried.
    ///
    /// # Errors
    /// [`SendError`] of the last try.
    pub async fn send(
        &self,
        upstream: &Upstream,
        request: R,
        now: Moment,
        on_server: impl Fn(&Rc<LocalServer>),
    ) -> Result<UpstreamResponse, SendError> {
        let (mut outgoing, mut now) = (Outgoing::new(request), now);
        loop {
            let in_flight = self.select(upstream, &outgoing, &mut now).await?;
            let server = Rc::clone(in_flight.server());
            on_server(&server);
            let FailedAttempt { error, is_reused } =
                match self.attempt(upstream, &server, &mut outgoing, in_flight, now).await {
                    Ok(response) => {
                        server.shared.succeeded();
                        return Ok(response);
                    }
                    Err(failed) if outgoing.request.has_body_failed() => {
                        return Err(SendError { cause: Cause::Body, ..failed.error });
                    }
                    Err(failed) => failed,
                };
            outgoing.rewind();
            let may_retry = outgoing.may_retry(&error, &upstream.retries);
            // A connection that was idle may just have been closed. This says nothing about the server.
            let is_stale = is_reused && may_retry && !matches!(error.cause, Cause::Http2(_));
            if error.is_about_server() && !is_stale {
                server.note_failure(upstream, &error, &self.clock);
            }
            if !may_retry || !is_stale && !upstream.servers.budget().take() {
                return Err(error);
            }
            outgoing.tried.push(server.shared.num);
            outgoing.is_fresh = true;
            now = self.clock.now();
        }
    }

    /// Selects a server. Waits in the upstream's queue while all have as many requests as they may, and while no name
    /// has been resolved.
    async fn select(
        &self,
        upstream: &Upstream,
        outgoing: &Outgoing<R>,
        now: &mut Moment,
    ) -> Result<InFlight, SendError> {
        let failed = |cause| SendError::unsent(Stage::Select, cause);
        let queue = upstream.servers.queue();
        if upstream.max_requests == 0 || queue.is_empty() {
            match self.try_select(upstream, outgoing, *now) {
                Ok(selected) => return Ok(selected),
                Err(NoServer::Unknown(why)) => return Err(failed(Cause::NoAddress(why))),
                Err(NoServer::Full | NoServer::Unresolved) => {}
            }
        }
        let place = queue.enter(upstream.queue.most).ok_or_else(|| failed(Cause::Full))?;
        let mut is_behind = queue.len() > 1; // others came before
        let wait = async {
            loop {
                let mut freed = std::pin::pin!(place.freed());
                freed.as_mut().enable();
                if std::mem::take(&mut is_behind) {
                    freed.await;
                    continue;
                }
                match self.try_select(upstream, outgoing, self.clock.now()) {
                    Ok(selected) => return Ok(selected),
                    Err(NoServer::Unknown(why)) => return Err(failed(Cause::NoAddress(why))),
                    Err(NoServer::Full | NoServer::Unresolved) => freed.await,
                }
            }
        };
        let waited = Box::pin(tokio::time::timeout(upstream.queue.time, wait)).await;
        *now = self.clock.now();
        waited.unwrap_or_else(|_| Err(failed(Cause::Full)))
    }

    #[inline]
    fn try_select(
        &self,
        upstream: &Upstream,
        outgoing: &Outgoing<R>,
        now: Moment,
    ) -> Result<InFlight, NoServer> {
        let selection = Selection {
            balance: &upstream.balance,
            max_requests: upstream.max_requests,
            affinity: match &upstream.balance {
                Balance::Hash(by) => outgoing.request.affinity(by),
                Balance::LeastRequests | Balance::RoundRobin => 0,
            },
            tried: &outgoing.tried,
            random: &self.random,
            slow_start: upstream.slow_start,
            now,
        };
        upstream.servers.select(&selection, |server| InFlight::new(self.local(server)))
    }

    fn local(&self, server: &Arc<Server>) -> Rc<LocalServer> {
        let mut servers = self.servers.borrow_mut();
        Rc::clone(servers.entry(server.num).or_insert_with(|| Rc::new(LocalServer::new(server))))
    }

    /// Tries a request at one server. An open connection that was closed before a byte of the request was written is
    /// replaced by another one.
    async fn attempt(
        &self,
        upstream: &Upstream,
        server: &Rc<LocalServer>,
        outgoing: &mut Outgoing<R>,
        in_flight: InFlight,
        now: Moment,
    ) -> Result<UpstreamResponse, FailedAttempt> {
        let mut is_fresh = outgoing.is_fresh;
        loop {
            let versions =
                if outgoing.needs_http1() { HttpVersions::Http1 } else { server.shared.origin.versions };
            let connected = self.connection(&Wanted { upstream, server, versions, is_fresh, now }).await;
            let (error, is_new) = match connected.map_err(FailedAttempt::to_connect)? {
                Connection::Http1 { connection, is_new } => {
                    match outgoing.exchange(server, connection, &self.head_buffers).await {
                        Ok(response) => return Ok(over_any(response, in_flight)),
                        Err(error) => (error, is_new),
                    }
                }
                Connection::Http2 { stream, is_new } => match outgoing.send_on(server, stream).await {
                    Ok(response) => return Ok(over_any(response, in_flight)),
                    Err(error) => {
                        is_fresh = true; // unlike an idle connection, it was not checked
                        (error, is_new)
                    }
                },
            };
            let is_refused = matches!(error.cause, Cause::Http2(_));
            if is_new || is_refused || error.sent == Sent::Something || !outgoing.has_payload() {
                return Err(FailedAttempt { error, is_reused: !is_new });
            }
        }
    }

    /// An open connection to a server that is free, or else a new one.
    async fn connection(&self, wanted: &Wanted<'_>) -> Result<Connection<R>, SendError> {
        let &Wanted { server, versions, is_fresh, .. } = wanted;
        let may_http2 = versions != HttpVersions::Http1;
        if may_http2
            && !is_fresh
            && let Some(stream) = self.http2.find(server.shared.num)
        {
            return Ok(Connection::Http2 { stream, is_new: false });
        }
        if versions != HttpVersions::Http2
            && !is_fresh
            && let Some(connection) = server.take_idle(wanted.now)
        {
            return Ok(Connection::Http1 { connection, is_new: false });
        }
        if may_http2 && !is_fresh && server.selected_http2.get() != Some(false) {
            return Box::pin(self.open_in_turn(wanted)).await;
        }
        Box::pin(self.open(wanted, None)).await
    }

    /// Opens an HTTP/2 connection, one request after the other: those that follow use its streams.
    async fn open_in_turn(&self, wanted: &Wanted<'_>) -> Result<Connection<R>, SendError> {
        let server = wanted.server;
        let failures = server.connecting.failures();
        let turn = server.connecting.turn().await;
        if let Some(stream) = self.http2.find(server.shared.num) {
            return Ok(Connection::Http2 { stream, is_new: false });
        }
        if let Some(error) = server.connecting.failed_since(failures) {
            return Err(error);
        }
        if server.selected_http2.get() == Some(false) {
            drop(turn); // the server speaks HTTP/1.1, so each request needs a connection of its own
            return self.open(wanted, None).await;
        }
        let opened = self.open(wanted, turn).await;
        if let Err(error) = &opened {
            server.connecting.fail(error);
        }
        opened
    }

    async fn open(&self, wanted: &Wanted<'_>, turn: Option<Turn>) -> Result<Connection<R>, SendError> {
        let too_many = || SendError::unsent(Stage::Connect, Cause::TooManyConnections);
        let counted = self.count.add().ok_or_else(too_many)?;
        let &Wanted { upstream, server, versions, .. } = wanted;
        let begun = self.clock.now();
        let NewConnection { io, is_http2 } =
            connect(&server.shared, upstream.connect_timeout, versions).await?;
        upstream.servers.connects.add_duration(self.clock.now().since(begun));
        if versions == HttpVersions::Negotiated {
            server.selected_http2.set(Some(is_http2));
        }
        if is_http2 {
            let stream = self.http2.open(server.shared.num, io, counted, turn).await?;
            return Ok(Connection::Http2 { stream, is_new: true });
        }
        Ok(Connection::Http1 { connection: Http1Connection::new(io, counted), is_new: true })
    }

    /// Closes connections that were idle for too long, or that the server closed.
    pub fn sweep(&self, now: Moment) {
        self.http2.sweep();
        self.servers.borrow_mut().retain(|_, server| server.sweep(now));
    }
}
