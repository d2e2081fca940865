//! Parses the prices of routes, and plans with their own prices.

use std::collections::HashSet;

use http::{HeaderName, HeaderValue};

use super::context::{Context, Known, named};
use super::limits::{self, LimitOwner};
use crate::config::raw::{self, Amount, At, Place};
use crate::config::report::Severity;
use crate::policy::json::Pointer;
use crate::policy::price::{self, Charge, Price, StatusMatch};
use crate::snapshot::{Plan, Route};
use crate::types::{NameId, NumberMap};

/// Most charges of a price.
const MAX_CHARGES: usize = 32;
/// Largest `concurrency` of a plan.
const MAX_CONCURRENCY: u32 = 1_000_000;

/// The price settings of a route or a plan.
pub(super) struct PriceSettings<'a> {
    pub(super) credits: Option<&'a At<Amount>>,
    pub(super) hold: Option<&'a At<Amount>>,
    pub(super) charge: Option<&'a At<Vec<At<raw::Charge>>>>,
    pub(super) shadow: Option<&'a At<bool>>,
    /// The route accepts HEAD requests.
    pub(super) takes_head: bool,
}

/// True if a route accepts HEAD requests: it accepts all methods, GET or HEAD.
pub(super) fn takes_head(route: &raw::Route) -> bool {
    let takes = |method: &At<String>| matches!(&*method.value, "GET" | "HEAD");
    route.methods.as_ref().is_none_or(|methods| methods.value.iter().any(takes))
}

/// Builds a price from its settings. `hold` and `charge` default to those of `before`.
pub(super) fn build(context: &mut Context, settings: &PriceSettings<'_>, before: &Price) -> Price {
    let shadow = settings.shadow.map_or(before.shadow, |shadow| shadow.value);
    if let Some(credits) = settings.credits {
        let others = [settings.hold.map(|hold| &hold.span), settings.charge.map(|charge| &charge.span)];
        for place in others.into_iter().flatten() {
            context.error_with(place, "`credits` already sets hold and charge", "use one or the other");
        }
        let amount = context.credits(credits).unwrap_or_default();
        let charge = Charge { status: StatusMatch::Class(2), amount: price::Amount::Fixed(amount) };
        let charges = if amount.is_zero() { Vec::new() } else { vec![charge] };
        return Price { hold: amount, charges, shadow };
    }
    let hold = match settings.hold {
        Some(hold) => context.credits(hold).unwrap_or_default(),
        None => before.hold,
    };
    let charges = match settings.charge {
        Some(charge) => charges(context, charge),
        None => before.charges.iter().map(|charge| (charge.clone(), None)).collect(),
    };
    let place = settings.hold.map(|hold| &hold.span).or(settings.charge.map(|charge| &charge.span));
    for (charge, own) in &charges {
        if let price::Amount::Fixed(amount) = charge.amount
            && amount > hold
            && let Some(place) = own.as_ref().or(place)
        {
            let message = format!("a charge of {amount} is above its hold of {hold}");
            context.error_with(place, message, "the hold is the most that a request can cost");
        }
    }
    warn_of_bodiless(context, &charges, settings.takes_head);
    let from_answer = charges.iter().any(|(charge, _)| !matches!(charge.amount, price::Amount::Fixed(_)));
    if let (Some(charge), true, true) = (settings.charge, hold.is_zero(), from_answer) {
        let help = "set `hold` to the most that a request can cost";
        context.error_with(&charge.span, "this price has no hold", help);
    }
    Price { hold, shadow, charges: charges.into_iter().map(|(charge, _)| charge).collect() }
}

/// Warns of prices in a JSON body for responses that have no body: 204, 304, and responses to HEAD.
fn warn_of_bodiless(context: &mut Context, charges: &[(Charge, Option<Place>)], takes_head: bool) {
    for (charge, place) in charges {
        let (price::Amount::Json(_), Some(place)) = (&charge.amount, place) else { continue };
        let mut warn = |message: String, help: &str| {
            context.add(Severity::Warning, place, message, Some(help.to_owned()));
        };
        if let StatusMatch::One(status @ (204 | 304)) = charge.status {
            warn(
                format!("a {status} response has no body, so it costs nothing"),
                "take the price of such responses from a header, or give it `credits`",
            );
        } else if takes_head {
            warn(
                "a HEAD request to this route costs nothing: its response has no body with a price"
                    .to_owned(),
                "to charge it, take the price from a header; or leave GET and HEAD out of `methods`",
            );
        }
    }
}

fn charges(context: &mut Context, list: &At<Vec<At<raw::Charge>>>) -> Vec<(Charge, Option<Place>)> {
    if list.value.len() > MAX_CHARGES {
        context.error(&list.span, format!("a price has at most {MAX_CHARGES} charges"));
    }
    let mut charges = Vec::new();
    for raw in &list.value {
        let status = StatusMatch::parse(&raw.value.status.value);
        if status.is_none() {
            context.error(&raw.value.status.span, "a status looks like \"2xx\" or \"404\"");
        }
        if let (Some(status), Some((amount, place))) = (status, amount(context, raw)) {
            charges.push((Charge { status, amount }, Some(place)));
        }
    }
    charges
}

fn amount(context: &mut Context, raw: &At<raw::Charge>) -> Option<(price::Amount, Place)> {
    match (&raw.value.credits, &raw.value.from) {
        (Some(credits), None) => {
            let amount = context.credits(credits)?;
            Some((price::Amount::Fixed(amount), credits.span.clone()))
        }
        (None, Some(from)) => {
            let amount = match from.value.split_once(':') {
                Some(("header", name)) => context.header_name(&from.span, name).map(price::Amount::Header),
                Some(("json", text)) if text.starts_with('/') => {
                    Pointer::parse(text).map(price::Amount::Json)
                }
                _ => {
                    context.error(&from.span, "a price comes from \"header:NAME\" or \"json:/pointer\"");
                    None
                }
            };
            amount.map(|amount| (amount, from.span.clone()))
        }
        (Some(_), Some(from)) => {
            context.error(&from.span, "a charge has either `credits` or `from`");
            None
        }
        (None, None) => {
            context.error_with(&raw.span, "this charge has no amount", "give it `credits` or `from`");
            None
        }
    }
}

pub(super) fn plans(context: &mut Context, files: &[raw::File], known: &Known) -> NumberMap<NameId, Plan> {
    let mut plans = NumberMap::default();
    let routes = files.iter().flat_map(|file| &file.routes).map(|route| &route.value);
    let heads = routes.filter(|route| takes_head(route)).map(|route| &*route.name.value).collect();
    for (name, raw) in named(context, files, "plan", |file| &file.plans) {
        context.file = raw.file;
        let header = name.value.parse::<crate::types::RouteName>().ok();
        if header.is_none() {
            context.error(&name.span, "a plan's name is 1 to 64 of A-Z a-z 0-9 . _ -");
        }
        let plan = plan(context, &name.value, &raw.item.value, known, &heads);
        plans.insert(NameId::of(&name.value), plan);
    }
    plans
}

fn plan(context: &mut Context, name: &str, raw: &raw::Plan, known: &Known, heads: &HashSet<&str>) -> Plan {
    context.not_yet("`jobs`", raw.jobs.as_ref());
    context.not_yet("`refill`", raw.refill.as_ref());
    if let Some(value) =
        raw.concurrency.as_ref().filter(|value| !(1..=MAX_CONCURRENCY).contains(&value.value))
    {
        context.error(&value.span, format!("concurrency is from 1 to {MAX_CONCURRENCY}"));
    }
    let limits = limits::build(context, &raw.limits, LimitOwner::Plan, known.names());
    let mut prices = NumberMap::default();
    for (route, price) in &raw.prices {
        let Some(found) = find_route(&known.routes, &route.value) else {
            if !context.is_cut("routes") && !known.names.contains(&route.value) {
                context.unknown("route", route, known.names());
            }
            continue;
        };
        if found.public {
            context.error(&route.span, format!("route `{}` is public and charges nothing", route.value));
        }
        let raw = &price.value;
        let settings = PriceSettings {
            credits: raw.credits.as_ref(),
            hold: raw.hold.as_ref(),
            charge: raw.charge.as_ref(),
            shadow: raw.shadow.as_ref(),
            takes_head: heads.contains(&*route.value),
        };
        prices.insert(found.index, std::sync::Arc::new(build(context, &settings, &found.price)));
    }
    Plan {
        name: name.to_owned(),
        header: HeaderValue::try_from(name).ok(),
        concurrency: raw.concurrency.as_ref().map(|value| value.value),
        limits,
        prices,
    }
}

fn find_route<'a>(routes: &'a [std::sync::Arc<Route>], name: &str) -> Option<&'a Route> {
    routes.iter().find(|route| route.name.as_str() == name).map(|route| &**route)
}

/// Joins header names into one value, separated by commas.
pub(super) fn header_list(context: &mut Context, list: &[At<String>]) -> HeaderValue {
    let names: Vec<HeaderName> =
        list.iter().filter_map(|item| context.header_name(&item.span, &item.value)).collect();
    let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
    HeaderValue::try_from(names.join(", ")).unwrap_or(HeaderValue::from_static(""))
}
