//! Plans and buckets as they are written in the file.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Amount, AmountOr, At, Charge, Limit, Maybe, Named, PerItem};

/// A plan: limits, prices and refills.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    /// Most requests in flight per key.
    pub concurrency: Maybe<u32>,
    /// Limits of the accounts on this plan.
    pub limits: Vec<At<Limit>>,
    /// Prices of single routes, in place of the route's own.
    pub prices: Named<PlanPrice>,
    /// Most open jobs of an account.
    pub jobs: Maybe<u32>,
    /// Credits that its accounts get again and again.
    pub refill: Maybe<Refill>,
    /// The most that each of its accounts may spend: credits, or `{ credits = 100, every = "day" }`.
    pub spend_limit: Maybe<AmountOr<SpendLimit>>,
}

/// The price of a route on a plan. `hold` and `charge` default to the route's.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PlanPrice {
    /// Hold this amount, and charge it on 2xx only; also per item.
    pub credits: Maybe<AmountOr<PerItem>>,
    /// The most a request can cost; also per item.
    pub hold: Maybe<AmountOr<PerItem>>,
    /// The first matching charge counts; without a match the request costs nothing.
    pub charge: Maybe<Vec<At<Charge>>>,
    /// Hold and charge nothing, but count what the price would charge and refuse; default: as the route.
    pub shadow: Maybe<bool>,
}

/// Credits that accounts get again and again.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refill {
    /// The credits.
    pub credits: At<Amount>,
    /// `hour`, `day`, `week`, `month` or `year`, from the day on which the account was created.
    pub every: At<String>,
    /// `reset`: what earlier refills left expires. `add`: they are added to it.
    pub mode: At<String>,
    /// With `reset`: the most of what is left that rolls over; default: 0.
    #[serde(default)]
    pub rollover: Maybe<Amount>,
    /// With `add`: the most that the bucket has after a refill; default: no limit.
    #[serde(default)]
    pub cap: Maybe<Amount>,
    /// The name of a `[buckets.NAME]`; default: the default bucket.
    #[serde(default)]
    pub bucket: Maybe<String>,
    /// The time zone in which days begin, such as `Europe/Paris`; default: `UTC`.
    #[serde(default)]
    pub time_zone: Maybe<String>,
}

/// The most that may be spent in each period.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpendLimit {
    /// The credits.
    pub credits: At<Amount>,
    /// `hour`, `day`, `week`, `month` or `year`, in UTC; default: in all.
    #[serde(default)]
    pub every: Maybe<String>,
}

/// A bucket of credits, such as those of a subscription.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Bucket {
    /// Buckets with a lower number pay first; default: 100. Within a number, what expires sooner pays first.
    pub priority: Maybe<u32>,
}
