//! Writes the header fields of forwarded requests, and filters those of responses and trailers.

pub mod trace;

use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use memchr::memchr_iter;
use smallvec::SmallVec;

use self::trace::UpstreamTrace;
use super::key::KeySource;
use super::price::readable_encodings;
use crate::types::{AccountId, KeyId};

/// Prefix of the fields that Tollgate sends to upstreams. Fields with this prefix from clients are dropped.
pub const OWN_PREFIX: &str = "x-tollgate-";
/// Sent to the upstream: the account that pays for the request.
pub const ACCOUNT: HeaderName = HeaderName::from_static("x-tollgate-account");
/// Sent to the upstream: the id of the request's key.
pub const KEY: HeaderName = HeaderName::from_static("x-tollgate-key");
/// Sent to the upstream: the name of the account's plan.
pub const PLAN: HeaderName = HeaderName::from_static("x-tollgate-plan");
/// The request's id, sent in every upstream request and every response.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Sent to the client: the buckets that pay for the request.
pub const CREDITS_SPLIT: HeaderName = HeaderName::from_static("x-credits-split");
/// Sent to the client: the credits charged for the request.
pub const CREDITS_USED: HeaderName = HeaderName::from_static("x-credits-used");
/// Sent to the client: the balance less open holds.
pub const CREDITS_REMAINING: HeaderName = HeaderName::from_static("x-credits-remaining");
/// The `Via` entry for messages received with HTTP/1.1 (RFC 9110, section 7.6.3). Every response gets it.
pub const VIA: HeaderValue = HeaderValue::from_static("1.1 tollgate");
/// The `Via` entry for requests received with HTTP/2 (RFC 9110, section 7.6.3).
pub const VIA_HTTP2: HeaderValue = HeaderValue::from_static("2.0 tollgate");

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The `Host` that the upstream receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// The host that the client requested.
    Client,
    /// The address of the upstream server.
    Upstream,
    /// A fixed value from the configuration.
    Fixed(HeaderValue),
}

/// The input for an upstream request head, besides the client's method, target and header fields.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The header field for keys; never forwarded.
    pub key_header: &'a HeaderName,
    /// True if `Authorization` may carry the key; it is not forwarded then.
    pub strip_authorization: bool,
    /// Account, key and plan; `None` if the route is public.
    pub identity: Option<Identity<'a>>,
    /// The request's id.
    pub request_id: &'a HeaderValue,
    /// The peer address of the connection, as text.
    pub peer: &'a str,
    /// True if the client uses TLS.
    pub secure: bool,
    /// True if the client uses HTTP/2.
    pub http2: bool,
    /// True if the peer is a trusted proxy, whose `Forwarded` and `X-Forwarded-*` fields are kept.
    pub trusted: bool,
    /// The host that the client requested.
    pub client_host: Option<&'a HeaderValue>,
    /// The `Host` that the upstream receives.
    pub upstream_host: &'a HeaderValue,
    /// The framing of the request body.
    pub framing: Framing,
    /// The requested upgrade, if it may be forwarded.
    pub upgrade: Option<&'a HeaderValue>,
    /// True if a price is read from the response body, which the upstream may compress only in ways that can be read.
    pub readable_encodings: bool,
    /// The trace context in place of the client's; `None` if the client's is forwarded as it is.
    pub trace: Option<&'a UpstreamTrace>,
    /// Fields that the operator sets: the upstream's, then the route's. They replace all others of the same name.
    pub set_headers: &'a [(HeaderName, HeaderValue)],
}

/// Account, key and plan of a request.
#[derive(Debug)]
pub struct Identity<'a> {
    /// The account's id.
    pub account: &'a AccountId,
    /// The key's id.
    pub key: KeyId,
    /// The plan's name; `None` if the account has no plan.
    pub plan: Option<&'a HeaderValue>,
}

/// The framing of an upstream request body (RFC 9112, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No framing field: there is no body, or HTTP/2 marks its end by END_STREAM.
    None,
    /// `Content-Length`: the body has this many bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// Writes the upstream request head: request line, fields, and the empty line.
pub fn write_head(
    out: &mut Vec<u8>,
    method: &Method,
    (path, query): (&str, Option<&str>),
    headers: &HeaderMap,
    facts: &Facts<'_>,
) {
    put(out, &[method.as_str().as_bytes(), b" ", path.as_bytes()]);
    if let Some(query) = query {
        put(out, &[b"?", query.as_bytes()]);
    }
    put(out, &[b" HTTP/1.1\r\nhost: ", facts.upstream_host.as_bytes(), b"\r\n"]);
    write_fields(out, headers, facts);
    out.extend_from_slice(b"\r\n");
}

/// Writes the upstream request fields, except `Host`.
pub fn write_fields(out: &mut impl Fields, headers: &HeaderMap, facts: &Facts<'_>) {
    let named = named_by_connection(headers);
    for (name, value) in headers {
        if facts.passes(name) && !named.contains(name) {
            out.field(name, &[value.as_bytes()]);
        }
    }
    facts.write_own(out, headers);
    for (at, (name, value)) in facts.set_headers.iter().enumerate() {
        // The route's fields follow the upstream's in the list and replace those of the same name.
        if !facts.set_headers[at + 1..].iter().any(|(later, _)| later == name) {
            out.field(name, &[value.as_bytes()]);
        }
    }
}

/// A destination for header fields: HTTP/1.1 text, or the header map of an HTTP/2 request.
pub trait Fields {
    /// Writes one field. Its value is the concatenation of the parts.
    fn field(&mut self, name: &HeaderName, value: &[&[u8]]);
}

impl Fields for Vec<u8> {
    fn field(&mut self, name: &HeaderName, value: &[&[u8]]) {
        put(self, &[name.as_str().as_bytes(), b": "]);
        put(self, value);
        self.extend_from_slice(b"\r\n");
    }
}

impl Fields for HeaderMap {
    fn field(&mut self, name: &HeaderName, value: &[&[u8]]) {
        // Never fails: every part is from a valid field value, or is text that Tollgate made.
        if let Ok(value) = HeaderValue::from_bytes(&value.concat()) {
            self.append(name, value);
        }
    }
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

impl Facts<'_> {
    fn is_set(&self, name: &HeaderName) -> bool {
        self.set_headers.iter().any(|(set, _)| set == name)
    }

    /// True if a client's field of this name is forwarded as it is.
    fn passes(&self, name: &HeaderName) -> bool {
        let stays = match name.as_str() {
            "host" | "expect" | "content-length" | "x-request-id" | "x-forwarded-for" => false,
            "cookie" => !self.http2,
            "authorization" => !self.strip_authorization,
            "traceparent" => self.trace.is_none(),
            "tracestate" => self.trace.is_none_or(|trace| trace.keeps_state),
            // A part of a document cannot be read.
            "accept-encoding" | "range" | "if-range" => !self.readable_encodings,
            "x-forwarded-proto" | "x-forwarded-host" | "forwarded" => self.trusted,
            text => !is_hop_by_hop(text) && !is_own(text, self.key_header),
        };
        stays && name != self.key_header && !self.is_set(name) && !is_twin_of(name, self.set_headers)
    }

    /// Writes the fields that Tollgate sets, except those that the operator sets.
    fn write_own(&self, out: &mut impl Fields, headers: &HeaderMap) {
        let mut own = |name: &HeaderName, parts: &[&[u8]]| {
            if self.set_headers.is_empty() || !self.is_set(name) {
                out.field(name, parts);
            }
        };
        // An HTTP/2 client may split `Cookie` into several fields; they are joined (RFC 9113, section 8.2.3).
        if self.http2
            && let Some(cookies) = joined_cookies(headers)
        {
            own(&header::COOKIE, &[&cookies]);
        }
        match self.framing {
            Framing::None => {}
            Framing::Length(length) => {
                own(&header::CONTENT_LENGTH, &[itoa::Buffer::new().format(length).as_bytes()]);
            }
            Framing::Chunked => own(&header::TRANSFER_ENCODING, &[b"chunked"]),
        }
        if headers.contains_key(header::TE) && takes_trailers(headers) {
            own(&header::TE, &[b"trailers"]);
        }
        let before = if self.trusted { joined(headers, &FORWARDED_FOR) } else { None };
        match before {
            Some(before) => own(&FORWARDED_FOR, &[before.as_bytes(), b", ", self.peer.as_bytes()]),
            None => own(&FORWARDED_FOR, &[self.peer.as_bytes()]),
        }
        if !self.trusted || !headers.contains_key(FORWARDED_PROTO) {
            own(&FORWARDED_PROTO, &[if self.secure { b"https" } else { b"http" }]);
        }
        if let Some(host) = self.client_host
            && (!self.trusted || !headers.contains_key(FORWARDED_HOST))
        {
            own(&FORWARDED_HOST, &[host.as_bytes()]);
        }
        own(&header::VIA, &[if self.http2 { VIA_HTTP2 } else { VIA }.as_bytes()]);
        own(&REQUEST_ID, &[self.request_id.as_bytes()]);
        if let Some(trace) = self.trace {
            own(&trace::TRACEPARENT, &[trace.context.text().as_bytes()]);
        }
        if let Some(identity) = &self.identity {
            own(&ACCOUNT, &[identity.account.as_str().as_bytes()]);
            own(&KEY, &[&identity.key.to_text()]);
            if let Some(plan) = identity.plan {
                own(&PLAN, &[plan.as_bytes()]);
            }
        }
        if self.readable_encodings {
            own(&header::ACCEPT_ENCODING, &[readable_encodings(headers).as_bytes()]);
        }
        if let Some(upgrade) = self.upgrade {
            own(&header::CONNECTION, &[b"upgrade"]);
            own(&header::UPGRADE, &[upgrade.as_bytes()]);
        }
    }
}

fn joined_cookies(headers: &HeaderMap) -> Option<Vec<u8>> {
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    (!crumbs.is_empty()).then(|| crumbs.join(&b"; "[..]))
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let plain = values.map(|value| value.replace(|c: char| !c.is_ascii_graphic() && c != ' ', "?"));
    let values: Vec<String> = plain.collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// True for hop-by-hop fields (RFC 9110, section 7.6.1).
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Most options in the `Connection` fields of a message.
pub const MAX_CONNECTION_OPTIONS: usize = 64;

/// True if `Connection` has more than [`MAX_CONNECTION_OPTIONS`] options.
#[must_use]
pub fn has_too_many_options(headers: &HeaderMap) -> bool {
    let count = |value: &HeaderValue| 1 + memchr_iter(b',', value.as_bytes()).count();
    headers.get_all(header::CONNECTION).iter().map(count).sum::<usize>() > MAX_CONNECTION_OPTIONS
}

/// The names of fields in this message that `Connection` lists: those are hop-by-hop (RFC 9110, section 7.6.1).
fn named_by_connection(headers: &HeaderMap) -> SmallVec<[HeaderName; 2]> {
    let mut named = SmallVec::new();
    if !headers.contains_key(header::CONNECTION) {
        return named; // the usual case
    }
    let options = headers.get_all(header::CONNECTION).iter();
    let options = options.flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    for option in options.take(MAX_CONNECTION_OPTIONS) {
        let name = HeaderName::from_bytes(option.trim_ascii()).ok();
        named.extend(name.filter(|name| headers.contains_key(name)));
    }
    named
}

/// True if a client must not send this field to the upstream: Tollgate's own names, and names with underscores
/// in place of the hyphens of a protected name, which many servers treat as the same name.
fn is_own(name: &str, key_header: &HeaderName) -> bool {
    if !name.contains('_') {
        return name.starts_with(OWN_PREFIX);
    }
    let twin = name.replace('_', "-");
    twin.starts_with(OWN_PREFIX)
        || twin == key_header.as_str()
        || twin == REQUEST_ID.as_str()
        || twin.starts_with("x-forwarded-")
        || is_hop_by_hop(&twin)
        || matches!(&*twin, "content-length" | "authorization" | "host")
}

/// True if a name equals one of the names in `set` once its underscores are replaced by hyphens.
fn is_twin_of(name: &HeaderName, set: &[(HeaderName, HeaderValue)]) -> bool {
    let name = name.as_str();
    name.contains('_') && {
        let twin = name.replace('_', "-");
        set.iter().any(|(set, _)| set.as_str() == twin)
    }
}

/// Removes from a client's trailers the fields that identify or route a request, that Tollgate or the operator
/// sets, or that are hop-by-hop, since a server may merge trailers into the request head.
pub fn strip_trailers(trailers: &mut HeaderMap, keys: &KeySource, set_headers: &[(HeaderName, HeaderValue)]) {
    let goes = |name: &HeaderName| {
        let text = name.as_str();
        *name == keys.header
            || is_own(text, &keys.header)
            || is_hop_by_hop(text)
            || text.starts_with("x-forwarded-")
            || matches!(text, "authorization" | "forwarded" | "host" | "via" | "x-request-id")
            || set_headers.iter().any(|(set, _)| set == name)
            || is_twin_of(name, set_headers)
    };
    let gone: Vec<HeaderName> = trailers.keys().filter(|name| goes(name)).cloned().collect();
    for name in gone {
        trailers.remove(name);
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

/// The protocol that a request asks to upgrade to; `None` if the upgrade must not be forwarded.
///
/// The request must name exactly one protocol, and `Connection` must list `upgrade`. `h2c` is never forwarded:
/// the client could then send HTTP/2 requests to the upstream that Tollgate does not check.
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

/// Converts the upstream's response headers to those for the client: removes hop-by-hop fields and the
/// upstream's `x-credits-*`, and adds `Via`. `upgrade` keeps the upgraded protocol.
pub fn to_client(headers: &mut HeaderMap, upgrade: bool) {
    let kept = if upgrade { headers.get(header::UPGRADE).cloned() } else { None };
    let named = named_by_connection(headers);
    let goes = |name: &HeaderName| {
        is_hop_by_hop(name.as_str())
            || matches!(name.as_str(), "x-credits-used" | "x-credits-remaining" | "x-credits-split")
            || named.contains(name)
    };
    let gone: Vec<HeaderName> = headers.keys().filter(|name| goes(name)).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
    if let Some(value) = kept {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, value);
    }
    headers.append(header::VIA, VIA);
}

#[cfg(test)]
mod tests;
