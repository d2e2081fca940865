//! Parses what an upstream does about servers that fail: `health`, `ejection` and `retries`.

use std::time::Duration;

use http::uri::PathAndQuery;

use super::context::Context;
use crate::config::raw::{self, At};
use crate::policy::price::StatusMatch;
use crate::policy::upstream::ejection::Ejection;
use crate::policy::upstream::health::HealthCheck;
use crate::policy::upstream::retry::Retries;

/// Most retries of one request.
const MAX_RETRIES: u32 = 10;

pub(super) fn health(context: &mut Context, raw: Option<&At<raw::Health>>) -> Option<HealthCheck> {
    let raw = &raw?.value;
    let (path, place) = (&raw.path.value, &raw.path.span);
    if !path.starts_with('/') || path.parse::<PathAndQuery>().is_err() {
        context.error(place, "a path begins with /, such as \"/healthz\"");
    }
    let status = raw.status.as_ref().map(|status| {
        let parsed = StatusMatch::parse(&status.value).ok_or("a status looks like \"2xx\" or \"200\"");
        context.check(&status.span, parsed)
    });
    let mut at_least_one = |value: &Option<At<u32>>, default: u32| {
        if let Some(zero) = value.as_ref().filter(|value| value.value == 0) {
            context.error(&zero.span, "at least 1");
        }
        value.as_ref().map_or(default, |value| value.value)
    };
    let (down_after, up_after) = (at_least_one(&raw.down_after, 3), at_least_one(&raw.up_after, 2));
    Some(HealthCheck {
        path: path.clone(),
        interval: context.duration(raw.interval.as_ref(), Duration::from_secs(5)),
        timeout: context.duration(raw.timeout.as_ref(), Duration::from_secs(2)),
        status: status.flatten().unwrap_or(StatusMatch::Class(2)),
        down_after,
        up_after,
    })
}

pub(super) fn ejection(context: &mut Context, raw: Option<&At<raw::Ejection>>) -> Ejection {
    let default = Ejection::default();
    let Some(At { value: raw, .. }) = raw else { return default };
    let rate = raw.rate.as_ref().map(|rate| {
        let share = context.percent(Some(rate), 100);
        if share == 0 {
            context.error(&rate.span, "a rate of failures is at least \"1%\"");
        }
        share
    });
    Ejection {
        failures: raw.failures.as_ref().map_or(default.failures, |failures| failures.value),
        rate,
        time: context.duration(raw.time.as_ref(), default.time),
        at_most: context.percent(raw.at_most.as_ref(), default.at_most),
    }
}

pub(super) fn retries(context: &mut Context, raw: Option<&At<raw::Retries>>) -> Retries {
    let default = Retries::default();
    let Some(At { value: raw, .. }) = raw else { return default };
    if let Some(most) = raw.most.as_ref().filter(|most| most.value > MAX_RETRIES) {
        context.error(&most.span, format!("at most {MAX_RETRIES} retries"));
    }
    Retries {
        most: raw.most.as_ref().map_or(default.most, |most| most.value),
        budget: context.percent(raw.budget.as_ref(), default.budget),
    }
}
