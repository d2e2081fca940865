//! Parses the limits of plans, routes and keys.

use std::sync::Arc;

use super::context::Context;
use super::operating::limit_store;
use super::values;
use crate::config::raw::{self, At};
use crate::config::report::Report;
use crate::policy::limit::{Algorithm, Limit, MAX_WINDOW, MIN_WINDOW, Numbers, Scope};
use crate::types::NameId;

/// Most limits of one plan, route or key; bounds the work per request.
const MAX_LIMITS: usize = 16;

/// The owner of a list of limits.
#[derive(Clone, Copy)]
pub(super) enum LimitOwner<'a> {
    /// A plan, or a key with limits that replace its plan's.
    Plan,
    /// A route: its limits are counted separately from limits of a plan with the same name.
    Route {
        /// The route's name.
        name: &'a str,
        /// True if the route needs no key.
        public: bool,
    },
}

pub(super) fn build<'a>(
    context: &mut Context,
    list: &[At<raw::Limit>],
    owner: LimitOwner<'_>,
    routes: impl Iterator<Item = &'a str> + Clone,
) -> Vec<Limit> {
    if let Some(first) = list.get(MAX_LIMITS) {
        context.error(&first.span, format!("a list has at most {MAX_LIMITS} limits"));
    }
    let mut limits: Vec<Limit> = Vec::new();
    for raw in list {
        if limits.iter().any(|limit| *limit.name == *raw.value.name.value) {
            context.error(&raw.value.name.span, format!("limit `{}` is defined twice", raw.value.name.value));
        }
        limits.extend(one(context, &raw.value, owner, routes.clone()));
    }
    limits
}

/// Builds the limits of a key that no file defines. `routes`: names of the routes; `None` if patterns of routes that do
/// not exist are accepted.
///
/// # Errors
/// What is wrong with them.
pub(in crate::config) fn of_key(
    list: &[At<raw::Limit>],
    routes: Option<&[&str]>,
) -> Result<Vec<Limit>, Vec<String>> {
    let cut = routes.map_or(vec!["routes".to_owned()], |_| Vec::new());
    let mut context = Context::new(Report::default(), cut);
    let names = routes.unwrap_or_default().iter().copied();
    let limits = build(&mut context, list, LimitOwner::Plan, names);
    match context.report.errors() {
        0 => Ok(limits),
        _ => Err(context.report.problems().map(|problem| problem.message.clone()).collect()),
    }
}

fn one<'a>(
    context: &mut Context,
    raw: &raw::Limit,
    owner: LimitOwner<'_>,
    routes: impl Iterator<Item = &'a str> + Clone,
) -> Option<Limit> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let name = &raw.name.value;
    if name.is_empty() || name.len() > 64 || !name.bytes().all(valid) {
        context.error(&raw.name.span, "a limit's name is 1 to 64 of A-Z a-z 0-9 . _ -");
    }
    if raw.requests.value == 0 {
        context.error(&raw.requests.span, "a limit allows at least 1 request; to block a key, disable it");
    }
    let window = context.check(&raw.window.span, values::duration(&raw.window.value.0))?;
    if !(MIN_WINDOW..=MAX_WINDOW).contains(&window) {
        context.error(&raw.window.span, "a window is from 1ms to 400d");
    }
    let algorithm = algorithm(context, raw);
    let scope = scope(context, raw, owner);
    let requests = raw.requests.value.max(1);
    let burst = raw.burst.as_ref().map_or(requests, |burst| burst.value);
    if let Some(burst) = raw.burst.as_ref().filter(|burst| burst.value == 0) {
        context.error(&burst.span, "a burst is at least 1");
    }
    if let (Some(burst), Algorithm::SlidingWindow) = (&raw.burst, algorithm) {
        context.error_with(
            &burst.span,
            "a sliding window has no burst",
            "it allows all `requests` at the same time",
        );
    }
    if window.checked_mul(burst.max(1)).is_none_or(|span| span / requests > MAX_WINDOW * 100) {
        context.error(&raw.window.span, "burst × window ÷ requests is too large");
    }
    let list =
        |list: &Option<At<Vec<At<String>>>>| list.as_ref().map(|list| list.value.clone()).unwrap_or_default();
    let adds = raw.adds.as_ref().is_some_and(|adds| adds.value);
    let id = match owner {
        LimitOwner::Plan if adds => NameId::of(&format!("key/{name}")), // the plan may have one of this name
        LimitOwner::Plan => NameId::of(name),
        LimitOwner::Route { name: route, .. } => NameId::of(&format!("{route}/{name}")),
    };
    let window = window.clamp(MIN_WINDOW, MAX_WINDOW);
    Some(Limit {
        name: Arc::from(name.as_str()),
        id,
        requests,
        window,
        burst: burst.max(1),
        algorithm,
        scope,
        routes: context.route_patterns(&list(&raw.routes), routes.clone()),
        except: context.route_patterns(&list(&raw.except), routes),
        methods: context.methods(raw.methods.as_ref()),
        shadow: raw.shadow.as_ref().is_some_and(|shadow| shadow.value),
        adds,
        outage: raw.outage.as_ref().map(|text| limit_store::outage(context, text)),
        numbers: Numbers::of(name, requests, window),
    })
}

fn algorithm(context: &mut Context, raw: &raw::Limit) -> Algorithm {
    let Some(text) = &raw.algorithm else { return Algorithm::Gcra };
    match text.value.as_str() {
        "gcra" => Algorithm::Gcra,
        "sliding-window" => Algorithm::SlidingWindow,
        _ => {
            context.unknown("algorithm", text, ["gcra", "sliding-window"].into_iter());
            Algorithm::Gcra
        }
    }
}

fn scope(context: &mut Context, raw: &raw::Limit, owner: LimitOwner<'_>) -> Scope {
    let public = matches!(owner, LimitOwner::Route { public: true, .. });
    let Some(text) = &raw.scope else {
        if public {
            context.error_with(
                &raw.name.span,
                "a public route has no key to count by",
                "set scope = \"address\"",
            );
        }
        return Scope::Key;
    };
    let scope = match text.value.as_str() {
        "key" => Scope::Key,
        "account" => Scope::Account,
        "key+route" => Scope::KeyRoute,
        "address" => Scope::Address,
        _ => {
            context.unknown("scope", text, ["key", "account", "key+route", "address"].into_iter());
            return Scope::Address;
        }
    };
    if public && scope != Scope::Address {
        context.error_with(&text.span, "a public route has no key to count by", "set scope = \"address\"");
    }
    scope
}
