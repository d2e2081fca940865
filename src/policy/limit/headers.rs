//! What answers say about limits.

use std::fmt::Write;

use http::HeaderValue;

use super::{Limit, Standing};
use crate::types::WallTime;

/// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10): `t` in seconds
/// from now, equal to `Retry-After` on a refusal.
#[must_use]
pub fn ietf<'a>(limits: impl Iterator<Item = (&'a Limit, Standing)>) -> Option<(HeaderValue, HeaderValue)> {
    let (mut policy, mut rate) = (String::new(), String::new());
    for (limit, standing) in limits {
        let comma = if policy.is_empty() { "" } else { ", " };
        let window = limit.window.as_secs() + u64::from(limit.window.subsec_nanos() > 0);
        let name = &limit.name;
        // Writing to a String cannot fail.
        let _ = write!(policy, "{comma}\"{name}\";q={};w={window}", limit.requests);
        let _ = write!(rate, "{comma}\"{name}\";r={};t={}", standing.remaining, standing.seconds());
    }
    if policy.is_empty() {
        return None;
    }
    HeaderValue::try_from(policy).ok().zip(HeaderValue::try_from(rate).ok())
}

/// `X-RateLimit-Limit`, `-Remaining` and `-Reset` (Unix time) of the tightest limit: a refusing
/// one, else the one with the least left.
#[must_use]
pub fn x_ratelimit<'a>(
    limits: impl Iterator<Item = (&'a Limit, Standing)>,
    now: WallTime,
) -> Option<[HeaderValue; 3]> {
    let tightness = |(_, standing): &(&Limit, Standing)| {
        (standing.admitted, standing.remaining, std::cmp::Reverse(standing.seconds()))
    };
    let (limit, standing) = limits.min_by_key(tightness)?;
    let now = u64::try_from(now.0.div_euclid(1000) + 1).unwrap_or(0); // a begun second counts
    Some([
        HeaderValue::from(limit.requests),
        HeaderValue::from(standing.remaining),
        HeaderValue::from(now + standing.seconds()),
    ])
}
