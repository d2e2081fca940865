//! Computes, step by step, the decisions that the gateway would make about a request, without sending the request.

use http::{HeaderMap, Method, Uri};
use serde_json::{Value, json};

use super::{Control, Failure, refused};
use crate::directory::{Key, LimitSlot};
use crate::policy::limit::{Limit, LimitState, Scope};
use crate::policy::path;
use crate::policy::price::Amount;
use crate::policy::reject::Reason;
use crate::policy::route::Lookup;
use crate::snapshot::{AccountStatus, Plan, Route, Snapshot};
use crate::types::{KeyId, RouteNum};

/// The steps so far, and the reason of the first step that refuses the request.
#[derive(Default)]
struct Steps {
    steps: Vec<Value>,
    refusal: Option<Reason>,
}

impl Steps {
    fn pass(&mut self, step: &str, detail: impl Into<Value>) {
        self.steps.push(json!({ "step": step, "passes": true, "detail": detail.into() }));
    }

    fn refuse(&mut self, step: &str, reason: Reason, detail: impl Into<Value>) {
        self.refusal.get_or_insert(reason);
        self.steps
            .push(json!({ "step": step, "passes": false, "reason": reason.code(), "detail": detail.into() }));
    }

    fn add_check(&mut self, step: &str, passes: bool, reason: Reason, detail: impl Into<Value>) {
        if passes { self.pass(step, detail) } else { self.refuse(step, reason, detail) }
    }

    fn finish(self, dialect: impl Fn(Reason) -> u16) -> Value {
        let refusal = self.refusal;
        json!({
            "steps": self.steps,
            "admitted": refusal.is_none(),
            "reason": refusal.map(Reason::code),
            "status": refusal.map(dialect),
        })
    }
}

impl Control {
    pub(super) async fn explain(&self, id: KeyId, method: &str, url: &str) -> Result<Value, Failure> {
        let view = self.snapshot();
        let fragment = url.contains('#');
        let (Ok(method), Ok(uri), false) =
            (Method::from_bytes(method.as_bytes()), url.parse::<Uri>(), fragment)
        else {
            return refused("explain needs a method and a URL: GET /path, or GET http://host/path");
        };
        let mut steps = Steps::default();
        let default = std::sync::Arc::clone(&view.dialect);
        let Some(route) = explain_route(&view, &mut steps, &method, &uri) else {
            return Ok(steps.finish(|reason| default.template(reason).status.as_u16()));
        };
        let dialect = std::sync::Arc::clone(&route.dialect);
        if route.public {
            steps.pass("key", "the route is public: it needs no key and charges nothing");
            return Ok(steps.finish(|reason| dialect.template(reason).status.as_u16()));
        }
        let secrets = self.secrets_of(id, &*self.state.lock().await).await?;
        let Some(key) = secrets.into_iter().max_by_key(|key| key.rules().expires.is_none()) else {
            return refused(format!("there is no key {id}, or it is revoked"));
        };
        self.explain_key(&mut steps, &key, &route);
        let account_status = view.account_status(key.account.num, key.account.stored_plan());
        let AccountStatus::Served(plan) = account_status else {
            steps.refuse("account", Reason::InvalidKey, "the account is not in the file");
            return Ok(steps.finish(|reason| dialect.template(reason).status.as_u16()));
        };
        self.explain_limits(&mut steps, &key, plan, &route, &method);
        explain_price(&view, &mut steps, &key, plan, &route);
        Ok(steps.finish(|reason| dialect.template(reason).status.as_u16()))
    }

    fn explain_key(&self, steps: &mut Steps, key: &Key, route: &Route) {
        let usable = key.rules().is_usable(self.clock.wall());
        let detail = json!({
            "id": key.id,
            "state": super::publish::state_name(key.rules().state),
            "expires": key.rules().expires.map(super::keys::shown),
        });
        steps.add_check("key", usable, Reason::InvalidKey, detail);
        let account = key.account.id.to_string();
        steps.add_check("account", !key.account.is_suspended(), Reason::AccountSuspended, account);
        let scopes = key.rules().scopes.as_deref().map_or(json!("every route"), |scopes| json!(scopes));
        steps.add_check("scope", key.rules().opens(route.name.as_str()), Reason::RouteForbidden, scopes);
        if let Some(networks) = &key.rules().allow_from {
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
        let own = key
            .limits()
            .map(|limits| &**limits)
            .or_else(|| plan.map(|plan| &*plan.limits))
            .unwrap_or_default();
        for limit in own.iter().chain(&route.limits).filter(|limit| limit.covers(route.name.as_str(), method))
        {
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
    }

    fn explain_limit(&self, steps: &mut Steps, limit: &Limit, slots: &[LimitSlot], route: &Route) {
        let now = self.clock.now();
        let num = if limit.scope == Scope::KeyRoute { route.num } else { RouteNum(0) };
        let known = slots.iter().find(|slot| slot.limit == limit.id && slot.route == num);
        let mut state = known.map_or_else(|| LimitState::fresh(limit), |slot| slot.state.clone());
        state.adapt(limit, now);
        let status = state.peek(limit, now);
        let detail = json!({
            "requests": limit.requests,
            "window_seconds": limit.window.as_secs_f64(),
            "remaining_after": status.remaining,
            "retry_after": (!status.admitted).then(|| status.seconds()),
        });
        steps.add_check(&format!("limit {}", limit.name), status.admitted, Reason::RateLimited, detail);
    }
}

fn explain_route(
    view: &Snapshot,
    steps: &mut Steps,
    method: &Method,
    uri: &Uri,
) -> Option<std::sync::Arc<Route>> {
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
            return Some(std::sync::Arc::clone(route));
        }
    }
    None
}

fn explain_price(view: &Snapshot, steps: &mut Steps, key: &Key, plan: Option<&Plan>, route: &Route) {
    let price = view.price(route, plan);
    if price.is_free() {
        steps.pass("price", "free");
        return;
    }
    let charges = price.charges.iter().map(|charge| match &charge.amount {
        Amount::Fixed(amount) => json!({ "status": charge.status.to_string(), "credits": amount }),
        Amount::Header(name) => {
            json!({ "status": charge.status.to_string(), "from": format!("header:{name}") })
        }
        Amount::Json(pointer) => {
            json!({ "status": charge.status.to_string(), "from": format!("json:{pointer}") })
        }
    });
    let charges: Vec<Value> = charges.collect();
    steps.pass("price", json!({ "hold": price.hold, "charge": charges }));
    let available = key.account.purse.available();
    let detail = json!({ "available": available, "hold": price.hold });
    steps.add_check("balance", available >= price.hold, Reason::InsufficientCredits, detail);
}
