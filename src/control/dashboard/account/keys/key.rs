//! One key: its facts, and what it was used for.

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use maud::{Markup, html};

use super::list::state;
use crate::control::dashboard::account::requests::requests_table;
use crate::control::dashboard::html::chart;
use crate::control::dashboard::html::format;
use crate::control::dashboard::html::parts::{badge, button, card, empty, id as copyable_id, table_card};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{Failure, InAccount};
use crate::control::operations::{
    Grouping, KeyView, LimitGauge, OperationError, Permission, Result, ShownKey, Step, UsageQuery,
    UsageReport,
};
use crate::ledger::store::Source;
use crate::types::{KeyId, WallTime};

/// Requests of a key that are listed.
const REQUESTS: usize = 20;
pub(super) type Ids = Path<(String, String)>;

fn parsed(Path((_, id)): &Ids) -> Result<KeyId> {
    id.parse().map_err(|_| OperationError::Missing("there is no such key".to_owned()))
}

/// The key of this page, which must be one of the account in the path.
pub(super) async fn found(site: &Site, of: &InAccount, ids: &Ids) -> Result<KeyView> {
    let view = site.control.key(&of.caller, parsed(ids)?).await?;
    match view.account == of.account {
        true => Ok(view),
        false => OperationError::missing("there is no such key"),
    }
}

fn facts(key: &KeyView, groups: &str, now: WallTime) -> Markup {
    card(
        "Facts",
        html! {
            dl.facts {
                dt { "Key" } dd { @if let ShownKey::Hint(hint) = &key.key { code { (hint) } } }
                dt { "Id" } dd { (copyable_id("key-id", &key.id.to_string())) }
                dt { "Status" } dd { (badge(state(key, now))) }
                @if key.source == Source::File { dt { "Defined" } dd { "in the operator's configuration file, which alone changes it" } }
                dt { "Environment" } dd { (key.environment) }
                dt { "May call" } dd { @match &key.scopes { Some(scopes) => { @for route in &scopes.routes { code { (route) } " " } }, None => "all routes" } }
                dt { "From" } dd { @match &key.allow_from { Some(networks) => { @for network in networks { code { (network) } " " } }, None => "anywhere" } }
                dt { "Spent" } dd { (format::credits(key.spent)) " credits" @if let Some(limit) = key.spend_limit { "; " (format::credits(key.spent_in_period)) " of at most " (format::credits(limit.0.credits)) @if let Some(every) = limit.0.every { " each " (every.name()) } } }
                @if let Some(group) = &key.group { dt { "Group" } dd { a href=(groups) { (group) } } }
                dt { "Created" } dd { (format::at(key.created.0)) }
                dt { "Last used" } dd { @match key.last_used { Some(at) => (format::ago(at.0, now)), None => "never" } }
                dt { "Expires" } dd { @match key.expires { Some(at) => (format::at(at.0)), None => "never" } }
            }
        },
    )
}

fn gauges(gauges: &[LimitGauge]) -> Markup {
    card(
        "Limits",
        html! {
            @if gauges.is_empty() { p.quiet { "No limit applies to this key." } }
            @for LimitGauge { limit, left } in gauges {
                @let most = limit.burst.unwrap_or(limit.requests).max(1);
                p {
                    (limit.name) ": " (format::count(limit.requests.into())) " in " (limit.window)
                    @if let Some(left) = left { ", " (format::count((*left).into())) " left now" }
                }
                @if let Some(left) = left {
                    @let share = 100 * u64::from((*left).min(most)) / u64::from(most);
                    svg.gauge viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label={ (share) " % of " (limit.name) " left" } {
                        rect width=(share) height="8" {}
                    }
                    p {}
                }
            }
        },
    )
}

fn overlap(of: &InAccount, key: &KeyView, requests: usize, page: &str) -> Markup {
    html! {
        @if let Some(until) = key.old_secret_until {
            div.banner.warn role="status" {
                span {
                    "The old key works until " (format::at(until.0)) " ("
                    span data-until=(until.0) { "then it is refused" } "). "
                    @match requests { 0 => "No request of the last hour used it.", some => { (format::counted(some as u64, "request", "requests")) " of the last hour used it." } }
                }
                @if of.may(Permission::Keys) { (button(&format!("{page}/end-overlap"), "End now", "tight")) }
            }
        }
    }
}

fn by_route(report: &UsageReport) -> Markup {
    table_card(
        "By route, 30 days",
        None,
        html! {
            table {
                thead { tr { th { "Route" } th.num { "Requests" } th.num { "Credits" } th.num { "95 % faster than" } } }
                tbody {
                    @for row in &report.data {
                        tr {
                            td { (row.of.clone().flatten().unwrap_or_else(|| "no route".to_owned())) }
                            td.num { (format::count(row.requests)) }
                            td.num { (format::credits(row.credits)) }
                            td.num { @match row.durations.p95 { Some(millis) => { (format!("{millis:.0} ms")) }, None => "–" } }
                        }
                    }
                }
            }
        },
    )
}

async fn report(
    site: &Site,
    of: &InAccount,
    key: KeyId,
    step: Step,
    by: Option<Grouping>,
) -> Result<UsageReport> {
    let query = UsageQuery {
        account: Some(of.account.clone()),
        key: Some(key),
        step,
        by,
        ..UsageQuery::last(30, Step::Day, 0, site.now())
    };
    site.control.usage(&of.caller, query).await
}

/// True if the reader may change this key: those of the configuration file are changed there.
pub(super) fn may_change(of: &InAccount, key: &KeyView) -> bool {
    of.may(Permission::Keys) && key.state != "revoked" && key.source != Source::File
}

/// The page of a key.
pub(in crate::control::dashboard) async fn key(
    State(site): State<Site>,
    of: InAccount,
    ids: Ids,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let key = found(&site, &of, &ids).await?;
    let days = report(&site, &of, key.id, Step::Day, None).await?;
    let routes = report(&site, &of, key.id, Step::All, Some(Grouping::Route)).await?;
    let requests =
        site.control.recent_requests(&of.caller, of.account.clone(), Some(key.id), REQUESTS).await?;
    let limits = site.control.limit_gauges(&of.caller, key.id).await?;
    let old_requests = match key.old_secret_until {
        Some(_) => site.control.requests_with_old_secret(&of.caller, key.id).await?,
        None => 0,
    };
    let (now, page) = (site.now(), of.at(&format!("keys/{}", key.id)));
    let bars = chart::bars(&days, Step::Day, 0);
    let mut frame = of
        .frame(&site, "keys", &key.label, "What this key may do, and what it did.")
        .with_notice(query.as_deref());
    if may_change(&of, &key) {
        frame.action = Some(html! {
            a.button href={ (page) "/edit" } { "Edit" }
            @if key.state == "disabled" { (button(&format!("{page}/enable"), "Enable", "")) } @else { (button(&format!("{page}/disable"), "Disable", "")) }
            a.button.danger href={ (page) "/revoke" } data-dialog="" { "Revoke" }
            @if state(&key, now) != "expired" { a.button.primary href={ (page) "/rotate" } data-dialog="" { "Rotate" } }
        });
    }
    Ok(frame.page(html! {
        (overlap(&of, &key, old_requests, &page))
        div.columns {
            (facts(&key, &of.at("groups"), now))
            (gauges(&limits))
            (card("Requests by day, 30 days", html! {
                @if days.data.is_empty() { p.quiet { "No requests yet." } } @else { (chart::outcomes("days", "Requests by day", &bars)) }
            }))
        }
        @if !routes.data.is_empty() { (by_route(&routes)) }
        (table_card("Requests of the last hour", None, html! {
            @if requests.is_empty() { (empty("None in the last hour.", None)) } @else { (requests_table(&requests, now)) }
        }))
    }))
}
