//! All accounts.

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use maud::html;

use crate::control::dashboard::html::format;
use crate::control::dashboard::html::parts::{Field, badge, card, empty, next, select, table_card, trouble};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{AsOperator, Failure, Fields, Notice, See};
use crate::control::operations::{AccountInput, OperationError, Permission, Result};

/// Accounts on one page.
const PAGE: usize = 50;

/// Lists accounts.
pub(in crate::control::dashboard) async fn accounts(
    State(site): State<Site>,
    of: AsOperator,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let fields = Fields::of(query.as_deref());
    if let Some(id) = fields.some("id") {
        return Ok(See(format!(
            "/operator/accounts/{}",
            form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>()
        ))
        .into_response());
    }
    let after = fields.some("after").and_then(|id| id.parse().ok());
    let page = site.control.accounts(&of.caller, after, PAGE).await?;
    let more = page.next_cursor.as_ref().map(|cursor| format!("?after={cursor}"));
    let create = html! { a.button.primary href="/operator/accounts/new" data-create="" { "Create account" } };
    let mut frame = of.frame(&site, "accounts", "Accounts", "Your customers, in the order of their ids.");
    frame.action = of.may(Permission::Manage).then(|| create.clone());
    frame.notice = Notice::of(query.as_deref());
    Ok(frame.page(html! {
        form.filters method="get" role="search" {
            div.field { label for="id" { "Id" } input #id name="id" type="search" autocomplete="off"; }
            button type="submit" { "Open" }
        }
        (table_card("Accounts", None, html! {
            @if page.data.is_empty() { (empty("There is no account yet.", Some(create))) } @else {
                table {
                    thead { tr { th { "Account" } th { "Name" } th { "Plan" } th { "State" } th.num { "Balance" } th.num { "Available" } } }
                    tbody {
                        @for account in &page.data {
                            tr {
                                td { a href={ "/operator/accounts/" (account.id) } { (account.id) } }
                                td { (account.name) }
                                td { (account.plan.as_deref().unwrap_or("–")) }
                                td { (badge(account.state)) }
                                td.num { (format::credits(account.balance)) }
                                td.num { (format::credits(account.available)) }
                            }
                        }
                    }
                }
            }
            (next(page.data.len(), more))
        }))
    }))
}

/// A choice of the plans.
pub(super) fn plans(site: &Site, of: &AsOperator, chosen: &str) -> Result<maud::Markup> {
    let config = site.control.config(&of.caller)?;
    let mut options = vec![("", "No plan")];
    options.extend(config.plans.iter().map(|plan| (plan.name.as_str(), plan.name.as_str())));
    Ok(select("plan", "Plan", &options, chosen))
}

fn form(site: &Site, of: &AsOperator, fields: &Fields, error: Option<&OperationError>) -> Result<Response> {
    let inputs = [
        Field {
            name: "id",
            label: "Id",
            hint: "Letters, digits and . _ - as your own system names the customer.",
            value: fields.get("id"),
            is_needed: true,
            ..Field::default()
        },
        Field { name: "name", label: "Name", value: fields.get("name"), ..Field::default() },
        Field { name: "credits", label: "Opening credits", value: fields.get("credits"), ..Field::default() },
    ];
    let body = html! {
        form.stack method="post" action="/operator/accounts" {
            (trouble(error, &["id", "name", "credits"]))
            @for input in &inputs { (input.render(error)) }
            (plans(site, of, fields.get("plan"))?)
            div.actions { button.primary type="submit" { "Create account" } a.button href="/operator/accounts" { "Cancel" } }
        }
    };
    let response = of
        .frame(site, "accounts", "Create account", "An account has credits, keys and people.")
        .page(card("New account", body));
    Ok(Failure::told(response, error))
}

/// The form for a new account.
pub(in crate::control::dashboard) async fn create_page(
    State(site): State<Site>,
    of: AsOperator,
) -> Result<Response, Failure> {
    of.caller.may(Permission::Manage)?;
    Ok(form(&site, &of, &Fields::parse(b""), None)?)
}

fn input(fields: &Fields) -> Result<AccountInput> {
    let id = fields
        .get("id")
        .parse()
        .map_err(|error| OperationError::Invalid { field: "id", message: format!("{error}") })?;
    let invalid = |_| OperationError::Invalid {
        field: "credits",
        message: "an amount looks like 1000 or 0.25".to_owned(),
    };
    Ok(AccountInput {
        id,
        name: fields.get("name").to_owned(),
        plan: fields.some("plan").map(str::to_owned),
        credits: fields
            .some("credits")
            .map(|text| text.replace(',', "").parse().map_err(invalid))
            .transpose()?,
    })
}

/// Creates an account.
pub(in crate::control::dashboard) async fn create(
    State(site): State<Site>,
    of: AsOperator,
    fields: Fields,
) -> Result<Response, Failure> {
    of.caller.may(Permission::Manage)?;
    let made = match input(&fields) {
        Ok(input) => site.control.create_account(&of.caller, input).await,
        Err(error) => Err(error),
    };
    match made {
        Ok(view) => Ok(See(format!("/operator/accounts/{}?done=account-created", view.id)).into_response()),
        Err(error @ (OperationError::Invalid { .. } | OperationError::Conflict(_))) => {
            Ok(form(&site, &of, &fields, Some(&error))?)
        }
        Err(error) => Err(error.into()),
    }
}
