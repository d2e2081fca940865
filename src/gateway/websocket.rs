//! WebSockets over HTTP/2 (RFC 8441): to the rest of the gateway, and to the upstream, they are the
//! upgrade that RFC 6455 has.

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
        let detail = "An extended CONNECT is supported for WebSockets only.";
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
        return Err(Refusal::because(Reason::BadRequest, "This endpoint does not accept WebSockets."));
    }
    Ok(())
}

/// What a request's upgrade asks of the upstream's response.
#[derive(Debug, Default)]
pub(super) struct Opening {
    /// It came over HTTP/2, where any 2xx says that the tunnel is open: no other success can be told.
    unfolded: bool,
    /// What `Sec-WebSocket-Accept` must be.
    accept: Option<String>,
}

impl Opening {
    /// Of a request that asks for this upgrade.
    pub(super) fn of(headers: &HeaderMap, upgrade: Option<&HeaderValue>, unfolded: bool) -> Self {
        let is_websocket =
            upgrade.is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket"));
        let key = headers.get(KEY).filter(|_| is_websocket);
        Self { unfolded, accept: key.map(accept) }
    }

    /// Whether a response is one to the request: a switch proves that the upstream read its key (RFC 6455,
    /// section 4.2.2), since a cache or another protocol's server may switch too.
    pub(super) fn is_answered_by(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        match &self.accept {
            Some(accept) if status == StatusCode::SWITCHING_PROTOCOLS => {
                headers.get(ACCEPT).is_some_and(|value| value.as_bytes() == accept.as_bytes())
            }
            _ => !(self.unfolded && status.is_success()),
        }
    }
}

/// The proof that a key was read (RFC 6455, section 4.2.2).
fn accept(key: &HeaderValue) -> String {
    let hash = Sha1::new().chain_update(key.as_bytes()).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(hash.finalize())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_proves_that_the_key_was_read() {
        let headers = |pairs: &[(HeaderName, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
        };
        // RFC 6455, section 1.3.
        let asked = headers(&[(KEY, "dGhlIHNhbXBsZSBub25jZQ==")]);
        let (right, wrong) =
            ([(ACCEPT, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")], [(ACCEPT, "c3pPLMBiTxaQ9kYGzzhZRbK+xOo=")]);
        let (switch, ok) = (StatusCode::SWITCHING_PROTOCOLS, StatusCode::OK);
        let opening = Opening::of(&asked, Some(&WEBSOCKET), false);
        assert!(opening.is_answered_by(switch, &headers(&right)));
        assert!(!opening.is_answered_by(switch, &headers(&wrong)));
        assert!(!opening.is_answered_by(switch, &HeaderMap::new()));
        assert!(opening.is_answered_by(ok, &HeaderMap::new()), "it may decline");
        assert!(!Opening::of(&asked, Some(&WEBSOCKET), true).is_answered_by(ok, &HeaderMap::new()));
        let other = Opening::of(&asked, Some(&HeaderValue::from_static("echo")), false);
        assert!(other.is_answered_by(switch, &HeaderMap::new()), "another protocol");
    }
}
