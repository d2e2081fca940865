//! Checks WebSocket handshakes (RFC 6455), and converts WebSockets over HTTP/2 (RFC 8441) to the upgrade of
//! HTTP/1.1, for the rest of the gateway and for the upstream.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{HeaderName, Method, StatusCode};
use hyper::ext::Protocol;
use sha1::{Digest, Sha1};

use crate::policy::reject::{Reason, Refusal};
use crate::snapshot::Route;

const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// The `Sec-WebSocket-Key` that upstreams get for an extended CONNECT. It only proves that the server speaks
/// WebSocket, and is neither secret nor unique (RFC 6455, section 11.3.1).
const FIXED_KEY: HeaderValue = HeaderValue::from_static("dG9sbGdhdGUtaHR0cC8yLg==");

/// Converts an extended CONNECT into an HTTP/1.1 upgrade. Returns true if the request was an extended CONNECT.
///
/// # Errors
/// [`Reason::BadRequest`] if it requests another protocol than WebSocket.
pub(super) fn convert_connect(parts: &mut Parts) -> Result<bool, Refusal> {
    let Some(protocol) = parts.extensions.get::<Protocol>() else { return Ok(false) };
    if protocol.as_str() != "websocket" {
        let detail = "An extended CONNECT is supported for WebSockets only.";
        return Err(Refusal::because(Reason::BadRequest, detail));
    }
    parts.method = Method::GET;
    parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(UPGRADE, WEBSOCKET);
    parts.headers.insert(KEY, FIXED_KEY);
    Ok(true)
}

/// Checks that the upstream can accept the WebSocket of an extended CONNECT. The gateway opens WebSockets to
/// upstreams over HTTP/1.1 only.
///
/// # Errors
/// [`Reason::BadRequest`], before anything is held for the request.
pub(super) fn check_upstream(is_extended_connect: bool, route: &Route) -> Result<(), Refusal> {
    if is_extended_connect && route.upstream.is_http2_only() {
        return Err(Refusal::because(Reason::BadRequest, "This endpoint does not accept WebSockets."));
    }
    Ok(())
}

/// What the upstream's response to an upgrade must satisfy.
#[derive(Debug, Default)]
pub(super) struct ExpectedUpgrade {
    /// An extended CONNECT, where every 2xx tells the client that the tunnel is open: no other success may be
    /// forwarded.
    is_extended_connect: bool,
    /// The expected `Sec-WebSocket-Accept`.
    accept: Option<String>,
}

impl ExpectedUpgrade {
    /// Creates the expectations for a request with these headers that requests this upgrade.
    pub(super) fn of(headers: &HeaderMap, upgrade: Option<&HeaderValue>, is_extended_connect: bool) -> Self {
        let is_websocket =
            upgrade.is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket"));
        let key = headers.get(KEY).filter(|_| is_websocket);
        Self { is_extended_connect, accept: key.map(accept_value) }
    }

    /// True if a response is valid for the request. A 101 must prove that the upstream read the key (RFC
    /// 6455, section 4.2.2), since a cache or a server of another protocol may respond with 101 too.
    pub(super) fn is_answered_by(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        match &self.accept {
            Some(accept) if status == StatusCode::SWITCHING_PROTOCOLS => {
                headers.get(ACCEPT).is_some_and(|value| value.as_bytes() == accept.as_bytes())
            }
            _ => !(self.is_extended_connect && status.is_success()),
        }
    }
}

/// The `Sec-WebSocket-Accept` of a key (RFC 6455, section 4.2.2).
fn accept_value(key: &HeaderValue) -> String {
    let hash = Sha1::new().chain_update(key.as_bytes()).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(hash.finalize())
}

/// Converts the upstream's 101 into the 200 that accepts an extended CONNECT.
pub(super) fn convert_switch(status: &mut StatusCode, headers: &mut HeaderMap) {
    if *status == StatusCode::SWITCHING_PROTOCOLS {
        *status = StatusCode::OK;
        headers.remove(ACCEPT);
        headers.remove(CONNECTION);
        headers.remove(UPGRADE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_101_proves_that_the_upstream_read_the_key() {
        let headers = |pairs: &[(HeaderName, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
        };
        // RFC 6455, section 1.3.
        let asked = headers(&[(KEY, "dGhlIHNhbXBsZSBub25jZQ==")]);
        let (right, wrong) =
            ([(ACCEPT, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")], [(ACCEPT, "c3pPLMBiTxaQ9kYGzzhZRbK+xOo=")]);
        let (switch, ok) = (StatusCode::SWITCHING_PROTOCOLS, StatusCode::OK);
        let expected = ExpectedUpgrade::of(&asked, Some(&WEBSOCKET), false);
        assert!(expected.is_answered_by(switch, &headers(&right)));
        assert!(!expected.is_answered_by(switch, &headers(&wrong)));
        assert!(!expected.is_answered_by(switch, &HeaderMap::new()));
        assert!(expected.is_answered_by(ok, &HeaderMap::new()), "it may decline");
        assert!(!ExpectedUpgrade::of(&asked, Some(&WEBSOCKET), true).is_answered_by(ok, &HeaderMap::new()));
        let other = ExpectedUpgrade::of(&asked, Some(&HeaderValue::from_static("echo")), false);
        assert!(other.is_answered_by(switch, &HeaderMap::new()), "another protocol");
    }
}
