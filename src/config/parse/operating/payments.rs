//! Parses `[payments]`: how customers pay for credits.

use std::time::Duration;

use http::Uri;

use crate::config::parse::context::{Context, single};
use crate::config::parse::plans::{amount, bucket};
use crate::config::raw::{self, At};
use crate::policy::credit::refill::Every;
use crate::snapshot::dashboard::Dashboard;
use crate::snapshot::payments::{Package, Stripe};
use crate::types::{BucketName, Credits, Currency, Money, Secret};

/// Stripe's API.
const STRIPE: &str = "https://api.stripe.com";
/// Most packages.
const MAX_PACKAGES: usize = 50;
/// Longest title of a package, in characters.
const MAX_TITLE: usize = 60;
/// Longest time after which bought credits expire.
const MAX_EXPIRES: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// When what is left of a period expires after its end: the next one is paid some hours later.
const AFTER_PERIOD: Duration = Duration::from_secs(24 * 3600);

type Buckets = [(BucketName, u32)];

/// How customers pay by Stripe; `None` if no file says so.
pub(in crate::config::parse) fn stripe(
    context: &mut Context,
    files: &[raw::File],
    buckets: &Buckets,
    dashboard: Option<&Dashboard>,
) -> Option<Stripe> {
    let raw = single(context, files, "payments", |file| file.payments.as_ref());
    let At { value: raw, span } = raw.stripe.as_ref()?;
    if dashboard.is_none() {
        let help = "add [dashboard]: customers pay there, and Stripe tells it of payments";
        context.error_with(span, "payments need the dashboard", help);
    }
    let secret_key = secret(context, &raw.secret_key, &["sk_", "rk_"], "a secret key begins with sk_ or rk_");
    let help = "a signing secret begins with whsec_; Stripe shows it with the webhook endpoint";
    let webhook_secret = secret(context, &raw.webhook_secret, &["whsec_"], help);
    let currency =
        Currency::parse(&raw.currency.value).ok_or("a currency has three letters, such as \"eur\"");
    let currency = context.check(&raw.currency.span, currency);
    let url = raw.url.as_ref().map_or_else(|| Some(STRIPE.to_owned()), |url| base_url(context, url));
    let count = raw.packages.len() + raw.subscriptions.len();
    if count == 0 || count > MAX_PACKAGES {
        let help = "such as [payments.stripe.packages.small] with `price` and `credits`";
        context.error_with(span, format!("there are 1 to {MAX_PACKAGES} packages to buy"), help);
    }
    let mut packages = Vec::new();
    for (name, raw) in &raw.packages {
        packages.extend(currency.and_then(|currency| package(context, name, &raw.value, currency, buckets)));
    }
    for (name, raw) in &raw.subscriptions {
        if packages.iter().any(|known| known.name == name.value) {
            context.error(&name.span, format!("there is a package `{}` too", name.value));
        }
        packages
            .extend(currency.and_then(|currency| subscription(context, name, &raw.value, currency, buckets)));
    }
    packages.sort_by(|one, other| (one.price.minor, &one.name).cmp(&(other.price.minor, &other.name)));
    Some(Stripe { secret_key: secret_key?, webhook_secret: webhook_secret?, url: url?, packages })
}

fn secret(
    context: &mut Context,
    raw: &At<raw::Secret>,
    prefixes: &[&str],
    help: &str,
) -> Option<Secret<String>> {
    let text = context.secret(&raw.span, &raw.value.0)?;
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_plain || !prefixes.iter().any(|prefix| text.starts_with(prefix)) {
        context.error_with(&raw.span, "this is no secret of Stripe", help);
        return None;
    }
    Some(Secret::new(text))
}

/// The base of an API: only on this machine without TLS.
fn base_url(context: &mut Context, url: &At<String>) -> Option<String> {
    let text = url.value.trim_end_matches('/');
    let is_local = |host: &str| matches!(host, "127.0.0.1" | "[::1]" | "localhost");
    let is_fit = |uri: &Uri| match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => true,
        (Some("http"), Some(host)) => is_local(host),
        _ => false,
    };
    let parsed = text.parse::<Uri>().ok().filter(|uri| is_fit(uri) && uri.query().is_none());
    context.check(&url.span, parsed.ok_or("this is an https:// URL such as \"https://api.stripe.com\""))?;
    Some(text.to_owned())
}

fn package(
    context: &mut Context,
    name: &At<String>,
    raw: &raw::Package,
    currency: Currency,
    buckets: &Buckets,
) -> Option<Package> {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.value.is_empty() || name.value.len() > 64 || !name.value.bytes().all(is_letter) {
        context.error(&name.span, "a package's name is 1 to 64 of A-Z a-z 0-9 . _ -");
    }
    let price = Money::parse(&raw.price.value, currency).filter(|price| price.minor > 0);
    let price = price.ok_or_else(|| {
        let decimals = currency.decimals();
        format!("a price is a text such as \"10\", more than 0 and with at most {decimals} decimals")
    });
    let price = context.check(&raw.price.span, price);
    let credits = amount(context, &raw.credits).filter(|credits| *credits > Credits::ZERO);
    if credits.is_none() {
        context.error(&raw.credits.span, "a package has more than 0 credits");
    }
    let title = raw.title.as_ref().map_or(&name.value, |title| &title.value);
    if let Some(place) = &raw.title
        && (title.is_empty() || title.chars().count() > MAX_TITLE || title.chars().any(char::is_control))
    {
        context.error(&place.span, format!("a title is 1 to {MAX_TITLE} characters on one line"));
    }
    let bucket = bucket(context, raw.bucket.as_ref(), buckets);
    let expires = raw.expires.as_ref().map(|expires| context.duration(Some(expires), MAX_EXPIRES));
    if let (Some(expires), Some(place)) = (expires, &raw.expires)
        && (expires.is_zero() || expires > MAX_EXPIRES)
    {
        context.error(&place.span, "bought credits expire after 1ms to 3660d");
    }
    let (name, title) = (name.value.clone(), title.clone());
    Some(Package { name, title, price: price?, credits: credits?, bucket: bucket?, expires, every: None })
}

/// A package that is bought again and again.
fn subscription(
    context: &mut Context,
    name: &At<String>,
    raw: &raw::Subscription,
    currency: Currency,
    buckets: &Buckets,
) -> Option<Package> {
    let raw::Subscription { price, every, credits, title, bucket, rollover } = raw.clone();
    let package = raw::Package { price, credits, title, bucket, expires: None };
    let package = self::package(context, name, &package, currency, buckets);
    let known = [Every::Day, Every::Week, Every::Month, Every::Year];
    let found = known.into_iter().find(|known| known.name() == every.value);
    if found.is_none() {
        context.unknown("period", &every, known.into_iter().map(Every::name));
    }
    let expires = (!rollover.is_some_and(|rollover| rollover.value)).then_some(AFTER_PERIOD);
    Some(Package { every: Some(found?), expires, ..package? })
}
