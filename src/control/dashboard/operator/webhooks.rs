//! The operator's own webhooks, and messages that could not be delivered.

use axum::extract::{Path, State};
use axum::response::Response;
use maud::html;

use crate::control::dashboard::account::deliveries_table;
use crate::control::dashboard::html::parts::{badge, empty, table_card};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{AsOperator, Failure, See};
use crate::control::operations::Permission;
use crate::ledger::store::DeliveriesOf;

/// Deliveries of each endpoint that are listed.
const SHOWN: usize = 10;

/// The operator's endpoints with their newest deliveries.
pub(in crate::control::dashboard) async fn webhooks(
    State(site): State<Site>,
    of: AsOperator,
) -> Result<Response, Failure> {
    let endpoints = site.control.endpoints(&of.caller, None).await?;
    let mut cards = Vec::new();
    for endpoint in &endpoints {
        let all = DeliveriesOf::Endpoint(endpoint.id.clone());
        let page = site.control.deliveries(&of.caller, all, None, SHOWN).await?;
        let base = format!("/operator/webhooks/{}", endpoint.id);
        let resend = of.may(Permission::Endpoints).then_some(base.as_str());
        let state = html! { (badge(if endpoint.enabled { "active" } else { "disabled" })) };
        cards.push(table_card(&endpoint.url, Some(state), html! {
            @if page.data.is_empty() { (empty("Nothing was sent yet.", None)) } @else { (deliveries_table(&page, resend, site.now())) }
        }));
    }
    let failing = site.control.failing_endpoints(&of.caller).await?;
    let frame = of.frame(
        &site,
        "webhooks",
        "Webhooks",
        "Messages to your own systems, and endpoints that do not answer.",
    );
    Ok(frame.page(html! {
        (table_card("Endpoints of customers that are failing", None, html! {
            @if failing.is_empty() { (empty("Every endpoint takes its messages.", None)) } @else {
                table {
                    thead { tr { th { "Account" } th { "URL" } th { "Why" } } }
                    tbody { @for endpoint in &failing { tr {
                        td { @if let Some(account) = &endpoint.account { a href={ "/accounts/" (account) "/webhooks/" (endpoint.id) } { (account) } } }
                        td { (endpoint.url) }
                        td { (endpoint.disabled_because.as_deref().unwrap_or("the last attempts failed")) }
                    } } }
                }
            }
        }))
        @if cards.is_empty() { (table_card("Your endpoints", None, empty("The configuration file has no [[webhooks.endpoints]], and none was made by the API.", None))) }
        @for card in &cards { (card) }
    }))
}

/// Sends a message again.
pub(in crate::control::dashboard) async fn resend(
    State(site): State<Site>,
    of: AsOperator,
    Path((id, number)): Path<(String, u64)>,
) -> Result<See, Failure> {
    site.control.replay(&of.caller, DeliveriesOf::Endpoint(id), number).await?;
    Ok(See("/operator/webhooks".to_owned()))
}
