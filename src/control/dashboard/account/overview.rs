//! The overview: balance, the last day and month, the first keys, and the first steps.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use maud::{Markup, html};

use crate::control::dashboard::html::chart::{self, Bar};
use crate::control::dashboard::html::format;
use crate::control::dashboard::html::parts::{badge, card, change, copyable, empty, table_card, tile};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{Failure, InAccount};
use crate::control::operations::{Alerts, Permission, ShownKey, Summary};
use crate::types::Credits;

/// Keys that are shown, the newest first.
const KEYS: usize = 5;

#[expect(clippy::cast_precision_loss, reason = "it is shown as a rounded percentage")]
fn float(number: u64) -> f64 {
    number as f64
}

fn tiles(summary: &Summary) -> Markup {
    let (day, before) = (&summary.day, &summary.day_before);
    let millionths =
        |sums: &crate::control::operations::DaySums| float(sums.millionths.max(0).unsigned_abs());
    html! {
        div.tiles {
            (tile("Requests, 24 hours", html! { span data-number="requests" { (format::count(day.requests())) } },
                change(float(day.requests()), float(before.requests()))))
            (tile("Answered without an error", html! { span data-number="success" { (format::percent(day.success())) } },
                html! { (format::percent(before.success())) " the day before" }))
            (tile("95 % were faster than", html! { (format::millis(summary.p95)) }, html! { "with the API behind it" }))
            (tile("Credits used, 24 hours", html! { span data-number="credits" { (format::credits(day.credits())) } },
                change(millionths(day), millionths(before))))
        }
    }
}

fn balance(of: &InAccount, summary: &Summary) -> Markup {
    let account = &summary.account;
    html! {
        section.card {
            div.body {
                div.head {
                    div {
                        div.quiet { "Credits available" }
                        div.balance data-number="balance" { (format::credits(account.available)) }
                        div.quiet {
                            @match summary.days_left() {
                                Some(days) => { "about " (format::counted(days.unsigned_abs(), "day", "days")) " left at the rate of the last week" }
                                None => { "none used in the last week" }
                            }
                            @if account.held > Credits::ZERO { " · " (format::credits(account.held)) " held for requests in flight" }
                        }
                    }
                    div.actions {
                        @if let Some(plan) = &account.plan { span.badge.info { "Plan " (plan) } }
                        @if account.state != "active" { (badge(account.state)) }
                        a.button href=(of.at("credits")) { "Credits" }
                    }
                }
            }
        }
    }
}

fn low(of: &InAccount, summary: &Summary, alerts: &Alerts) -> Markup {
    let available = summary.account.available;
    let is_low = alerts.credits_low.iter().any(|threshold| available < *threshold);
    html! {
        @if available <= Credits::ZERO {
            div.banner.bad role="status" { span { "There are no credits left: requests that cost some are refused." } a href=(of.at("credits")) { "See credits" } }
        } @else if is_low {
            div.banner.warn role="status" { span { "Credits run low." } a href=(of.at("credits")) { "See credits" } }
        }
    }
}

/// Three steps for an account without use. The third turns green by itself.
fn first_steps(site: &Site, of: &InAccount, summary: &Summary) -> Result<Markup, Failure> {
    let line = super::docs::first_line(site, "YOUR_KEY")?;
    let has_key = !summary.keys.is_empty();
    let step = |done: bool, number: &'static str| html! { span.step aria-hidden="true" { @if done { "✓" } @else { (number) } } };
    Ok(card(
        "Your first request",
        html! {
            ol.steps {
                li.done[has_key] { (step(has_key, "1")) div {
                    strong { "Create a key" }
                    p.quiet { "It is shown once; keep it where your program finds it." }
                    @if of.may(Permission::Keys) { a.button.primary href=(of.at("keys/new")) data-create="" { "Create key" } }
                } }
                li { (step(false, "2")) div { strong { "Send the request" } p.quiet { "Put your key in place of YOUR_KEY." } (copyable("first-line", &line)) } }
                li #step-3 { (step(false, "3")) div { strong { "See it here" } p.quiet { "Within a few seconds of your request, this page shows it." } } }
            }
        },
    ))
}

fn keys(of: &InAccount, summary: &Summary) -> Markup {
    let all = html! { a href=(of.at("keys")) { "All keys" } };
    if summary.keys.is_empty() {
        let create = html! { a.button href=(of.at("keys/new")) { "Create key" } };
        return table_card(
            "Keys",
            None,
            empty("There is no key yet.", of.may(Permission::Keys).then_some(create)),
        );
    }
    table_card(
        "Keys",
        Some(all),
        html! {
            table {
                thead { tr { th { "Name" } th.wide { "Key" } th { "Status" } th { "Last used" } } }
                tbody {
                    @for key in &summary.keys {
                        tr {
                            td { a href=(of.at(&format!("keys/{}", key.id))) { (key.label) } }
                            td.wide { @if let ShownKey::Hint(hint) = &key.key { code { (hint) } } }
                            td { (badge(key.state)) }
                            td { @match key.last_used { Some(at) => (format::ago(at.0, summary.at)), None => span.quiet { "never" } } }
                        }
                    }
                }
            }
        },
    )
}

/// The overview of an account.
pub(in crate::control::dashboard) async fn overview(
    State(site): State<Site>,
    of: InAccount,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let summary = site.control.summary(&of.caller, of.account.clone(), KEYS).await?;
    let alerts = site.control.alerts(&of.caller, of.account.clone()).await?;
    let used = summary.days.iter().any(|(_, day)| day.requests() > 0);
    let bars: Vec<Bar> =
        summary.days.iter().map(|(day, sums)| Bar { name: format::day(*day), sums: *sums }).collect();
    let title =
        if summary.account.name.is_empty() { of.account.to_string() } else { summary.account.name.clone() };
    let frame =
        of.frame(&site, "", &title, "What your keys do, and what is left.").with_notice(query.as_deref());
    let content = html! {
        div data-live=(of.at("live")) .inner {
            (low(&of, &summary, &alerts))
            (balance(&of, &summary))
            @if !used { (first_steps(&site, &of, &summary)?) }
            (tiles(&summary))
            (card("Requests by day, 30 days", html! {
                @if used { (chart::outcomes("days", "Requests by day", &bars)) } @else { p.quiet { "No requests yet." } }
            }))
            (keys(&of, &summary))
        }
    };
    Ok(frame.page(content))
}
