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
use crate::gateway::request::response::respond;
use crate::gateway::request::services::Services;
use crate::gateway::request::target::Target;
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

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// A callback by its index in the snapshot, and the id of the job if it is in the path or the query.
pub(in crate::gateway::request) type CallbackPlace = (usize, Option<String>);

/// Finds the callback at a path. Other methods than POST are refused.
///
/// # Errors
/// [`Reason::MethodNotAllowed`]; [`Reason::BadRequest`] if the request names two jobs.
pub(in crate::gateway::request) fn find_callback(
    view: &Snapshot,
    target: &Target<'_>,
    parts: &Parts,
) -> Result<Option<CallbackPlace>, Refusal> {
    let at = match view.callbacks.table.find(None, target.path.as_str(), &parts.method) {
        Lookup::Route(at) => at,
        Lookup::OtherMethods(allow) => {
            return Err(Refusal { allow: Some(allow), ..Reason::MethodNotAllowed.into() });
        }
        Lookup::Nothing => return Ok(None),
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
}

impl CallbackRequest {
    pub(in crate::gateway::request) fn new(
        services: &Rc<Services>,
        record: &Rc<AccessRecord>,
        place: CallbackPlace,
        parts: Parts,
        body: Option<RequestBody>,
    ) -> Self {
        Self { services: Rc::clone(services), record: Rc::clone(record), place, parts, body }
    }

    /// Settles the job, and answers whether that was done now.
    ///
    /// # Errors
    /// [`Reason::InvalidKey`] if the request is not signed; [`Reason::BadRequest`] if it has no id; [`Reason::NoJob`]; [`Reason::BodyTooLarge`];
    /// [`Reason::LedgerUnavailable`] if the settlement is not on disk: the upstream sends the request again.
    pub(in crate::gateway::request) async fn answer(self) -> Result<Response<OutboundBody>, Refusal> {
        let Self { services, record, place: (at, id), parts, body } = self;
        let body = match body {
            Some(body) => body.buffer().await?.1,
            None => Bytes::new(),
        };
        let callback = &record.view().callbacks.list[at];
        check_signature(callback, &parts, &body, services.connections.clock.wall().0 / 1000)?;
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
        let id = id.and_then(|id| ExternalId::new(&id));
        let id = id.ok_or_else(|| Refusal::because(Reason::BadRequest, "The request names no job."))?;
        let Some(job) = services.spender.open_job_of_any(&id) else { return Err(Reason::NoJob.into()) };
        let price = Arc::new(Price { hold: job.amount, ..callback.price.clone() });
        let (opened, _) = AnswerReader::open(&price, false, StatusCode::OK, &parts.headers);
        let verdict = match opened {
            Opened::Known(charged) => Verdict::Charge(charged),
            Opened::Reading(mut reader) => {
                reader.read(&body);
                reader.finish(End::Complete, 0)
            }
        };
        let Verdict::Charge(charged) = verdict else { return Ok(respond::callback(false)) };
        let Some((_, settled)) = services.spender.settle_job(&job, charged.amount, StatusClass::Success)
        else {
            return Ok(respond::callback(false)); // somebody else settles it
        };
        record.set_charge(charged.amount);
        settled.committed().await.map_err(|_| Reason::LedgerUnavailable)?;
        Ok(respond::callback(true))
    }
}

/// Checks that the request is signed, and was signed just now. `now`: seconds since the Unix epoch.
fn check_signature(callback: &Callback, parts: &Parts, body: &[u8], now: i64) -> Result<(), Refusal> {
    let field = |name: &HeaderName| {
        let mut values = parts.headers.get_all(name).iter();
        let first = values.next().and_then(|value| value.to_str().ok());
        first.filter(|_| values.next().is_none()).unwrap_or_default()
    };
    let (id, timestamp, signatures) = (field(&ID), field(&TIMESTAMP), field(&SIGNATURE));
    let is_fresh = timestamp.parse::<i64>().is_ok_and(|at| at.abs_diff(now) <= MAX_AGE.unsigned_abs());
    if is_fresh && is_signed(&callback.secret, (id, timestamp), body, signatures) {
        return Ok(());
    }
    let detail =
        "The request is not signed by the secret of this callback, or was signed more than five minutes ago.";
    Err(Refusal::because(Reason::InvalidKey, detail))
}
