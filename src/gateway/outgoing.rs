//! The head that goes upstream, from the one that came.

use http::Uri;
use http::header::HeaderValue;
use http::request::Parts;
use http::uri::PathAndQuery;

use super::connection::Connection;
use super::respond::header;
use super::target::{self, Target};
use crate::directory::Key;
use crate::policy::forward::{self, Facts, HostHeader, Identity};
use crate::policy::price::Price;
use crate::policy::reject::{Reason, Refusal};
use crate::snapshot::{Plan, Route, Snapshot};

/// What a request's head is rewritten from.
pub(super) struct Outgoing<'a> {
    pub(super) view: &'a Snapshot,
    pub(super) connection: &'a Connection,
    pub(super) route: &'a Route,
    pub(super) key: Option<&'a Key>,
    pub(super) plan: Option<&'a Plan>,
    pub(super) price: &'a Price,
    pub(super) target: &'a Target,
}

impl Outgoing<'_> {
    /// Turns the client's head into the one that goes upstream.
    pub(super) fn rewrite(
        &self,
        parts: &mut Parts,
        id: &HeaderValue,
        upgrade: Option<HeaderValue>,
    ) -> Result<(), Refusal> {
        let client_host = self.target.host.clone();
        let upstream = &self.route.upstream;
        let upstream_host = match &upstream.host {
            HostHeader::Client => client_host.clone().unwrap_or_else(|| upstream.authority.clone()),
            HostHeader::Upstream => upstream.authority.clone(),
            HostHeader::Fixed(host) => host.clone(),
        };
        let identity = self.key.map(|key| Identity {
            account: header(&key.account.id),
            key: header(&key.id),
            plan: self.plan.and_then(|plan| plan.header.clone()),
        });
        let peer = self.connection.peer.ip();
        let facts = Facts {
            key_header: &self.view.keys.header,
            strip_authorization: self.view.keys.bearer,
            identity,
            request_id: id,
            peer,
            trusted: target::is_trusted(peer, &self.view.settings.trusted_proxies),
            client_host,
            upstream_host,
            upgrade,
            identity_encoding: self.price.reads_body(),
            set_headers: &self.route.set_headers,
        };
        forward::to_upstream(&mut parts.headers, facts);
        parts.uri = self.uri(parts.uri.query())?;
        parts.version = http::Version::HTTP_11;
        parts.extensions.clear();
        Ok(())
    }

    /// The path in the form that was judged, less the route's prefix, and the query as it came.
    fn uri(&self, query: Option<&str>) -> Result<Uri, Refusal> {
        let path = &*self.target.path;
        let prefix = self.route.strip_prefix.as_deref().unwrap_or_default();
        let path = match path.strip_prefix(prefix).unwrap_or(path) {
            "" => "/",
            rest => rest,
        };
        let text = match query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        let path = PathAndQuery::try_from(text).map_err(|_| Reason::BadRequest)?;
        Ok(Uri::from(path))
    }
}
