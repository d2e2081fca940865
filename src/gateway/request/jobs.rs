//! Finds the job that a request asks about.

use http::request::Parts;
use percent_encoding::percent_decode_str;

use super::services::Services;
use super::target::Target;
use crate::directory::Key;
use crate::ledger::OpenJob;
use crate::ledger::record::ExternalId;
use crate::policy::reject::{Reason, Refusal};
use crate::snapshot::{JobId, Settles};

/// Finds the job that a request asks about, among those of its account; `None` if it is settled.
///
/// # Errors
/// [`Reason::NoJob`] if the account never opened such a job: another account's job is not found.
pub(super) fn find_job(
    services: &Services,
    key: &Key,
    settles: &Settles,
    target: &Target<'_>,
    parts: &Parts,
) -> Result<Option<OpenJob>, Refusal> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned);
    let id = match &settles.id {
        JobId::Segment(at) => target.path.as_str().split('/').nth(at + 1).and_then(decoded),
        JobId::Query(name) => {
            let mut pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
            let found = pairs.by_ref().find(|(other, _)| other == name).map(|(_, value)| value.into_owned());
            if pairs.any(|(other, _)| other == *name) {
                return Err(Refusal::because(Reason::BadRequest, "The request names two jobs."));
            }
            found
        }
    };
    let id = id.and_then(|id| ExternalId::new(&id)).ok_or(Reason::NoJob)?;
    let (purse, spender) = (&key.account.purse, &services.spender);
    let job = spender.open_job(purse, &id);
    if job.is_none() && !spender.knows_job(purse, &id) {
        return Err(Reason::NoJob.into());
    }
    Ok(job)
}
