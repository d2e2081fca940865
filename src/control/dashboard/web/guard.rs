//! What every response of the dashboard carries, and what no request may pass without.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::control::dashboard::site::Site;

/// Only own files, nothing inline, no frames, forms only to this site (CSP level 3).
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];
/// HTTPS only, for a year (RFC 6797).
const HSTS: &str = "max-age=31536000";

/// Sets the headers that every response of the dashboard has.
fn policy(headers: &mut HeaderMap, is_https: bool) {
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if is_https {
        headers.entry(header::STRICT_TRANSPORT_SECURITY).or_insert(HeaderValue::from_static(HSTS));
    }
}

/// Serves the dashboard where the configuration has one.
pub(in crate::control::dashboard) async fn guard(
    State(site): State<Site>,
    request: Request,
    next: Next,
) -> Response {
    let Ok(is_https) = site.is_https() else {
        return (StatusCode::NOT_FOUND, "there is no dashboard here\n").into_response();
    };
    let mut response = next.run(request).await;
    policy(response.headers_mut(), is_https);
    response
}
