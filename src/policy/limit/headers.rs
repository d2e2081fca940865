//! Builds the rate limit headers of responses.

use bytes::{BufMut, BytesMut};
use http::HeaderValue;

use super::definition::{Limit, LimitStatus};
use crate::policy::values::{Values, put_number};
use crate::types::WallTime;

/// The values of `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10); `None` without
/// limits. `t` is in seconds from now, and equals `Retry-After` on a refusal.
#[must_use]
pub fn ietf<'a>(
    limits: impl Iterator<Item = (&'a Limit, LimitStatus)> + Clone,
    values: &mut Values,
) -> Option<(HeaderValue, HeaderValue)> {
    limits.clone().next()?;
    let comma = |out: &mut BytesMut, at: usize| out.put_slice(if at == 0 { b"" } else { b", " });
    let policy = values.written(|out| {
        for (at, (limit, _)) in limits.clone().enumerate() {
            comma(out, at);
            out.put_slice(limit.numbers.policy.as_bytes());
        }
    });
    let rate = values.written(|out| {
        for (at, (limit, status)) in limits.enumerate() {
            comma(out, at);
            out.put_u8(b'"');
            out.put_slice(limit.name.as_bytes());
            out.put_slice(b"\";r=");
            put_number(out, status.remaining.into());
            out.put_slice(b";t=");
            put_number(out, status.seconds());
        }
    });
    Some((policy, rate))
}

/// The values of `X-RateLimit-Limit`, `-Remaining` and `-Reset` (Unix time) for the tightest limit: one that
/// refuses the request, otherwise the one with the fewest requests left. `None` without limits.
#[must_use]
pub fn x_ratelimit<'a>(
    limits: impl Iterator<Item = (&'a Limit, LimitStatus)>,
    now: WallTime,
    values: &mut Values,
) -> Option<[HeaderValue; 3]> {
    let tightness = |(_, status): &(&Limit, LimitStatus)| {
        (status.admitted, status.remaining, std::cmp::Reverse(status.seconds()))
    };
    let (limit, status) = limits.min_by_key(tightness)?;
    let now = u64::try_from(now.0.div_euclid(1000) + 1).unwrap_or(0); // rounded up: never too early
    let mut number = |number: u64| values.written(|out| put_number(out, number));
    Some([number(limit.requests.into()), number(status.remaining.into()), number(now + status.seconds())])
}
