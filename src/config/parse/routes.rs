//! Parses `[[routes]]`: the endpoints of the API.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use super::context::Context;
use super::dialects;
use super::jobs;
use super::limits::{self, LimitOwner};
use super::prices::{self, PriceSettings, header_list, takes_head};
use super::server::{BODY_SIZE, ParsedServer};
use super::upstreams::BuiltUpstreams;
use crate::config::raw::{self, At, Place};
use crate::policy::cors::Cors;
use crate::policy::price::Price;
use crate::policy::reject::Dialect;
use crate::policy::route::{Methods, Pattern, RouteTable, strip_port};
use crate::snapshot::{OnDisconnect, Route};
use crate::types::{RouteName, RouteNum};

/// Most routes of a configuration.
const MAX_ROUTES: usize = 100_000;

/// The other sections that routes refer to.
pub(super) struct Around<'a> {
    pub(super) server: &'a ParsedServer,
    pub(super) dialects: &'a HashMap<String, Arc<Dialect>>,
    pub(super) default: &'a Arc<Dialect>,
    pub(super) upstreams: &'a HashMap<String, Option<BuiltUpstreams>>,
}

pub(super) fn build(
    context: &mut Context,
    files: &[raw::File],
    around: &Around<'_>,
) -> (RouteTable<usize>, Vec<Arc<Route>>) {
    let all =
        || files.iter().enumerate().flat_map(|(file, raw)| raw.routes.iter().map(move |route| (file, route)));
    if all().next().is_none() && !context.is_cut("routes") {
        let whole = Place(0..0);
        context.file = 0;
        context.error_with(&whole, "there is no route", "add at least one [[routes]]");
    }
    if all().count() > MAX_ROUTES {
        context.error(&Place(0..0), format!("at most {MAX_ROUTES} routes"));
        return (RouteTable::default(), Vec::new());
    }
    let names: Vec<&str> = all().map(|(_, route)| route.value.name.value.as_str()).collect();
    let mut table = RouteTable::default();
    let mut routes: Vec<Arc<Route>> = Vec::new();
    let mut seen: HashMap<&str, ()> = HashMap::new();
    for (file, raw) in all() {
        context.file = file;
        let route = &raw.value;
        if seen.insert(&route.name.value, ()).is_some() {
            context.error(&route.name.span, format!("route `{}` is defined twice", route.name.value));
        }
        let methods = context.methods(route.methods.as_ref());
        let pattern = pattern(context, route, around);
        let host = route.host.as_ref().map(|host| host_name(context, host));
        if let Some(pattern) = pattern
            && let Err(other) = table.insert(host.as_deref(), &pattern, methods.clone(), routes.len())
        {
            let other = routes.get(other).map_or("another", |other| other.name.as_str());
            let message = format!("this route ties with `{other}`: the same path with a method in common");
            context.error(&route.path.span, message);
        }
        if let Some(built) = one(context, route, &methods, around, &names, routes.len()) {
            routes.push(Arc::new(built));
        } else if let Some(placeholder) = routes.first().cloned() {
            routes.push(placeholder); // keeps the indices of later routes right; the configuration has an error anyway
        }
    }
    (table, routes)
}

fn pattern(context: &mut Context, route: &raw::Route, around: &Around<'_>) -> Option<Pattern> {
    if around.server.settings.account_info.as_ref() == Some(&route.path.value) {
        let help = "choose another path in [account_info]";
        context.error_with(&route.path.span, "[account_info] uses this path", help);
    }
    context.check(&route.path.span, Pattern::parse(&route.path.value))
}

fn host_name(context: &mut Context, host: &At<String>) -> String {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    if host.value.is_empty() || !host.value.bytes().all(valid) || strip_port(&host.value) != host.value {
        context.error(&host.span, "a host is a name without a port, such as \"api.example.com\"");
    }
    host.value.to_ascii_lowercase()
}

fn one(
    context: &mut Context,
    raw: &raw::Route,
    methods: &Methods,
    around: &Around<'_>,
    names: &[&str],
    index: usize,
) -> Option<Route> {
    let name = context.check(&raw.name.span, raw.name.value.parse::<RouteName>());
    let public = raw.public.as_ref().is_some_and(|public| public.value);
    let mut price = price(context, raw, public);
    price.opens = jobs::opens(context, raw, &price);
    let settles = jobs::settles(context, raw, &price);
    let dialect = raw.dialect.as_ref().and_then(|dialect| dialects::find(context, around.dialects, dialect));
    let owner = LimitOwner::Route { name: &raw.name.value, public };
    let limits = limits::build(context, &raw.limits, owner, names.iter().copied());
    let prefix = raw.strip_prefix.as_ref();
    let strip_segments = prefix.map_or(0, |prefix| strip_segments(context, prefix, &raw.path.value));
    let own_headers = context.set_headers(&raw.set_headers);
    let max_body_size = context.size(raw.max_body_size.as_ref(), around.server.max_body_size, BODY_SIZE);
    let cors =
        raw.cors.as_ref().map(|cors| cors_of(context, &cors.value, methods, &around.server.keys.header));
    let timeout = |context: &mut Context, default| context.duration(raw.response_timeout.as_ref(), default);
    let upstream = match around.upstreams.get(&raw.upstream.value) {
        Some(upstream) => upstream.as_ref(),
        None => {
            if !context.is_cut("upstreams") {
                context.unknown("upstream", &raw.upstream, around.upstreams.keys().map(String::as_str));
            }
            None
        }
    };
    let Some(upstream) = upstream else {
        timeout(context, Duration::from_secs(1)); // reports a mistake in it
        return None;
    };
    let mut set_headers = upstream.set_headers.clone();
    set_headers.extend(own_headers);
    Some(Route {
        name: name?,
        path: raw.path.value.as_str().into(),
        methods: methods.clone(),
        index,
        num: RouteNum(0),
        public,
        upstream: Arc::clone(&upstream.upstream),
        price: Arc::new(price),
        dialect: dialect.unwrap_or_else(|| Arc::clone(around.default)),
        limits,
        strip_segments,
        set_headers,
        response_timeout: timeout(context, upstream.response_timeout),
        max_body_size,
        settles,
        on_disconnect: on_disconnect(context, raw.on_disconnect.as_ref()),
        encoded_slashes: raw.encoded_slashes.as_ref().is_some_and(|allow| allow.value),
        cors,
    })
}

fn on_disconnect(context: &mut Context, raw: Option<&At<String>>) -> OnDisconnect {
    match raw.map(|raw| (raw.value.as_str(), raw)) {
        None | Some(("finish", _)) => OnDisconnect::Finish,
        Some(("abandon", _)) => OnDisconnect::Abandon,
        Some((_, raw)) => {
            context.unknown("way", raw, ["finish", "abandon"].into_iter());
            OnDisconnect::Finish
        }
    }
}

fn price(context: &mut Context, raw: &raw::Route, public: bool) -> Price {
    let settings = PriceSettings {
        credits: raw.credits.as_ref(),
        hold: raw.hold.as_ref(),
        charge: raw.charge.as_ref(),
        shadow: raw.shadow.as_ref(),
        takes_head: takes_head(raw),
    };
    let price = prices::build(context, &settings, &Price::default());
    let place = raw.credits.as_ref().or(raw.hold.as_ref()).map(|amount| &amount.span);
    if let (true, Some(place)) = (public, place.or(raw.charge.as_ref().map(|charge| &charge.span))) {
        context.error_with(place, "a public route charges nothing", "there is no account to charge");
    }
    price
}

fn strip_segments(context: &mut Context, prefix: &At<String>, path: &str) -> usize {
    let text = &prefix.value;
    let covered =
        path.strip_prefix(text.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if !text.starts_with('/') || text.ends_with('/') || !covered {
        let help = "it begins with / and is a whole part of `path`, such as \"/api\" of \"/api/{*rest}\"";
        context.error_with(&prefix.span, "this prefix is not the beginning of the route's path", help);
    }
    text.matches('/').count()
}

fn cors_of(context: &mut Context, raw: &raw::Cors, methods: &Methods, key_header: &HeaderName) -> Cors {
    let any = raw.origins.value.iter().any(|origin| origin.value == "*");
    let credentials = raw.credentials.as_ref().is_some_and(|credentials| credentials.value);
    if any && credentials {
        context.error_with(&raw.origins.span, "origin * does not allow credentials", "list the origins");
    }
    let origins = raw.origins.value.iter().filter_map(|origin| {
        let valid = origin.value.contains("://") && !origin.value.ends_with('/');
        if !valid && origin.value != "*" {
            context.error(&origin.span, "an origin looks like \"https://app.example.com\"");
        }
        context.header_value(&origin.span, &origin.value)
    });
    let origins: Vec<HeaderValue> = origins.collect();
    let methods = match &raw.methods {
        Some(list) => context.methods(Some(list)),
        None => methods.clone(),
    };
    let names = match methods {
        Methods::Only(list) => list,
        Methods::All => vec![Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE],
    };
    let names: Vec<&str> = names.iter().map(Method::as_str).collect();
    let headers = match &raw.headers {
        Some(list) => header_list(context, &list.value),
        None => HeaderValue::try_from(format!("{key_header}, content-type"))
            .unwrap_or(HeaderValue::from_static("content-type")),
    };
    Cors {
        origins: (!any).then_some(origins),
        methods: HeaderValue::try_from(names.join(", ")).unwrap_or(HeaderValue::from_static("GET")),
        headers,
        expose: raw.expose.as_ref().map(|list| header_list(context, &list.value)),
        credentials,
        max_age: context.duration(raw.max_age.as_ref(), Duration::from_secs(600)),
    }
}
