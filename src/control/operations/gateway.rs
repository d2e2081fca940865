//! Reports and reloads what the gateway runs with.

mod docs;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

pub use docs::{PublicRoute, Refusals};

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::caller::{Caller, Permission};
use super::error::Result;
use super::terms::LimitTerms;
use crate::control::{Control, upstreams};
use crate::policy::price::{Amount, Condition, Price};
use crate::snapshot::{Plan, Route};
use crate::types::Credits;

/// The configuration in force, without anything secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Configuration)]
pub struct ConfigView {
    /// The configuration file.
    pub file: String,
    /// SHA-256 over the file and what it includes.
    pub hash: String,
    /// Warnings about it.
    pub warnings: Vec<String>,
    /// Why the last reload was refused; null if it was not.
    pub last_reload_error: Option<String>,
    /// The routes, in the order of the file.
    pub routes: Vec<RouteView>,
    /// The plans, by name.
    pub plans: Vec<PlanView>,
    /// The upstreams, by name.
    pub upstreams: Vec<String>,
}

/// A route.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Route)]
pub struct RouteView {
    /// The route's name.
    pub name: String,
    /// True if the route needs no key and charges nothing.
    pub public: bool,
    /// The upstream that requests are forwarded to.
    pub upstream: String,
    /// The price for accounts whose plan has no price for this route.
    pub price: PriceView,
    /// Limits that apply only to this route.
    pub limits: Vec<LimitTerms>,
}

/// A price.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Price)]
pub struct PriceView {
    /// The credits that are held when a request is admitted: the most that it can cost.
    #[schema(value_type = f64)]
    pub hold: Credits,
    /// If less is held for requests with fewer items.
    pub per_item: Option<PerItemView>,
    /// What is charged; the first rule that matches.
    pub charge: Vec<ChargeView>,
}

/// A hold for each item of the request.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = PerItem)]
pub struct PerItemView {
    /// The credits for each item.
    #[schema(value_type = f64)]
    pub each: Credits,
    /// Where the JSON array of items is in the request.
    pub of: String,
    /// Most items.
    pub max_items: u32,
}

/// What is charged for a response.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Charge)]
pub struct ChargeView {
    /// The status that the rule is for, such as `2xx` or `404`.
    pub status: String,
    /// What the response must contain too: each source with its value, or several of which it has one.
    pub when: BTreeMap<String, Vec<String>>,
    /// The credits, if they are fixed.
    #[schema(value_type = Option<f64>)]
    pub credits: Option<Credits>,
    /// Where in the response the credits stand, or from what they are computed, otherwise.
    pub from: Option<String>,
}

/// A plan.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Plan)]
pub struct PlanView {
    /// The plan's name.
    pub name: String,
    /// Most requests in flight per key; null for no limit.
    pub concurrency: Option<u32>,
    /// Limits of the accounts on the plan.
    pub limits: Vec<LimitTerms>,
}

/// The result of a reload.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Reloaded {
    /// Always true: a refused configuration is an error.
    pub reloaded: bool,
    /// Warnings about the configuration.
    pub warnings: Vec<String>,
}

impl PriceView {
    pub(super) fn of(price: &Price) -> Self {
        let charge = price.charges.iter().map(|charge| {
            let (credits, from) = match &charge.amount {
                Amount::Fixed(credits) => (Some(*credits), None),
                amount => (None, Some(amount.to_string())),
            };
            let condition = |when: &Condition| (when.source.to_string(), when.any_of.clone());
            let when = charge.when.iter().map(condition).collect();
            ChargeView { status: charge.status.to_string(), when, credits, from }
        });
        let per_item = price.per_item.as_ref().map(|per_item| PerItemView {
            each: per_item.each,
            of: per_item.of.to_string(),
            max_items: per_item.max_items,
        });
        Self { hold: price.hold, per_item, charge: charge.collect() }
    }
}

impl RouteView {
    fn of(route: &Route) -> Self {
        Self {
            name: route.name.to_string(),
            public: route.public,
            upstream: route.upstream.name.clone(),
            price: PriceView::of(&route.price),
            limits: route.limits.iter().map(LimitTerms::of).collect(),
        }
    }
}

impl PlanView {
    fn of(plan: &Plan) -> Self {
        let limits = plan.limits.iter().map(LimitTerms::of).collect();
        Self { name: plan.name.clone(), concurrency: plan.concurrency, limits }
    }
}

impl Control {
    /// The configuration in force.
    ///
    /// # Errors
    /// If the caller may not read it.
    pub fn config(&self, caller: &Caller) -> Result<ConfigView> {
        caller.may(Permission::ReadAll)?;
        let (view, in_force) = (self.snapshot(), self.in_force.load());
        let mut plans: Vec<PlanView> = view.plans.values().map(PlanView::of).collect();
        plans.sort_by(|one, other| one.name.cmp(&other.name));
        let mut upstreams: Vec<String> =
            view.upstreams.iter().map(|upstream| upstream.name.clone()).collect();
        upstreams.sort();
        Ok(ConfigView {
            file: self.path.display().to_string(),
            hash: in_force.hash.to_hex(),
            warnings: in_force.warnings.clone(),
            last_reload_error: self.last_reload_error.lock().clone(),
            routes: view.routes.iter().map(|route| RouteView::of(route)).collect(),
            plans,
            upstreams,
        })
    }

    /// Why the last reload was refused; `None` if it was not.
    #[must_use]
    pub fn last_reload_error(&self) -> Option<String> {
        self.last_reload_error.lock().clone()
    }

    /// What the last change of the configuration changed, without secrets; `None` if there was none since the start.
    ///
    /// # Errors
    /// If the caller may not read it.
    pub fn config_diff(&self, caller: &Caller) -> Result<Option<String>> {
        caller.may(Permission::ReadAll)?;
        Ok(self.in_force.load().diff.as_deref().map(str::to_owned))
    }

    /// Counters, health and upstreams.
    ///
    /// # Errors
    /// If the caller may not read it.
    pub fn status(&self, caller: &Caller) -> Result<Value> {
        caller.may(Permission::ReadAll)?;
        let counters = self.bookkeeper.counters();
        let mut status = self.stats.to_json();
        let more = json!({
            "ledger_healthy": self.bookkeeper.is_healthy(),
            "ledger_commits": counters.commits.load(Ordering::Relaxed),
            "ledger_failures": counters.failures.load(Ordering::Relaxed),
            "keys": self.directory.keys(),
            "accounts": self.directory.accounts(),
            "config": self.path.display().to_string(),
            "config_hash": self.in_force.load().hash.to_hex(),
            "last_reload_error": *self.last_reload_error.lock(),
            "upstreams": upstreams::report(&self.snapshot(), self.clock.now()),
        });
        if let (Value::Object(status), Value::Object(more)) = (&mut status, more) {
            status.extend(more);
        }
        Ok(status)
    }
}
