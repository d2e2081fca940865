//! What a configuration decides about requests that were recorded. Two configurations are compared in this way, so that
//! what is not recorded is the same for both: paths, balances, and what limits had counted before.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};

use crate::policy::key::KeyRules;
use crate::policy::limit::{Limit, LimitState, Scope};
use crate::policy::outcome::Outcome;
use crate::policy::price::{AtHead, Note, Price};
use crate::policy::reject::Reason;
use crate::snapshot::{Plan, Route, Snapshot, limits_of};
use crate::telemetry::decisions::RequestDecision;
use crate::types::{AccountNum, Credits, KeyId, Moment, NameId, RouteNum};

/// A key as a configuration knows it.
#[derive(Clone, Debug)]
pub(super) struct KnownKey {
    pub(super) rules: KeyRules,
    pub(super) limits: Option<Arc<[Limit]>>,
    /// The plan of its account, or that it has none; `None` if the account is unknown.
    pub(super) plan: Option<Option<NameId>>,
}

/// What a limit counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Counted {
    Key(KeyId),
    Account(AccountNum),
    Address(IpAddr),
}

/// The rule that refuses a request, and the reason.
pub(super) type Refused = (String, Reason);

/// A configuration, and what its limits have counted so far.
pub(super) struct World {
    snapshot: Arc<Snapshot>,
    /// Routes by their numbers in the ledger.
    routes: HashMap<RouteNum, Arc<Route>>,
    keys: HashMap<KeyId, KnownKey>,
    counted: HashMap<(Counted, NameId, RouteNum), LimitState>,
}

impl World {
    /// `numbers`: the numbers of routes by their names.
    pub(super) fn new(
        snapshot: Arc<Snapshot>,
        numbers: &HashMap<String, RouteNum>,
        keys: HashMap<KeyId, KnownKey>,
    ) -> Self {
        let numbered = |route: &Arc<Route>| Some((*numbers.get(route.name.as_str())?, Arc::clone(route)));
        let routes = snapshot.routes.iter().filter_map(numbered).collect();
        Self { snapshot, routes, keys, counted: HashMap::new() }
    }

    /// Decides about a request: who refuses it, or what it costs.
    pub(super) fn judge(&mut self, request: &RequestDecision) -> Result<Credits, Refused> {
        if let Some(reason) = refused_by_no_rule(request) {
            return Err(("recorded".to_owned(), reason));
        }
        if request.route.0 == 0 {
            return Ok(request.credits); // the gateway itself responded
        }
        let route = self.routes.get(&request.route).ok_or(("route".to_owned(), Reason::NoRoute))?;
        let route = Arc::clone(route);
        let (plan, own) = if route.public { (None, None) } else { self.judge_key(request, &route)? };
        let plan = plan.and_then(|plan| self.snapshot.plans.get(&plan)).cloned();
        self.judge_limits(request, &route, plan.as_ref(), own.as_deref())?;
        let price = Arc::clone(self.snapshot.price(&route, plan.as_ref()));
        if route.public || price.is_free() || price.shadow {
            return Ok(Credits::ZERO);
        }
        match request.outcome {
            Outcome::Refused(reason @ Reason::InsufficientCredits) => Err(("credits".to_owned(), reason)),
            Outcome::Refused(reason @ Reason::ConcurrencyLimited)
                if plan.is_some_and(|plan| plan.concurrency.is_some()) =>
            {
                Err(("concurrency".to_owned(), reason))
            }
            _ => Ok(charge(&price, request)),
        }
    }

    /// Checks the key and its scopes. Returns the plan of its account, and its own limits.
    #[expect(clippy::type_complexity, reason = "two options")]
    fn judge_key(
        &self,
        request: &RequestDecision,
        route: &Route,
    ) -> Result<(Option<NameId>, Option<Arc<[Limit]>>), Refused> {
        let refused = |rule: &str, reason| Err((rule.to_owned(), reason));
        let Some((_, id)) = request.caller else { return refused("key", Reason::MissingKey) };
        let Some(key) = self.keys.get(&id) else { return refused("key", Reason::InvalidKey) };
        if key.rules.expires.is_some_and(|expires| expires <= request.at) {
            return refused("key", Reason::InvalidKey);
        }
        let Some(plan) = key.plan else { return refused("account", Reason::InvalidKey) };
        let address = request.address.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        match key.rules.permit(route.name.as_str(), address) {
            Ok(_) => Ok((plan, key.limits.clone())),
            Err(Reason::AddressForbidden) => refused("address", Reason::AddressForbidden),
            Err(reason) => refused("scope", reason),
        }
    }

    /// Counts a request with all limits that cover it, or with none.
    fn judge_limits(
        &mut self,
        request: &RequestDecision,
        route: &Route,
        plan: Option<&Plan>,
        own: Option<&[Limit]>,
    ) -> Result<(), Refused> {
        let method = request.method.name().and_then(|name| Method::from_bytes(name.as_bytes()).ok());
        let method = method.unwrap_or(Method::TRACE); // which has no name of its own in records
        let limits = limits_of(own, plan).chain(&route.limits);
        let now = Moment(u64::try_from(request.at.0).unwrap_or_default().saturating_mul(1_000_000));
        let mut admitted = Vec::new();
        for limit in limits.filter(|limit| !limit.shadow && limit.covers(route.name.as_str(), &method)) {
            let Some(counted) = counted(limit, request) else { continue };
            let num = if limit.scope == Scope::KeyRoute { request.route } else { RouteNum(0) };
            let place = (counted, limit.id, num);
            let state = self.counted.entry(place).or_insert_with(|| LimitState::fresh(&limit.rate()));
            let status = state.peek(&limit.rate(), now);
            if !status.admitted {
                return Err((format!("limit {}", limit.name), Reason::RateLimited));
            }
            admitted.push((place, status));
        }
        for (place, status) in admitted {
            if let Some(state) = self.counted.get_mut(&place) {
                state.take(&status, now);
            }
        }
        Ok(())
    }
}

/// The reason of a refusal that no rule of a configuration decides.
fn refused_by_no_rule(request: &RequestDecision) -> Option<Reason> {
    let Outcome::Refused(reason) = request.outcome else { return None };
    let by_a_rule = match reason {
        Reason::RouteForbidden
        | Reason::AddressForbidden
        | Reason::ConcurrencyLimited
        | Reason::InsufficientCredits => true,
        Reason::RateLimited => request.limit.is_some(),
        Reason::InvalidKey => request.caller.is_some(),
        _ => false,
    };
    (!by_a_rule).then_some(reason)
}

fn counted(limit: &Limit, request: &RequestDecision) -> Option<Counted> {
    match limit.scope {
        Scope::Key | Scope::KeyRoute => request.caller.map(|(_, key)| Counted::Key(key)),
        Scope::Account => request.caller.map(|(account, _)| Counted::Account(account)),
        Scope::Address => request.address.map(Counted::Address),
    }
}

/// The charge for a recorded response. One that the upstream named is taken as it was, at most the hold.
fn charge(price: &Price, request: &RequestDecision) -> Credits {
    let Ok(status) = StatusCode::from_u16(request.upstream_status) else { return Credits::ZERO };
    match price.at_head(status, &HeaderMap::new(), false) {
        AtHead::Known(charged) if charged.note == Note::Plain => charged.amount,
        _ => request.credits.min(price.hold),
    }
}
