//! `/v1/accounts/{account}/groups`: groups of an account's keys that have a spending limit together.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::control::api::extract::{Body, By, Id, Ids};
use crate::control::api::paging::Repeatable;
use crate::control::api::problem::{ChangeFailures, Failures, ObjectFailures, Problem};
use crate::control::api::state::ApiState;
use crate::control::operations::{GroupInput, GroupView, GroupsView};
use crate::types::{AccountId, GroupName};

type Answer<T> = Result<Json<T>, Problem>;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(put, delete))
}

/// List the groups of an account's keys.
#[utoipa::path(
    get, path = "/v1/accounts/{account}/groups", tag = "keys", params(("account" = String, Path)),
    responses((status = 200, body = GroupsView), Failures, ObjectFailures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn list(State(api): State<ApiState>, By(caller): By, Id(account): Id<AccountId>) -> Answer<GroupsView> {
    Ok(Json(api.control.groups(&caller, account).await?))
}

/// Set what the keys of a group may spend together. The group is created if it does not exist.
#[utoipa::path(
    put, path = "/v1/accounts/{account}/groups/{group}", tag = "keys", request_body = GroupInput,
    params(("account" = String, Path), ("group" = String, Path, description = "The group's name."), Repeatable),
    responses((status = 200, body = GroupView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn put(
    State(api): State<ApiState>,
    By(caller): By,
    Ids(account, group): Ids<AccountId, GroupName>,
    Body(input): Body<GroupInput>,
) -> Answer<GroupView> {
    Ok(Json(api.control.put_group(&caller, account, group, input).await?))
}

/// Delete a group that no key is in.
#[utoipa::path(
    delete, path = "/v1/accounts/{account}/groups/{group}", tag = "keys",
    params(("account" = String, Path), ("group" = String, Path, description = "The group's name."), Repeatable),
    responses((status = 200, body = GroupView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn delete(
    State(api): State<ApiState>,
    By(caller): By,
    Ids(account, group): Ids<AccountId, GroupName>,
) -> Answer<GroupView> {
    Ok(Json(api.control.delete_group(&caller, account, group).await?))
}
