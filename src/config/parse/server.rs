//! Parses `[server]`, `[admin]`, `[ledger]`, `[auth]`, `[account_info]`, `[response_headers]`, `[log]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::HeaderName;

use super::context::{Context, single};
use super::operating::{admin, idempotency, ledger, limit_store, traces, usage, webhooks};
use super::tls;
use super::values::{address, listen};
use crate::config::raw::{self, At, Place};
use crate::policy::key::KeySource;
use crate::snapshot::{LogSettings, Settings};

/// Most worker threads.
const MAX_THREADS: u32 = 1024;
/// Largest `max_connections`.
const MAX_CONNECTIONS: u32 = 10_000_000;
/// Default of `failed_keys_per_minute`. Even 1,000 attempts a second cannot guess a random key, and
/// a client that keeps sending an old key does not lock out other clients behind the same address.
const FAILED_KEYS: u32 = 60_000;
/// Bounds of `max_header_size`, in bytes.
const HEADER_SIZE: (u64, u64) = (1024, 1024 * 1024);
/// Bounds of `max_body_size`, in bytes.
pub(super) const BODY_SIZE: (u64, u64) = (0, 1 << 50);

const KIB: u64 = 1024;

pub(super) struct ParsedServer {
    pub(super) settings: Settings,
    pub(super) keys: KeySource,
    pub(super) max_body_size: u64,
}

pub(super) fn build(context: &mut Context, files: &[raw::File]) -> ParsedServer {
    let ledger = single(context, files, "ledger", |file| file.ledger.as_ref());
    let (commit_delay, requests_kept) = ledger::times(context, &ledger);
    let ledger = ledger::place(context, &ledger);
    let limits = single(context, files, "limits", |file| file.limits.as_ref());
    let limit_store = limit_store::build(context, &limits, &ledger).map(Box::new);
    let log = single(context, files, "log", |file| file.log.as_ref());
    let log = log_settings(context, &log);
    let admin = single(context, files, "admin", |file| file.admin.as_ref());
    let admin_listen = admin.listen.as_ref().and_then(|listen| address(context, listen));
    let (admin_token, admin_open) = admin::build(context, &admin);
    let auth = single(context, files, "auth", |file| file.auth.as_ref());
    let keys = key_source(context, &auth);
    let key_prefix = key_prefix(context, auth.key_prefix.as_ref());
    let account_info = account_info(context, files);
    let headers = single(context, files, "response_headers", |file| file.response_headers.as_ref());
    let (ietf_headers, x_ratelimit_headers) = rate_limit_headers(context, headers.rate_limit.as_ref());
    let server = single(context, files, "server", |file| file.server.as_ref());
    let tls = tls::build(context, server.tls.as_ref());
    let (plain, secure) = listeners(context, &server, tls.as_ref());
    let seconds = Duration::from_secs;
    let (drain_timeout, stream_drain_timeout) = drain_timeouts(context, &server);
    let settings = Settings {
        listen: plain,
        tls_listen: secure,
        tls: tls.and_then(|tls| tls.tls),
        threads: threads(context, server.threads.as_ref()),
        max_connections: max_connections(context, server.max_connections.as_ref()),
        header_timeout: context.duration(server.header_timeout.as_ref(), seconds(10)),
        idle_timeout: context.duration(server.idle_timeout.as_ref(), seconds(60)),
        max_header_size: usize::try_from(context.size(
            server.max_header_size.as_ref(),
            32 * KIB,
            HEADER_SIZE,
        ))
        .unwrap_or(usize::MAX),
        drain_timeout,
        stream_drain_timeout,
        merge_slashes: server.merge_slashes.as_ref().is_some_and(|merge| merge.value),
        trusted_proxies: context.networks(&server.trusted_proxies),
        proxy_protocol: proxy_protocol(context, &server),
        half_close: server.half_close.as_ref().is_some_and(|half_close| half_close.value),
        admin_listen: admin_listen.unwrap_or_else(|| loopback(8081)),
        admin_token,
        admin_open,
        ledger,
        limit_store,
        commit_delay,
        requests_kept,
        key_prefix,
        failed_keys_per_minute: auth.failed_keys_per_minute.map_or(FAILED_KEYS, |most| most.value),
        account_info,
        ietf_headers,
        x_ratelimit_headers,
        credit_headers: headers.credits.as_ref().is_none_or(|credits| credits.value),
        proxy_status: headers.proxy_status.as_ref().is_some_and(|on| on.value),
        log,
        usage_kept: usage::build(context, files),
        webhooks_allow_private: webhooks::allow_private(context, files),
        dashboard: None, // built once the plans are known
        stripe: None,    // built once the buckets are known
        traces: traces::build(context, files),
        idempotency: idempotency::build(context, files),
    };
    let max_body_size = context.size(server.max_body_size.as_ref(), 100 * KIB * KIB, BODY_SIZE);
    ParsedServer { settings, keys, max_body_size }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// The addresses without TLS, and those with it.
fn listeners(
    context: &mut Context,
    server: &raw::Server,
    tls: Option<&tls::BuiltTls>,
) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
    let default = || vec![loopback(8080)];
    let mut plain = listen(context, server.listen.as_ref()).unwrap_or_else(default);
    let secure = match tls {
        None => Vec::new(),
        Some(tls) => tls.listen.clone().unwrap_or_else(|| std::mem::take(&mut plain)),
    };
    if let Some(address) = plain.iter().find(|address| address.port() != 0 && secure.contains(address)) {
        let place = server.tls.as_ref().map_or_else(Place::default, |tls| tls.span.clone());
        context.error(&place, format!("{address} is listed both with TLS and without"));
    }
    (plain, secure)
}

/// How long a stop waits for requests, and for responses that have begun.
fn drain_timeouts(context: &mut Context, server: &raw::Server) -> (Duration, Duration) {
    let requests = context.duration(server.drain_timeout.as_ref(), Duration::from_secs(30));
    let streams = context.duration(server.stream_drain_timeout.as_ref(), requests);
    if let Some(place) = server.stream_drain_timeout.as_ref().filter(|_| streams < requests) {
        context.error(&place.span, "`stream_drain_timeout` is at least `drain_timeout`");
    }
    (requests, streams)
}

fn proxy_protocol(context: &mut Context, server: &raw::Server) -> bool {
    let Some(on) = server.proxy_protocol.as_ref().filter(|on| on.value) else { return false };
    if server.trusted_proxies.is_empty() {
        let help = "name the proxies that send it in `trusted_proxies`";
        context.error_with(&on.span, "no address may send a PROXY header", help);
    }
    true
}

fn threads(context: &mut Context, value: Option<&At<u32>>) -> usize {
    let asked = value.map_or(0, |value| value.value);
    if let Some(value) = value.filter(|value| value.value > MAX_THREADS) {
        context.error(&value.span, format!("at most {MAX_THREADS} threads"));
    }
    match asked {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        asked => asked as usize,
    }
}

fn max_connections(context: &mut Context, value: Option<&At<u32>>) -> usize {
    let Some(value) = value else { return 65_536 };
    if value.value == 0 || value.value > MAX_CONNECTIONS {
        context.error(&value.span, format!("from 1 to {MAX_CONNECTIONS} connections"));
    }
    value.value as usize
}

fn log_settings(context: &mut Context, log: &raw::Log) -> LogSettings {
    let mut pick = |value: Option<&At<String>>, what: &str, choices: [&str; 2]| match value {
        None => true,
        Some(value) => {
            if !choices.contains(&value.value.as_str()) {
                context.unknown(what, value, choices.into_iter());
            }
            value.value == choices[0]
        }
    };
    let json = pick(log.format.as_ref(), "log format", ["json", "text"]);
    let standard = pick(log.fields.as_ref(), "value of log fields", ["standard", "minimal"]);
    let requests = log.requests.as_ref().is_none_or(|requests| requests.value);
    LogSettings { json, requests, minimal: !standard }
}

fn key_source(context: &mut Context, auth: &raw::Auth) -> KeySource {
    let default = HeaderName::from_static("x-api-key");
    let header = auth.header.as_ref().and_then(|header| {
        let name = context.header_name(&header.span, &header.value)?;
        let reserved =
            ["host", "connection", "content-length", "transfer-encoding", "upgrade", "te", "expect"];
        let own = name.as_str().starts_with(crate::policy::forward::OWN_PREFIX);
        if reserved.contains(&name.as_str()) || name.as_str().contains('_') || own {
            context.error(&header.span, "this header cannot be used for keys");
        }
        Some(name)
    });
    let refuse_query = match &auth.refuse_query {
        None => ["api_key", "apikey", "x-api-key"].map(str::to_owned).to_vec(),
        Some(list) => {
            for name in list.value.iter().filter(|name| name.value.is_empty()) {
                context.error(&name.span, "the name of a query parameter must not be empty");
            }
            list.value.iter().map(|name| name.value.to_lowercase()).collect()
        }
    };
    let bearer = auth.bearer.as_ref().is_some_and(|bearer| bearer.value);
    KeySource { header: header.unwrap_or(default), bearer, refuse_query }
}

fn key_prefix(context: &mut Context, value: Option<&At<String>>) -> String {
    let Some(value) = value else { return "ak".to_owned() };
    let valid = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if value.value.is_empty() || value.value.len() > 16 || !valid(&value.value) {
        context.error(&value.span, "a key prefix is 1 to 16 letters and digits");
    }
    value.value.clone()
}

fn account_info(context: &mut Context, files: &[raw::File]) -> Option<String> {
    let info = single(context, files, "account_info", |file| file.account_info.as_ref());
    let path = info.path.as_ref();
    let Some(path) = path else { return Some("/account/info".to_owned()) };
    if path.value.is_empty() {
        return None;
    }
    if path.value.contains(['{', '}', '?']) {
        context.error(&path.span, "this path must have no placeholders and no query");
    }
    match crate::policy::path::normalise(&path.value, false) {
        Ok(normal) => Some(normal.as_str().to_owned()),
        Err(fault) => {
            context.error(&path.span, fault.to_string());
            None
        }
    }
}

fn rate_limit_headers(context: &mut Context, list: Option<&At<Vec<At<String>>>>) -> (bool, bool) {
    let Some(list) = list else { return (true, false) };
    let known = ["ietf", "x-ratelimit"];
    for item in list.value.iter().filter(|item| !known.contains(&item.value.as_str())) {
        context.unknown("kind of rate limit headers", item, known.into_iter());
    }
    let has = |name: &str| list.value.iter().any(|item| item.value == name);
    (has("ietf"), has("x-ratelimit"))
}
