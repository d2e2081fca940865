//! The head that goes upstream, from the one that came.

use http::header::{CONTENT_LENGTH, HeaderValue};
use http::request::Parts;
use http::{Method, Version};
use http_body::Body;

use super::body::Inbound;
use super::connection::Connection;
use super::target::{self, Target};
use crate::directory::Key;
use crate::policy::forward::{self, Facts, Framing, HostHeader, Identity};
use crate::policy::price::Price;
use crate::snapshot::{Plan, Route, Snapshot};
use crate::upstream::{Asks, Outgoing};

/// What a request's head is written from.
pub(super) struct Draft<'a> {
    pub(super) view: &'a Snapshot,
    pub(super) connection: &'a Connection,
    pub(super) route: &'a Route,
    pub(super) key: Option<&'a Key>,
    pub(super) plan: Option<&'a Plan>,
    pub(super) price: &'a Price,
    pub(super) target: &'a Target<'a>,
    pub(super) id: &'a HeaderValue,
    pub(super) upgrade: Option<&'a HeaderValue>,
}

impl Draft<'_> {
    /// Writes the head into `head`, which is empty, and says what its answer's framing depends on.
    pub(super) fn write(
        &self,
        parts: &Parts,
        body: Option<Inbound>,
        mut head: Vec<u8>,
    ) -> (Outgoing<Inbound>, Asks) {
        let framing = framing(parts, body.as_ref());
        let upstream = &self.route.upstream;
        let upstream_host = match &upstream.host {
            HostHeader::Client => self.target.host.as_deref().unwrap_or(&upstream.authority),
            HostHeader::Upstream => &upstream.authority,
            HostHeader::Fixed(host) => host,
        };
        let identity = self.key.map(|key| Identity {
            account: &key.account.id,
            key: key.id,
            plan: self.plan.and_then(|plan| plan.header.as_ref()),
        });
        let facts = Facts {
            key_header: &self.view.keys.header,
            strip_authorization: self.view.keys.bearer,
            identity,
            request_id: self.id,
            peer: &self.connection.address,
            secure: self.connection.secure,
            http2: parts.version == Version::HTTP_2,
            trusted: target::is_trusted(self.connection.peer.ip(), &self.view.settings.trusted_proxies),
            client_host: self.target.host.as_deref(),
            upstream_host,
            framing,
            upgrade: self.upgrade,
            identity_encoding: self.price.reads_body(),
            set_headers: &self.route.set_headers,
        };
        let target = (self.path(), parts.uri.query());
        forward::write_head(&mut head, &parts.method, target, &parts.headers, &facts);
        let asks = Asks { head: parts.method == Method::HEAD, upgrade: self.upgrade.is_some() };
        (Outgoing { head, body, chunked: framing == Framing::Chunked }, asks)
    }

    /// The path in the form that was judged, less the route's prefix.
    fn path(&self) -> &str {
        let path = self.target.path.as_str();
        let prefix = self.route.strip_prefix.as_deref().unwrap_or_default();
        match path.strip_prefix(prefix).unwrap_or(path) {
            "" => "/",
            rest => rest,
        }
    }
}

/// As the client framed it: hyper judged that, and so did the head scanner.
fn framing(parts: &Parts, body: Option<&Inbound>) -> Framing {
    match body.map(|body| body.size_hint().exact()) {
        Some(Some(length)) => Framing::Length(length),
        Some(None) => Framing::Chunked,
        None if parts.headers.contains_key(CONTENT_LENGTH) => Framing::Length(0),
        None => Framing::None,
    }
}
