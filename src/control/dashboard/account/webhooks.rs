//! The webhooks of an account: endpoints, their secrets, and deliveries.

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use crate::control::dashboard::html::format;
use crate::control::dashboard::html::parts::{
    Field, Question, badge, button, card, empty, next, select, table_card, trouble,
};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{Failure, Fields, InAccount, See};
use crate::control::operations::{
    DeliveryView, EndpointInput, EndpointPatch, EndpointView, OperationError, Page, Permission, Result,
    ShownKey,
};
use crate::ledger::store::{DeliveriesOf, EventKind};
use crate::types::WallTime;

/// Deliveries on one page.
const PAGE: usize = 25;
/// How long a former secret signs too, as one chooses it.
const GRACES: [(&str, &str); 4] =
    [("", "Stop it now"), ("1h", "1 hour"), ("24h", "24 hours"), ("7d", "7 days")];

type Ids = Path<(String, String)>;

/// The state of an endpoint.
fn state(endpoint: &EndpointView) -> Markup {
    html! {
        (badge(if endpoint.enabled { "active" } else { "disabled" }))
        @if let Some(why) = &endpoint.disabled_because { div.quiet { (why) } }
    }
}

fn table(of: &InAccount, endpoints: &[EndpointView]) -> Markup {
    html! {
        table {
            thead { tr { th { "URL" } th { "Events" } th { "Status" } } }
            tbody {
                @for endpoint in endpoints {
                    tr {
                        td { a href=(of.at(&format!("webhooks/{}", endpoint.id))) { (endpoint.url) } }
                        td { @match &endpoint.events { Some(events) => (events.join(", ")), None => "all" } }
                        td { (state(endpoint)) }
                    }
                }
            }
        }
    }
}

/// The boxes of events.
fn events(chosen: Option<&[&str]>) -> Markup {
    html! {
        fieldset {
            legend { "Events" }
            span.hint { "None checked: all of them." }
            @for kind in EventKind::ALL.map(EventKind::name) {
                label.check { input type="checkbox" name="event" value=(kind) checked[chosen.is_some_and(|chosen| chosen.contains(&kind))]; (kind) }
            }
        }
    }
}

fn form(of: &InAccount, fields: Option<&Fields>, error: Option<&OperationError>) -> Markup {
    let typed = fields.map(|fields| fields.get("url")).unwrap_or_default();
    let chosen: Option<Vec<&str>> = fields.map(|fields| fields.all("event").collect());
    let url = Field {
        name: "url",
        label: "URL, or e-mail address",
        hint: "https://… on a public address, or mailto: and the address of somebody of the team.",
        value: typed,
        is_needed: true,
        ..Field::default()
    };
    card(
        "New endpoint",
        html! {
            form.stack method="post" action=(of.at("webhooks")) {
                (trouble(error, &["url"]))
                (url.render(error))
                (events(chosen.as_deref()))
                div { button.primary type="submit" { "Add endpoint" } }
            }
        },
    )
}

async fn page(
    site: &Site,
    of: &InAccount,
    form: Markup,
    query: Option<&str>,
    error: Option<&OperationError>,
) -> Result<Response, Failure> {
    let endpoints = site.control.endpoints(&of.caller, Some(of.account.clone())).await?;
    let frame = of
        .frame(site, "webhooks", "Webhooks", "Signed messages to your servers when something happens.")
        .with_notice(query);
    let response = frame.page(html! {
        (table_card("Endpoints", None, html! {
            @if endpoints.is_empty() { (empty("There is no endpoint yet. Add one to be told when credits run low or a key expires.", None)) } @else { (table(of, &endpoints)) }
        }))
        @if of.may(Permission::Endpoints) { (form) }
    });
    Ok(Failure::told(response, error))
}

/// The endpoints of an account.
pub(in crate::control::dashboard) async fn webhooks(
    State(site): State<Site>,
    of: InAccount,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    page(&site, &of, form(&of, None, None), query.as_deref(), None).await
}

fn chosen_events(fields: &Fields) -> Vec<String> {
    fields.all("event").map(str::to_owned).collect()
}

fn show_secret(site: &Site, of: &InAccount, view: &EndpointView) {
    if let Some(ShownKey::Whole(secret)) = &view.secret {
        site.reveals.put(of.visitor.session, &view.id, vec![secret.clone()], site.control.now());
    }
}

/// Adds an endpoint, and goes on to its page, which shows the secret.
pub(in crate::control::dashboard) async fn create_endpoint(
    State(site): State<Site>,
    of: InAccount,
    fields: Fields,
) -> Result<Response, Failure> {
    of.caller.may_in(Permission::Endpoints, &of.account)?;
    let input = EndpointInput { url: fields.get("url").to_owned(), events: Some(chosen_events(&fields)) };
    match site.control.create_endpoint(&of.caller, Some(of.account.clone()), input).await {
        Ok(view) => {
            show_secret(&site, &of, &view);
            Ok(See(of.at(&format!("webhooks/{}", view.id))).into_response())
        }
        Err(error @ (OperationError::Invalid { .. } | OperationError::Conflict(_))) => {
            page(&site, &of, form(&of, Some(&fields), Some(&error)), None, Some(&error)).await
        }
        Err(error) => Err(error.into()),
    }
}

/// The endpoint of this page, which must be one of the account in the path.
async fn found(site: &Site, of: &InAccount, id: &str) -> Result<EndpointView> {
    let view = site.control.endpoint(&of.caller, id).await?;
    match view.account.as_ref() == Some(&of.account) {
        true => Ok(view),
        false => OperationError::missing("there is no such endpoint"),
    }
}

/// The deliveries of an endpoint, each with a button that sends it again.
pub(in crate::control::dashboard) fn deliveries_table(
    page: &Page<DeliveryView>,
    resend: Option<&str>,
    now: WallTime,
) -> Markup {
    html! {
        table {
            thead { tr { th { "Time" } th { "Event" } th { "State" } th.num { "Attempts" } th { "Last response, if it failed" } th { span.sr { "Actions" } } } }
            tbody {
                @for delivery in &page.data {
                    tr {
                        td { (format::ago(delivery.at.0, now)) }
                        td { (delivery.event) div.quiet { code { (delivery.message) } } }
                        td { (badge(delivery.state)) @if let Some(at) = delivery.next_at { div.quiet { "again " (format::ago(at.0, now)) } } }
                        td.num { (delivery.attempts) }
                        td { @if let Some(status) = delivery.status { "status " (status) } @if let Some(error) = &delivery.error { div.quiet { (error) } } }
                        td.num { @if let Some(resend) = resend { (button(&format!("{resend}/{}/resend", delivery.number), "Resend", "tight")) } }
                    }
                }
            }
        }
    }
}

fn facts(endpoint: &EndpointView, secret: Option<&str>) -> Markup {
    card(
        "Facts",
        html! {
            dl.facts {
                dt { "URL" } dd { (endpoint.url) }
                dt { "Events" } dd { @match &endpoint.events { Some(events) => (events.join(", ")), None => "all" } }
                dt { "Status" } dd { (state(endpoint)) }
                dt { "Created" } dd { (format::at(endpoint.created.0)) }
                @if let Some(until) = endpoint.old_secret_until { dt { "Former secret" } dd { "signs too until " (format::at(until.0)) } }
            }
            @if let Some(secret) = secret {
                h3 { "Secret" }
                p.quiet { "It signs each message (Standard Webhooks). Your server checks the signature with it." }
                div.secret {
                    code #secret data-secret="" { (secret) }
                    button.hidden type="button" data-js="" data-reveal="secret" { "Reveal" }
                    button.hidden type="button" data-js="" data-copy="secret" { "Copy" }
                }
            }
        },
    )
}

fn manage(of: &InAccount, endpoint: &EndpointView) -> Markup {
    let page = of.at(&format!("webhooks/{}", endpoint.id));
    let chosen = endpoint.events.as_deref();
    card(
        "Change",
        html! {
            form.stack method="post" action={ (page) "/edit" } {
                (events(chosen))
                label.check { input type="checkbox" name="enabled" checked[endpoint.enabled]; "Send messages" }
                div { button type="submit" { "Save" } }
            }
            @if !endpoint.url.starts_with("mailto:") {
                h3 { "New secret" }
                form.stack method="post" action={ (page) "/rotate" } {
                    div.row { (select("overlap", "The former secret signs too for", &GRACES, "24h")) div { button type="submit" { "Rotate secret" } } }
                }
            }
        },
    )
}

/// The page of an endpoint.
pub(in crate::control::dashboard) async fn endpoint(
    State(site): State<Site>,
    of: InAccount,
    Path((_, id)): Ids,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let endpoint = found(&site, &of, &id).await?;
    let fields = Fields::of(query.as_deref());
    let before = fields.get("before").parse().ok();
    let all = DeliveriesOf::Endpoint(id.clone());
    let deliveries = site.control.deliveries(&of.caller, all, before, PAGE).await?;
    let may = of.may(Permission::Endpoints);
    let is_signed = !endpoint.url.starts_with("mailto:");
    let secret = match may && is_signed {
        true => site.control.endpoint_secret(&of.caller, &id).await?.secret,
        false => None,
    };
    let secret = match &secret {
        Some(ShownKey::Whole(secret)) => Some(secret.reveal().as_str()),
        _ => None,
    };
    let more = deliveries.next_cursor.as_ref().map(|cursor| format!("?before={cursor}"));
    let page = of.at(&format!("webhooks/{id}"));
    let mut frame = of
        .frame(&site, "webhooks", "Endpoint", "What is sent, and what became of it.")
        .with_notice(query.as_deref());
    if may {
        frame.action = Some(html! {
            a.button.danger href={ (page) "/delete" } data-dialog="" { "Delete" }
            (button(&format!("{page}/test"), "Send a test", "primary"))
        });
    }
    Ok(frame.page(html! {
        div.columns { (facts(&endpoint, secret)) @if may { (manage(&of, &endpoint)) } }
        (table_card("Deliveries", None, html! {
            @if deliveries.data.is_empty() { (empty("Nothing was sent yet. Send a test.", None)) }
            @else { (deliveries_table(&deliveries, may.then_some(page.as_str()), site.now())) }
            (next(deliveries.data.len(), more))
        }))
    }))
}

/// Changes an endpoint.
pub(in crate::control::dashboard) async fn change_endpoint(
    State(site): State<Site>,
    of: InAccount,
    Path((_, id)): Ids,
    fields: Fields,
) -> Result<See, Failure> {
    found(&site, &of, &id).await?;
    let patch =
        EndpointPatch { events: Some(chosen_events(&fields)), enabled: Some(fields.is_checked("enabled")) };
    site.control.change_endpoint(&of.caller, &id, patch).await?;
    Ok(See(of.at(&format!("webhooks/{id}?done=endpoint-changed"))))
}

/// Gives an endpoint a new secret.
pub(in crate::control::dashboard) async fn rotate_endpoint(
    State(site): State<Site>,
    of: InAccount,
    Path((_, id)): Ids,
    fields: Fields,
) -> Result<See, Failure> {
    found(&site, &of, &id).await?;
    let overlap = fields.some("overlap").map(str::to_owned);
    site.control.rotate_endpoint(&of.caller, &id, overlap).await?;
    Ok(See(of.at(&format!("webhooks/{id}?done=endpoint-changed"))))
}

/// Sends a test message.
pub(in crate::control::dashboard) async fn test_endpoint(
    State(site): State<Site>,
    of: InAccount,
    Path((_, id)): Ids,
) -> Result<See, Failure> {
    found(&site, &of, &id).await?;
    site.control.test_endpoint(&of.caller, &id).await?;
    Ok(See(of.at(&format!("webhooks/{id}?done=endpoint-tested"))))
}

/// Sends a message again.
pub(in crate::control::dashboard) async fn resend(
    State(site): State<Site>,
    of: InAccount,
    Path((_, id, number)): Path<(String, String, u64)>,
) -> Result<See, Failure> {
    found(&site, &of, &id).await?;
    site.control.replay(&of.caller, DeliveriesOf::Endpoint(id.clone()), number).await?;
    Ok(See(of.at(&format!("webhooks/{id}?done=delivery-resent"))))
}

/// Asks whether to delete an endpoint.
pub(in crate::control::dashboard) async fn delete_page(
    State(site): State<Site>,
    of: InAccount,
    Path((_, id)): Ids,
) -> Result<Response, Failure> {
    of.caller.may_in(Permission::Endpoints, &of.account)?;
    let endpoint = found(&site, &of, &id).await?;
    let back = of.at(&format!("webhooks/{id}"));
    let question = Question {
        title: "Delete this endpoint",
        effect: &format!("Nothing is sent to {} any more. Messages that wait are dropped.", endpoint.url),
        action: &format!("{back}/delete"),
        verb: "Delete",
        back: &back,
        fields: html! {},
    };
    Ok(of.frame(&site, "webhooks", "Delete endpoint", "").page(question.render(None)))
}

/// Deletes an endpoint.
pub(in crate::control::dashboard) async fn delete_endpoint(
    State(site): State<Site>,
    of: InAccount,
    Path((_, id)): Ids,
) -> Result<See, Failure> {
    found(&site, &of, &id).await?;
    site.control.delete_endpoint(&of.caller, &id, Some(&of.account)).await?;
    Ok(See(of.at("webhooks?done=endpoint-deleted")))
}
