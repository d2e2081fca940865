//! `[payments]`: how customers pay.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Amount, At, Duration, Maybe, Named, Secret};

/// Services that take customers' money.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Payments {
    /// Stripe.
    pub stripe: Maybe<Stripe>,
}

/// How customers pay by Stripe. Its webhook endpoint is `/payments/stripe` of the dashboard.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stripe {
    /// The secret key, `sk_…` or `rk_…`, or `env:` or `file:`.
    pub secret_key: At<Secret>,
    /// The signing secret of the webhook endpoint, `whsec_…`, or `env:` or `file:`.
    pub webhook_secret: At<Secret>,
    /// The currency of all prices, such as `eur`.
    pub currency: At<String>,
    /// The base URL of Stripe's API.
    #[serde(default)]
    pub url: Maybe<String>,
    /// What customers can buy once, or automatically when the balance is low.
    #[serde(default)]
    pub packages: Named<Package>,
    /// What customers can subscribe to.
    #[serde(default)]
    pub subscriptions: Named<Subscription>,
}

/// Credits that customers can buy.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// The price, such as `"10.00"`.
    pub price: At<String>,
    /// The credits.
    pub credits: At<Amount>,
    /// The name that customers see; the package's name if it is left out.
    #[serde(default)]
    pub title: Maybe<String>,
    /// The bucket that gets the credits.
    #[serde(default)]
    pub bucket: Maybe<String>,
    /// How long after the payment what is left expires; never if it is left out.
    #[serde(default)]
    pub expires: Maybe<Duration>,
}

/// Credits that customers get again and again.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// The price of each period, such as `"49.00"`.
    pub price: At<String>,
    /// The period: `day`, `week`, `month` or `year`.
    pub every: At<String>,
    /// The credits of each period.
    pub credits: At<Amount>,
    /// The name that customers see; the subscription's name if it is left out.
    #[serde(default)]
    pub title: Maybe<String>,
    /// The bucket that gets the credits.
    #[serde(default)]
    pub bucket: Maybe<String>,
    /// True if what is left of a period stays; otherwise it expires a day after the period's end.
    #[serde(default)]
    pub rollover: Maybe<bool>,
}
