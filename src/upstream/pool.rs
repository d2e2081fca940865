//! Sends requests to servers: selects a server, connects, renders the head, and exchanges; again where that can do no
//! harm.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use smallvec::SmallVec;

use super::body::{UpstreamResponse, over_any};
use super::connect::{NewConnection, connect};
use super::connection_count::ConnectionCount;
use super::fault::{Cause, SendError, Sent, Stage};
use super::http1::{ExchangeError, Http1Body, Http1Connection, Upload};
use super::http2::{Http2Connections, Http2Stream, StreamError};
use super::local::{InFlight, LocalServer};
use super::request::{HeadBuffers, NextHop, OutgoingRequest};

use crate::clock::Clock;
use crate::policy::upstream::balance::Balance;
use crate::policy::upstream::retry::{FailedTry, may_retry};
use crate::servers::{HttpVersions, NoServer, Selection, Server};
use crate::snapshot::Upstream;
use crate::tls::client::Alpn;
use crate::types::Moment;

/// The connections of one worker to its upstreams, for requests of type `R`.
#[derive(Debug)]
pub struct Pool<R: OutgoingRequest> {
    servers: RefCell<HashMap<u64, Rc<LocalServer>>>,
    http2: Http2Connections<R::Body>,
    count: ConnectionCount,
    head_buffers: HeadBuffers,
    random: Cell<u64>,
    clock: Clock,
}

/// What is left of a request's body for the next try.
enum Payload<R: OutgoingRequest> {
    /// All of it; `None` if the request has no body.
    Whole(Option<R::Body>),
    /// It was taken in part, and nothing was written.
    Begun(Upload<R::Body>),
    /// It was sent in part or as a whole.
    Gone,
}

/// A connection for one request.
enum Connection<R: OutgoingRequest> {
    Http1 { connection: Box<Http1Connection>, is_new: bool },
    Http2 { stream: Http2Stream<R::Body>, is_new: bool },
}

/// One try of a request at one server.
struct Try<'a, R: OutgoingRequest> {
    upstream: &'a Upstream,
    server: &'a Rc<LocalServer>,
    request: &'a R,
    /// Open connections are not used: one of them just failed.
    is_fresh: bool,
    now: Moment,
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
            random: Cell::new(seed),
            clock,
        }
    }

    /// Sends a request and waits for the response head. A request that failed is sent again where
    /// [`may_retry`] and the upstream's budget allow it. `on_server` is told each server that is tried.
    ///
    /// # Errors
    /// [`SendError`] of the last try.
    pub async fn send(
        &self,
        upstream: &Upstream,
        mut request: R,
        now: Moment,
        on_server: impl Fn(&Rc<LocalServer>),
    ) -> Result<UpstreamResponse, SendError> {
        let mut payload = Payload::Whole(request.take_body());
        let mut tried: SmallVec<[u64; 2]> = SmallVec::new();
        loop {
            let in_flight = self.select(upstream, &request, &tried, now).await?;
            let server = Rc::clone(in_flight.server());
            on_server(&server);
            let is_fresh = !tried.is_empty();
            let this = Try { upstream, server: &server, request: &request, is_fresh, now };
            let error = match self.attempt(&this, &mut payload, in_flight).await {
                Ok(response) => {
                    server.shared.succeeded();
                    return Ok(response);
                }
                Err(error) => error,
            };
            if error.is_about_server() {
                server.note_failure(upstream, &error, &self.clock);
            }
            if matches!(payload, Payload::Gone)
                && let Some(body) = request.rewind_body()
            {
                payload = Payload::Whole(Some(body));
            }
            let failed = FailedTry {
                is_sent: error.sent == Sent::Something,
                is_connection_lost: matches!(error.cause, Cause::Closed | Cause::Io(..) | Cause::Http2(_)),
                has_body: !matches!(payload, Payload::Gone),
                before: u32::try_from(tried.len()).unwrap_or(u32::MAX),
            };
            let may_retry =
                error.is_about_server() && may_retry(&failed, request.method(), &upstream.retries);
            if !may_retry || !upstream.servers.budget().take() {
                return Err(error);
            }
            tried.push(server.shared.num);
        }
    }

    /// Selects a server. Waits in the upstream's queue while all have as many requests as they may, and while no name
    /// has been resolved.
    async fn select(
        &self,
        upstream: &Upstream,
        request: &R,
        tried: &[u64],
        now: Moment,
    ) -> Result<InFlight, SendError> {
        let failed = |cause| SendError::unsent(Stage::Select, cause);
        let queue = upstream.servers.queue();
        if upstream.max_requests == 0 || queue.is_empty() {
            match self.try_select(upstream, request, tried, now) {
                Ok(selected) => return Ok(selected),
                Err(NoServer::Unknown(why)) => return Err(failed(Cause::NoAddress(why))),
                Err(NoServer::Full | NoServer::Unresolved) => {}
            }
        }
        let place = queue.enter(upstream.queue.most).ok_or_else(|| failed(Cause::Full))?;
        let wait = async {
            loop {
                let mut freed = std::pin::pin!(place.freed());
                freed.as_mut().enable();
                match self.try_select(upstream, request, tried, self.clock.now()) {
                    Ok(selected) => return Ok(selected),
                    Err(NoServer::Unknown(why)) => return Err(failed(Cause::NoAddress(why))),
                    Err(NoServer::Full | NoServer::Unresolved) => freed.await,
                }
            }
        };
        let waited = Box::pin(tokio::time::timeout(upstream.queue.time, wait)).await;
        waited.unwrap_or_else(|_| Err(failed(Cause::Full)))
    }

    #[inline]
    fn try_select(
        &self,
        upstream: &Upstream,
        request: &R,
        tried: &[u64],
        now: Moment,
    ) -> Result<InFlight, NoServer> {
        let selection = Selection {
            balance: &upstream.balance,
            max_requests: upstream.max_requests,
            affinity: match &upstream.balance {
                Balance::Hash(by) => request.affinity(by),
                Balance::LeastRequests | Balance::RoundRobin => 0,
            },
            tried,
            random: (self.next_random(), self.next_random()),
            slow_start: upstream.slow_start,
            now,
        };
        upstream.servers.select(&selection, |server| InFlight::new(self.local(server)))
    }

    /// A random number (`SplitMix64`).
    fn next_random(&self) -> u64 {
        let mut random = fastrand::Rng::with_seed(self.random.get());
        let number = random.u64(..);
        self.random.set(random.get_seed());
        number
    }

    fn local(&self, server: &Arc<Server>) -> Rc<LocalServer> {
        let mut servers = self.servers.borrow_mut();
        Rc::clone(servers.entry(server.num).or_insert_with(|| Rc::new(LocalServer::new(server))))
    }

    /// Tries a request at one server. An open connection that was closed before a byte of the request was written is
    /// replaced by another one.
    async fn attempt(
        &self,
        this: &Try<'_, R>,
        payload: &mut Payload<R>,
        in_flight: InFlight,
    ) -> Result<UpstreamResponse, SendError> {
        let mut is_fresh = this.is_fresh;
        loop {
            let needs_http1 = this.request.needs_http1() || matches!(payload, Payload::Begun(_));
            let (unsent, is_new) = match self.connection(this, needs_http1, is_fresh).await? {
                Connection::Http1 { connection, is_new } => {
                    let (upload, has_body) = self.upload(this, payload)?;
                    let framing = this.request.framing_context();
                    match connection.exchange(upload, framing, &self.head_buffers).await {
                        Ok(exchange) => return Ok(over_any(Http1Body::of(exchange), in_flight)),
                        Err(ExchangeError::Unsent(upload, fault)) => {
                            *payload = Payload::Begun(upload);
                            (SendError::unsent(Stage::Exchange, fault.into()), is_new)
                        }
                        Err(ExchangeError::Sent(fault)) => {
                            if !has_body {
                                *payload = Payload::Whole(None);
                            }
                            return Err(SendError::sent(fault.into()));
                        }
                    }
                }
                Connection::Http2 { stream, is_new } => {
                    let Payload::Whole(body) = std::mem::replace(payload, Payload::Gone) else {
                        return Err(SendError::sent(Cause::Body)); // it would have been sent over HTTP/1.1
                    };
                    let has_body = body.is_some();
                    let head = this.request.http2_head(this.next_hop());
                    let head = head.ok_or_else(|| SendError::unsent(Stage::Exchange, Cause::Host))?;
                    match stream.send(head.map(|()| body)).await {
                        Ok(response) => return Ok(over_any(response, in_flight)),
                        Err(StreamError::Unsent(body, error)) => {
                            *payload = Payload::Whole(body);
                            (SendError { sent: Sent::Nothing, ..error }, is_new)
                        }
                        Err(StreamError::Failed(error)) => {
                            if !has_body {
                                *payload = Payload::Whole(None);
                            }
                            return Err(error);
                        }
                    }
                }
            };
            if is_new {
                return Err(unsent);
            }
            is_fresh |= unsent.stage == Stage::Exchange && matches!(unsent.cause, Cause::Http2(_));
        }
    }

    /// The request as it is written over HTTP/1.1, and whether it has a body.
    fn upload(
        &self,
        this: &Try<'_, R>,
        payload: &mut Payload<R>,
    ) -> Result<(Upload<R::Body>, bool), SendError> {
        let mut head = self.head_buffers.take();
        this.request.write_http1(this.next_hop(), &mut head);
        match std::mem::replace(payload, Payload::Gone) {
            Payload::Whole(body) => {
                let has_body = body.is_some();
                Ok((Upload::new(head, this.request.is_chunked(), body), has_body))
            }
            Payload::Begun(mut upload) => {
                upload.replace_head(&head);
                self.head_buffers.put(head);
                Ok((upload, true))
            }
            Payload::Gone => Err(SendError::sent(Cause::Body)), // never tried again
        }
    }

    /// An open connection to a server that is free, or else a new one.
    async fn connection(
        &self,
        this: &Try<'_, R>,
        needs_http1: bool,
        is_fresh: bool,
    ) -> Result<Connection<R>, SendError> {
        let server = this.server;
        let versions = server.shared.origin.versions;
        let may_http2 = versions != HttpVersions::Http1 && !needs_http1;
        if may_http2
            && !is_fresh
            && let Some(stream) = self.http2.find(server.shared.num)
        {
            return Ok(Connection::Http2 { stream, is_new: false });
        }
        if versions != HttpVersions::Http2
            && !is_fresh
            && let Some(connection) = server.take_idle(this.now)
        {
            return Ok(Connection::Http1 { connection, is_new: false });
        }
        if may_http2 && !is_fresh && server.selected_http2.get() != Some(false) {
            return Box::pin(self.open_in_turn(this, versions)).await;
        }
        let alpn = match versions {
            _ if needs_http1 => Alpn::Http1,
            HttpVersions::Http1 => Alpn::Http1,
            HttpVersions::Http2 => Alpn::Http2,
            HttpVersions::Negotiated => Alpn::Both,
        };
        Box::pin(self.open(this, alpn)).await
    }

    /// Opens an HTTP/2 connection, one request after the other: those that follow use its streams.
    async fn open_in_turn(
        &self,
        this: &Try<'_, R>,
        versions: HttpVersions,
    ) -> Result<Connection<R>, SendError> {
        let failures = this.server.connecting.failures();
        let turn = this.server.connecting.turn().await;
        if let Some(stream) = self.http2.find(this.server.shared.num) {
            return Ok(Connection::Http2 { stream, is_new: false });
        }
        if let Some(error) = this.server.connecting.failed_since(failures) {
            return Err(error);
        }
        let alpn = if versions == HttpVersions::Http2 { Alpn::Http2 } else { Alpn::Both };
        let opened = self.open(this, alpn).await;
        if let Err(error) = &opened {
            this.server.connecting.fail(error);
        }
        drop(turn);
        opened
    }

    async fn open(&self, this: &Try<'_, R>, alpn: Alpn) -> Result<Connection<R>, SendError> {
        let too_many = || SendError::unsent(Stage::Connect, Cause::TooManyConnections);
        let counted = self.count.add().ok_or_else(too_many)?;
        let server = &this.server.shared;
        let NewConnection { io, is_http2 } = connect(server, this.upstream.connect_timeout, alpn).await?;
        if alpn == Alpn::Both {
            this.server.selected_http2.set(Some(is_http2));
        }
        if is_http2 {
            let stream = self.http2.open(server.num, io, counted).await?;
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

impl<R: OutgoingRequest> Try<'_, R> {
    fn next_hop(&self) -> NextHop<'_> {
        let origin = &self.server.shared.origin;
        NextHop { authority: &origin.authority, is_tls: origin.tls.is_some() }
    }
}
