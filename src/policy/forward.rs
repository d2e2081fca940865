//! Headers: what goes to the upstream and what comes back.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Headers under this prefix are Tollgate's own; a client's are dropped.
pub const OWN_PREFIX: &str = "x-tollgate-";
/// The account that pays, for the upstream.
pub const ACCOUNT: HeaderName = HeaderName::from_static("x-tollgate-account");
/// The key's id, for the upstream.
pub const KEY: HeaderName = HeaderName::from_static("x-tollgate-key");
/// The account's plan, for the upstream.
pub const PLAN: HeaderName = HeaderName::from_static("x-tollgate-plan");
/// The request's id, on every request and answer.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What was charged.
pub const CREDITS_USED: HeaderName = HeaderName::from_static("x-credits-used");
/// The balance less holds in flight.
pub const CREDITS_REMAINING: HeaderName = HeaderName::from_static("x-credits-remaining");
/// The name in `Via` (RFC 9110, section 7.6.3).
pub const VIA: HeaderValue = HeaderValue::from_static("1.1 tollgate");

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Which host name the upstream sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// The one the client asked for.
    Client,
    /// The server's own address.
    Upstream,
    /// A fixed one.
    Fixed(HeaderValue),
}

/// What Tollgate knows of a request when it rewrites the head.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The header that carried the key; removed.
    pub key_header: &'a HeaderName,
    /// Whether `Authorization` carried it; then removed too.
    pub strip_authorization: bool,
    /// Account, key and plan, where the route asks for a key.
    pub identity: Option<Identity>,
    /// The request's id.
    pub request_id: &'a HeaderValue,
    /// The peer of the connection.
    pub peer: IpAddr,
    /// Whether the peer is a trusted proxy, so that its `X-Forwarded-*` are kept.
    pub trusted: bool,
    /// The host the client asked for.
    pub client_host: Option<HeaderValue>,
    /// The host the upstream is to see.
    pub upstream_host: HeaderValue,
    /// The upgrade that is asked for, if it may be forwarded.
    pub upgrade: Option<HeaderValue>,
    /// Whether a price reads the answer's body.
    pub identity_encoding: bool,
    /// The operator's own headers.
    pub set_headers: &'a [(HeaderName, HeaderValue)],
}

/// Who pays, as header values.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The account's id.
    pub account: HeaderValue,
    /// The key's id.
    pub key: HeaderValue,
    /// The plan's name, where the account is on one.
    pub plan: Option<HeaderValue>,
}

/// Turns a client's headers into those the upstream gets.
pub fn to_upstream(headers: &mut HeaderMap, facts: Facts<'_>) {
    let trailers = takes_trailers(headers);
    strip_hop_by_hop(headers);
    headers.remove(facts.key_header);
    if facts.strip_authorization {
        headers.remove(header::AUTHORIZATION);
    }
    strip_own(headers, facts.key_header);
    headers.remove(header::EXPECT); // answered here, when the upstream side first reads the body
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    forwarded(headers, &facts);
    headers.insert(header::HOST, facts.upstream_host);
    headers.append(header::VIA, VIA);
    headers.insert(REQUEST_ID, facts.request_id.clone());
    if let Some(identity) = facts.identity {
        headers.insert(ACCOUNT, identity.account);
        headers.insert(KEY, identity.key);
        if let Some(plan) = identity.plan {
            headers.insert(PLAN, plan);
        }
    }
    if facts.identity_encoding {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    if let Some(upgrade) = facts.upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, upgrade);
    }
    for (name, value) in facts.set_headers {
        headers.insert(name, value.clone());
    }
}

/// `X-Forwarded-*`: a trusted proxy's list is continued, anybody else's is replaced.
fn forwarded(headers: &mut HeaderMap, facts: &Facts<'_>) {
    let before = if facts.trusted { joined(headers, &FORWARDED_FOR) } else { None };
    let peer = facts.peer.to_canonical();
    let list = before.map_or_else(|| peer.to_string(), |before| format!("{before}, {peer}"));
    if let Ok(value) = HeaderValue::try_from(list) {
        headers.insert(FORWARDED_FOR, value);
    }
    if !facts.trusted || !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if !facts.trusted || !headers.contains_key(FORWARDED_HOST) {
        match &facts.client_host {
            Some(host) => headers.insert(FORWARDED_HOST, host.clone()),
            None => headers.remove(FORWARDED_HOST),
        };
    }
    if !facts.trusted {
        headers.remove(header::FORWARDED);
    }
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let plain = values.map(|value| value.replace(|c: char| !c.is_ascii_graphic() && c != ' ', "?"));
    let values: Vec<String> = plain.collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// Removes what only concerns one connection (RFC 9110, section 7.6.1), and what `Connection` names.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        headers.remove(name);
    }
}

/// Drops what a client sent under Tollgate's names, and look-alikes with underscores, which many
/// servers read as the same name.
fn strip_own(headers: &mut HeaderMap, key_header: &HeaderName) {
    let is_own = |name: &HeaderName| {
        let text = name.as_str();
        if !text.contains('_') {
            return text.starts_with(OWN_PREFIX);
        }
        let twin = text.replace('_', "-");
        twin.starts_with(OWN_PREFIX)
            || twin == key_header.as_str()
            || twin == REQUEST_ID.as_str()
            || twin.starts_with("x-forwarded-")
    };
    let found: Vec<HeaderName> = headers.keys().filter(|name| is_own(name)).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

fn takes_trailers(headers: &HeaderMap) -> bool {
    let is_trailers = |value: &HeaderValue| {
        value
            .to_str()
            .is_ok_and(|text| text.split(',').any(|token| token.trim().eq_ignore_ascii_case("trailers")))
    };
    headers.get_all(header::TE).iter().any(is_trailers)
}

/// The protocol that a request wants to upgrade to, if it may be forwarded.
///
/// One protocol, named by `Connection` too. `h2c` never passes: the upstream would speak HTTP/2
/// to a client whose requests nobody judges.
#[must_use]
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(header::UPGRADE).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    let text = value.to_str().ok()?;
    let named = headers.get_all(header::CONNECTION).iter().any(|connection| {
        connection
            .to_str()
            .is_ok_and(|text| text.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade")))
    });
    let plain = !text.contains(',') && !text.trim().eq_ignore_ascii_case("h2c");
    (named && plain).then(|| value.clone())
}

/// Turns the upstream's headers into those the client gets.
pub fn to_client(headers: &mut HeaderMap, upgrade: bool) {
    let kept = if upgrade { headers.get(header::UPGRADE).cloned() } else { None };
    strip_hop_by_hop(headers);
    if let Some(value) = kept {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, value);
    }
    headers.remove(CREDITS_USED);
    headers.remove(CREDITS_REMAINING);
    headers.append(header::VIA, VIA);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn forwarded_headers(pairs: &[(&'static str, &str)], trusted: bool) -> HeaderMap {
        let mut headers = map(pairs);
        let facts = Facts {
            key_header: &HeaderName::from_static("x-api-key"),
            strip_authorization: false,
            identity: Some(Identity {
                account: HeaderValue::from_static("acme"),
                key: HeaderValue::from_static("key_1"),
                plan: None,
            }),
            request_id: &HeaderValue::from_static("req_1"),
            peer: "::ffff:192.0.2.7".parse().unwrap(),
            trusted,
            client_host: Some(HeaderValue::from_static("api.example.com")),
            upstream_host: HeaderValue::from_static("127.0.0.1:9000"),
            upgrade: None,
            identity_encoding: false,
            set_headers: &[(header::AUTHORIZATION, HeaderValue::from_static("Bearer ours"))],
        };
        to_upstream(&mut headers, facts);
        headers
    }

    #[test]
    fn a_client_cannot_speak_in_tollgates_name() {
        let headers = forwarded_headers(
            &[
                ("x-api-key", "secret"),
                ("x_api_key", "twin"),
                ("x-tollgate-account", "victim"),
                ("x_tollgate_plan", "gold"),
                ("x-tollgate-anything", "1"),
                ("x-request-id", "theirs"),
                ("x-forwarded-for", "203.0.113.1"),
                ("forwarded", "for=203.0.113.1"),
                ("connection", "x-tollgate-account, close, via"),
                ("keep-alive", "5"),
                ("upgrade", "h2c"),
                ("te", "gzip, trailers"),
                ("expect", "100-continue"),
                ("cookie", "kept"),
            ],
            false,
        );
        let expected = map(&[
            ("cookie", "kept"),
            ("te", "trailers"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "api.example.com"),
            ("host", "127.0.0.1:9000"),
            ("via", "1.1 tollgate"),
            ("x-request-id", "req_1"),
            ("x-tollgate-account", "acme"),
            ("x-tollgate-key", "key_1"),
            ("authorization", "Bearer ours"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn a_trusted_proxys_list_is_continued() {
        let sent = [("x-forwarded-for", "203.0.113.1"), ("x-forwarded-proto", "https")];
        let headers = forwarded_headers(&sent, true);
        assert_eq!(headers["x-forwarded-for"], "203.0.113.1, 192.0.2.7");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "api.example.com");
    }

    #[test]
    fn only_one_named_protocol_is_upgraded_to() {
        let table = [
            (&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")][..], true),
            (&[("upgrade", "websocket")], false),
            (&[("connection", "upgrade"), ("upgrade", "h2c")], false),
            (&[("connection", "upgrade"), ("upgrade", "websocket, h2c")], false),
            (&[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")], false),
        ];
        for (headers, expected) in table {
            assert_eq!(upgrade(&map(headers)).is_some(), expected, "{headers:?}");
        }
    }

    #[test]
    fn the_upstream_cannot_speak_of_credits() {
        let mut headers = map(&[("x-credits-used", "9"), ("connection", "x-a"), ("x-a", "1"), ("etag", "e")]);
        to_client(&mut headers, false);
        assert_eq!(headers, map(&[("etag", "e"), ("via", "1.1 tollgate")]));
    }
}
