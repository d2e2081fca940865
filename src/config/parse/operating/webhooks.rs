//! Parses `[webhooks]`, and the webhooks of accounts.

use http::Uri;
use ipnet::IpNet;

use crate::config::parse::context::{Context, single};
use crate::config::raw;
use crate::config::raw::At;

/// The networks that endpoints may be in although they are not public.
pub(in crate::config::parse) fn allow_private(context: &mut Context, files: &[raw::File]) -> Vec<IpNet> {
    let raw = single(context, files, "webhooks", |file| file.webhooks.as_ref());
    context.networks(&raw.allow_private)
}

/// The URL of an endpoint. Whether it may be reached is decided when its host is resolved.
pub(in crate::config::parse) fn url(context: &mut Context, url: &At<String>) -> Option<String> {
    let valid = url
        .value
        .parse::<Uri>()
        .is_ok_and(|uri| matches!(uri.scheme_str(), Some("https" | "http")) && uri.host().is_some());
    if !valid {
        context.error(&url.span, "a webhook looks like \"https://your-app.example/hooks\"");
    }
    valid.then(|| url.value.clone())
}
