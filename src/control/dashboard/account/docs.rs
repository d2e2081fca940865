//! How to use the API, made from the configuration.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use maud::{Markup, html};

use super::requests::remedy;
use crate::control::dashboard::html::format;
use crate::control::dashboard::html::parts::{card, copyable, id, table_card};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{Failure, InAccount};
use crate::control::operations::{LimitTerms, PublicRoute, Refusals, Result};

/// A route that a first request can be sent to: one that reads, if there is one.
fn example(routes: &[PublicRoute]) -> Option<&PublicRoute> {
    let has_no_names = |route: &&PublicRoute| !route.path.contains('{');
    let reads = |route: &&PublicRoute| route.methods == "any" || route.methods.contains("GET");
    let priced = || routes.iter().filter(|route| !route.public);
    priced().filter(reads).find(has_no_names).or_else(|| priced().find(reads)).or_else(|| priced().next())
}

fn method(route: &PublicRoute) -> &str {
    match route.methods.as_str() {
        "any" => "GET",
        methods if methods.contains("GET") => "GET",
        methods => methods.split(',').next().unwrap_or("POST"),
    }
}

/// A curl line that works as it is copied, once the key is in it.
pub(super) fn first_line(site: &Site, key: &str) -> Result<String> {
    let (base, header, routes) =
        (site.control.api_url()?, site.control.key_header(), site.control.priced_routes(None));
    let path = example(&routes).map_or("/", |route| route.path.as_str());
    let method = example(&routes).map_or("GET", method);
    let verb = if method == "GET" {
        String::new()
    } else {
        format!("-X {method} -H 'content-type: application/json' -d '{{}}' ")
    };
    Ok(format!("curl {verb}-H '{header}: {key}' '{base}{path}'"))
}

fn examples(site: &Site) -> Result<Markup> {
    let (base, header, routes) =
        (site.control.api_url()?, site.control.key_header(), site.control.priced_routes(None));
    let path = example(&routes).map_or("/", |route| route.path.as_str());
    let method = example(&routes).map_or("GET", method);
    let (js_body, py_body) = match method {
        "GET" => ("", ""),
        _ => (", body: \"{}\"", ", json={}"),
    };
    let js = format!(
        "const response = await fetch(\"{base}{path}\", {{ method: \"{method}\", headers: {{ \"{header}\": process.env.API_KEY }}{js_body} }});\nconsole.log(response.status, await response.text());"
    );
    let py = format!(
        "import os, requests\nresponse = requests.request(\"{method}\", \"{base}{path}\", headers={{\"{header}\": os.environ[\"API_KEY\"]}}{py_body})\nprint(response.status_code, response.text)"
    );
    let curl = first_line(site, "YOUR_KEY")?;
    Ok(html! {
        h3 { "curl" } (copyable("curl", &curl))
        h3 { "JavaScript" } (copyable("javascript", &js))
        h3 { "Python" } (copyable("python", &py))
    })
}

fn routes_table(routes: &[PublicRoute]) -> Markup {
    html! {
        table {
            thead { tr { th { "Route" } th { "Methods" } th { "Path" } th { "Credits" } th { "Scope" } } }
            tbody {
                @for route in routes {
                    tr {
                        td { (route.name) @if let Some(note) = &route.note { div.quiet { (note) } } }
                        td { (route.methods) }
                        td { code { (route.path) } }
                        td { (route.price) }
                        td { @if route.public { "no key needed" } @else { code { (route.name) } } }
                    }
                }
            }
        }
    }
}

fn limits(limits: &[LimitTerms]) -> Markup {
    html! {
        @if limits.is_empty() { p.quiet { "There is none." } } @else {
            table {
                thead { tr { th { "Limit" } th.num { "Requests" } th { "In" } th { "Routes" } } }
                tbody {
                    @for limit in limits {
                        tr {
                            td { (limit.name) }
                            td.num { (format::count(limit.requests.into())) }
                            td { (limit.window) }
                            td { @if limit.routes.is_empty() { "all" } @else { (limit.routes.join(", ")) } }
                        }
                    }
                }
            }
        }
    }
}

fn title(routes: &[String]) -> String {
    match routes {
        [] => "Refusals before a route is found".to_owned(),
        routes => format!("Refusals: {}", routes.join(", ")),
    }
}

fn refusals(groups: &[Refusals]) -> Markup {
    html! {
        @for group in groups {
            (table_card(&title(&group.routes), None, html! {
                table {
                    thead { tr { th.num { "Status" } th { "Reason" } th { "Body" } th { "What to do" } } }
                    tbody {
                        @for (reason, response) in &group.responses {
                            tr {
                                td.num { (response.status.as_u16()) }
                                td { code { (reason.code()) } }
                                td { pre tabindex="0" { (response.body) } }
                                td.text { (remedy(*reason)) }
                            }
                        }
                    }
                }
            }))
        }
    }
}

/// How to use the API.
pub(in crate::control::dashboard) async fn docs(
    State(site): State<Site>,
    of: InAccount,
) -> Result<Response, Failure> {
    let account = site.control.account_now(&of.caller, of.account.clone()).await?;
    let (base, header) = (site.control.api_url()?, site.control.key_header());
    let routes = site.control.priced_routes(account.plan.as_deref());
    let groups = site.control.refusal_responses();
    let repeats = site.control.idempotency().map(|it| {
        let keep = format::counted(it.keep.as_secs() / 3600, "hour", "hours");
        let size = it.max_body / 1024;
        format!(
            "Send a random Idempotency-Key of up to 255 characters with each request, and the same one when you repeat it because \
             you got no response. It is charged once; for {keep} you get the first response again, with idempotency-replayed: \
             true. Bodies may have {size} KiB."
        )
    });
    let has_description = site.settings()?.openapi.is_some();
    let frame = of.frame(
        &site,
        "docs",
        "Docs",
        "How to use the API: address, key, routes, prices, limits, refusals.",
    );
    let plan = account
        .plan
        .as_deref()
        .map_or("Your limits".to_owned(), |plan| format!("Limits of your plan {plan}"));
    Ok(frame.page(html! {
        (card("Address and key", html! {
            dl.facts {
                dt { "Base URL" } dd { (id("base", &base)) }
                dt { "Key" } dd { "in the header " code { (header) } @if site.control.takes_bearer() { ", or as " code { "Authorization: Bearer YOUR_KEY" } } }
                @if let Some(path) = site.control.account_info_path() { dt { "Balance" } dd { code { "GET " (path) } ", free" } }
                @if has_description { dt { "OpenAPI" } dd { a href=(of.at("docs/openapi.json")) { "openapi.json" } } }
            }
            (examples(&site)?)
        }))
        @if let Some(repeats) = &repeats { (card("Repeat a request safely", html! { p { (repeats) } })) }
        (table_card("Routes", None, routes_table(&routes)))
        (table_card(&plan, None, limits(&account.limits)))
        (refusals(&groups))
    }))
}

/// The operator's OpenAPI description.
pub(in crate::control::dashboard) async fn openapi(
    State(site): State<Site>,
    of: InAccount,
) -> Result<Response, Failure> {
    drop(of); // for everybody who may see the account
    Ok(match &site.settings()?.openapi {
        Some(text) => {
            let json = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, json)], text.to_string()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    })
}
