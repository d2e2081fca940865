//! Builds the request head that is sent to the upstream.

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Uri, Version};
use http_body::Body;
use memchr::memchr_iter;

use super::request_body::RequestBody;
use super::target::Target;
use crate::directory::Key;
use crate::gateway::connection::Connection;
use crate::policy::client_address::is_trusted;
use crate::policy::forward::{self, Facts, Framing, HostHeader, Identity};
use crate::policy::reject::{Reason, Refusal};
use crate::snapshot::{Plan, Route, Snapshot};
use crate::upstream::{FramingContext, OutgoingHead, OutgoingRequest};

/// The facts from which the upstream request head is built.
pub(super) struct UpstreamRequest<'a> {
    pub(super) view: &'a Snapshot,
    pub(super) connection: &'a Connection,
    pub(super) route: &'a Route,
    pub(super) key: Option<&'a Key>,
    pub(super) plan: Option<&'a Plan>,
    pub(super) target: &'a Target<'a>,
    pub(super) id: &'a HeaderValue,
    pub(super) upgrade_to: Option<&'a HeaderValue>,
    /// The response's body names the charge, so it must not be compressed.
    pub(super) reads_body: bool,
}

impl UpstreamRequest<'_> {
    /// Writes the head: for HTTP/1.1 into `bytes`. Also returns the facts that the framing of the response depends on.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] if the host cannot be expressed to an upstream over HTTP/2.
    pub(super) fn write(
        &self,
        parts: &Parts,
        body: Option<RequestBody>,
        mut bytes: Vec<u8>,
    ) -> Result<(OutgoingRequest<RequestBody>, FramingContext), Refusal> {
        let upstream = &self.route.upstream;
        let mut framing = framing(parts, body.as_ref());
        if upstream.http2 && framing == Framing::Chunked {
            framing = Framing::None; // END_STREAM ends the body
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
            secure: self.connection.is_tls,
            http2: parts.version == Version::HTTP_2,
            trusted: is_trusted(self.connection.peer.ip(), &self.view.settings.trusted_proxies),
            client_host: self.target.host.as_deref(),
            upstream_host,
            framing,
            upgrade: self.upgrade_to.filter(|_| !upstream.http2),
            identity_encoding: self.reads_body,
            set_headers: &self.route.set_headers,
        };
        let target = (self.path(), parts.uri.query());
        let framing_context =
            FramingContext { is_head: parts.method == Method::HEAD, is_upgrade: facts.upgrade.is_some() };
        if upstream.http2 {
            let head = http2_head(&parts.method, target, &parts.headers, &facts)?;
            let head = OutgoingHead::Http2(Box::new(head));
            return Ok((OutgoingRequest { head, body }, framing_context));
        }
        forward::write_head(&mut bytes, &parts.method, target, &parts.headers, &facts);
        let head = OutgoingHead::Http1 { bytes, chunked: framing == Framing::Chunked };
        Ok((OutgoingRequest { head, body }, framing_context))
    }

    /// The normalised path without the segments that the route strips.
    fn path(&self) -> &str {
        let path = self.target.path.as_str();
        let rest = memchr_iter(b'/', path.as_bytes()).nth(self.route.strip_segments);
        rest.map_or("/", |at| &path[at..])
    }
}

/// Builds the head for an upstream over HTTP/2.
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

/// The framing of the body, as the client chose it; hyper and the scanner checked it.
fn framing(parts: &Parts, body: Option<&RequestBody>) -> Framing {
    match body.map(|body| body.size_hint().exact()) {
        Some(Some(length)) => Framing::Length(length),
        Some(None) => Framing::Chunked,
        None if parts.headers.contains_key(CONTENT_LENGTH) => Framing::Length(0),
        None => Framing::None,
    }
}
