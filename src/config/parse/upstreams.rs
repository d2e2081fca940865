//! Parses `[upstreams]`: the servers that requests are forwarded to.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri, header};

use super::context::{Context, named};
use crate::config::raw::{self, At, Secret};
use crate::policy::forward::{self, HostHeader};
use crate::snapshot::Upstream;
use crate::types::NameId;

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
    let host = host(context, raw.host.as_ref());
    let set_headers = set_headers(context, &raw.set_headers);
    let [server] = &*raw.servers.value else {
        let several = raw.servers.value.len() > 1;
        let message =
            if several { "several servers are not supported yet" } else { "an upstream needs a server" };
        context.error(&raw.servers.span, message);
        return None;
    };
    let Address { server, authority, http2 } = address(context, server)?;
    let id = NameId::of(&format!("{}:{}{}", server.0, server.1, if http2 { " h2c" } else { "" }));
    let upstream = Upstream { name: name.to_owned(), id, server, http2, authority, connect_timeout, host };
    Some(BuiltUpstreams { upstream: Arc::new(upstream), response_timeout, set_headers })
}

struct Address {
    server: (String, u16),
    authority: HeaderValue,
    http2: bool,
}

fn address(context: &mut Context, text: &At<String>) -> Option<Address> {
    let wrong =
        "a server looks like \"http://127.0.0.1:9000\", or \"h2c://127.0.0.1:9000\" if it speaks HTTP/2";
    let uri: Uri = context.check(&text.span, text.value.parse::<Uri>().map_err(|_| wrong))?;
    if uri.scheme_str() == Some("https") {
        context.error(&text.span, "TLS to an upstream is not supported yet");
        return None;
    }
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
    let bare = matches!(uri.path(), "" | "/") && uri.query().is_none() && !text.value.ends_with('/');
    let http2 = uri.scheme_str() == Some("h2c");
    let (Some("http" | "h2c"), Some(authority), true) = (uri.scheme_str(), authority, bare) else {
        context.error(&text.span, wrong);
        return None;
    };
    let port = authority.port_u16().unwrap_or(80);
    if port == 0 {
        context.error(&text.span, "port 0 cannot be connected to");
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let authority = context.header_value(&text.span, authority.as_str())?;
    Some(Address { server: (host, port), authority, http2 })
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

/// Parses the headers that the operator sets on requests. Reserved are headers that frame or route a
/// message, and headers in which Tollgate identifies the request and the client to the upstream.
pub(super) fn set_headers(
    context: &mut Context,
    raw: &BTreeMap<At<String>, At<Secret>>,
) -> Vec<(HeaderName, HeaderValue)> {
    let reserved = [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::HOST,
        header::UPGRADE,
        header::TE,
        forward::REQUEST_ID,
        HeaderName::from_static("x-forwarded-for"),
    ];
    let mut headers = Vec::new();
    for (name, value) in raw {
        let Some(parsed) = context.header_name(&name.span, &name.value) else { continue };
        if reserved.contains(&parsed) || parsed.as_str().starts_with(forward::OWN_PREFIX) {
            let help = if parsed == header::HOST { "use `host` of the upstream" } else { "Tollgate sets it" };
            context.error_with(&name.span, format!("`{parsed}` cannot be set here"), help);
            continue;
        }
        let Some(text) = context.secret(&value.span, &value.value.0) else { continue };
        if let Some(mut value) = context.header_value(&value.span, &text) {
            value.set_sensitive(true);
            headers.push((parsed, value));
        }
    }
    headers
}
