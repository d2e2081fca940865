//! The head that goes upstream, from the one that came.

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Uri, Version};
use http_body::Body;
use memchr::memchr_iter;

use super::body::Inbound;
use super::connection::Connection;
use super::target::{self, Target};
use crate::directory::Key;
use crate::policy::forward::{self, Facts, Framing, HostHeader, Identity};
use crate::policy::price::Price;
use crate::policy::reject::{Reason, Refusal};
use crate::snapshot::{Plan, Route, Snapshot};
use crate::upstream::{Asks, Head, Outgoing};

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
    /// Writes the head, into `bytes` where that is what it becomes, and says what its answer's
    /// framing depends on.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] where the host cannot be named to an upstream that speaks HTTP/2.
    pub(super) fn write(
        &self,
        parts: &Parts,
        body: Option<Inbound>,
        mut bytes: Vec<u8>,
    ) -> Result<(Outgoing<Inbound>, Asks), Refusal> {
        let upstream = &self.route.upstream;
        let mut framing = framing(parts, body.as_ref());
        if upstream.http2 && framing == Framing::Chunked {
            framing = Framing::None; // its frames say where the body ends
        }
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
            upgrade: self.upgrade.filter(|_| !upstream.http2),
            identity_encoding: self.price.reads_body(),
            set_headers: &self.route.set_headers,
        };
        let target = (self.path(), parts.uri.query());
        let asks = Asks { head: parts.method == Method::HEAD, upgrade: facts.upgrade.is_some() };
        if upstream.http2 {
            let head = Head::Http2(http2_head(&parts.method, target, &parts.headers, &facts)?);
            return Ok((Outgoing { head, body }, asks));
        }
        forward::write_head(&mut bytes, &parts.method, target, &parts.headers, &facts);
        let head = Head::Http1 { bytes, chunked: framing == Framing::Chunked };
        Ok((Outgoing { head, body }, asks))
    }

    /// The path in the form that was judged, less the segments of the route's prefix.
    fn path(&self) -> &str {
        let path = self.target.path.as_str();
        let rest = memchr_iter(b'/', path.as_bytes()).nth(self.route.strip_segments);
        rest.map_or("/", |at| &path[at..])
    }
}

/// The head as HTTP/2 has it.
fn http2_head(
    method: &Method,
    (path, query): (&str, Option<&str>),
    headers: &HeaderMap,
    facts: &Facts<'_>,
) -> Result<Request<()>, Refusal> {
    let target = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let uri = Uri::builder().scheme("http").authority(facts.upstream_host.as_bytes()).path_and_query(target);
    let uri =
        uri.build().map_err(|_| Refusal::because(Reason::BadRequest, "The request's Host is malformed."))?;
    let mut request = Request::new(());
    *request.method_mut() = method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    forward::write_fields(request.headers_mut(), headers, facts);
    Ok(request)
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
