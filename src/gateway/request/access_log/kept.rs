//! What is kept of a request that is over: its decision, and its spans if it is traced.

use std::cell::Cell;
use std::sync::Arc;

use super::AccessRecord;
use crate::policy::forward::trace::SpanIds;
use crate::telemetry::decisions::RequestDecision;
use crate::telemetry::traces::{TracedRequest, TracedUpstream};
use crate::types::{Moment, RouteNum};

impl AccessRecord {
    /// The ids of the request's spans, if it is traced.
    pub(super) fn span_ids(&self) -> Option<SpanIds> {
        self.tracing.as_ref()?.spans
    }

    /// What is kept to explain the request.
    #[inline]
    pub(super) fn decision(&self) -> RequestDecision {
        let micros = self.services.now().0.saturating_sub(self.started.0) / 1_000;
        let limit = self.limit.borrow_mut().take();
        RequestDecision {
            id: self.id,
            at: self.services.connections.time.wall(),
            micros: u32::try_from(micros).unwrap_or(u32::MAX),
            method: self.method,
            address: self.address.get(),
            caller: self.caller.get().map(|caller| (caller.account, caller.id)),
            secret: self.caller.get().map_or(0, |caller| caller.secret),
            route: self.route().map_or(RouteNum(0), |route| route.num),
            outcome: self.outcome.get(),
            status: self.status.get(),
            upstream_status: self.upstream_status.get(),
            credits: self.credits.get(),
            limit: limit.map(|limit| limit.name).or_else(|| self.shadow_limit.borrow_mut().take()),
            shadow: self.shadow.get(),
        }
    }

    /// What the spans of the request say.
    pub(super) fn traced(&self, ids: SpanIds) -> TracedRequest {
        let clock = &self.services.connections.clock;
        let (now, route) = (clock.now(), self.route());
        let [sent, answered] = [&self.sent_at, &self.answered_at].map(Cell::get);
        let was = |moment: Moment| moment != Moment::default();
        let upstream = route.filter(|_| was(sent)).map(|route| TracedUpstream {
            name: route.upstream.name.clone(),
            server: self.server.borrow().as_ref().map(|server| server.name().to_owned()),
            after: sent.since(self.started),
            duration: if was(answered) { answered } else { now }.since(sent),
            status: Some(self.upstream_status.get()).filter(|&status| status != 0),
        });
        TracedRequest {
            ids,
            ended: clock.wall(),
            duration: now.since(self.started),
            id: self.id,
            method: self.method,
            route: route.map(|route| (route.name.to_string(), Arc::clone(&route.path))),
            caller: self.account.get().cloned().zip(self.caller.get().map(|caller| caller.id)),
            status: self.status.get(),
            outcome: self.outcome.get(),
            credits: self.credits.get(),
            upstream,
        }
    }
}
