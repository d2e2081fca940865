//! Parses `[plans]`.

mod refills;

use std::collections::HashSet;

use http::HeaderValue;

use super::context::{Context, Known, named};
use super::limits::{self, LimitOwner};
use super::prices::{PriceSettings, build, find_route, takes_head};
use crate::config::raw;
use crate::snapshot::Plan;
use crate::types::{BucketName, NameId, NumberMap};

pub(super) use refills::{amount, bucket, buckets, spend_limit};

/// Largest `concurrency` and `jobs` of a plan.
const MAX_CONCURRENCY: u32 = 1_000_000;

pub(super) fn build_all(
    context: &mut Context,
    files: &[raw::File],
    known: &Known,
    buckets: &[(BucketName, u32)],
) -> NumberMap<NameId, Plan> {
    let mut plans = NumberMap::default();
    let routes = files.iter().flat_map(|file| &file.routes).map(|route| &route.value);
    let heads = routes.filter(|route| takes_head(route)).map(|route| &*route.name.value).collect();
    for (name, raw) in named(context, files, "plan", |file| &file.plans) {
        context.file = raw.file;
        let header = name.value.parse::<crate::types::RouteName>().ok();
        if header.is_none() {
            context.error(&name.span, "a plan's name is 1 to 64 of A-Z a-z 0-9 . _ -");
        }
        let mut plan = plan(context, &name.value, &raw.item.value, known, &heads);
        let refill = raw.item.value.refill.as_ref();
        plan.refill = refill.and_then(|refill| refills::refill(context, refill, buckets));
        let limit = raw.item.value.spend_limit.as_ref();
        plan.spend_limit = limit.and_then(|limit| spend_limit(context, limit));
        plans.insert(NameId::of(&name.value), plan);
    }
    plans
}

fn plan(context: &mut Context, name: &str, raw: &raw::Plan, known: &Known, heads: &HashSet<&str>) -> Plan {
    for (name, value) in [("concurrency", &raw.concurrency), ("jobs", &raw.jobs)] {
        if let Some(value) = value.as_ref().filter(|value| !(1..=MAX_CONCURRENCY).contains(&value.value)) {
            context.error(&value.span, format!("{name} is from 1 to {MAX_CONCURRENCY}"));
        }
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
        let built = build(context, &settings, &found.price);
        if found.settles.is_some() {
            context.error(
                &route.span,
                format!("route `{}` settles jobs, and has no price of its own", route.value),
            );
        }
        if built.shadow && built.per_item.is_some() {
            context
                .error(&route.span, format!("a shadow price does not count the items of `{}`", route.value));
        }
        if built.opens.is_some() && (built.is_free() || built.shadow) {
            context.error(&route.span, format!("route `{}` opens jobs, which cannot be free", route.value));
        }
        prices.insert(found.index, std::sync::Arc::new(built));
    }
    Plan {
        name: name.to_owned(),
        refill: None,
        spend_limit: None,
        header: HeaderValue::try_from(name).ok(),
        concurrency: raw.concurrency.as_ref().map(|value| value.value),
        jobs: raw.jobs.as_ref().map(|value| value.value),
        limits,
        prices,
    }
}
