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
    /// What customers can buy.
    pub packages: Named<Package>,
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
