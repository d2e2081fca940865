//! Defines plans.

use std::sync::Arc;

use http::HeaderValue;

use crate::policy::credit::SpendLimit;
use crate::policy::credit::refill::Refill;
use crate::policy::limit::Limit;
use crate::policy::price::Price;
use crate::types::NumberMap;

/// A plan: limits and prices that an account can be on.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The plan's name.
    pub name: String,
    /// The plan's name as a header value.
    pub header: Option<HeaderValue>,
    /// Most requests in flight per key; `None` for no limit.
    pub concurrency: Option<u32>,
    /// Most open jobs of an account; `None` for no limit.
    pub jobs: Option<u32>,
    /// Limits of the accounts on the plan, unless a key has its own.
    pub limits: Vec<Limit>,
    /// Credits that the accounts on the plan get again and again.
    pub refill: Option<Arc<Refill>>,
    /// The most that each account on the plan may spend.
    pub spend_limit: Option<SpendLimit>,
    /// The plan's prices of single routes, by the index of the route.
    pub prices: NumberMap<usize, Arc<Price>>,
}

/// The limits of requests with a key: its own in place of the plan's, or together with them if they add to them.
pub fn limits_of<'a>(
    own: Option<&'a [Limit]>,
    plan: Option<&'a Plan>,
) -> impl Iterator<Item = &'a Limit> + Clone {
    let in_place = own.is_some_and(|own| own.first().is_none_or(|limit| !limit.adds));
    let of_plan = plan.filter(|_| !in_place).map(|plan| &*plan.limits);
    own.unwrap_or_default().iter().chain(of_plan.unwrap_or_default())
}
