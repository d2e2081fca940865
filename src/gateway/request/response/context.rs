//! The facts about a request that every response to it needs: the upstream's, and one that the gateway makes itself.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use ipnet::IpNet;

use super::body::OutboundBody;
use super::respond;
use crate::directory::Key;
use crate::gateway::connection::{Connection, Protocol};
use crate::gateway::request::access_log::AccessRecord;
use crate::gateway::request::limits::ResponseHeaders;
use crate::gateway::request::repeats::answer::Answer;
use crate::gateway::request::services::Services;
use crate::policy::client_address::is_trusted;
use crate::policy::forward::trace::Tracing;
use crate::policy::outcome::Outcome;
use crate::policy::reject::Refusal;
use crate::policy::values::once;
use crate::policy::{forward, grpc};
use crate::telemetry::routes::MethodIndex;
use crate::types::Credits;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Longest request id that is accepted from a trusted proxy, in bytes.
const MAX_GIVEN_ID: usize = 128;

/// The facts about a request that every response to it needs.
pub(in crate::gateway::request) struct ResponseContext {
    record: Rc<AccessRecord>,
    pub(in crate::gateway::request) request_id: HeaderValue,
    /// The client's HTTP version.
    pub(in crate::gateway::request) protocol: Protocol,
    /// Headers that limits and CORS add, to refusals too.
    pub(in crate::gateway::request) headers: ResponseHeaders,
    /// The key of the request, once it is authenticated: the response shows the balance of its account.
    pub(in crate::gateway::request) caller: Option<Arc<Key>>,
    /// The request is a gRPC call: refusals have a gRPC status.
    pub(in crate::gateway::request) is_grpc: bool,
    /// The request is an extended CONNECT (RFC 8441), which succeeds with 200 instead of 101.
    pub(in crate::gateway::request) is_extended_connect: bool,
    /// The status of a refusal, if the response of a gRPC call hides it.
    refused_status: Option<StatusCode>,
    /// The outcome of the request, as far as it is known when the response begins.
    pub(in crate::gateway::request) outcome: Outcome,
    /// The charge that the response names; `None` if it is not known when the response begins.
    pub(in crate::gateway::request) charged: Option<Credits>,
}

impl ResponseContext {
    /// Starts the context of a request, and its access record.
    pub(in crate::gateway::request) fn start(
        services: &Rc<Services>,
        connection: &Connection,
        method: &Method,
        headers: &HeaderMap,
    ) -> (Rc<AccessRecord>, Self) {
        let view = services.connections.views.load();
        let is_trusted = is_trusted_proxy(&view.settings.trusted_proxies, connection);
        let given_id = if is_trusted { given_id(headers) } else { None };
        let trace = |rate| Box::new(Tracing::decide(headers, is_trusted, rate, || services.random()));
        let tracing = view.settings.traces.as_ref().map(|traces| trace(traces.sample));
        let record = AccessRecord::start(services, view, MethodIndex::of(method), given_id, tracing);
        let protocol = connection.protocol;
        let mut own_headers = ResponseHeaders::default();
        let new_id = || own_headers.values.text(&[&record.id.text()]);
        let request_id = once(record.given_id.clone().unwrap_or_else(new_id));
        let context = Self {
            record: Rc::clone(&record),
            request_id,
            protocol,
            headers: own_headers,
            caller: None,
            is_grpc: protocol == Protocol::Http2 && grpc::is_call(headers),
            is_extended_connect: false,
            refused_status: None,
            outcome: Outcome::Answered,
            charged: Some(Credits::ZERO),
        };
        (record, context)
    }

    /// The response to a refused request, which costs nothing.
    pub(in crate::gateway::request) fn refuse(&mut self, refusal: &Refusal) -> Response<OutboundBody> {
        (self.charged, self.outcome) = (Some(Credits::ZERO), Outcome::Refused(refusal.reason));
        self.record.set_limit(refusal.limit.as_ref());
        if let (Some(error), true) = (refusal.proxy_error, self.record.view().settings.proxy_status) {
            self.headers.headers.extend(self.proxy_status(error));
        }
        if self.is_grpc {
            self.refused_status = Some(self.record.dialect().template(refusal.reason).status);
            return respond::refuse_grpc(refusal);
        }
        respond::refuse(self.record.dialect(), refusal, &self.request_id)
    }

    /// The response to a request that was made before: that of the first one, with its charge.
    pub(in crate::gateway::request) fn replay(&mut self, answer: Answer) -> Response<OutboundBody> {
        let Answer { status, headers, body, charged } = answer;
        (self.charged, self.outcome) = (charged, Outcome::Replayed);
        respond::replay(status, headers, body)
    }

    /// Says that the upstream is the reason of a refusal, and of what kind the error is (RFC 9209).
    fn proxy_status(&self, error: &str) -> Option<(HeaderName, HeaderValue)> {
        let upstream = &self.record.route()?.upstream.name;
        let quoted = upstream.replace('\\', "\\\\").replace('"', "\\\"");
        let value = HeaderValue::try_from(format!("tollgate; error={error}; next-hop=\"{quoted}\""));
        Some((PROXY_STATUS, value.ok()?))
    }

    /// Adds the headers that every response has, and records the response.
    pub(in crate::gateway::request) fn finish(mut self, response: &mut Response<OutboundBody>) {
        self.record.set_response(self.refused_status.unwrap_or(response.status()), self.outcome);
        let response_status = response.status();
        let headers = response.headers_mut();
        for (name, value) in self.headers.headers {
            headers.insert(name, value);
        }
        headers.insert(forward::REQUEST_ID, self.request_id);
        if self.protocol == Protocol::Http1 && self.record.is_last_of_connection(response_status) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let (true, Some(key)) = (self.record.view().settings.credit_headers, &self.caller) {
            let mut value = |credits: Credits| self.headers.values.text(&[credits.text().as_bytes()]);
            if let Some(charged) = self.charged {
                headers.insert(forward::CREDITS_USED, value(charged));
                let is_new = self.outcome != Outcome::Replayed;
                let split =
                    (!charged.is_zero() && is_new).then(|| key.account.purse.split(charged)).flatten();
                if let Some(split) = split.and_then(|split| HeaderValue::try_from(split.json(charged)).ok()) {
                    headers.insert(forward::CREDITS_SPLIT, split);
                }
            }
            headers.insert(forward::CREDITS_REMAINING, once(value(key.account.purse.available())));
        }
    }
}

fn is_trusted_proxy(proxies: &[IpNet], connection: &Connection) -> bool {
    !proxies.is_empty() && is_trusted(connection.peer.ip(), proxies)
}

/// The id that a trusted proxy gave the request.
fn given_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let is_plain = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        !bytes.is_empty() && bytes.len() <= MAX_GIVEN_ID && bytes.iter().all(u8::is_ascii_graphic)
    };
    headers.get(forward::REQUEST_ID).filter(is_plain).cloned()
}
