//! What the way out needs to know of a request, wherever that way begins.

use std::rc::Rc;
use std::sync::Arc;

use http::Response;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::connection::Connection;
use super::meter::Outbound;
use super::record::Record;
use super::respond::{self, header};
use super::target;
use crate::directory::Key;
use crate::policy::forward;
use crate::policy::reject::Refusal;
use crate::types::Credits;

/// Longest request id that is taken over from a trusted proxy.
const MAX_FOREIGN_ID: usize = 128;

/// What the way out needs to know of a request.
pub(super) struct Visit {
    record: Rc<Record>,
    pub(super) id: HeaderValue,
    /// What limits and CORS add to the answer, refusals too.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Who pays, once that is known: their balance stands in the answer.
    pub(super) payer: Option<Arc<Key>>,
    /// What the answer says was charged; `None` where that is not known yet.
    pub(super) charged: Option<Credits>,
}

impl Visit {
    pub(super) fn new(record: &Rc<Record>, connection: &Connection, headers: &HeaderMap) -> Self {
        let id = request_id(record, connection, headers);
        let (record, headers) = (Rc::clone(record), Vec::new());
        Self { record, id, headers, payer: None, charged: Some(Credits::ZERO) }
    }

    /// A refusal costs nothing.
    pub(super) fn refuse(&mut self, refusal: &Refusal) -> Response<Outbound> {
        self.charged = Some(Credits::ZERO);
        respond::refuse(self.record.dialect(), refusal, &self.id)
    }

    /// What every answer carries.
    pub(super) fn sign(self, response: &mut Response<Outbound>) {
        self.record.answered(response.status());
        let headers = response.headers_mut();
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        headers.insert(forward::REQUEST_ID, self.id);
        if let (true, Some(key)) = (self.record.view().settings.credit_headers, &self.payer) {
            if let Some(charged) = self.charged {
                headers.insert(forward::CREDITS_USED, header(&charged));
            }
            headers.insert(forward::CREDITS_REMAINING, header(&key.account.purse.available()));
        }
    }
}

/// Tollgate's own id, or that of a trusted proxy.
fn request_id(record: &Record, connection: &Connection, headers: &HeaderMap) -> HeaderValue {
    let trusted = target::is_trusted(connection.peer.ip(), &record.view().settings.trusted_proxies);
    let theirs = headers.get(forward::REQUEST_ID).filter(|_| trusted);
    let plain = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        !bytes.is_empty() && bytes.len() <= MAX_FOREIGN_ID && bytes.iter().all(u8::is_ascii_graphic)
    };
    theirs.filter(plain).cloned().unwrap_or_else(|| header(&record.id))
}
