//! One log line per request, written when the request is over.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;

use crate::clock::Clock;
use crate::snapshot::{LogSettings, Route};
use crate::types::{Credits, KeyId, Moment, RequestId};

/// What a client that went before its answer began is logged as, after nginx.
const CLIENT_GONE: u16 = 499;

/// What is known of a request; logs itself when the request, its body and its tunnel are over.
/// Holds no key, query, body or header value, so none can be logged.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: RequestId,
    started: Moment,
    clock: Clock,
    settings: Cell<Option<LogSettings>>,
    route: OnceCell<Arc<Route>>,
    key: Cell<Option<KeyId>>,
    status: Cell<u16>,
    upstream_status: Cell<u16>,
    credits: Cell<Credits>,
}

impl Record {
    pub(super) fn new(id: RequestId, clock: &Clock) -> Rc<Self> {
        Rc::new(Self {
            id,
            started: clock.now(),
            clock: clock.clone(),
            settings: Cell::new(None),
            route: OnceCell::new(),
            key: Cell::new(None),
            status: Cell::new(CLIENT_GONE),
            upstream_status: Cell::new(0),
            credits: Cell::new(Credits::ZERO),
        })
    }

    pub(super) fn now(&self) -> Moment {
        self.started
    }

    pub(super) fn log_as(&self, settings: LogSettings) {
        self.settings.set(Some(settings));
    }

    pub(super) fn route(&self, route: &Arc<Route>) {
        let _ = self.route.set(Arc::clone(route)); // a request has one route
    }

    pub(super) fn key(&self, key: KeyId) {
        self.key.set(Some(key));
    }

    pub(super) fn answered(&self, status: StatusCode) {
        self.status.set(status.as_u16());
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
        let Some(settings) = self.settings.get().filter(|settings| settings.requests) else { return };
        let route = self.route.get().map_or("", |route| route.name.as_str());
        let (status, credits) = (self.status.get(), self.credits.get());
        if settings.minimal {
            tracing::info!(target: "tollgate::request", route, %credits, status);
            return;
        }
        let duration = self.clock.now().since(self.started);
        let duration_ms = (duration.as_secs_f64() * 1e6).round() / 1e3;
        let upstream_status = Some(self.upstream_status.get()).filter(|&status| status != 0);
        let key = self.key.get().map(tracing::field::display);
        let id = self.id;
        tracing::info!(
            target: "tollgate::request",
            request_id = %id,
            route,
            key,
            status,
            %credits,
            duration_ms,
            upstream_status,
        );
    }
}
