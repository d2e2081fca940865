//! Parses `[buckets]`, the refills of plans, and spending limits.

use std::sync::Arc;

use crate::config::parse::context::{Context, named};
use crate::config::raw::{self, AmountOr, At};
use crate::policy::credit::refill::{Calendar, Every, Mode, Refill};
use crate::policy::credit::{DEFAULT_PRIORITY, MAX_BALANCE, SpendLimit};
use crate::types::{BucketName, Credits};

/// The buckets of the files, with their priorities.
pub(in crate::config::parse) fn buckets(
    context: &mut Context,
    files: &[raw::File],
) -> Vec<(BucketName, u32)> {
    let mut buckets = Vec::new();
    for (name, raw) in named(context, files, "bucket", |file| &file.buckets) {
        context.file = raw.file;
        let Some(bucket) = context.check(&name.span, name.value.parse::<BucketName>()) else { continue };
        let priority = raw.item.value.priority.as_ref().map_or(DEFAULT_PRIORITY, |priority| priority.value);
        buckets.push((bucket, priority));
    }
    if buckets.iter().all(|(name, _)| !name.is_default()) {
        buckets.push((BucketName::default(), DEFAULT_PRIORITY));
    }
    buckets
}

pub(in crate::config::parse) fn refill(
    context: &mut Context,
    raw: &At<raw::Refill>,
    buckets: &[(BucketName, u32)],
) -> Option<Arc<Refill>> {
    let raw = &raw.value;
    let credits = amount(context, &raw.credits);
    if credits.is_some_and(Credits::is_zero) {
        context.error(&raw.credits.span, "a refill is more than 0 credits");
    }
    let every = period(context, &raw.every);
    let mode = mode(context, raw, credits.unwrap_or_default());
    let bucket = bucket(context, raw.bucket.as_ref(), buckets);
    let zone = match &raw.time_zone {
        None => Some(jiff::tz::TimeZone::UTC),
        Some(name) => {
            let found = jiff::tz::TimeZone::get(&name.value).ok();
            if found.is_none() {
                let help = "a time zone looks like \"Europe/Paris\" or \"UTC\"";
                context.error_with(&name.span, format!("there is no time zone `{}`", name.value), help);
            }
            found
        }
    };
    let calendar = Calendar { every: every?, zone: zone? };
    Some(Arc::new(Refill { credits: credits?, calendar, mode: mode?, bucket: bucket? }))
}

/// The most that may be spent.
pub(in crate::config::parse) fn spend_limit(
    context: &mut Context,
    raw: &At<AmountOr<raw::SpendLimit>>,
) -> Option<SpendLimit> {
    match &raw.value {
        AmountOr::Amount(amount) => {
            let amount = At { span: raw.span.clone(), value: amount.clone() };
            Some(SpendLimit { credits: self::amount(context, &amount)?, every: None })
        }
        AmountOr::Other(limit) => {
            let credits = amount(context, &limit.credits);
            let every = limit.every.as_ref().map(|name| period(context, name));
            Some(SpendLimit { credits: credits?, every: every.map_or(Some(None), |every| every.map(Some))? })
        }
    }
}

fn period(context: &mut Context, name: &At<String>) -> Option<Every> {
    let every = Every::ALL.into_iter().find(|every| every.name() == name.value);
    if every.is_none() {
        context.unknown("period", name, Every::ALL.into_iter().map(Every::name));
    }
    every
}

/// An amount that an account can have.
pub(in crate::config::parse) fn amount(context: &mut Context, raw: &At<raw::Amount>) -> Option<Credits> {
    let amount = context.credits(raw)?;
    if amount > MAX_BALANCE {
        context.error(&raw.span, format!("a balance is at most {MAX_BALANCE}"));
    }
    Some(amount)
}

fn mode(context: &mut Context, raw: &raw::Refill, credits: Credits) -> Option<Mode> {
    let rollover = raw.rollover.as_ref().and_then(|rollover| amount(context, rollover));
    let cap = raw.cap.as_ref().and_then(|cap| amount(context, cap));
    match &*raw.mode.value {
        "reset" => {
            if let Some(cap) = &raw.cap {
                context.error_with(
                    &cap.span,
                    "`cap` is for `mode = \"add\"`",
                    "to keep a part of what is left, set `rollover`",
                );
            }
            Some(Mode::Reset { rollover: rollover.unwrap_or_default() })
        }
        "add" => {
            if let Some(rollover) = &raw.rollover {
                context.error_with(
                    &rollover.span,
                    "`rollover` is for `mode = \"reset\"`",
                    "to limit what adds up, set `cap`",
                );
            }
            if let (Some(limit), Some(place)) = (cap, &raw.cap)
                && limit < credits
            {
                context.error(&place.span, "this cap is below the credits of one refill");
            }
            Some(Mode::Add { cap })
        }
        _ => {
            context.unknown("mode", &raw.mode, ["reset", "add"].into_iter());
            None
        }
    }
}

pub(in crate::config::parse) fn bucket(
    context: &mut Context,
    raw: Option<&At<String>>,
    buckets: &[(BucketName, u32)],
) -> Option<BucketName> {
    let Some(name) = raw else { return Some(BucketName::default()) };
    let found = buckets.iter().map(|(bucket, _)| bucket).find(|bucket| bucket.as_str() == name.value);
    if found.is_none() && !context.is_cut("buckets") {
        context.unknown("bucket", name, buckets.iter().map(|(bucket, _)| bucket.as_str()));
    }
    found.cloned()
}
