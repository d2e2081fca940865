//! Finds the job that a request asks about.

pub(super) mod callback;

use http::request::Parts;
use percent_encoding::percent_decode_str;

use super::services::Services;
use super::target::Target;
use crate::directory::Key;
use crate::ledger::OpenJob;
use crate::ledger::record::ExternalId;
use crate::policy::reject::{Reason, Refusal};
use crate::snapshot::{JobId, Route};

/// Finds the job that a request asks about, among those of its account; `None` if it is settled, or the route is for no jobs.
///
/// # Errors
/// [`Reason::NoJob`] if the account never opened such a job: another account's job is not found.
pub(super) fn find_job(
    services: &Services,
    key: Option<&Key>,
    route: &Route,
    target: &Target<'_>,
    parts: &Parts,
) -> Result<Option<OpenJob>, Refusal> {
    let (Some(key), Some(settles)) = (key, &route.settles) else { return Ok(None) };
    let id = job_id(&settles.id, target, parts)?;
    let id = id.and_then(|id| ExternalId::of(&route.upstream.name, &id)).ok_or(Reason::NoJob)?;
    let (purse, spender) = (&key.account.purse, &services.spender);
    let job = spender.open_job(purse, &id);
    if job.is_none() && !spender.knows_job(purse, &id) {
        return Err(Reason::NoJob.into());
    }
    Ok(job)
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
