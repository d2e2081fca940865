//! What the gateway does now, and the servers behind it.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use maud::{Markup, html};
use serde_json::Value;

use crate::control::dashboard::html::chart;
use crate::control::dashboard::html::format;
use crate::control::dashboard::html::parts::{badge, card, empty, table_card, tile};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{AsOperator, Failure, Notice};
use crate::control::operations::{Caller, DaySums, OperationError, Result, Step, UsageQuery, UsageReport};
use crate::types::AccountId;

/// Accounts that wait for approval and are named.
const NAMED: usize = 20;

fn number(status: &Value, name: &str) -> String {
    format::count(status[name].as_u64().unwrap_or_default())
}

/// A number that changes while the page is open.
fn number_of(name: &str, text: &str) -> Markup {
    html! { span data-number=(name) { (text) } }
}

fn waiting(accounts: &[AccountId]) -> Markup {
    html! {
        @if !accounts.is_empty() {
            div.banner.info role="status" {
                span {
                    (format::counted(accounts.len() as u64, "account waits", "accounts wait")) " for approval: "
                    @for account in accounts.iter().take(NAMED) { a href={ "/operator/accounts/" (account) } { (account) } " " }
                }
            }
        }
    }
}

fn doubts(number: u64) -> Markup {
    html! {
        @if number > 0 {
            div.banner.warn role="status" {
                span { "A crash left " (format::counted(number, "request", "requests")) " in doubt." }
                a href="/operator/ledger" { "Decide about them" }
            }
        }
    }
}

async fn usage(site: &Site, caller: &Caller) -> Result<UsageReport> {
    let all = UsageQuery::last(24, Step::Hour, 0, site.now());
    let mut reports = site.control.usage_reports(caller, vec![all]).await?;
    reports.pop().ok_or_else(|| OperationError::Missing("no report".to_owned()))
}

/// The requests of the last 24 hours.
pub(in crate::control::dashboard) async fn total(site: &Site, caller: &Caller) -> Result<DaySums> {
    Ok(DaySums::total(&usage(site, caller).await?))
}

/// The operator's overview.
pub(in crate::control::dashboard) async fn overview(
    State(site): State<Site>,
    of: AsOperator,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let control = &site.control;
    let report = usage(&site, &of.caller).await?;
    let (bars, total) = (chart::bars(&report, Step::Hour, 0), DaySums::total(&report));
    let awaiting = control.awaiting_approval(&of.caller).await?;
    let open = control.open_doubts(&of.caller).await?;
    let status = control.status(&of.caller).unwrap_or_default(); // the role of billing does not see it
    let mut frame = of.frame(&site, "", "Overview", "What the gateway does, and what waits for you.");
    frame.notice = Notice::of(query.as_deref());
    Ok(frame.page(html! {
        (waiting(&awaiting))
        (doubts(open))
        div.tiles data-live="/operator/live" {
            (tile("Requests, 24 hours", number_of("requests", &format::count(total.requests())), html! { (number_of("success", &format::percent(total.success()))) " answered without an error" }))
            (tile("Refused, 24 hours", number_of("refused", &format::count(total.limited + total.denied)), html! { (format::count(total.limited)) " by limits" }))
            (tile("Errors, 24 hours", number_of("failed", &format::count(total.failed)), html! { "status 400 and above, or no response" }))
            (tile("Credits charged, 24 hours", number_of("credits", &format::credits(total.credits())), html! { "as in the ledger" }))
        }
        (card("Requests by hour, 24 hours (UTC)", html! {
            @if total.requests() == 0 { p.quiet { "No requests yet." } } @else { (chart::outcomes("hours", "Requests by hour", &bars)) }
        }))
        @if status.is_object() {
            div.tiles {
                (tile("Accounts", html! { (number(&status, "accounts")) }, html! { a href="/operator/accounts" { "All accounts" } }))
                (tile("Keys in memory", html! { (number(&status, "keys")) }, html! { "secrets that are accepted" }))
                (tile("Ledger", html! { @if status["ledger_healthy"] == true { "healthy" } @else { "failing" } }, html! { (number(&status, "ledger_commits")) " commits, " (number(&status, "ledger_failures")) " failures" }))
                (tile("In flight", html! { (in_flight(&status)) }, html! { a href="/operator/upstreams" { "Upstreams" } }))
            }
        }
    }))
}

fn servers(upstream: &Value) -> &[Value] {
    upstream["servers"].as_array().map_or(&[], Vec::as_slice)
}

fn in_flight(status: &Value) -> String {
    let upstreams = status["upstreams"].as_array().map_or(&[][..], Vec::as_slice);
    let all = upstreams.iter().flat_map(servers).filter_map(|server| server["in_flight"].as_u64());
    format::count(all.sum())
}

fn upstream(upstream: &Value) -> Markup {
    let name = upstream["name"].as_str().unwrap_or_default();
    let text = |server: &Value, field: &str| server[field].as_str().unwrap_or_default().to_owned();
    table_card(
        name,
        None,
        html! {
            @if upstream["panic"] == true { div.body { div.banner.warn { span { "Too few servers are healthy: all of them are tried." } } } }
            @if servers(upstream).is_empty() { (empty("No server was found.", None)) } @else {
                table {
                    thead { tr { th { "Server" } th { "State" } th.num { "Weight" } th.num { "In flight" } th.num { "Requests" } th.num { "Failures" } th { "Last failure" } } }
                    tbody {
                        @for server in servers(upstream) {
                            tr {
                                td { code { (text(server, "server")) } }
                                td { (badge(&text(server, "state"))) }
                                td.num { (number(server, "weight")) }
                                td.num { (number(server, "in_flight")) }
                                td.num { (number(server, "requests")) }
                                td.num { (number(server, "failures")) }
                                td { (text(server, "last_failure")) div.quiet { (text(server, "last_failure_at")) } }
                            }
                        }
                    }
                }
            }
        },
    )
}

/// The servers behind the gateway.
pub(in crate::control::dashboard) async fn upstreams(
    State(site): State<Site>,
    of: AsOperator,
) -> Result<Response, Failure> {
    let status = site.control.status(&of.caller)?;
    let upstreams = status["upstreams"].as_array().map_or(&[][..], Vec::as_slice);
    let frame = of.frame(
        &site,
        "upstreams",
        "Upstreams",
        "The servers that requests are forwarded to, as the gateway sees them now.",
    );
    Ok(frame.page(html! { @for one in upstreams { (upstream(one)) } }))
}
