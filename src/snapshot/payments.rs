//! The settings of payments.

use std::time::Duration;

use crate::policy::credit::refill::Every;
use crate::types::{BucketName, Credits, Money, Secret};

/// Credits that customers can buy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// The package's name.
    pub name: String,
    /// The name that customers see.
    pub title: String,
    /// The price.
    pub price: Money,
    /// The credits.
    pub credits: Credits,
    /// The bucket that gets the credits.
    pub bucket: BucketName,
    /// How long after the payment what is left expires; `None` for never. Of a subscription: after the period's end.
    pub expires: Option<Duration>,
    /// How often it is bought again; `None` for once.
    pub every: Option<Every>,
}

/// How customers pay by Stripe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stripe {
    /// The secret key.
    pub secret_key: Secret<String>,
    /// The signing secret of the webhook endpoint.
    pub webhook_secret: Secret<String>,
    /// The base URL of the API, without a slash at its end.
    pub url: String,
    /// What customers can buy and subscribe to, the cheapest first.
    pub packages: Vec<Package>,
}
