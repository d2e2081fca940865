//! A request as it is sent to the upstream. Its head is rendered once the server and the HTTP version are known.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Uri, Version};
use http_body::Body;
use memchr::memchr_iter;

use super::permit::InFlight;
use super::request_body::{BodyProgress, Replay, RequestBody};
use crate::directory::Key;
use crate::policy::client_address::is_trusted;
use crate::policy::forward::{self, Facts, Framing, HostHeader, Identity};
use crate::policy::upstream::balance::HashBy;
use crate::snapshot::Route;
use crate::upstream::{FramingContext, NextHop, OutgoingRequest, Pool};

/// The connections of a worker to upstreams.
pub(super) type UpstreamPool = Pool<Box<UpstreamRequest>>;

/// The facts from which the upstream request is made.
#[derive(Debug)]
pub(super) struct UpstreamRequest {
    pub(super) request: Rc<InFlight>,
    /// The index of the route that was paid for.
    pub(super) route: usize,
    pub(super) parts: Parts,
    /// The normalised path, if it differs from that of the request's target.
    pub(super) path: Option<String>,
    /// The host that the client requested.
    pub(super) host: Option<HeaderValue>,
    pub(super) key: Option<Arc<Key>>,
    /// The plan's name.
    pub(super) plan: Option<HeaderValue>,
    pub(super) id: HeaderValue,
    pub(super) upgrade_to: Option<HeaderValue>,
    /// The response's body names the charge, so it must not be compressed.
    pub(super) reads_body: bool,
    pub(super) framing: Framing,
    pub(super) body: Option<RequestBody>,
    /// Tells why the body ended early, if it did.
    pub(super) progress: Option<BodyProgress>,
    /// A copy of the body, if the request may be sent again.
    pub(super) replay: Option<Replay>,
}

impl UpstreamRequest {
    fn route(&self) -> &Route {
        &self.request.record.view().routes[self.route]
    }

    fn facts<'a>(&'a self, hop: NextHop<'a>, is_http2: bool) -> Facts<'a> {
        let (view, connection) = (self.request.record.view(), &self.request.stream.connection);
        let route = self.route();
        let upstream_host = match &route.upstream.host {
            HostHeader::Client => self.host.as_ref().unwrap_or(hop.authority),
            HostHeader::Upstream => hop.authority,
            HostHeader::Fixed(host) => host,
        };
        let identity = self.key.as_ref().map(|key| Identity {
            account: &key.account.id,
            key: key.id,
            plan: self.plan.as_ref(),
        });
        Facts {
            key_header: &view.keys.header,
            strip_authorization: view.keys.bearer,
            identity,
            request_id: &self.id,
            peer: &connection.address,
            secure: connection.is_tls,
            http2: self.parts.version == Version::HTTP_2,
            trusted: is_trusted(connection.peer.ip(), &view.settings.trusted_proxies),
            client_host: self.host.as_ref(),
            upstream_host,
            // Over HTTP/2 END_STREAM ends the body.
            framing: if is_http2 && self.framing == Framing::Chunked { Framing::None } else { self.framing },
            upgrade: self.upgrade_to.as_ref().filter(|_| !is_http2),
            readable_encodings: self.reads_body,
            trace: self.request.record.tracing.as_ref().and_then(|tracing| tracing.upstream.as_ref()),
            set_headers: &route.set_headers,
        }
    }

    /// The normalised path without the segments that the route strips.
    fn path(&self) -> &str {
        let path = self.path.as_deref().unwrap_or(self.parts.uri.path());
        let rest = memchr_iter(b'/', path.as_bytes()).nth(self.route().strip_segments);
        rest.map_or("/", |at| &path[at..])
    }
}

impl OutgoingRequest for Box<UpstreamRequest> {
    type Body = RequestBody;

    fn take_body(&mut self) -> Option<RequestBody> {
        let body = self.body.take()?;
        self.progress = body.progress();
        if !self.parts.method.is_idempotent() || self.route().upstream.retries.most == 0 {
            return Some(body);
        }
        let (body, replay) = body.keep();
        self.replay = Some(replay);
        Some(body)
    }

    fn rewind_body(&mut self) -> Option<RequestBody> {
        self.replay.as_ref().and_then(Replay::body)
    }

    fn has_body_failed(&self) -> bool {
        self.progress.as_ref().is_some_and(|progress| progress.fault().is_some())
    }

    fn method(&self) -> &Method {
        &self.parts.method
    }

    fn affinity(&self, by: &HashBy) -> u64 {
        let hasher = BuildHasherDefault::<DefaultHasher>::new(); // its keys are fixed, so that all workers agree
        match (by, &self.key) {
            (HashBy::Header(name), _) => {
                hasher.hash_one(self.parts.headers.get(name).map(HeaderValue::as_bytes))
            }
            (HashBy::Account, Some(key)) => hasher.hash_one(key.account.id.as_str()),
            (HashBy::Key, Some(key)) => hasher.hash_one(key.id),
            (HashBy::Account | HashBy::Key, None) => {
                hasher.hash_one(self.request.stream.connection.peer.ip())
            }
        }
    }

    fn needs_http1(&self) -> bool {
        self.upgrade_to.is_some() && !self.route().upstream.is_http2_only()
    }

    fn framing_context(&self) -> FramingContext {
        FramingContext { is_head: self.parts.method == Method::HEAD, is_upgrade: self.upgrade_to.is_some() }
    }

    fn is_chunked(&self) -> bool {
        self.framing == Framing::Chunked
    }

    fn write_http1(&self, hop: NextHop<'_>, out: &mut Vec<u8>) {
        let target = (self.path(), self.parts.uri.query());
        forward::write_head(out, &self.parts.method, target, &self.parts.headers, &self.facts(hop, false));
    }

    fn http2_head(&self, hop: NextHop<'_>) -> Option<Request<()>> {
        let facts = self.facts(hop, true);
        let path = self.path();
        let target =
            self.parts.uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        let scheme = if hop.is_tls { "https" } else { "http" };
        let uri =
            Uri::builder().scheme(scheme).authority(facts.upstream_host.as_bytes()).path_and_query(target);
        let mut request = Request::new(());
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = uri.build().ok()?;
        *request.version_mut() = Version::HTTP_2;
        forward::write_fields(request.headers_mut(), &self.parts.headers, &facts);
        Some(request)
    }
}

/// The framing of the body, as the client chose it; hyper and the scanner checked it.
pub(super) fn framing(headers: &HeaderMap, body: Option<&RequestBody>) -> Framing {
    match body.map(|body| body.size_hint().exact()) {
        Some(Some(length)) => Framing::Length(length),
        Some(None) => Framing::Chunked,
        None if headers.contains_key(CONTENT_LENGTH) => Framing::Length(0),
        None => Framing::None,
    }
}
