//! What a crash left in doubt, and the check of the ledger.

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use maud::{Markup, html};

use crate::control::dashboard::html::format;
use crate::control::dashboard::html::parts::{badge, button, card, empty, next_of, table_card};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{AsOperator, Failure, Notice, See};
use crate::control::operations::{DoubtView, Permission, Verification};
use crate::types::WallTime;

/// Requests in doubt that are listed, the newest.
const SHOWN: usize = 50;

fn doubts(of: &AsOperator, list: &[DoubtView], now: WallTime) -> Markup {
    html! {
        table {
            thead { tr { th { "Time" } th { "Account" } th { "Route" } th.num { "Credits" } th { "Request" } th { "State" } } }
            tbody {
                @for doubt in list.iter().rev().take(SHOWN) {
                    tr {
                        td { (format::ago(doubt.at.0, now)) }
                        td { a href={ "/operator/accounts/" (doubt.account) } { (doubt.account) } }
                        td { (doubt.route) }
                        td.num { (format::credits(doubt.amount)) }
                        td { code { (doubt.id) } }
                        td {
                            @match doubt.given_back {
                                Some(at) => { (badge("returned")) " " (format::ago(at.0, now)) }
                                None if of.may(Permission::Credits) => (button(&format!("/operator/ledger/{}/give-back", doubt.id), "Give back", "tight")),
                                None => (badge("in doubt")),
                            }
                        }
                    }
                }
            }
        }
    }
}

fn verified(result: Option<&Verification>) -> Markup {
    card(
        "Check",
        html! {
            p { "Computes every balance and link again from the entries." }
            @if let Some(result) = result {
                @if result.found == 0 {
                    div.banner.ok role="status" { span { "Consistent: " (format::counted(result.accounts, "account", "accounts")) ", " (format::counted(result.entries, "entry", "entries")) "." } }
                } @else {
                    div.banner.bad role="alert" { span { (format::counted(result.found, "difference", "differences")) "." } }
                    pre tabindex="0" { (serde_json::to_string_pretty(&result.differences).unwrap_or_default()) }
                }
                p {}
            }
            (button("/operator/ledger/verify", "Check the ledger", "primary"))
        },
    )
}

async fn page(
    site: &Site,
    of: &AsOperator,
    query: Option<&str>,
    result: Option<&Verification>,
) -> Result<Response, Failure> {
    let mut list = site.control.in_doubt(&of.caller, None).await?;
    list.sort_by_key(|doubt| (doubt.given_back.is_none(), doubt.at.0)); // shown from the end: open ones first
    let mut frame =
        of.frame(site, "ledger", "Ledger", "What a crash left in doubt, and whether every balance is right.");
    frame.notice = Notice::of(query);
    Ok(frame.page(html! {
        @if of.may(Permission::ReadAll) { (verified(result)) }
        (table_card("In doubt", None, html! {
            @if list.is_empty() { (empty("Nothing is in doubt.", None)) } @else { (doubts(of, &list, site.now())) (next_of(0, list.len().min(SHOWN), Some(list.len()), None)) }
        }))
    }))
}

/// What is in doubt.
pub(in crate::control::dashboard) async fn ledger(
    State(site): State<Site>,
    of: AsOperator,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    page(&site, &of, query.as_deref(), None).await
}

/// Checks the ledger.
pub(in crate::control::dashboard) async fn verify(
    State(site): State<Site>,
    of: AsOperator,
) -> Result<Response, Failure> {
    let result = site.control.verify_ledger(&of.caller).await?;
    page(&site, &of, None, Some(&result)).await
}

/// Gives credits in doubt back.
pub(in crate::control::dashboard) async fn give_back(
    State(site): State<Site>,
    of: AsOperator,
    Path(id): Path<String>,
) -> Result<See, Failure> {
    site.control.give_back(&of.caller, &id).await?;
    Ok(See("/operator/ledger?done=given-back".to_owned()))
}
