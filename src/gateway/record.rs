//! One log line per request, written when the request is over.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use http::{HeaderValue, StatusCode};

use super::Gate;
use crate::policy::outcome::Outcome;
use crate::policy::reject::Dialect;
use crate::snapshot::{Route, View};
use crate::telemetry::lines::{Details, Entry};
use crate::types::{Credits, KeyId, Moment, RequestId};

/// What a client that went before its answer began is logged as, after nginx.
const CLIENT_GONE: u16 = 499;

/// What is known of a request; logs itself when the request, its body and its tunnel are over.
/// Holds no key, query, body or header value, so none can be logged.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: RequestId,
    started: Moment,
    gate: Rc<Gate>,
    view: View,
    /// Its index among the snapshot's.
    route: Cell<Option<usize>>,
    key: Cell<Option<KeyId>>,
    status: Cell<u16>,
    upstream_status: Cell<u16>,
    credits: Cell<Credits>,
    outcome: Cell<Outcome>,
    /// The id that a trusted proxy gave the request.
    pub(super) given: Option<HeaderValue>,
}

impl Record {
    /// A request that begins now, and the snapshot that it is judged by. `given`: the id that a trusted
    /// proxy gave it.
    pub(super) fn new(gate: &Rc<Gate>, view: View, given: Option<HeaderValue>) -> Rc<Self> {
        Rc::new(Self {
            id: gate.next_id(given.as_ref().map(HeaderValue::as_bytes)),
            started: gate.beat.now(),
            gate: Rc::clone(gate),
            view,
            route: Cell::new(None),
            key: Cell::new(None),
            status: Cell::new(CLIENT_GONE),
            upstream_status: Cell::new(0),
            credits: Cell::new(Credits::ZERO),
            outcome: Cell::new(Outcome::ClientGone),
            given,
        })
    }

    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// The route, once it is found.
    pub(super) fn found(&self) -> Option<&Route> {
        self.route.get().map(|index| &*self.view.routes[index])
    }

    /// How refusals are worded.
    pub(super) fn dialect(&self) -> &Dialect {
        self.found().map_or(&self.view.dialect, |route| &route.dialect)
    }

    pub(super) fn now(&self) -> Moment {
        self.started
    }

    pub(super) fn route(&self, route: &Route) {
        self.route.set(Some(route.index));
    }

    pub(super) fn key(&self, key: KeyId) {
        self.key.set(Some(key));
    }

    /// The request has a response.
    pub(super) fn answered(&self, status: StatusCode, outcome: Outcome) {
        self.status.set(status.as_u16());
        self.outcome.set(outcome);
    }

    /// The request ends otherwise than its response says, or has none.
    pub(super) fn ended(&self, outcome: Outcome) {
        self.outcome.set(outcome);
    }

    pub(super) fn upstream(&self, status: StatusCode) {
        self.upstream_status.set(status.as_u16());
    }

    pub(super) fn charged(&self, credits: Credits) {
        self.credits.set(credits);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.gate.stats.outcomes[self.outcome.get().index()].fetch_add(1, Ordering::Relaxed);
        let settings = self.view.settings.log;
        if !settings.requests {
            return;
        }
        let details = (!settings.minimal).then(|| Details {
            id: self.id,
            given: self.given.as_ref().map(HeaderValue::as_bytes),
            outcome: self.outcome.get(),
            key: self.key.get(),
            duration: self.gate.clock.now().since(self.started),
            upstream_status: Some(self.upstream_status.get()).filter(|&status| status != 0),
        });
        self.gate.log(&Entry {
            at: self.gate.clock.wall(),
            route: self.found().map_or("", |route| route.name.as_str()),
            status: self.status.get(),
            credits: self.credits.get(),
            details,
        });
    }
}
