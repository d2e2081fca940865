//! Computes, step by step, the decisions that the gateway would make about a request, without sending the request.

mod gauges;
mod rehearse;
mod requests;
mod world;

use std::sync::Arc;

use http::{HeaderMap, Method, Uri};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

pub use gauges::LimitGauge;
pub use rehearse::{Rehearsal, RehearsalInput, RuleChange};
pub use requests::RequestView;

use super::caller::{Caller, Permission};
use super::describe::state_name;
use super::error::{OperationError, Result};
use super::gateway::PriceView;
use super::terms::Time;
use crate::control::Control;
use crate::directory::{Key, LimitSlot};
use crate::ledger::Capped;
use crate::policy::limit::{Counter, Limit, Scope};
use crate::policy::path;
use crate::policy::reject::{Dialect, Reason};
use crate::policy::route::Lookup;
use crate::snapshot::{AccountStatus, Plan, Route, Snapshot, limits_of};
use crate::types::{KeyId, RouteNum};

/// A request to explain.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ExplainRequest)]
pub struct ExplainInput {
    /// The key's id.
    #[schema(value_type = String, pattern = "^key_[0-9a-f]{16}$")]
    pub key: KeyId,
    /// The request's method.
    #[schema(example = "GET", pattern = "^[A-Z]{1,20}$")]
    pub method: String,
    /// The request's path, with its query, or a URL with a host.
    #[schema(example = "/api/v1/people")]
    pub url: String,
}

/// One decision about a request.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Decision {
    /// What is decided: `path`, `route`, `key`, `account`, `scope`, `limit NAME`, `price`, `balance` and others.
    pub step: String,
    /// True if the request passes this step.
    pub passes: bool,
    /// The reason of the refusal, if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The reason for which a shadow rule would refuse it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<&'static str>,
    /// What the decision depends on.
    #[schema(value_type = Value)]
    pub detail: Value,
}

/// The decisions that the gateway would make about a request, in order.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Explanation {
    /// The decisions.
    pub steps: Vec<Decision>,
    /// True if the request would be forwarded.
    pub admitted: bool,
    /// The reason of the first refusal.
    pub reason: Option<&'static str>,
    /// The HTTP status of the refusal.
    pub status: Option<u16>,
}

/// The steps so far, and the reason of the first step that refuses the request.
#[derive(Default)]
pub(super) struct Steps {
    steps: Vec<Decision>,
    refusal: Option<Reason>,
}

impl Steps {
    fn pass(&mut self, step: &str, detail: impl Into<Value>) {
        self.pass_with(step, None, detail);
    }

    /// Passes a step. `shadow`: the reason for which a shadow rule would refuse it.
    fn pass_with(&mut self, step: &str, shadow: Option<Reason>, detail: impl Into<Value>) {
        self.steps.push(Decision {
            step: step.to_owned(),
            passes: true,
            reason: None,
            shadow: shadow.map(Reason::code),
            detail: detail.into(),
        });
    }

    pub(super) fn refuse(&mut self, step: &str, reason: Reason, detail: impl Into<Value>) {
        self.refusal.get_or_insert(reason);
        let (step, detail) = (step.to_owned(), detail.into());
        self.steps.push(Decision { step, passes: false, reason: Some(reason.code()), shadow: None, detail });
    }

    fn add_check(&mut self, step: &str, passes: bool, reason: Reason, detail: impl Into<Value>) {
        if passes { self.pass(step, detail) } else { self.refuse(step, reason, detail) }
    }

    /// Adds a check of a rule that may be a shadow.
    fn add_rule(
        &mut self,
        step: &str,
        (passes, is_shadow): (bool, bool),
        reason: Reason,
        detail: impl Into<Value>,
    ) {
        match is_shadow {
            true => self.pass_with(step, Some(reason).filter(|_| !passes), detail),
            false => self.add_check(step, passes, reason, detail),
        }
    }

    pub(super) fn finish(self, dialect: &Dialect) -> Explanation {
        let refusal = self.refusal;
        Explanation {
            steps: self.steps,
            admitted: refusal.is_none(),
            reason: refusal.map(Reason::code),
            status: refusal.map(|reason| dialect.template(reason).status.as_u16()),
        }
    }
}

/// A request, as far as it is read.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) uri: Uri,
}

impl Asked {
    /// Reads a method and a URL: a path, or with a host.
    pub(super) fn read(method: &str, url: &str) -> Result<Self> {
        let Ok(method) = Method::from_bytes(method.as_bytes()) else {
            return OperationError::invalid("method", "this is not an HTTP method");
        };
        match url.parse::<Uri>() {
            Ok(uri) if !url.contains('#') => Ok(Self { method, uri }),
            _ => OperationError::invalid("url", "a URL is a path, or http://host/path, without a fragment"),
        }
    }
}

impl Control {
    /// Computes the decisions that the gateway would make about a request now. Counts and charges nothing.
    ///
    /// # Errors
    /// If there is no such key, or the request cannot be read.
    pub async fn explain(&self, caller: &Caller, input: ExplainInput) -> Result<Explanation> {
        caller.may(Permission::ReadAccounts)?;
        let ExplainInput { key: id, method, url } = input;
        let asked = Asked::read(&method, &url)?;
        let secrets = self.secrets_of(id).await?;
        let key = secrets.into_iter().max_by_key(|key| key.rules().expires.is_none());
        let unknown = || OperationError::Missing(format!("there is no key {id}, or it is revoked"));
        let key = key.ok_or_else(unknown)?;
        Ok(self.decide(&asked, Some(&key)).0)
    }

    /// The secrets of a key that are in the directory, which is what requests are checked against.
    async fn secrets_of(&self, id: KeyId) -> Result<Vec<Arc<Key>>> {
        if let Some(listed) = self.in_force.load().keys.get(&id) {
            return Ok(self.directory.find(&listed.hash).into_iter().collect());
        }
        let row = self.read(move |reader| Ok(reader.key(id)?)).await?;
        let secrets = row.map_or_else(Vec::new, |(row, _)| row.secrets);
        Ok(secrets.iter().filter_map(|secret| self.directory.find(&secret.hash)).collect())
    }

    /// The decisions about a request with a key, or with an unknown one, and the route.
    pub(super) fn decide(&self, asked: &Asked, key: Option<&Key>) -> (Explanation, Option<Arc<Route>>) {
        let (view, mut steps) = (self.snapshot(), Steps::default());
        let Some(route) = explain_route(&view, &mut steps, &asked.method, &asked.uri) else {
            return (steps.finish(&view.dialect), None);
        };
        let dialect = Arc::clone(&route.dialect);
        if route.public {
            steps.pass("key", "the route is public: it needs no key and charges nothing");
            return (steps.finish(&dialect), Some(route));
        }
        let Some(key) = key else {
            steps.refuse("key", Reason::InvalidKey, "the key is unknown");
            return (steps.finish(&dialect), Some(route));
        };
        self.explain_key(&mut steps, key, &route);
        match view.account_status(key.account.num, key.account.stored_plan()) {
            AccountStatus::Served(plan) => {
                self.explain_limits(&mut steps, key, plan, &route, &asked.method);
                explain_price(&view, &mut steps, key, plan, &route);
            }
            AccountStatus::Unknown => {
                steps.refuse("account", Reason::InvalidKey, "the account is not in the file");
            }
        }
        (steps.finish(&dialect), Some(route))
    }

    fn explain_key(&self, steps: &mut Steps, key: &Key, route: &Route) {
        let rules = key.rules();
        let detail = json!({
            "id": key.id,
            "state": state_name(rules.state),
            "expires": rules.expires.map(Time),
        });
        steps.add_check("key", rules.is_usable(self.clock.wall()), Reason::InvalidKey, detail);
        let account = key.account.id.to_string();
        steps.add_check("account", !key.account.is_suspended(), Reason::AccountSuspended, account);
        let scopes = rules.scopes.as_ref().map_or(json!("every route"), |scopes| json!(scopes));
        let is_shadow = rules.scopes.as_ref().is_some_and(|scopes| scopes.shadow);
        let opens = rules.opens(route.name.as_str());
        steps.add_rule("scope", (opens, is_shadow), Reason::RouteForbidden, scopes);
        if let Some(networks) = &rules.allow_from {
            let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
            steps.pass("address", json!({ "only_from": networks }));
        }
    }

    fn explain_limits(
        &self,
        steps: &mut Steps,
        key: &Key,
        plan: Option<&Plan>,
        route: &Route,
        method: &Method,
    ) {
        let limits = limits_of(key.limits().map(|limits| &**limits), plan).chain(&route.limits);
        for limit in limits.filter(|limit| limit.covers(route.name.as_str(), method)) {
            let slots = match limit.scope {
                Scope::Key | Scope::KeyRoute => key.meter().lock().clone(),
                Scope::Account => key.account.meter().lock().clone(),
                Scope::Address => {
                    steps.pass(&format!("limit {}", limit.name), "depends on the client address");
                    continue;
                }
            };
            self.explain_limit(steps, limit, &slots, route);
        }
        if let Some(most) = plan.and_then(|plan| plan.concurrency) {
            let now = key.meter().in_flight();
            let detail = json!({ "at_once": most, "in_flight": now });
            steps.add_check("concurrency", now < most, Reason::ConcurrencyLimited, detail);
        }
        if let (Some(most), true) = (plan.and_then(|plan| plan.jobs), route.price.opens.is_some()) {
            let now = key.account.purse.jobs();
            let detail = json!({ "at_once": most, "open": now });
            steps.add_check("jobs", now < most, Reason::ConcurrencyLimited, detail);
        }
    }

    fn explain_limit(&self, steps: &mut Steps, limit: &Limit, slots: &[LimitSlot], route: &Route) {
        let now = self.clock.now();
        let num = if limit.scope == Scope::KeyRoute { route.num } else { RouteNum(0) };
        let known = slots.iter().find(|slot| slot.limit == limit.id && slot.route == num);
        let counter = known.map_or_else(|| Counter::fresh(limit), |slot| slot.counter.clone());
        let status = counter.peek(limit, now);
        let detail = json!({
            "requests": limit.requests,
            "window_seconds": limit.window.as_secs_f64(),
            "remaining_after": status.remaining,
            "retry_after": (!status.admitted).then(|| status.seconds()),
        });
        let (step, passes) = (format!("limit {}", limit.name), status.admitted);
        steps.add_rule(&step, (passes, limit.shadow), Reason::RateLimited, detail);
    }
}

fn explain_route(view: &Snapshot, steps: &mut Steps, method: &Method, uri: &Uri) -> Option<Arc<Route>> {
    let path = match path::normalise(uri.path(), view.settings.merge_slashes) {
        Ok(path) => path,
        Err(fault) => {
            steps.refuse("path", Reason::BadRequest, fault.to_string());
            return None;
        }
    };
    let foreign = uri.scheme_str().is_some_and(|scheme| scheme != "http");
    if foreign || *method == Method::CONNECT {
        steps.refuse("target", Reason::BadRequest, "only http URLs, and not CONNECT");
        return None;
    }
    if view.settings.account_info.as_deref() == Some(path.as_str()) {
        steps.pass("route", "Tollgate itself responds with the account's balance, for any active key");
        return None;
    }
    let found = view.table.find(uri.host(), path.as_str(), method);
    if path.has_encoded_slash()
        && !matches!(found, Lookup::Route(index) if view.routes[index].encoded_slashes)
    {
        steps.refuse("path", Reason::BadRequest, path::PathFault::EncodedSlash.to_string());
        return None;
    }
    match found {
        Lookup::Nothing => steps.refuse("route", Reason::NoRoute, path.as_str()),
        Lookup::OtherMethods(allow) => {
            steps.refuse("route", Reason::MethodNotAllowed, json!({ "allow": allow }));
        }
        Lookup::Route(index) => {
            let route = &view.routes[index];
            steps.pass("route", json!({ "name": route.name, "path": path.as_str() }));
            if let Err(reason) = view.keys.read(&HeaderMap::new(), uri.query())
                && reason == Reason::KeyInQuery
            {
                steps.refuse("query", reason, reason.message());
            }
            return Some(Arc::clone(route));
        }
    }
    None
}

fn explain_price(view: &Snapshot, steps: &mut Steps, key: &Key, plan: Option<&Plan>, route: &Route) {
    let price = view.price(route, plan);
    if let Some(settles) = &route.settles {
        let detail = json!({ "of_the_job": PriceView::of(&settles.price), "of_the_request": "free" });
        steps.pass("price", detail);
        return;
    }
    if price.is_free() {
        steps.pass("price", "free");
        return;
    }
    steps.pass("price", json!(PriceView::of(price)));
    // The least that a request can hold: it is not known how many items it has.
    let hold = price.per_item.as_ref().map_or(price.hold, |per_item| per_item.each);
    let account = key.account.purse.cap();
    for (capped, cap) in key.caps().all().chain(account.iter().map(|cap| (Capped::Account, cap))) {
        let name = match capped {
            Capped::Key => "spend_limit",
            Capped::Group => "group_spend_limit",
            Capped::Account => "account_spend_limit",
        };
        let detail = json!({ "left": cap.left(), "hold": hold });
        let passes = cap.left() >= hold;
        steps.add_rule(name, (passes, price.shadow), Reason::InsufficientCredits, detail);
    }
    let available = key.account.purse.available();
    let detail = json!({ "available": available, "hold": hold });
    let passes = available >= hold;
    steps.add_rule("balance", (passes, price.shadow), Reason::InsufficientCredits, detail);
}
