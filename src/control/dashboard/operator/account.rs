//! One account, as the operator sees it.

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::accounts::plans;
use crate::control::dashboard::html::format;
use crate::control::dashboard::html::parts::{Field, Question, badge, button, card, select, tile, trouble};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{AsOperator, Failure, Fields, Notice, See};
use crate::control::operations::{
    AccountPatch, AccountView, BookingInput, OperationError, Patch, Permission, Result,
};
use crate::types::AccountId;

fn parsed(id: &str) -> Result<AccountId> {
    id.parse().map_err(|_| OperationError::Missing("there is no such account".to_owned()))
}

fn tiles(account: &AccountView) -> Markup {
    html! {
        div.tiles {
            (tile("Balance", html! { (format::credits(account.balance)) }, html! { (format::credits(account.held)) " held" }))
            (tile("Available", html! { (format::credits(account.available)) }, html! { "can be spent now" }))
            (tile("Plan", html! { (account.plan.as_deref().unwrap_or("–")) }, html! { (format::counted(account.limits.len() as u64, "limit", "limits")) }))
            (tile("State", html! { (badge(account.state)) }, html! { "defined in the " (if account.source == crate::ledger::store::Source::File { "file" } else { "ledger" }) }))
        }
    }
}

fn booking(
    page: &str,
    buckets: &[String],
    fields: Option<&Fields>,
    error: Option<&OperationError>,
) -> Markup {
    let typed = |name: &str| fields.map(|fields| fields.get(name).to_owned()).unwrap_or_default();
    let (credits, reference, kind) = (typed("credits"), typed("reference"), typed("kind"));
    let credits =
        Field { name: "credits", label: "Credits", value: &credits, is_needed: true, ..Field::default() };
    let reference = Field {
        name: "reference",
        label: "Reference",
        hint: "Such as the number of an invoice. Booked again with the same reference, nothing changes.",
        value: &reference,
        is_needed: true,
        ..Field::default()
    };
    let buckets: Vec<(&str, &str)> = buckets.iter().map(|name| (&**name, &**name)).collect();
    let (bucket, expires) = (typed("bucket"), typed("expires"));
    let expires =
        Field { name: "expires", label: "Expires, such as 30d", value: &expires, ..Field::default() };
    card(
        "Book credits",
        html! {
            form.stack method="post" action={ (page) "/book" } {
                (trouble(error, &["credits", "reference", "expires"]))
                div.row { (select("kind", "Type", &[("grant", "Grant"), ("adjustment", "Adjustment (may be negative)")], &kind)) (credits.render(error)) }
                (reference.render(error))
                div.row { @if buckets.len() > 1 { (select("bucket", "Bucket of a grant", &buckets, &bucket)) } (expires.render(error)) }
                div { button.primary type="submit" { "Book" } }
            }
        },
    )
}

async fn page(
    site: &Site,
    of: &AsOperator,
    id: AccountId,
    query: Option<&str>,
    fields: Option<&Fields>,
    error: Option<&OperationError>,
) -> Result<Response, Failure> {
    let account = site.control.account_now(&of.caller, id.clone()).await?;
    let waits = site.control.awaits_approval(&id).await?;
    let page = format!("/operator/accounts/{id}");
    let title = if account.name.is_empty() { id.to_string() } else { account.name.clone() };
    let about = format!("Account {id}");
    let mut frame = of.frame(site, "accounts", &title, &about);
    frame.notice = Notice::of(query);
    let may = of.may(Permission::Manage);
    frame.action = Some(html! {
        @if may && account.state == "active" { a.button.danger href={ (page) "/suspend" } data-dialog="" { "Suspend" } }
        @if may && account.state == "suspended" { (button(&format!("{page}/resume"), "Resume", "")) }
        a.button.primary href={ "/accounts/" (id) } { "Open as the customer sees it" }
    });
    let name = Field { name: "name", label: "Name", value: &account.name, ..Field::default() };
    let response = frame.page(html! {
        @if waits {
            div.banner.info role="status" { span { "This account signed up and waits for your approval." } @if may { (button(&format!("{page}/approve"), "Approve", "primary")) a.button.danger href={ (page) "/decline" } data-dialog="" { "Decline" } } }
        }
        (tiles(&account))
        div.columns {
            @if of.may(Permission::Credits) { (booking(&page, &site.control.bucket_names(), fields, error)) }
            @if may {
                (card("Change", html! {
                    form.stack method="post" action={ (page) "/change" } {
                        (name.render(error))
                        (plans(site, of, account.plan.as_deref().unwrap_or_default())?)
                        div { button type="submit" { "Save" } }
                    }
                }))
            }
        }
    });
    Ok(Failure::told(response, error))
}

/// One account.
pub(in crate::control::dashboard) async fn account(
    State(site): State<Site>,
    of: AsOperator,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    page(&site, &of, parsed(&id)?, query.as_deref(), None, None).await
}

async fn booked(site: &Site, of: &AsOperator, id: AccountId, fields: &Fields) -> Result<()> {
    let invalid = |_| OperationError::Invalid {
        field: "credits",
        message: "an amount looks like 1000 or -0.25".to_owned(),
    };
    let credits = fields.get("credits").replace(',', "").parse().map_err(invalid)?;
    let input =
        BookingInput { credits, reference: fields.get("reference").to_owned(), ..BookingInput::default() };
    let (bucket, expires) =
        (fields.some("bucket").map(str::to_owned), fields.some("expires").map(str::to_owned));
    match fields.get("kind") {
        "adjustment" => site.control.adjust(&of.caller, id, input).await.map(drop),
        _ => {
            let input = BookingInput { bucket, expires, ..input };
            site.control.grant(&of.caller, id, input).await.map(drop)
        }
    }
}

/// Books credits.
pub(in crate::control::dashboard) async fn book(
    State(site): State<Site>,
    of: AsOperator,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Failure> {
    let id = parsed(&id)?;
    of.caller.may(Permission::Credits)?;
    match booked(&site, &of, id.clone(), &fields).await {
        Ok(()) => Ok(See(format!("/operator/accounts/{id}?done=granted")).into_response()),
        Err(
            error @ (OperationError::Invalid { .. }
            | OperationError::Conflict(_)
            | OperationError::InsufficientCredits(_)),
        ) => page(&site, &of, id, None, Some(&fields), Some(&error)).await,
        Err(error) => Err(error.into()),
    }
}

async fn patch(
    site: Site,
    of: AsOperator,
    id: &str,
    patch: AccountPatch,
    done: &str,
) -> Result<See, Failure> {
    let id = parsed(id)?;
    site.control.change_account(&of.caller, id.clone(), patch, None).await?;
    Ok(See(format!("/operator/accounts/{id}?done={done}")))
}

/// Changes an account's name and plan.
pub(in crate::control::dashboard) async fn change(
    State(site): State<Site>,
    of: AsOperator,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<See, Failure> {
    let plan = fields.some("plan").map_or(Patch::Null, |plan| Patch::Value(plan.to_owned()));
    let change = AccountPatch { name: Some(fields.get("name").to_owned()), plan, suspended: None };
    patch(site, of, &id, change, "account-changed").await
}

/// Asks whether to do something to an account. `what`: the last part of the address that does it.
fn ask(site: &Site, of: &AsOperator, id: &str, (verb, what): (&str, &str), effect: &str) -> Result<Response> {
    of.caller.may(Permission::Manage)?;
    let back = format!("/operator/accounts/{}", parsed(id)?);
    let title = format!("{verb} {id}");
    let action = format!("{back}/{what}");
    let question = Question { title: &title, effect, action: &action, verb, back: &back, fields: html! {} };
    Ok(of.frame(site, "accounts", &title, "").page(question.render(None)))
}

/// Asks whether to suspend an account.
pub(in crate::control::dashboard) async fn suspend_page(
    State(site): State<Site>,
    of: AsOperator,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let effect = "All its requests are refused, within a second, until you resume it. Its keys, credits and people stay.";
    Ok(ask(&site, &of, &id, ("Suspend", "suspend"), effect)?)
}

/// Asks whether to decline an account that signed up.
pub(in crate::control::dashboard) async fn decline_page(
    State(site): State<Site>,
    of: AsOperator,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let effect = "The account is closed for good: its keys are refused, and nobody can open it again.";
    Ok(ask(&site, &of, &id, ("Decline", "decline"), effect)?)
}

/// Declines an account that signed up.
pub(in crate::control::dashboard) async fn decline(
    State(site): State<Site>,
    of: AsOperator,
    Path(id): Path<String>,
) -> Result<See, Failure> {
    let id = parsed(&id)?;
    site.control.decline_account(&of.caller, id.clone()).await?;
    Ok(See(format!("/operator/accounts/{id}?done=account-declined")))
}

/// Suspends an account.
pub(in crate::control::dashboard) async fn suspend(
    State(site): State<Site>,
    of: AsOperator,
    Path(id): Path<String>,
) -> Result<See, Failure> {
    let change = AccountPatch { suspended: Some(true), ..AccountPatch::default() };
    patch(site, of, &id, change, "account-suspended").await
}

/// Resumes an account.
pub(in crate::control::dashboard) async fn resume(
    State(site): State<Site>,
    of: AsOperator,
    Path(id): Path<String>,
) -> Result<See, Failure> {
    let change = AccountPatch { suspended: Some(false), ..AccountPatch::default() };
    patch(site, of, &id, change, "account-resumed").await
}

/// Approves an account that signed up.
pub(in crate::control::dashboard) async fn approve(
    State(site): State<Site>,
    of: AsOperator,
    Path(id): Path<String>,
) -> Result<See, Failure> {
    let id = parsed(&id)?;
    site.control.approve_account(&of.caller, id.clone()).await?;
    Ok(See(format!("/operator/accounts/{id}?done=account-approved")))
}
