//! The access log: one line for each request, and the spans of traced ones; written when the request is over.

mod kept;

use std::cell::{Cell, OnceCell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{HeaderValue, StatusCode};

use super::services::Services;
use crate::directory::Key;
use crate::policy::forward::trace::Tracing;
use crate::policy::limit::ReachedLimit;
use crate::policy::outcome::usage::{RefusedRequest, UsageKey, UsageOutcome};
use crate::policy::outcome::{Outcome, Shadow, ShadowRule};
use crate::policy::reject::Dialect;
use crate::snapshot::{Route, View};
use crate::telemetry::lines::{Details, LogEntry};
use crate::telemetry::routes::{Finished, MethodIndex, RouteLane};
use crate::types::{AccountId, AccountNum, Credits, KeyId, KeyNum, Moment, RequestId, RouteNum};
use crate::upstream::{Cause, LocalServer, SendError};

/// The status that is logged if the client disconnected before its response began, as nginx does.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The numbers of a request's key and account, and the key's id.
#[derive(Clone, Copy, Debug)]
struct CallerIds {
    id: KeyId,
    key: KeyNum,
    account: AccountNum,
    /// The start of the SHA-256 of the secret.
    secret: u32,
}

/// The record of a request, for the access log and the counters. Writes its log line when it is dropped:
/// when the request, its body and its tunnel are over. It holds no key, query, body or header value but the
/// request id of a trusted proxy, so no other can be logged.
#[derive(Debug)]
pub(super) struct AccessRecord {
    pub(super) id: RequestId,
    /// The id that a trusted proxy gave the request.
    pub(super) given_id: Option<HeaderValue>,
    /// How it is traced, if it is.
    pub(super) tracing: Option<Box<Tracing>>,
    started: Moment,
    services: Rc<Services>,
    view: View,
    /// The route's index in the snapshot, once it is known.
    route: Cell<Option<usize>>,
    /// The key, once it is authenticated.
    caller: Cell<Option<CallerIds>>,
    /// The account's id, for spans.
    account: OnceCell<AccountId>,
    /// The client's address, once it is read.
    address: Cell<Option<IpAddr>>,
    /// The limit that refused the request.
    limit: RefCell<Option<ReachedLimit>>,
    /// The name of a shadow limit that would have.
    shadow_limit: RefCell<Option<Arc<str>>>,
    /// What shadow rules would have done.
    shadow: Cell<Shadow>,
    /// The request held credits, so that the ledger counts it.
    is_held: Cell<bool>,
    method: MethodIndex,
    /// When the request was sent to its upstream, and when the response head arrived and was passed on.
    sent_at: Cell<Moment>,
    answered_at: Cell<Moment>,
    given_at: Cell<Moment>,
    /// Bytes of the request body and of the response body.
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    status: Cell<u16>,
    upstream_status: Cell<u16>,
    /// The server that the request was last sent to.
    server: RefCell<Option<Rc<LocalServer>>>,
    credits: Cell<Credits>,
    outcome: Cell<Outcome>,
}

impl AccessRecord {
    /// Starts the record of a request, with the snapshot that applies to the request.
    pub(super) fn start(
        services: &Rc<Services>,
        view: View,
        method: MethodIndex,
        given_id: Option<HeaderValue>,
        tracing: Option<Box<Tracing>>,
    ) -> Rc<Self> {
        Rc::new(Self {
            id: services.next_id(given_id.as_ref().map(HeaderValue::as_bytes)),
            given_id,
            tracing,
            started: services.now(),
            services: Rc::clone(services),
            view,
            route: Cell::new(None),
            caller: Cell::new(None),
            account: OnceCell::new(),
            address: Cell::new(None),
            limit: RefCell::new(None),
            shadow_limit: RefCell::new(None),
            shadow: Cell::default(),
            is_held: Cell::new(false),
            method,
            sent_at: Cell::default(),
            answered_at: Cell::default(),
            given_at: Cell::default(),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            status: Cell::new(CLIENT_CLOSED_REQUEST),
            upstream_status: Cell::new(0),
            server: RefCell::new(None),
            credits: Cell::new(Credits::ZERO),
            outcome: Cell::new(Outcome::ClientGone),
        })
    }

    /// The snapshot that applies to the request.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// When the request started.
    pub(super) fn started(&self) -> Moment {
        self.started
    }

    /// The request's route, once it is known.
    pub(super) fn route(&self) -> Option<&Route> {
        self.route.get().map(|index| &*self.view.routes[index])
    }

    /// The dialect of refusals: the route's, or the default one.
    pub(super) fn dialect(&self) -> &Dialect {
        self.route().map_or(&self.view.dialect, |route| &route.dialect)
    }

    pub(super) fn set_route(&self, route: &Route) {
        self.route.set(Some(route.index));
    }

    pub(super) fn set_caller(&self, key: &Key) {
        self.caller.set(Some(CallerIds {
            id: key.id,
            key: key.num,
            account: key.account.num,
            secret: key.hash.start(),
        }));
        if self.span_ids().is_some() {
            let _ = self.account.set(key.account.id.clone()); // a request has one key
        }
    }

    /// The request held credits: the ledger counts it.
    pub(super) fn set_held(&self) {
        self.is_held.set(true);
        self.services.stats.holds.fetch_add(1, Ordering::Relaxed);
    }

    /// The request was refused, because it would have held more credits than there are.
    pub(super) fn refuse_credits(&self, credits: Credits) {
        self.count_route(|lane| lane.refuse(credits));
    }

    pub(super) fn set_address(&self, address: IpAddr) {
        self.address.set(Some(address));
    }

    /// Sets the limit that refuses the request.
    pub(super) fn set_limit(&self, limit: Option<&ReachedLimit>) {
        if let Some(limit) = limit {
            *self.limit.borrow_mut() = Some(limit.clone());
        }
    }

    /// `opens`: false if the key's shadow scopes would have refused the request.
    pub(super) fn note_shadow_scope(&self, opens: bool) {
        if !opens {
            self.note_shadow(ShadowRule::Scope);
        }
    }

    /// `limit`: a shadow limit that would have refused the request.
    pub(super) fn note_shadow_limit(&self, limit: Option<&Arc<str>>) {
        if let Some(name) = limit {
            *self.shadow_limit.borrow_mut() = Some(Arc::clone(name));
            self.note_shadow(ShadowRule::Limit);
        }
    }

    /// A shadow rule would have refused the request.
    pub(super) fn note_shadow(&self, rule: ShadowRule) {
        self.shadow.set(self.shadow.get().with(rule));
        self.count_route(|lane| lane.shadow(rule));
    }

    /// A shadow price would have charged the request.
    pub(super) fn note_shadow_charge(&self, credits: Credits) {
        self.count_route(|lane| lane.shadow_charge(credits));
    }

    /// A charge was above its hold, or could not be read.
    pub(super) fn count_capped(&self) {
        self.count_route(RouteLane::cap);
    }

    /// The request is sent to its upstream now.
    pub(super) fn note_sent(&self) {
        self.sent_at.set(self.services.connections.clock.now());
    }

    /// The upstream's response head has arrived.
    pub(super) fn note_answered(&self) {
        self.answered_at.set(self.services.connections.clock.now());
    }

    fn count_route(&self, count: impl FnOnce(&RouteLane)) {
        let (view, index) = (&self.view, self.route.get());
        let names = || {
            let route = index.map(|index| &view.routes[index]);
            route.map(|route| (route.name.to_string(), route.upstream.name.clone())).unwrap_or_default()
        };
        self.services.routes.with(view.generation, index, names, count);
    }

    /// Counts the request in the metrics of its route.
    fn count_metrics(&self) {
        let answered = Some(self.answered_at.get()).filter(|at| *at != Moment::default());
        let overhead = answered.map(|answered| {
            let upstream = answered.since(self.sent_at.get());
            self.given_at.get().since(self.started).saturating_sub(upstream)
        });
        let finished = Finished {
            method: self.method,
            outcome: self.outcome.get(),
            status: self.status.get(),
            upstream_status: self.upstream_status.get(),
            credits: self.credits.get(),
            duration: self.services.now().since(self.started),
            overhead,
        };
        self.count_route(|lane| lane.count(&finished));
        if self.is_held.get() {
            self.services.stats.holds.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Counts bytes of the request body.
    pub(super) fn add_bytes_in(&self, bytes: u64) {
        self.bytes_in.set(self.bytes_in.get() + bytes);
    }

    /// Counts bytes of the response body.
    pub(super) fn add_bytes_out(&self, bytes: usize) {
        self.bytes_out.set(self.bytes_out.get() + bytes as u64);
    }

    /// Counts the request as usage of its account, key and route.
    fn count_usage(&self) {
        let (outcome, caller) = (self.outcome.get(), self.caller.get());
        let (account, key) = caller.map(|caller| (caller.account, caller.key)).unwrap_or_default();
        let route = self.route().map_or(RouteNum(0), |route| route.num);
        let wall = || self.services.connections.time.wall();
        let refusal = match (outcome, caller) {
            (Outcome::Refused(reason), Some(_)) => {
                let limit = self.limit.borrow().clone();
                Some(RefusedRequest { at: wall(), id: self.id, account, key, route, reason, limit })
            }
            _ => None,
        };
        let outcome = UsageOutcome::of(outcome, self.status.get());
        let bytes = (self.bytes_in.get(), self.bytes_out.get());
        let duration = self.services.now().since(self.started);
        let key = UsageKey { account, key, route, outcome };
        self.services.usage.count(key, self.is_held.get(), bytes, duration, refusal, wall);
    }

    /// Sets the status of the response, and the outcome that it means.
    pub(super) fn set_response(&self, status: StatusCode, outcome: Outcome) {
        if self.answered_at.get() != Moment::default() {
            self.given_at.set(self.services.connections.clock.now());
        }
        self.status.set(status.as_u16());
        self.outcome.set(outcome);
    }

    /// Sets an outcome that differs from that of the response.
    pub(super) fn set_outcome(&self, outcome: Outcome) {
        self.outcome.set(outcome);
    }

    pub(super) fn set_upstream_status(&self, status: StatusCode) {
        self.upstream_status.set(status.as_u16());
    }

    pub(super) fn set_server(&self, server: &Rc<LocalServer>) {
        *self.server.borrow_mut() = Some(Rc::clone(server));
    }

    /// True if a server was selected for the request.
    pub(super) fn has_server(&self) -> bool {
        self.server.borrow().is_some()
    }

    /// True if the connection closes after a response with this status, because the gateway stops.
    pub(super) fn is_last_of_connection(&self, status: StatusCode) -> bool {
        self.services.connections.is_winding_down() && status != StatusCode::SWITCHING_PROTOCOLS
    }

    /// The last try of the request failed because of its server, after a byte of it was sent.
    pub(super) fn note_server_failure(&self, cause: Cause) {
        if let (Some(server), Some(route)) = (&*self.server.borrow(), self.route()) {
            let clock = &self.services.connections.clock;
            server.note_failure(&route.upstream, &SendError::sent(cause), clock);
        }
    }

    pub(super) fn set_charge(&self, credits: Credits) {
        self.credits.set(credits);
    }
}

impl Drop for AccessRecord {
    fn drop(&mut self) {
        self.services.stats.outcomes[self.outcome.get().index()].fetch_add(1, Ordering::Relaxed);
        self.count_usage();
        self.count_metrics();
        self.services.decisions.add(self.decision());
        if let Some(ids) = self.span_ids() {
            self.services.traces.add(self.traced(ids));
        }
        let settings = self.view.settings.log;
        if !settings.requests {
            return;
        }
        let clock = &self.services.connections.clock;
        let server = self.server.borrow();
        let details = (!settings.minimal).then(|| Details {
            id: self.id,
            given: self.given_id.as_ref().map(HeaderValue::as_bytes),
            outcome: self.outcome.get(),
            key: self.caller.get().map(|caller| caller.id),
            duration: clock.now().since(self.started),
            upstream_status: Some(self.upstream_status.get()).filter(|&status| status != 0),
            server: server.as_ref().map(|server| server.name()),
        });
        self.services.log(&LogEntry {
            at: clock.wall(),
            route: self.route().map_or("", |route| route.name.as_str()),
            status: self.status.get(),
            credits: self.credits.get(),
            details,
        });
    }
}
