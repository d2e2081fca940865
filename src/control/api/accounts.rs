//! `/v1/accounts`: accounts, their credits and entries.

mod groups;
mod jobs;
mod payments;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Body, By, Id, IfMatch, Params, Versioned};
use super::paging::{PageQuery, Repeatable, Versions, cursor};
use super::problem::{ChangeFailures, Failures, ListFailures, ObjectFailures, Problem};
use super::state::{ApiState, created};
use crate::control::operations::{
    AccountInput, AccountPatch, AccountView, BookingInput, BookingView, EntryView, Page,
};
use crate::types::AccountId;

type Answer<T> = Result<Json<T>, Problem>;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(show, change, delete))
        .routes(routes!(grant))
        .routes(routes!(adjust))
        .routes(routes!(entries))
        .merge(groups::router())
        .merge(jobs::router())
        .merge(payments::router())
}

/// Create an account.
#[utoipa::path(
    post, path = "/v1/accounts", tag = "accounts", request_body = AccountInput,
    params(Repeatable),
    responses((status = 201, body = AccountView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn create(
    State(api): State<ApiState>,
    By(caller): By,
    Body(input): Body<AccountInput>,
) -> Result<Versioned<AccountView>, Problem> {
    created(&caller);
    let view = api.control.create_account(&caller, input).await?;
    Ok(Versioned(StatusCode::CREATED, view.version, view))
}

/// List accounts, in the order of their ids.
#[utoipa::path(
    get, path = "/v1/accounts", tag = "accounts", params(PageQuery),
    responses((status = 200, body = Page<AccountView>), Failures, ListFailures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn list(
    State(api): State<ApiState>,
    By(caller): By,
    Params(page): Params<PageQuery>,
) -> Answer<Page<AccountView>> {
    let after = cursor::<AccountId>(page.cursor.as_deref())?;
    Ok(Json(api.control.accounts(&caller, after, page.most()?).await?))
}

/// Show an account.
#[utoipa::path(
    get, path = "/v1/accounts/{account}", tag = "accounts", params(("account" = String, Path)),
    responses((status = 200, body = AccountView), Failures, ObjectFailures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn show(
    State(api): State<ApiState>,
    By(caller): By,
    Id(account): Id<AccountId>,
) -> Result<Versioned<AccountView>, Problem> {
    let view = api.control.account(&caller, account).await?;
    Ok(Versioned(StatusCode::OK, view.version, view))
}

/// Change an account: its name, its plan, or suspend and resume it.
#[utoipa::path(
    patch, path = "/v1/accounts/{account}", tag = "accounts", request_body = AccountPatch,
    params(("account" = String, Path), Repeatable, Versions),
    responses((status = 200, body = AccountView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn change(
    State(api): State<ApiState>,
    By(caller): By,
    Id(account): Id<AccountId>,
    IfMatch(version): IfMatch,
    Body(patch): Body<AccountPatch>,
) -> Result<Versioned<AccountView>, Problem> {
    let view = api.control.change_account(&caller, account, patch, version).await?;
    Ok(Versioned(StatusCode::OK, view.version, view))
}

/// Delete an account: its keys are revoked, its entries stay, and its id cannot be used again.
#[utoipa::path(
    delete, path = "/v1/accounts/{account}", tag = "accounts",
    params(("account" = String, Path), Repeatable, Versions),
    responses((status = 200, body = AccountView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn delete(
    State(api): State<ApiState>,
    By(caller): By,
    Id(account): Id<AccountId>,
    IfMatch(version): IfMatch,
) -> Result<Versioned<AccountView>, Problem> {
    let view = api.control.delete_account(&caller, account, version).await?;
    Ok(Versioned(StatusCode::OK, view.version, view))
}

/// Grant credits. A repeated reference is answered with the first grant.
#[utoipa::path(
    post, path = "/v1/accounts/{account}/grants", tag = "credits", request_body = BookingInput,
    params(("account" = String, Path), Repeatable),
    responses((status = 200, body = BookingView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("credits")))
)]
async fn grant(
    State(api): State<ApiState>,
    By(caller): By,
    Id(account): Id<AccountId>,
    Body(input): Body<BookingInput>,
) -> Answer<BookingView> {
    Ok(Json(api.control.grant(&caller, account, input).await?))
}

/// Adjust a balance, never below zero available. A repeated reference is answered with the first adjustment.
#[utoipa::path(
    post, path = "/v1/accounts/{account}/adjustments", tag = "credits", request_body = BookingInput,
    params(("account" = String, Path), Repeatable),
    responses((status = 200, body = BookingView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("credits")))
)]
async fn adjust(
    State(api): State<ApiState>,
    By(caller): By,
    Id(account): Id<AccountId>,
    Body(input): Body<BookingInput>,
) -> Answer<BookingView> {
    Ok(Json(api.control.adjust(&caller, account, input).await?))
}

/// List the entries of an account, newest first.
#[utoipa::path(
    get, path = "/v1/accounts/{account}/entries", tag = "credits", params(("account" = String, Path), PageQuery),
    responses((status = 200, body = Page<EntryView>), Failures, ListFailures, ObjectFailures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn entries(
    State(api): State<ApiState>,
    By(caller): By,
    Id(account): Id<AccountId>,
    Params(page): Params<PageQuery>,
) -> Answer<Page<EntryView>> {
    let before = cursor::<u64>(page.cursor.as_deref())?;
    Ok(Json(api.control.entries(&caller, account, before, page.most()?).await?))
}
