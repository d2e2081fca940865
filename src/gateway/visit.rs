//! What the way out needs to know of a request, wherever that way begins.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use ipnet::IpNet;

use super::Gate;
use super::arrive::Protocol;
use super::connection::Connection;
use super::limits::Said;
use super::outbound::Outbound;
use super::record::Record;
use super::respond;
use super::target;
use crate::directory::Key;
use crate::policy::outcome::Outcome;
use crate::policy::reject::Refusal;
use crate::policy::values::once;
use crate::policy::{forward, grpc};
use crate::types::Credits;

/// Longest request id that is taken over from a trusted proxy.
const MAX_GIVEN_ID: usize = 128;

/// What the way out needs to know of a request.
pub(super) struct Visit {
    record: Rc<Record>,
    pub(super) id: HeaderValue,
    /// What its client speaks.
    pub(super) protocol: Protocol,
    /// What limits and CORS add to the answer, refusals too.
    pub(super) said: Said,
    /// Who pays, once that is known: their balance stands in the answer.
    pub(super) payer: Option<Arc<Key>>,
    /// A gRPC call: refusals are worded as one's outcome.
    pub(super) is_call: bool,
    /// A WebSocket over HTTP/2, whose switch is a plain success.
    pub(super) unfolded: bool,
    /// The status that a refusal stands for, where its answer has another.
    meant: Option<StatusCode>,
    /// How the request ends, as far as its response says.
    pub(super) outcome: Outcome,
    /// What the answer says was charged; `None` where that is not known yet.
    pub(super) charged: Option<Credits>,
}

impl Visit {
    /// What is known when a request begins, and its record.
    pub(super) fn begin(gate: &Rc<Gate>, connection: &Connection, headers: &HeaderMap) -> (Rc<Record>, Self) {
        let view = gate.views.load();
        let given = given_id(&view.settings.trusted_proxies, connection, headers);
        let record = Record::new(gate, view, given);
        let visit = Self::new(&record, connection, headers);
        (record, visit)
    }

    fn new(record: &Rc<Record>, connection: &Connection, headers: &HeaderMap) -> Self {
        let protocol = connection.protocol;
        let is_call = protocol == Protocol::Http2 && grpc::is_call(headers);
        let mut said = Said::default();
        let own = || said.values.text(&[&record.id.text()]);
        let id = once(record.given.clone().unwrap_or_else(own));
        let (record, charged, outcome) = (Rc::clone(record), Some(Credits::ZERO), Outcome::Answered);
        Self {
            record,
            id,
            protocol,
            said,
            payer: None,
            is_call,
            unfolded: false,
            meant: None,
            outcome,
            charged,
        }
    }

    /// A refusal costs nothing.
    pub(super) fn refuse(&mut self, refusal: &Refusal) -> Response<Outbound> {
        (self.charged, self.outcome) = (Some(Credits::ZERO), Outcome::Refused(refusal.reason));
        if self.is_call {
            self.meant = Some(self.record.dialect().template(refusal.reason).status);
            return respond::refuse_call(refusal);
        }
        respond::refuse(self.record.dialect(), refusal, &self.id)
    }

    /// What every answer carries.
    pub(super) fn sign(mut self, response: &mut Response<Outbound>) {
        self.record.answered(self.meant.unwrap_or(response.status()), self.outcome);
        let headers = response.headers_mut();
        for (name, value) in self.said.headers {
            headers.insert(name, value);
        }
        headers.insert(forward::REQUEST_ID, self.id);
        if let (true, Some(key)) = (self.record.view().settings.credit_headers, &self.payer) {
            let mut value = |credits: Credits| self.said.values.text(&[credits.text().as_bytes()]);
            if let Some(charged) = self.charged {
                headers.insert(forward::CREDITS_USED, value(charged));
            }
            headers.insert(forward::CREDITS_REMAINING, once(value(key.account.purse.available())));
        }
    }
}

/// The id that a trusted proxy gave the request.
fn given_id(proxies: &[IpNet], connection: &Connection, headers: &HeaderMap) -> Option<HeaderValue> {
    if proxies.is_empty() || !target::is_trusted(connection.peer.ip(), proxies) {
        return None;
    }
    let plain = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        !bytes.is_empty() && bytes.len() <= MAX_GIVEN_ID && bytes.iter().all(u8::is_ascii_graphic)
    };
    headers.get(forward::REQUEST_ID).filter(plain).cloned()
}
