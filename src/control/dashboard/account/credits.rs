//! The credits of an account: balance, entries, and when to be told or topped up.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use maud::{Markup, html};

use super::{billing, buy};
use crate::control::dashboard::html::chart;
use crate::control::dashboard::html::format;
use crate::control::dashboard::html::parts::{card, empty, next, table_card, tile};
use crate::control::dashboard::operator::csv_response;
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{Failure, Fields, InAccount};
use crate::control::operations::{AccountView, EntryView, JobView, Page, Summary};
use crate::ledger::store::JobFilter;
use crate::types::WallTime;

/// Entries on one page.
const PAGE: usize = 25;
/// Jobs on the page.
const JOBS: usize = 10;
/// Most entries of one file.
const MAX_EXPORTED: usize = 10_000;

/// What an entry's kind is called.
fn kind(entry: &EntryView) -> String {
    let name = serde_json::to_value(entry.kind).ok().and_then(|value| value.as_str().map(str::to_owned));
    name.unwrap_or_default().replace('_', " ")
}

fn what(entry: &EntryView) -> Markup {
    html! {
        @if let Some(route) = &entry.route { (route) " · " }
        @if entry.requests > 0 { (format::counted(entry.requests, "request", "requests")) }
        @if let Some(reference) = &entry.reference { (reference) }
    }
}

fn entries(page: &Page<EntryView>, now: WallTime) -> Markup {
    let has_buckets = page.data.iter().any(|entry| entry.bucket.is_some() || entry.split.is_some());
    html! {
        table {
            thead { tr { th { "Time" } th { "Type" } th { "For" } @if has_buckets { th { "Bucket" } } th.num { "Amount" } th.num { "Balance after" } th.wide { "By" } } }
            tbody {
                @for entry in &page.data {
                    tr {
                        td { (format::ago(entry.at.0, now)) }
                        td { (kind(entry)) }
                        td { (what(entry)) }
                        @if has_buckets { td { (bucket(entry)) } }
                        td.num { (format::signed(entry.amount)) }
                        td.num { (format::credits(entry.balance_after)) }
                        td.wide { (entry.by) }
                    }
                }
            }
        }
    }
}

/// Which bucket an entry belongs to.
fn bucket(entry: &EntryView) -> String {
    let Some(parts) = &entry.split else { return entry.bucket.clone().unwrap_or_default() };
    let parts = parts.iter().map(|(name, part)| format!("{name} {}", format::signed(*part)));
    parts.collect::<Vec<_>>().join(", ")
}

/// What the account has in each bucket, what expires, and what is refilled.
fn buckets(account: &AccountView) -> Option<Markup> {
    let has_more = account.buckets.len() > 1 || !account.expiring.is_empty();
    let table = html! {
        table {
            thead { tr { th { "Bucket" } th.num { "Credits" } th { "Expires" } } }
            tbody {
                @for (name, credits) in &account.buckets {
                    @let parts: Vec<_> = account.expiring.iter().filter(|part| part.bucket == *name).collect();
                    @let whole = parts.iter().find(|part| part.credits == *credits);
                    tr {
                        td { (name) }
                        td.num { (format::credits(*credits)) }
                        td { @if let Some(whole) = whole { (format::at(whole.expires.0)) } }
                    }
                    @for part in parts.iter().filter(|_| whole.is_none()) {
                        tr {
                            td { "– of these" }
                            td.num { (format::credits(part.credits)) }
                            td { (format::at(part.expires.0)) }
                        }
                    }
                }
            }
        }
    };
    let refill = account.refill.as_ref().map(|refill| {
        let what = match refill.mode {
            "reset" => "what is left of the last ones then expires",
            _ => "they are added to what is left",
        };
        html! {
            div.foot-row { span {
                (format::credits(refill.credits)) " credits each " (refill.every) " by your plan, next "
                (format::at(refill.next.0)) "; " (what) "."
            } }
        }
    });
    (has_more || refill.is_some()).then(|| {
        table_card(
            "Buckets",
            None,
            html! { @if has_more { (table) } @if let Some(refill) = refill { (refill) } },
        )
    })
}

fn jobs(list: &[JobView], now: WallTime) -> Markup {
    html! {
        table {
            thead { tr { th { "Job" } th.wide { "Route" } th { "Opened" } th.num { "Held" } th.num { "Charged" } } }
            tbody {
                @for job in list {
                    tr {
                        td { (job.id) }
                        td.wide { (job.route) }
                        td { (format::ago(job.opened.0, now)) }
                        td.num { (format::credits(job.held)) }
                        td.num { @match job.charged { Some(charged) => (format::credits(charged)), None => "open" } }
                    }
                }
            }
        }
    }
}

fn by_day(summary: &Summary) -> Markup {
    let days: Vec<_> = summary.days.iter().map(|(day, sums)| (*day, sums.credits())).collect();
    card(
        "Credits used by day, 30 days",
        html! {
            (chart::spent("Credits used by day", &days))
            details {
                summary { "Show data" }
                div.scroll tabindex="0" role="region" aria-label="Credits used by day" {
                    table {
                        thead { tr { th { "Day" } th.num { "Credits used" } } }
                        tbody { @for (day, credits) in days.iter().rev().filter(|(_, credits)| !credits.is_zero()) {
                            tr { td { (format::day(*day)) } td.num { (format::credits(*credits)) } }
                        } }
                    }
                }
            }
        },
    )
}

/// The credits of an account.
pub(in crate::control::dashboard) async fn credits(
    State(site): State<Site>,
    of: InAccount,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let fields = Fields::of(query.as_deref());
    let before = fields.get("before").parse().ok();
    let summary = site.control.summary(&of.caller, of.account.clone(), 0).await?;
    let page = site.control.entries(&of.caller, of.account.clone(), before, PAGE).await?;
    let of_account = JobFilter { account: Some(of.account.clone()), ..JobFilter::default() };
    let list = site.control.jobs(&of.caller, of_account, JOBS).await?.data;
    let settings = billing::cards(&site, &of, None, None).await?;
    let sale = buy::cards(&site, &of, None, None).await?;
    let more = page.next_cursor.as_ref().map(|cursor| format!("?before={cursor}"));
    let csv = html! { a href=(of.at("credits.csv")) { "Download as CSV" } };
    let left = match summary.days_left() {
        Some(days) => format!("about {}", format::counted(days.unsigned_abs(), "day", "days")),
        None => "–".to_owned(),
    };
    let content = html! {
        div data-live=(of.at("live")) .tiles {
            (tile("Available", html! { span data-number="balance" { (format::credits(summary.account.available)) } }, html! { "can be spent now" }))
            (tile("Held", html! { (format::credits(summary.account.held)) }, html! { "for requests in flight and open jobs" }))
            (tile("Used, 24 hours", html! { span data-number="credits" { (format::credits(summary.day.credits())) } }, html! { (format::credits(summary.day_before.credits())) " the day before" }))
            (tile("Lasts", html! { (left) }, html! { "at the rate of the last week" }))
        }
        @if let Some(buckets) = buckets(&summary.account) { (buckets) }
        (sale)
        (by_day(&summary))
        (table_card("Entries", Some(csv), html! {
            @if page.data.is_empty() { (empty("No credits were booked yet.", None)) } @else { (entries(&page, site.now())) }
            (next(page.data.len(), more))
        }))
        @if !list.is_empty() { (table_card("Jobs, the open ones first", None, jobs(&list, site.now()))) }
        (settings)
    };
    let frame = of.frame(
        &site,
        "credits",
        "Credits",
        "What was granted and what was charged. Entries are only appended.",
    );
    Ok(frame.with_notice(query.as_deref()).page(content))
}

/// The entries as a file.
pub(in crate::control::dashboard) async fn credits_csv(
    State(site): State<Site>,
    of: InAccount,
) -> Result<Response, Failure> {
    let mut rows = Vec::new();
    let mut before = None;
    while rows.len() < MAX_EXPORTED {
        let page = site.control.entries(&of.caller, of.account.clone(), before, 1_000).await?;
        rows.extend(page.data);
        match page.next_cursor.and_then(|cursor| cursor.parse().ok()) {
            Some(cursor) => before = Some(cursor),
            None => break,
        }
    }
    let head = [
        "number",
        "time",
        "type",
        "amount",
        "balance_after",
        "route",
        "requests",
        "reference",
        "by",
        "bucket",
    ];
    let lines = rows.iter().take(MAX_EXPORTED).map(|entry| {
        vec![
            entry.number.to_string(),
            entry.at.0.to_string(),
            kind(entry),
            entry.amount.to_string(),
            entry.balance_after.to_string(),
            entry.route.clone().unwrap_or_default(),
            entry.requests.to_string(),
            entry.reference.clone().unwrap_or_default(),
            entry.by.clone(),
            bucket(entry),
        ]
    });
    csv_response("credits.csv", &head, lines)
}
