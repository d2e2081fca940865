//! Parses `[limits]`: where the gateways of a fleet count limits together.

use std::time::Duration;

use redis::cluster::ClusterClientBuilder;
use redis::io::tcp::TcpSettings;
use redis::{Client, ClientTlsConfig, IntoConnectionInfo, TlsCertificates};
use sha2::{Digest, Sha256};

use crate::config::parse::context::Context;
use crate::config::parse::tls::{pair, pem};
use crate::config::raw::{self, At, Place};
use crate::policy::limit::Outage;
use crate::snapshot::{LedgerPlace, LimitServers, LimitStorePlace};
use crate::tls;
use crate::types::KeyHash;

/// Default of `prefix`.
const PREFIX: &str = "tollgate";
/// Longest prefix, in bytes.
const MAX_PREFIX: usize = 64;
/// Most servers of a cluster that are listed.
const MAX_SERVERS: usize = 64;
/// How long what is sent to the store may stay unacknowledged.
const MAX_UNACKNOWLEDGED: Duration = Duration::from_secs(2);
const EXAMPLE: &str = "a store looks like \"redis://host\", or \"rediss://user:password@host\" with TLS";

/// Where limits are counted together; `None` if each gateway counts on its own, or after a mistake.
pub(in crate::config::parse) fn build(
    context: &mut Context,
    raw: &raw::LimitStore,
    ledger: &LedgerPlace,
) -> Option<LimitStorePlace> {
    let outage = raw.outage.as_ref().map(|text| outage(context, text)).unwrap_or_default();
    let prefix = prefix(context, raw.prefix.as_ref());
    let Some(store) = &raw.store else {
        for span in [
            raw.outage.as_ref().map(|value| &value.span),
            raw.prefix.as_ref().map(|value| &value.span),
            raw.cluster.as_ref().map(|value| &value.span),
            raw.tls.as_ref().map(|value| &value.span),
        ]
        .into_iter()
        .flatten()
        {
            context.error(span, "`store` is missing beside this");
        }
        return None;
    };
    if !matches!(ledger, LedgerPlace::Postgres(place) if place.node.is_some()) {
        let help = "set `[ledger] url` to a PostgreSQL database and `node`, or leave `[limits] store` out";
        context.error_with(&store.span, "only the gateways of a fleet count limits together", help);
    }
    let (servers, made_from) = servers(context, raw, store)?;
    Some(LimitStorePlace { servers, prefix, outage, made_from })
}

/// What happens to a request while the store does not answer.
pub(in crate::config::parse) fn outage(context: &mut Context, text: &At<String>) -> Outage {
    match text.value.as_str() {
        "local-share" => Outage::LocalShare,
        "open" => Outage::Open,
        "closed" => Outage::Closed,
        _ => {
            context.unknown("outage policy", text, ["local-share", "open", "closed"].into_iter());
            Outage::LocalShare
        }
    }
}

fn prefix(context: &mut Context, raw: Option<&At<String>>) -> String {
    let Some(raw) = raw else { return PREFIX.to_owned() };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if raw.value.is_empty() || raw.value.len() > MAX_PREFIX || !raw.value.chars().all(is_plain) {
        context
            .error(&raw.span, format!("a prefix is 1 to {MAX_PREFIX} letters, digits, `-`, `_`, `.` or `:`"));
    }
    raw.value.clone()
}

fn servers(
    context: &mut Context,
    raw: &raw::LimitStore,
    store: &At<raw::Texts>,
) -> Option<(LimitServers, KeyHash)> {
    let mut made_from = Sha256::new();
    let texts = &store.value.0;
    if texts.is_empty() || texts.len() > MAX_SERVERS {
        context.error(&store.span, format!("1 to {MAX_SERVERS} servers"));
        return None;
    }
    let mut urls = Vec::new();
    for text in texts {
        let place = if texts.len() == 1 { &store.span } else { &text.span };
        let url = context.secret(place, &text.value)?;
        check(context, place, &url)?;
        made_from.update(&url);
        made_from.update([0]);
        urls.push(url);
    }
    let uses_tls = urls[0].starts_with("rediss:");
    let is_cluster = urls.len() > 1 || raw.cluster.as_ref().is_some_and(|cluster| cluster.value);
    made_from.update([u8::from(is_cluster)]);
    if urls.iter().any(|url| url.starts_with("rediss:") != uses_tls) {
        context.error(&store.span, "all servers of a cluster use TLS, or none does");
    }
    let certificates = certificates(context, raw.tls.as_ref(), uses_tls, &mut made_from)?;
    let built = match is_cluster {
        true => {
            let urls = urls.iter().map(String::as_str);
            let mut builder = ClusterClientBuilder::new(urls).tcp_settings(tcp());
            if uses_tls {
                builder = builder.certs(certificates);
            }
            builder.build().map(Box::new).map(LimitServers::Cluster)
        }
        false => urls[0].as_str().into_connection_info().and_then(|server| {
            let server = server.set_tcp_settings(tcp());
            let client = match uses_tls {
                true => Client::build_with_tls(server, certificates),
                false => Client::open(server),
            };
            client.map(Box::new).map(LimitServers::One)
        }),
    };
    let servers = context.check(&store.span, built.map_err(|error| error.to_string()))?;
    Some((servers, KeyHash(made_from.finalize().into())))
}

/// A connection on which nothing arrives is given up.
fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true).set_user_timeout(MAX_UNACKNOWLEDGED)
}

/// Checks a URL, which the error does not show: it may have a password.
fn check(context: &mut Context, place: &Place, url: &str) -> Option<()> {
    if !(url.starts_with("redis://") || url.starts_with("rediss://")) {
        context.error(place, EXAMPLE);
        return None;
    }
    if url.contains('#') {
        let help = "leave out what begins with `#`; certificates are always verified";
        context.error_with(place, "the URL of a store has no fragment", help);
        return None;
    }
    let parsed = url.into_connection_info().map_err(|error| error.to_string());
    context.check(place, parsed).map(|_| ())
}

fn certificates(
    context: &mut Context,
    raw: Option<&At<raw::StoreTls>>,
    uses_tls: bool,
    made_from: &mut Sha256,
) -> Option<TlsCertificates> {
    let none = TlsCertificates { client_tls: None, root_cert: None };
    let Some(At { value: raw::StoreTls { ca, certificate, private_key }, span }) = raw else {
        return Some(none);
    };
    if !uses_tls {
        context.error_with(
            span,
            "the connection to this store uses no TLS",
            "its URL begins with `rediss://`",
        );
        return None;
    }
    let root_cert = match ca {
        None => None,
        Some(ca) => {
            let text = pem(context, made_from, ca)?;
            let read = tls::certificates(&text).map_err(|error| format!("{}: {error}", ca.value));
            context.check(&ca.span, read)?;
            Some(text.into_bytes())
        }
    };
    let client_tls = match (certificate, private_key) {
        (Some(certificate), Some(key)) => {
            pair(context, made_from, certificate, key)?;
            let client_cert = pem(context, made_from, certificate)?.into_bytes();
            Some(ClientTlsConfig { client_cert, client_key: pem(context, made_from, key)?.into_bytes() })
        }
        (None, None) => None,
        (Some(one), None) => {
            context.error(&one.span, "`private_key` is missing beside this");
            return None;
        }
        (None, Some(one)) => {
            context.error(&one.span, "`certificate` is missing beside this");
            return None;
        }
    };
    Some(TlsCertificates { client_tls, root_cert })
}
