//! Finds the job that a request asks about, at this gateway or in the fleet.

pub(super) mod callback;

use std::rc::Rc;
use std::sync::Arc;

use http::Method;
use http::request::Parts;
use percent_encoding::percent_decode_str;

use super::access_log::AccessRecord;
use super::permit::Payment;
use super::permit::waiting_payment::{PaymentFuture, Unpaid, WaitingPayment};
use super::services::Services;
use super::target::Target;
use crate::directory::Key;
use crate::ledger::record::ExternalId;
use crate::ledger::{FoundJob, OpenJob};
use crate::policy::reject::{Reason, Refusal};
use crate::snapshot::{JobId, Route, Settles};

/// What is known of the job that a request asks about.
pub(super) enum AskedJob {
    /// It is settled, or the route is for no jobs.
    None,
    /// It is open.
    Open(OpenJob),
    /// If there is one, the fleet has it.
    OfFleet(ExternalId),
}

/// Finds the job that a request asks about, among those of its account that this gateway has.
///
/// # Errors
/// [`Reason::NoJob`] if the account never opened such a job: another account's job is not found.
pub(super) fn find_job(
    services: &Services,
    key: Option<&Key>,
    route: &Route,
    target: &Target<'_>,
    parts: &Parts,
) -> Result<AskedJob, Refusal> {
    let (Some(key), Some(settles)) = (key, &route.settles) else { return Ok(AskedJob::None) };
    let id = job_id(&settles.id, target, parts)?;
    let id = id.and_then(|id| ExternalId::of(&route.upstream.name, &id)).ok_or(Reason::NoJob)?;
    let (purse, spender) = (&key.account.purse, &services.spender);
    match spender.open_job(purse, &id) {
        Some(job) => Ok(AskedJob::Open(job)),
        None if spender.is_of_fleet() => Ok(AskedJob::OfFleet(id)),
        None if spender.knows_job(purse, &id) => Ok(AskedJob::None),
        None => Err(Reason::NoJob.into()),
    }
}

/// The payment of a request about a job, which the fleet has if there is one.
pub(super) fn find_later(
    services: &Rc<Services>,
    record: &Rc<AccessRecord>,
    key: &Arc<Key>,
    id: ExternalId,
    (route, settles): (&Route, &Settles),
    method: &Method,
) -> WaitingPayment {
    let reads_body = settles.price.reads_body();
    let (services, record, key) = (Rc::clone(services), Rc::clone(record), Arc::clone(key));
    let (index, method) = (route.index, method.clone());
    let pay = async move || -> Result<Payment, Unpaid> {
        let found = services.spender.find_job(Some(&key.account.purse), &id).await;
        let job = match found.map_err(|_| Reason::LedgerUnavailable)? {
            FoundJob::Open(job) => Some(job),
            FoundJob::Settled => None,
            FoundJob::Unknown => return Err(Reason::NoJob.into()),
        };
        let route = &record.view().routes[index];
        let settles = route.settles.as_ref().ok_or(Reason::NoJob)?;
        Ok(Payment::of_job(job, settles, route, &method))
    };
    let pay = move |_, _| Box::pin(async move { pay().await }) as PaymentFuture;
    WaitingPayment::new(reads_body, pay).leasing(true)
}

/// The id of a job in the path or the query of a request.
///
/// # Errors
/// [`Reason::BadRequest`] if the query names two.
pub(super) fn job_id(id: &JobId, target: &Target<'_>, parts: &Parts) -> Result<Option<String>, Refusal> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned);
    Ok(match id {
        JobId::Segment(at) => target.path.as_str().split('/').nth(at + 1).and_then(decoded),
        JobId::Query(name) => {
            let mut pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
            let found = pairs.by_ref().find(|(other, _)| other == name).map(|(_, value)| value.into_owned());
            if pairs.any(|(other, _)| other == *name) {
                return Err(Refusal::because(Reason::BadRequest, "The request names two jobs."));
            }
            found
        }
    })
}
