//! Refused requests of an account, and what to do about them.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use maud::{Markup, html};

use super::requests::{remedy, requests_table};
use crate::control::dashboard::html::format;
use crate::control::dashboard::html::parts::{empty, next, table_card};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{Failure, Fields, InAccount};
use crate::control::operations::{Page, RefusalView};
use crate::policy::reject::Reason;
use crate::types::WallTime;

/// Refusals on one page.
const PAGE: usize = 25;
/// Failed requests that are listed.
const FAILED: usize = 20;

fn refusals(page: &Page<RefusalView>, of: &InAccount, now: WallTime) -> Markup {
    html! {
        table {
            thead { tr { th { "Time" } th { "Reason" } th { "What to do" } th { "Route" } th.wide { "Key" } th { "Request" } } }
            tbody {
                @for row in &page.data {
                    tr {
                        td { (format::ago(row.at.0, now)) }
                        td { (row.reason) @if let Some(limit) = &row.limit { div.quiet { "limit " (limit) } } }
                        td.text { (Reason::from_code(&row.reason).map_or("", remedy)) }
                        td { (row.route.as_deref().unwrap_or("–")) }
                        td.wide { @if let Some(key) = &row.key { a href=(of.at(&format!("keys/{key}"))) { code { (key) } } } }
                        td { code { (row.request_id) } }
                    }
                }
            }
        }
    }
}

/// Refused and failed requests of an account.
pub(in crate::control::dashboard) async fn logs(
    State(site): State<Site>,
    of: InAccount,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let fields = Fields::of(query.as_deref());
    let before = fields.get("before").parse().ok();
    let page = site.control.refusals(&of.caller, of.account.clone(), before, PAGE).await?;
    let mut recent = site.control.recent_requests(&of.caller, of.account.clone(), None, 1_000).await?;
    recent.retain(|request| request.status >= 400 && Reason::from_code(request.outcome).is_none());
    recent.truncate(FAILED);
    let more = page.next_cursor.as_ref().map(|cursor| format!("?before={cursor}"));
    let now = site.now();
    let frame = of.frame(
        &site,
        "logs",
        "Logs",
        "Requests that were refused or failed, and what to do about them. Refused requests cost nothing.",
    );
    Ok(frame.page(html! {
        (table_card("Refused", None, html! {
            @if page.data.is_empty() { (empty("No request was refused.", None)) } @else { (refusals(&page, &of, now)) }
            (next(page.data.len(), more))
        }))
        (table_card("Errors of the last hour", None, html! {
            @if recent.is_empty() { (empty("No request failed in the last hour.", None)) } @else { (requests_table(&recent, now)) }
        }))
    }))
}
