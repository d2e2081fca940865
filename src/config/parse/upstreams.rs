//! Parses `[upstreams]`: the servers that requests are forwarded to.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use super::client_tls;
use super::context::{Context, named};
use super::upstream_health;
use crate::config::raw::{self, At, Http2, UpstreamServer};
use crate::policy::forward::HostHeader;
use crate::policy::upstream::balance::{Balance, HashBy};
use crate::servers::{Host, HttpVersions, Origin, ServerGroup};
use crate::snapshot::{QueueLimits, Upstream};
use crate::tls::client::ClientTls;

/// Most servers of an upstream.
const MAX_SERVERS: usize = 256;
/// Largest weight of a server.
const MAX_WEIGHT: u32 = 1000;

/// An upstream, and the settings that its routes use as defaults.
pub(super) struct BuiltUpstreams {
    pub(super) upstream: Arc<Upstream>,
    pub(super) response_timeout: Duration,
    pub(super) set_headers: Vec<(HeaderName, HeaderValue)>,
}

pub(super) fn build(context: &mut Context, files: &[raw::File]) -> HashMap<String, Option<BuiltUpstreams>> {
    let mut upstreams = HashMap::new();
    for (name, upstream) in named(context, files, "upstream", |file| &file.upstreams) {
        context.file = upstream.file;
        let built = one(context, &name.value, &upstream.item.value);
        upstreams.insert(name.value.clone(), built);
    }
    upstreams
}

fn one(context: &mut Context, name: &str, raw: &raw::Upstream) -> Option<BuiltUpstreams> {
    let connect_timeout = context.duration(raw.connect_timeout.as_ref(), Duration::from_secs(2));
    let response_timeout = context.duration(raw.response_timeout.as_ref(), Duration::from_secs(60));
    let body_timeout = context.duration_or_none(raw.body_timeout.as_ref(), Duration::from_secs(60));
    let resolve_every = context.duration(raw.resolve_every.as_ref(), Duration::from_secs(30));
    let slow_start = context.duration_or_none(raw.slow_start.as_ref(), Duration::from_secs(10));
    let host = host(context, raw.host.as_ref());
    let set_headers = context.set_headers(&raw.set_headers);
    let balance = balance(context, raw);
    let queue = queue(context, raw.queue.as_ref());
    let origins = origins(context, raw)?;
    let upstream = Upstream {
        name: name.to_owned(),
        origins,
        servers: Arc::new(ServerGroup::new(name)),
        balance: balance?,
        max_requests: raw.max_requests.as_ref().map_or(0, |most| most.value),
        queue,
        health: upstream_health::health(context, raw.health.as_ref()),
        ejection: upstream_health::ejection(context, raw.ejection.as_ref()),
        slow_start: slow_start.unwrap_or_default(),
        retries: upstream_health::retries(context, raw.retries.as_ref()),
        resolve_every,
        connect_timeout,
        body_timeout,
        host,
    };
    Some(BuiltUpstreams { upstream: Arc::new(upstream), response_timeout, set_headers })
}

fn balance(context: &mut Context, raw: &raw::Upstream) -> Option<Balance> {
    let word = raw.balance.as_ref().map_or("least-requests", |word| word.value.as_str());
    if let (Some(hash), true) = (&raw.hash, word != "hash") {
        context.error(&hash.span, "`hash` needs `balance = \"hash\"` beside it");
    }
    match (word, &raw.balance, &raw.hash) {
        ("least-requests", ..) => Some(Balance::LeastRequests),
        ("round-robin", ..) => Some(Balance::RoundRobin),
        ("hash", Some(word), None) => {
            context.error_with(&word.span, "`hash` is missing beside this", "account, key or header:NAME");
            None
        }
        ("hash", _, Some(by)) => match by.value.as_str() {
            "account" => Some(Balance::Hash(HashBy::Account)),
            "key" => Some(Balance::Hash(HashBy::Key)),
            text => match text.strip_prefix("header:") {
                Some(name) => {
                    let name = context.header_name(&by.span, name)?;
                    Some(Balance::Hash(HashBy::Header(name)))
                }
                None => {
                    context.unknown("hash", by, ["account", "key", "header:NAME"].into_iter());
                    None
                }
            },
        },
        (_, Some(word), _) => {
            context.unknown("balance", word, ["least-requests", "round-robin", "hash"].into_iter());
            None
        }
        (_, None, _) => None, // the default is known
    }
}

fn queue(context: &mut Context, raw: Option<&At<raw::Queue>>) -> QueueLimits {
    let queue = raw.map(|queue| &queue.value);
    let most = queue.and_then(|queue| queue.most.as_ref()).map_or(1000, |most| most.value);
    let time = context.duration(queue.and_then(|queue| queue.time.as_ref()), Duration::from_secs(5));
    QueueLimits { most: usize::try_from(most).unwrap_or(usize::MAX), time }
}

/// The servers, each with its weight.
fn origins(context: &mut Context, raw: &raw::Upstream) -> Option<Vec<(Arc<Origin>, u32)>> {
    let list = &raw.servers.value;
    if list.is_empty() {
        context.error(&raw.servers.span, "an upstream needs a server");
    }
    if list.len() > MAX_SERVERS {
        context.error(&raw.servers.span, format!("at most {MAX_SERVERS} servers"));
        return None;
    }
    let addresses: Vec<_> = list.iter().map(|server| address(context, server)).collect();
    let of_tls = addresses.iter().flatten().any(|address| address.scheme == Scheme::Https);
    let is_known = addresses.iter().all(Option::is_some);
    let versions = versions(context, raw.http2.as_ref(), of_tls || !is_known);
    let tls = match (&raw.tls, of_tls) {
        (Some(tls), false) if is_known => {
            context.error(&tls.span, "`tls` is for servers with https://");
            None
        }
        (tls, true) => Some(client_tls::build(context, tls.as_ref(), &raw.servers.span)?),
        (_, false) => None,
    };
    let mut origins: Vec<(Arc<Origin>, u32)> = Vec::new();
    for (server, address) in list.iter().zip(addresses) {
        let origin = address?.origin(versions, tls.as_ref());
        if origins.iter().any(|(other, _)| other.is_same(&origin)) {
            context.error(&server.span, "this server is listed twice");
        }
        origins.push((Arc::new(origin), weight(context, server)));
    }
    let only_http2 = |(origin, _): &&(Arc<Origin>, u32)| origin.versions == HttpVersions::Http2;
    if origins.iter().any(|origin| only_http2(&origin)) && !origins.iter().all(|origin| only_http2(&origin)) {
        let help = "make two upstreams of them";
        context.error_with(
            &raw.servers.span,
            "some of these servers speak HTTP/2 only, and others do not",
            help,
        );
    }
    (!origins.is_empty()).then_some(origins)
}

fn weight(context: &mut Context, server: &At<UpstreamServer>) -> u32 {
    let Some(weight) = &server.value.weight else { return 1 };
    if !(1..=MAX_WEIGHT).contains(&weight.value) {
        context.error(&weight.span, format!("a weight is from 1 to {MAX_WEIGHT}"));
    }
    weight.value
}

/// The HTTP versions of servers with TLS.
fn versions(context: &mut Context, raw: Option<&At<Http2>>, may_use_tls: bool) -> HttpVersions {
    let Some(raw) = raw else { return HttpVersions::Negotiated };
    if !may_use_tls {
        let help = "without TLS, h2c:// in the server's URL says so";
        context.error_with(&raw.span, "`http2` is for servers with https://", help);
    }
    match &raw.value {
        Http2::Word(word) if word == "auto" => HttpVersions::Negotiated,
        Http2::Word(_) => {
            context.error(&raw.span, "`http2` is \"auto\", true or false");
            HttpVersions::Negotiated
        }
        Http2::Flag(true) => HttpVersions::Http2,
        Http2::Flag(false) => HttpVersions::Http1,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
    H2c,
}

struct Address {
    scheme: Scheme,
    url: String,
    host: Host,
    port: u16,
    authority: HeaderValue,
}

impl Address {
    fn origin(self, versions: HttpVersions, tls: Option<&ClientTls>) -> Origin {
        let Self { scheme, url, host, port, authority } = self;
        let (versions, tls) = match scheme {
            Scheme::Http => (HttpVersions::Http1, None),
            Scheme::H2c => (HttpVersions::Http2, None),
            Scheme::Https => (versions, tls.cloned()),
        };
        Origin { url, host, port, authority, versions, tls }
    }
}

fn address(context: &mut Context, server: &At<UpstreamServer>) -> Option<Address> {
    let wrong = "a server looks like \"https://api.internal\" or \"http://127.0.0.1:9000\", or \"h2c://127.0.0.1:9000\" if it speaks HTTP/2 without TLS";
    let text = &server.value.url;
    let uri: Uri = context.check(&server.span, text.parse::<Uri>().map_err(|_| wrong))?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
    let bare = matches!(uri.path(), "" | "/") && uri.query().is_none() && !text.ends_with('/');
    let scheme = match uri.scheme_str() {
        Some("http") => Some(Scheme::Http),
        Some("https") => Some(Scheme::Https),
        Some("h2c") => Some(Scheme::H2c),
        _ => None,
    };
    let (Some(scheme), Some(authority), true) = (scheme, authority, bare) else {
        context.error(&server.span, wrong);
        return None;
    };
    let port = authority.port_u16().unwrap_or(if scheme == Scheme::Https { 443 } else { 80 });
    if port == 0 {
        context.error(&server.span, "port 0 cannot be connected to");
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let host = host.parse::<IpAddr>().map_or_else(|_| Host::Name(host.to_ascii_lowercase()), Host::Address);
    let url = format!(
        "{}://{}:{port}",
        uri.scheme_str().unwrap_or_default(),
        authority.host().to_ascii_lowercase()
    );
    let authority = context.header_value(&server.span, authority.as_str())?;
    Some(Address { scheme, url, host, port, authority })
}

fn host(context: &mut Context, value: Option<&At<String>>) -> HostHeader {
    match value.map(|value| (value, value.value.as_str())) {
        None | Some((_, "client")) => HostHeader::Client,
        Some((_, "upstream")) => HostHeader::Upstream,
        Some((value, name)) => {
            let valid =
                name.parse::<http::uri::Authority>().map_err(|_| "`client`, `upstream` or a host name");
            let valid = context.check(&value.span, valid).is_some();
            let fixed = context.header_value(&value.span, name).filter(|_| valid);
            fixed.map_or(HostHeader::Client, HostHeader::Fixed)
        }
    }
}
