//! Parses the prices of routes.

use http::{HeaderName, HeaderValue};

use super::charges::{self, PlacedCharge};
use super::context::Context;
use crate::config::raw::{self, AmountOr, At, Place};
use crate::config::report::Severity;
use crate::policy::credit::MAX_BALANCE;
use crate::policy::json::Pointer;
use crate::policy::price::{self, Charge, ItemHold, Price, Source, StatusMatch, Term};
use crate::snapshot::Route;
use crate::types::Credits;

/// Largest `max_items`.
const MAX_ITEMS: u32 = 1_000_000;

/// The price settings of a route or a plan.
pub(super) struct PriceSettings<'a> {
    pub(super) credits: Option<&'a At<AmountOr<raw::PerItem>>>,
    pub(super) hold: Option<&'a At<AmountOr<raw::PerItem>>>,
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

/// What a price holds.
struct HoldRule {
    /// The most that a request can hold.
    most: Credits,
    /// The least that a request with an item can hold.
    least: Credits,
    per_item: Option<ItemHold>,
}

/// Builds a price from its settings. `hold` and `charge` default to those of `before`.
pub(super) fn build(context: &mut Context, settings: &PriceSettings<'_>, before: &Price) -> Price {
    let shadow = settings.shadow.map_or(before.shadow, |shadow| shadow.value);
    if let Some(credits) = settings.credits {
        let others = [settings.hold.map(|hold| &hold.span), settings.charge.map(|charge| &charge.span)];
        for place in others.into_iter().flatten() {
            context.error_with(place, "`credits` already sets hold and charge", "use one or the other");
        }
        let hold = hold_rule(context, credits, shadow);
        let amount = match &hold.per_item {
            None => price::Amount::Fixed(hold.most),
            Some(ItemHold { each, .. }) => {
                let term = Term::Each { from: Source::Items, each: (*each).into(), is_optional: false };
                price::Amount::Sum(vec![term])
            }
        };
        let charge = Charge { status: StatusMatch::Class(2), when: Vec::new(), amount };
        let charges = if hold.most.is_zero() { Vec::new() } else { vec![charge] };
        let opens = before.opens.clone();
        return Price {
            hold: hold.most,
            per_item: hold.per_item,
            charges,
            opens,
            shadow,
            ..Price::default()
        };
    }
    let hold = match settings.hold {
        Some(hold) => hold_rule(context, hold, shadow),
        None => HoldRule {
            most: before.hold,
            least: before.per_item.as_ref().map_or(before.hold, |per_item| per_item.each),
            per_item: before.per_item.clone(),
        },
    };
    let charges = match settings.charge {
        Some(charge) => charges::charges(context, charge),
        None => before.charges.iter().map(|charge| (charge.clone(), None)).collect(),
    };
    let place = settings.hold.map(|hold| &hold.span).or(settings.charge.map(|charge| &charge.span));
    for (charge, own) in &charges {
        if let Some(place) = own.as_ref().or(place) {
            check_charge(context, charge, &hold, place);
        }
    }
    warn_of_bodiless(context, &charges, settings.takes_head);
    let from_answer = charges.iter().any(|(charge, _)| charge.sources().next().is_some());
    if let (Some(charge), true, true) = (settings.charge, hold.most.is_zero(), from_answer) {
        let help = "set `hold` to the most that a request can cost";
        context.error_with(&charge.span, "this price has no hold", help);
    }
    let charges = charges.into_iter().map(|(charge, _)| charge).collect();
    let opens = before.opens.clone();
    Price { hold: hold.most, per_item: hold.per_item, charges, opens, shadow, ..Price::default() }
}

fn hold_rule(context: &mut Context, raw: &At<AmountOr<raw::PerItem>>, shadow: bool) -> HoldRule {
    let per_item = match &raw.value {
        AmountOr::Amount(amount) => {
            let most = charges::fixed(context, amount, &raw.span).unwrap_or_default();
            return HoldRule { most, least: most, per_item: None };
        }
        AmountOr::Other(per_item) => per_item,
    };
    let each = context.credits(&per_item.each).unwrap_or_default();
    let of = Pointer::parse(&per_item.of.value);
    if of.is_none() {
        context.error(&per_item.of.span, "a JSON pointer looks like \"/records\"");
    }
    let max_items = per_item.max_items.value;
    if !(1..=MAX_ITEMS).contains(&max_items) {
        context.error(&per_item.max_items.span, format!("max_items is from 1 to {MAX_ITEMS}"));
    }
    let most = each.millionths().checked_mul(i64::from(max_items)).map(Credits::from_millionths);
    if most.is_none_or(|most| most > MAX_BALANCE) {
        context.error(&raw.span, "so many items would cost more than an account can have");
    }
    if shadow {
        let help = "leave out `shadow`, or hold the same for every request";
        context.error_with(&raw.span, "a shadow price does not count items", help);
    }
    let per_item = of.map(|of| ItemHold { each, of, max_items });
    HoldRule { most: most.unwrap_or_default(), least: each, per_item }
}

/// Checks a charge against its hold.
fn check_charge(context: &mut Context, charge: &Charge, hold: &HoldRule, place: &Place) {
    let fixed = match &charge.amount {
        price::Amount::Fixed(amount) => *amount,
        price::Amount::Read(_) => Credits::ZERO,
        price::Amount::Sum(terms) => fixed_part(terms),
    };
    if fixed > hold.least {
        let message = format!("a charge of {fixed} is above its hold of {}", hold.least);
        context.error_with(place, message, "the hold is the most that a request can cost");
    }
    if hold.per_item.is_none() && charge.sources().any(|source| *source == Source::Items) {
        let help = "set `hold = { each = …, of = \"/records\", max_items = … }`";
        context.error_with(place, "the items of the request are not counted", help);
    }
}

/// What a sum costs at least; 0 if it has discounts.
fn fixed_part(terms: &[Term]) -> Credits {
    let mut sum = Credits::ZERO;
    for term in terms {
        match term {
            Term::Fixed(amount) => sum = sum.checked_add(*amount).unwrap_or(Credits::MAX),
            Term::Each { each, .. } if each.is_negative() => return Credits::ZERO,
            Term::Each { .. } => {}
        }
    }
    sum
}

/// Warns of prices in a JSON body for responses that have no body: 204, 304, and responses to HEAD.
fn warn_of_bodiless(context: &mut Context, charges: &[PlacedCharge], takes_head: bool) {
    for (charge, place) in charges {
        let is_json = charge.sources().any(|it| matches!(it, Source::Json(_) | Source::LastEvent(_)));
        let (true, Some(place)) = (is_json, place) else { continue };
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

pub(super) fn find_route<'a>(routes: &'a [std::sync::Arc<Route>], name: &str) -> Option<&'a Route> {
    routes.iter().find(|route| route.name.as_str() == name).map(|route| &**route)
}

/// Joins header names into one value, separated by commas.
pub(super) fn header_list(context: &mut Context, list: &[At<String>]) -> HeaderValue {
    let names: Vec<HeaderName> =
        list.iter().filter_map(|item| context.header_name(&item.span, &item.value)).collect();
    let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
    HeaderValue::try_from(names.join(", ")).unwrap_or(HeaderValue::from_static(""))
}
