//! WebSockets over HTTP/2 (RFC 8441): to the rest of the gateway, and to the upstream, they are the
//! upgrade that RFC 6455 has.

use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{HeaderName, Method, StatusCode};
use hyper::ext::Protocol;

use crate::policy::reject::{Reason, Refusal};
use crate::snapshot::Route;

const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// The key that upstreams ask for. It proves to a client that its peer knows WebSocket, which the
/// status does here; there is nothing secret or unique about it (RFC 6455, section 11.3.1).
const ANY_KEY: HeaderValue = HeaderValue::from_static("dG9sbGdhdGUtaHR0cC8yLg==");

/// Turns an extended CONNECT into the upgrade that it stands for; says whether it was one.
///
/// # Errors
/// [`Reason::BadRequest`] where it asks for another protocol.
pub(super) fn unfold(parts: &mut Parts) -> Result<bool, Refusal> {
    let Some(protocol) = parts.extensions.get::<Protocol>() else { return Ok(false) };
    if protocol.as_str() != "websocket" {
        let detail = "An extended CONNECT can only ask for a WebSocket here.";
        return Err(Refusal::because(Reason::BadRequest, detail));
    }
    parts.method = Method::GET;
    parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(UPGRADE, WEBSOCKET);
    parts.headers.insert(KEY, ANY_KEY);
    Ok(true)
}

/// Whether a WebSocket can be opened here at all: an upstream that speaks HTTP/2 is asked for none.
///
/// # Errors
/// [`Reason::BadRequest`], before anything is held for it.
pub(super) fn may_open(unfolded: bool, route: &Route) -> Result<(), Refusal> {
    if unfolded && route.upstream.http2 {
        return Err(Refusal::because(Reason::BadRequest, "This endpoint takes no WebSockets."));
    }
    Ok(())
}

/// Whether an upstream's answer can be told over HTTP/2, where any 2xx says that the tunnel is open.
pub(super) fn can_be_told(status: StatusCode) -> bool {
    !status.is_success()
}

/// Turns the upstream's switch into the answer that opens the tunnel.
pub(super) fn fold(status: &mut StatusCode, headers: &mut HeaderMap) {
    if *status == StatusCode::SWITCHING_PROTOCOLS {
        *status = StatusCode::OK;
        headers.remove(ACCEPT);
        headers.remove(CONNECTION);
        headers.remove(UPGRADE);
    }
}
