//! Parses how requests open jobs, and how later ones settle them.

use std::collections::HashMap;
use std::time::Duration;

use http::Method;

use super::charges;
use super::context::{Context, named};
use super::upstreams::BuiltUpstreams;
use crate::config::raw::{self, Amount, AmountOr, At, Place};
use crate::config::report::Severity;
use crate::policy::json::Pointer;
use crate::policy::key::signature::bytes_of;
use crate::policy::price::{self, Charge, Done, Opens, Price, Source, StatusMatch};
use crate::policy::route::{Lookup, Methods, Pattern, RouteTable};
use crate::snapshot::{Callback, CallbackId, Callbacks, JobId, Settings, Settles};

/// Longest deadline of a job.
const MAX_DEADLINE: Duration = Duration::from_secs(366 * 24 * 3600);

/// How requests of a route open jobs.
pub(super) fn opens(context: &mut Context, raw: &raw::Route, price: &Price) -> Option<Opens> {
    let Some(At { value, span }) = &raw.opens else { return None };
    if price.is_free() || price.shadow {
        let help = "set `hold` to the most that a job can cost, without `shadow`";
        context.error_with(span, "a route that opens jobs has a price", help);
    }
    let id = charges::source(context, &value.id.span, &value.id.value);
    if id.as_ref().is_some_and(|id| !matches!(id, Source::Header(_) | Source::Json(_))) {
        context.error(&value.id.span, "a job's id is in \"json:/pointer\" or \"header:NAME\"");
    }
    let deadline = context.duration(Some(&value.deadline), MAX_DEADLINE);
    if deadline.is_zero() || deadline > MAX_DEADLINE {
        context.error(&value.deadline.span, "a deadline is from 1ms to 366d");
    }
    let charges_at_deadline = match value.at_deadline.as_ref().map(|way| (way.value.as_str(), way)) {
        None | Some(("release", _)) => false,
        Some(("charge", _)) => true,
        Some((_, way)) => {
            context.unknown("way", way, ["release", "charge"].into_iter());
            false
        }
    };
    Some(Opens { id: id?, deadline, charges_at_deadline })
}

/// How requests of a route settle jobs.
pub(super) fn settles(context: &mut Context, raw: &raw::Route, price: &Price) -> Option<Settles> {
    let Some(At { value, span }) = &raw.settles else { return None };
    if !price.is_free() || raw.opens.is_some() {
        context.error(span, "a route that settles jobs has no price of its own, and opens none");
    }
    if raw.public.as_ref().is_some_and(|public| public.value) {
        context.error(span, "a public route settles no jobs: it does not know the account");
    }
    let id = job_id(context, &value.id, &raw.path.value);
    let status = charges::status(context, value.status.as_ref())?;
    let done = Done { status, when: charges::conditions(context, &value.done, span) };
    let price = price_of(context, (value.credits.as_ref(), value.charge.as_ref()), done, span)?;
    Some(Settles { id: id?, price })
}

/// What a job costs.
fn price_of(
    context: &mut Context,
    (credits, charge): (Option<&At<Amounts>>, Option<&At<Charges>>),
    done: Done,
    span: &Place,
) -> Option<Price> {
    let charges = match (credits, charge) {
        (Some(credits), None) => {
            let amount = amount(context, credits)?;
            vec![Charge { status: done.status, when: Vec::new(), amount }]
        }
        (None, Some(list)) => charges::charges(context, list).into_iter().map(|(charge, _)| charge).collect(),
        _ => {
            context.error_with(span, "what does the job cost?", "give it either `credits` or `charge`");
            return None;
        }
    };
    if charges.iter().flat_map(Charge::sources).any(|source| *source == Source::Items) {
        context.error(span, "the items of the request that opened the job are not known here");
    }
    Some(Price { charges, done: Some(done), ..Price::default() })
}

/// The paths at which upstreams tell about jobs; each has the name of its upstream. Their POST requests do not reach a route
/// of the same path.
pub(super) fn callbacks(
    context: &mut Context,
    files: &[raw::File],
    routes: &RouteTable<usize>,
    settings: &Settings,
    upstreams: &HashMap<String, Option<BuiltUpstreams>>,
) -> Callbacks {
    let mut callbacks = Callbacks::default();
    for (name, raw) in named(context, files, "callback", |file| &file.callbacks) {
        context.file = raw.file;
        let (raw, span) = (&raw.item.value, &name.span);
        let Some(pattern) = context.check(&raw.path.span, Pattern::parse(&raw.path.value)) else { continue };
        if !upstreams.contains_key(&name.value) && !context.is_cut("upstreams") {
            context.unknown("upstream", name, upstreams.keys().map(String::as_str));
        }
        if settings.account_info.as_ref() == Some(&raw.path.value) {
            context.error(&raw.path.span, "[account_info] uses this path");
        }
        let methods = Methods::Only(vec![Method::POST]);
        let at = callbacks.list.len();
        if callbacks.table.insert(None, &pattern, methods, at).is_err() {
            context.error(&raw.path.span, "another callback has the same path");
        }
        if let Lookup::Route(_) = routes.find(None, &raw.path.value, &Method::POST) {
            let help = "POST requests to it go to the callback, not to the route";
            context.add(
                Severity::Warning,
                &raw.path.span,
                "a route has this path too".to_owned(),
                Some(help.to_owned()),
            );
        }
        if let Some(callback) = callback(context, &name.value, raw, span) {
            callbacks.list.push(callback);
        }
    }
    callbacks
}

fn callback(context: &mut Context, upstream: &str, raw: &raw::Callback, span: &Place) -> Option<Callback> {
    let secret = context.secret(&raw.secret.span, &raw.secret.value.0)?;
    let secret = bytes_of(&secret);
    if secret.is_none() {
        let help = "whsec_ and the base64 of 24 to 64 random bytes, as Standard Webhooks says";
        context.error_with(&raw.secret.span, "this is no secret of webhooks", help);
    }
    let id = match raw.id.value.strip_prefix("json:").and_then(Pointer::parse) {
        Some(pointer) => Some(CallbackId::Body(pointer)),
        None => job_id(context, &raw.id, &raw.path.value).map(CallbackId::Target),
    };
    let done = Done { status: StatusMatch::Class(2), when: charges::conditions(context, &raw.done, span) };
    let price = price_of(context, (raw.credits.as_ref(), raw.charge.as_ref()), done, span)?;
    if price.charges.iter().any(|charge| !charge.status.covers(200)) {
        context.error(span, "a callback is no response: its charges have no `status`");
    }
    let upstream = upstream.to_owned();
    Some(Callback { upstream, secret: secret?, id: id?, price })
}

type Charges = Vec<At<raw::Charge>>;
/// An amount, a place in a response, or a list of terms.
type Amounts = AmountOr<Vec<At<AmountOr<raw::Each>>>>;

fn amount(context: &mut Context, raw: &At<Amounts>) -> Option<price::Amount> {
    match &raw.value {
        AmountOr::Amount(Amount::Text(text)) if text.contains(':') => {
            charges::source(context, &raw.span, text).map(price::Amount::Read)
        }
        AmountOr::Amount(amount) => charges::fixed(context, amount, &raw.span).map(price::Amount::Fixed),
        AmountOr::Other(list) => charges::terms(context, list, &raw.span).map(price::Amount::Sum),
    }
}

fn job_id(context: &mut Context, raw: &At<String>, path: &str) -> Option<JobId> {
    match raw.value.split_once(':') {
        Some(("query", name)) if !name.is_empty() => Some(JobId::Query(name.to_owned())),
        Some(("path", name)) => {
            let wanted = format!("{{{name}}}");
            let place = path.split('/').skip(1).position(|segment| segment == wanted);
            if place.is_none() {
                let help = format!("the path `{path}` has no segment {wanted}");
                context.error_with(&raw.span, "the job's id is not in the path", help);
            }
            place.map(JobId::Segment)
        }
        _ => {
            let message = "the id of a job is in \"path:NAME\" or \"query:NAME\", of a callback also in \"json:/pointer\"";
            context.error(&raw.span, message);
            None
        }
    }
}
