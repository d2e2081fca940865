//! What clients of the API need to know: its address, routes with their prices, and what refusals look like.

use std::sync::Arc;

use crate::control::Control;
use crate::control::operations::error::Result;
use crate::policy::price::{Amount, Charge, Condition, Price};
use crate::policy::reject::{Dialect, Reason, RefusalResponse};
use crate::policy::route::Methods;
use crate::snapshot::{Idempotency, Route};
use crate::types::NameId;

/// The refusals before a route is found.
const EARLY: [Reason; 4] =
    [Reason::BadRequest, Reason::HeaderTooLarge, Reason::NoRoute, Reason::MethodNotAllowed];

/// A route, for clients.
#[derive(Clone, Debug)]
pub struct PublicRoute {
    /// Its name, which scopes refer to.
    pub name: String,
    /// True if it needs no key.
    pub public: bool,
    /// The methods, or `any`.
    pub methods: String,
    /// The path.
    pub path: String,
    /// What it costs, in words.
    pub price: String,
    /// The most that it can cost, if the price is read from the response.
    pub note: Option<String>,
}

/// The refusals of routes with the same dialect.
#[derive(Clone, Debug)]
pub struct Refusals {
    /// The names of the routes; empty for refusals before a route is found.
    pub routes: Vec<String>,
    /// Each reason with its response.
    pub responses: Vec<(Reason, RefusalResponse)>,
}

fn words(price: &Price) -> (String, Option<String>) {
    if price.charges.is_empty() || price.shadow {
        return ("free".to_owned(), None);
    }
    let part = |charge: &Charge| {
        let amount = match &charge.amount {
            Amount::Read(_) => "by the response".to_owned(),
            amount => amount.to_string(),
        };
        let when = |when: &Condition| format!(" where {} is {}", when.source, when.any_of.join(" or "));
        let when: String = charge.when.iter().map(when).collect();
        format!("{amount} for {}{when}", charge.status)
    };
    let parts: Vec<String> = price.charges.iter().map(part).collect();
    let is_read = price.charges.iter().any(|charge| !matches!(charge.amount, Amount::Fixed(_)));
    (parts.join(", "), is_read.then(|| format!("at most {}", price.hold)))
}

fn public(route: &Route, price: &Price) -> PublicRoute {
    let methods = match &route.methods {
        Methods::All => "any".to_owned(),
        Methods::Only(methods) => methods.iter().map(http::Method::as_str).collect::<Vec<_>>().join(", "),
    };
    let (price, note) = words(price);
    let price = if route.public { "free".to_owned() } else { price };
    PublicRoute {
        name: route.name.to_string(),
        public: route.public,
        methods,
        path: route.path.to_string(),
        price,
        note: note.filter(|_| !route.public),
    }
}

impl Control {
    /// The routes with their prices for accounts on a plan.
    #[must_use]
    pub fn priced_routes(&self, plan: Option<&str>) -> Vec<PublicRoute> {
        let view = self.snapshot();
        let plan = plan.and_then(|name| view.plans.get(&NameId::of(name)));
        view.routes.iter().map(|route| public(route, view.price(route, plan))).collect()
    }

    /// The API's base URL, as clients see it.
    ///
    /// # Errors
    /// If the configuration has no dashboard.
    pub fn api_url(&self) -> Result<String> {
        let dashboard = self.dashboard()?;
        let view = self.snapshot();
        let listens = self.people.api_address.get().copied();
        let (address, is_tls) =
            match (listens, view.settings.listen.first(), view.settings.tls_listen.first()) {
                (Some(known), _, _) => known,
                (None, Some(address), _) => (*address, false),
                (None, None, Some(address)) => (*address, true),
                (None, None, None) => return Ok(String::new()),
            };
        let scheme = if is_tls { "https" } else { "http" };
        Ok(dashboard.api_url.clone().unwrap_or_else(|| format!("{scheme}://{address}")))
    }

    /// The header that carries a key.
    #[must_use]
    pub fn key_header(&self) -> String {
        self.snapshot().keys.header.to_string()
    }

    /// True if a key is also taken as a bearer token.
    #[must_use]
    pub fn takes_bearer(&self) -> bool {
        self.snapshot().keys.bearer
    }

    /// The path at which an account's balance can be read with a key.
    #[must_use]
    pub fn account_info_path(&self) -> Option<String> {
        self.snapshot().settings.account_info.clone()
    }

    /// How charged requests may be repeated; `None` if they may not.
    #[must_use]
    pub fn idempotency(&self) -> Option<Idempotency> {
        self.snapshot().settings.idempotency.clone()
    }

    /// What refusals look like, for each dialect of the routes.
    #[must_use]
    pub fn refusal_responses(&self) -> Vec<Refusals> {
        let view = self.snapshot();
        let mut groups: Vec<(Arc<Dialect>, Vec<String>)> = Vec::new();
        for route in &view.routes {
            match groups.iter_mut().find(|(dialect, _)| Arc::ptr_eq(dialect, &route.dialect)) {
                Some((_, names)) => names.push(route.name.to_string()),
                None => groups.push((Arc::clone(&route.dialect), vec![route.name.to_string()])),
            }
        }
        // Before a route is found, the default dialect speaks, whatever the routes' dialects are.
        let is_early = |reason: &Reason| EARLY.contains(reason);
        let opens_jobs = view.routes.iter().any(|route| route.settles.is_some());
        let is_possible = |reason: &Reason| match reason {
            Reason::IdempotencyInProgress | Reason::IdempotencyKeyReused | Reason::ResponseNotKept => {
                view.settings.idempotency.is_some()
            }
            Reason::NoJob => opens_jobs,
            _ => true,
        };
        let responses = |dialect: &Dialect, reasons: Vec<Reason>| {
            reasons.into_iter().map(|reason| (reason, dialect.example(reason))).collect()
        };
        let late = Reason::ALL.into_iter().filter(|reason| !is_early(reason) && is_possible(reason));
        let late: Vec<Reason> = late.collect();
        let early = Refusals { routes: Vec::new(), responses: responses(&view.dialect, EARLY.to_vec()) };
        let of_route = |(dialect, routes): (Arc<Dialect>, Vec<String>)| Refusals {
            responses: responses(&dialect, late.clone()),
            routes,
        };
        groups.into_iter().map(of_route).chain([early]).collect()
    }
}
