//! Parses what a price charges: conditions, amounts and terms.

use std::collections::BTreeMap;

use super::context::Context;
use crate::config::raw::{self, Amount, AmountOr, At, Place, Plain};
use crate::policy::json::Pointer;
use crate::policy::price::{self, Charge, Condition, Decimal, Source, StatusMatch, Term};
use crate::types::Credits;

/// Most charges of a price.
const MAX_CHARGES: usize = 32;
/// Most terms of an amount.
const MAX_TERMS: usize = 16;
/// Most values of a condition.
const MAX_VALUES: usize = 32;
/// Most conditions of a charge.
const MAX_CONDITIONS: usize = 8;

/// A charge, and where its amount stands in the file; `None` for one that is inherited.
pub(super) type PlacedCharge = (Charge, Option<Place>);

pub(super) fn charges(context: &mut Context, list: &At<Vec<At<raw::Charge>>>) -> Vec<PlacedCharge> {
    if list.value.len() > MAX_CHARGES {
        context.error(&list.span, format!("a price has at most {MAX_CHARGES} charges"));
    }
    list.value.iter().filter_map(|raw| charge(context, raw)).collect()
}

fn charge(context: &mut Context, raw: &At<raw::Charge>) -> Option<PlacedCharge> {
    let status = status(context, raw.value.status.as_ref());
    let when = conditions(context, &raw.value.when, &raw.span);
    let (amount, place) = amount(context, raw)?;
    Some((Charge { status: status?, when, amount }, Some(place)))
}

/// The statuses of a rule; 2xx by default.
pub(super) fn status(context: &mut Context, raw: Option<&At<String>>) -> Option<StatusMatch> {
    let Some(text) = raw else { return Some(StatusMatch::Class(2)) };
    let status = StatusMatch::parse(&text.value);
    if status.is_none() {
        context.error(&text.span, "a status looks like \"2xx\" or \"404\"");
    }
    status
}

/// What a response must contain.
pub(super) fn conditions(
    context: &mut Context,
    raw: &BTreeMap<At<String>, At<Plain>>,
    place: &Place,
) -> Vec<Condition> {
    if raw.len() > MAX_CONDITIONS {
        context.error(place, format!("at most {MAX_CONDITIONS} conditions"));
    }
    raw.iter().filter_map(|(name, value)| condition(context, name, value)).collect()
}

fn condition(context: &mut Context, name: &At<String>, value: &At<Plain>) -> Option<Condition> {
    let source = source(context, &name.span, &name.value)?;
    let any_of = match &value.value {
        Plain::List(list) => list.iter().map(|value| plain(context, value)).collect(),
        _ => vec![plain(context, value)],
    };
    if any_of.is_empty() || any_of.len() > MAX_VALUES {
        context.error(&value.span, format!("1 to {MAX_VALUES} values"));
    }
    Some(Condition { source, any_of })
}

fn plain(context: &mut Context, value: &At<Plain>) -> String {
    match &value.value {
        Plain::Text(text) => text.clone(),
        Plain::Bool(value) => value.to_string(),
        Plain::Number => context.text(&value.span).replace('_', ""),
        Plain::List(_) => {
            context.error(&value.span, "a list of lists is no condition");
            String::new()
        }
    }
}

fn amount(context: &mut Context, raw: &At<raw::Charge>) -> Option<(price::Amount, Place)> {
    match (&raw.value.credits, &raw.value.from) {
        (Some(credits), None) => {
            let amount = match &credits.value {
                AmountOr::Amount(amount) => price::Amount::Fixed(fixed(context, amount, &credits.span)?),
                AmountOr::Other(list) => price::Amount::Sum(terms(context, list, &credits.span)?),
            };
            Some((amount, credits.span.clone()))
        }
        (None, Some(from)) => {
            let source = source(context, &from.span, &from.value)?;
            Some((price::Amount::Read(source), from.span.clone()))
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

/// Credits at a place.
pub(super) fn fixed(context: &mut Context, amount: &Amount, place: &Place) -> Option<Credits> {
    context.credits(&At { value: amount.clone(), span: place.clone() })
}

pub(super) fn terms(
    context: &mut Context,
    list: &[At<AmountOr<raw::Each>>],
    place: &Place,
) -> Option<Vec<Term>> {
    if list.is_empty() || list.len() > MAX_TERMS {
        context.error(place, format!("an amount is a sum of 1 to {MAX_TERMS} terms"));
        return None;
    }
    list.iter().map(|raw| term(context, raw)).collect()
}

fn term(context: &mut Context, raw: &At<AmountOr<raw::Each>>) -> Option<Term> {
    let raw = match &raw.value {
        AmountOr::Amount(amount) => return fixed(context, amount, &raw.span).map(Term::Fixed),
        AmountOr::Other(each) => each,
    };
    let from = source(context, &raw.from.span, &raw.from.value);
    let each = match &raw.each {
        None => Some(Decimal::ONE),
        Some(each) => factor(context, each),
    };
    let is_optional = raw.optional.as_ref().is_some_and(|optional| optional.value);
    Some(Term::Each { from: from?, each: each?, is_optional })
}

fn factor(context: &mut Context, value: &At<Amount>) -> Option<Decimal> {
    let text = match &value.value {
        Amount::Whole(whole) => whole.to_string(),
        Amount::Decimal => context.text(&value.span).replace('_', ""),
        Amount::Text(text) => text.clone(),
    };
    let factor = Decimal::parse(text.strip_prefix('+').unwrap_or(&text)).filter(|factor| factor.is_factor());
    if factor.is_none() {
        let help = "a decimal number of at most 18 decimals, below a million million";
        context.error_with(&value.span, "this is no factor", help);
    }
    factor
}

pub(super) fn source(context: &mut Context, place: &Place, text: &str) -> Option<Source> {
    let pointer = |text: &str| Pointer::parse(text).filter(|_| text.starts_with('/'));
    let source = match text.split_once(':') {
        Some(("header", name)) => return context.header_name(place, name).map(Source::Header),
        Some(("trailer", name)) => return context.header_name(place, name).map(Source::Trailer),
        Some(("json", text)) => pointer(text).map(Source::Json),
        Some(("last-event", text)) => pointer(text).map(Source::LastEvent),
        None if text == "items" => Some(Source::Items),
        None if text == "held" => Some(Source::Held),
        None if text == "MiB" => Some(Source::Mebibytes),
        None if text == "seconds" => Some(Source::Seconds),
        _ => None,
    };
    if source.is_none() {
        let message = "a price comes from \"header:NAME\", \"trailer:NAME\", \"json:/pointer\", \
            \"last-event:/pointer\", \"items\", \"held\", \"MiB\" or \"seconds\"";
        context.error(place, message);
    }
    source
}
