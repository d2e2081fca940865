//! Answers upstreams that tell about jobs: checks the signature of their request, and settles the job.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, Response, StatusCode};

use super::job_id;
use crate::gateway::request::access_log::AccessRecord;
use crate::gateway::request::request_body::RequestBody;
use crate::gateway::request::response::body::OutboundBody;
use crate::gateway::request::response::due::count_note;
use crate::gateway::request::response::respond;
use crate::gateway::request::services::Services;
use crate::gateway::request::target::Target;
use crate::ledger::FoundJob;
use crate::ledger::record::ExternalId;
use crate::policy::json::{PointerReader, Scalar};
use crate::policy::key::signature::is_signed;
use crate::policy::price::{AnswerReader, End, Opened, Price, Verdict};
use crate::policy::reject::{Reason, Refusal};
use crate::policy::route::Lookup;
use crate::snapshot::{Callback, CallbackId, Snapshot};
use crate::types::StatusClass;

/// Longest difference between the time of a message and now, in seconds, as Standard Webhooks recommends.
const MAX_AGE: i64 = 5 * 60;

/// Largest body of a request, in bytes.
pub(in crate::gateway::request) const MAX_BODY: u64 = 256 * 1024;
/// Most requests that a worker answers at a time.
const MAX_CALLBACKS: usize = 64;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// A callback by its index in the snapshot, and the id of the job if it is in the path or the query.
pub(in crate::gateway::request) type CallbackPlace = (usize, Option<String>);

/// Finds the callback at a path, to which requests are sent by POST.
///
/// # Errors
/// [`Reason::BadRequest`] if the request names two jobs.
pub(in crate::gateway::request) fn find_callback(
    view: &Snapshot,
    target: &Target<'_>,
    parts: &Parts,
) -> Result<Option<CallbackPlace>, Refusal> {
    let Lookup::Route(at) = view.callbacks.table.find(None, target.path.as_str(), &parts.method) else {
        return Ok(None);
    };
    let id = match &view.callbacks.list[at].id {
        CallbackId::Target(id) => job_id(id, target, parts)?,
        CallbackId::Body(_) => None,
    };
    Ok(Some((at, id)))
}

/// A callback that is being answered.
pub(in crate::gateway::request) struct CallbackRequest {
    services: Rc<Services>,
    record: Rc<AccessRecord>,
    place: CallbackPlace,
    parts: Parts,
    body: Option<RequestBody>,
    /// Counts the requests that are being answered.
    _slot: Rc<()>,
}

impl CallbackRequest {
    /// Accepts the request before its body is read.
    ///
    /// # Errors
    /// [`Reason::InvalidKey`] if it cannot be signed; [`Reason::Overloaded`] if [`MAX_CALLBACKS`] are being answered.
    pub(in crate::gateway::request) fn new(
        services: &Rc<Services>,
        record: &Rc<AccessRecord>,
        place: CallbackPlace,
        parts: Parts,
        body: Option<RequestBody>,
    ) -> Result<Self, Refusal> {
        Signed::of(&parts, services.connections.time.wall().0 / 1000)?;
        let slot = Rc::clone(&services.callbacks);
        if Rc::strong_count(&slot) > MAX_CALLBACKS + 1 {
            return Err(Reason::Overloaded.into());
        }
        let (services, record) = (Rc::clone(services), Rc::clone(record));
        Ok(Self { services, record, place, parts, body, _slot: slot })
    }

    /// Settles the job, and answers whether that was done now.
    ///
    /// # Errors
    /// [`Reason::InvalidKey`] if the request is not signed; [`Reason::BadRequest`] if it has no id; [`Reason::NoJob`]; [`Reason::BodyTooLarge`];
    /// [`Reason::LedgerUnavailable`] if the settlement is not on disk: the upstream sends the request again.
    pub(in crate::gateway::request) async fn answer(self) -> Result<Response<OutboundBody>, Refusal> {
        let Self { services, record, place: (at, id), parts, body, _slot } = self;
        let body = match body {
            Some(body) => body.buffer(MAX_BODY).await?.1,
            None => Bytes::new(),
        };
        let callback = &record.view().callbacks.list[at];
        Signed::of(&parts, services.connections.clock.wall().0 / 1000)?.check(callback, &body)?;
        let id = match &callback.id {
            CallbackId::Target(_) => id,
            CallbackId::Body(pointer) => {
                let mut reader = PointerReader::new(pointer.clone());
                reader.read(&body);
                reader.finish().and_then(|found| match found {
                    Scalar::Text(id) | Scalar::Number(id) => Some(id),
                    Scalar::Bool(_) => None,
                })
            }
        };
        let id = id.and_then(|id| ExternalId::of(&callback.upstream, &id));
        let id = id.ok_or_else(|| Refusal::because(Reason::BadRequest, "The request names no job."))?;
        let found = services.spender.find_job(None, &id).await;
        let job = match found.map_err(|_| Reason::LedgerUnavailable)? {
            FoundJob::Open(job) => job,
            // Is answered, so that the upstream does not send the request again.
            FoundJob::Settled => return Ok(respond::callback(false)),
            FoundJob::Unknown => return Err(Reason::NoJob.into()),
        };
        let price = Arc::new(Price { hold: job.amount, ..callback.price.clone() });
        let (opened, _) = AnswerReader::open(&price, false, StatusCode::OK, &parts.headers);
        let verdict = match opened {
            Opened::Known(charged) => Verdict::Charge(charged),
            Opened::Reading(mut reader) => {
                reader.read(&body);
                reader.finish(End::Complete, 0)
            }
        };
        let charged = match verdict {
            Verdict::Charge(charged) => charged,
            Verdict::Unreadable => {
                return Err(Refusal::because(Reason::BadRequest, "The request's body cannot be read."));
            }
            Verdict::NotDone | Verdict::Open(_) => return Ok(respond::callback(false)),
        };
        let Some((_, settled)) = services.spender.settle_job(&job, charged.amount, StatusClass::Success)
        else {
            return Ok(respond::callback(false)); // somebody else settles it
        };
        settled.committed().await.map_err(|_| Reason::LedgerUnavailable)?;
        if settled.was_too_late() {
            return Ok(respond::callback(false));
        }
        record.set_charge(charged.amount);
        count_note(&services, &record, charged.note);
        Ok(respond::callback(true))
    }
}

/// What signs a request.
struct Signed<'a> {
    id: &'a str,
    timestamp: &'a str,
    signatures: &'a str,
}

impl<'a> Signed<'a> {
    /// Reads the fields of a request that was signed just now. `now`: seconds since the Unix epoch.
    fn of(parts: &'a Parts, now: i64) -> Result<Self, Refusal> {
        let field = |name: &HeaderName| {
            let mut values = parts.headers.get_all(name).iter();
            let first = values.next().and_then(|value| value.to_str().ok());
            first.filter(|_| values.next().is_none()).unwrap_or_default()
        };
        let (id, timestamp, signatures) = (field(&ID), field(&TIMESTAMP), field(&SIGNATURE));
        let is_fresh = timestamp.parse::<i64>().is_ok_and(|at| at.abs_diff(now) <= MAX_AGE.unsigned_abs());
        if is_fresh { Ok(Self { id, timestamp, signatures }) } else { Err(not_signed()) }
    }

    fn check(&self, callback: &Callback, body: &[u8]) -> Result<(), Refusal> {
        let is_signed = is_signed(&callback.secret, (self.id, self.timestamp), body, self.signatures);
        if is_signed { Ok(()) } else { Err(not_signed()) }
    }
}

fn not_signed() -> Refusal {
    let detail = "The request is not signed by the secret of this callback, or was not signed in the last five minutes.";
    Refusal::because(Reason::InvalidKey, detail)
}
