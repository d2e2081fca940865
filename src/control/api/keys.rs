//! `/v1/accounts/{account}/keys`, `/v1/keys`: keys.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Body, By, Id, IfMatch, MaybeBody, Params, Versioned};
use super::paging::{KeysQuery, Repeatable, Versions, cursor, most};
use super::problem::{ChangeFailures, Failures, ListFailures, ObjectFailures, Problem};
use super::state::{ApiState, created};
use crate::control::operations::{KeyInput, KeyPatch, KeyView, LeakInput, Page};
use crate::policy::key::KeyState;
use crate::types::{AccountId, KeyId, KeyNum};

type Changed = Result<Versioned<KeyView>, Problem>;

fn ok(view: KeyView) -> Versioned<KeyView> {
    Versioned(StatusCode::OK, view.version, view)
}

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(create, list_of_account))
        .routes(routes!(list))
        .routes(routes!(report_leaked))
        .routes(routes!(show, change, revoke))
        .routes(routes!(rotate))
        .routes(routes!(end_overlap))
        .routes(routes!(disable))
        .routes(routes!(enable))
}

/// Create a key, which is shown only in this response; or import one by its SHA-256.
#[utoipa::path(
    post, path = "/v1/accounts/{account}/keys", tag = "keys", request_body = KeyInput,
    params(("account" = String, Path), Repeatable),
    responses((status = 201, body = KeyView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn create(
    State(api): State<ApiState>,
    By(caller): By,
    Id(account): Id<AccountId>,
    Body(input): Body<KeyInput>,
) -> Changed {
    created(&caller);
    let view = api.control.create_key(&caller, account, input).await?;
    Ok(Versioned(StatusCode::CREATED, view.version, view))
}

/// List the keys of an account, in the order of their creation.
#[utoipa::path(
    get, path = "/v1/accounts/{account}/keys", tag = "keys", params(("account" = String, Path), KeysQuery),
    responses((status = 200, body = Page<KeyView>), Failures, ListFailures, ObjectFailures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn list_of_account(
    State(api): State<ApiState>,
    By(caller): By,
    Id(account): Id<AccountId>,
    Params(query): Params<KeysQuery>,
) -> Result<Json<Page<KeyView>>, Problem> {
    let KeysQuery { idle, cursor: after, limit } = query;
    let after = KeyNum(cursor(after.as_deref())?.unwrap_or(0));
    Ok(Json(api.control.keys(&caller, Some(account), idle.as_deref(), after, most(limit)?).await?))
}

/// List the keys of all accounts, in the order of their creation.
#[utoipa::path(
    get, path = "/v1/keys", tag = "keys", params(KeysQuery),
    responses((status = 200, body = Page<KeyView>), Failures, ListFailures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn list(
    State(api): State<ApiState>,
    By(caller): By,
    Params(query): Params<KeysQuery>,
) -> Result<Json<Page<KeyView>>, Problem> {
    let KeysQuery { idle, cursor: after, limit } = query;
    let after = KeyNum(cursor(after.as_deref())?.unwrap_or(0));
    Ok(Json(api.control.keys(&caller, None, idle.as_deref(), after, most(limit)?).await?))
}

/// Show a key, without its secret.
#[utoipa::path(
    get, path = "/v1/keys/{key}", tag = "keys", params(("key" = String, Path)),
    responses((status = 200, body = KeyView), Failures, ObjectFailures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn show(State(api): State<ApiState>, By(caller): By, Id(key): Id<KeyId>) -> Changed {
    Ok(ok(api.control.key(&caller, key).await?))
}

/// Change the label, scopes, expiry, networks or limits of a key.
#[utoipa::path(
    patch, path = "/v1/keys/{key}", tag = "keys", request_body = KeyPatch,
    params(("key" = String, Path), Repeatable, Versions),
    responses((status = 200, body = KeyView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn change(
    State(api): State<ApiState>,
    By(caller): By,
    Id(key): Id<KeyId>,
    IfMatch(version): IfMatch,
    Body(patch): Body<KeyPatch>,
) -> Changed {
    Ok(ok(api.control.change_key(&caller, key, patch, version).await?))
}

/// How to rotate a key.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotation {
    /// How long the old secret is still accepted: a duration such as `24h`, or a time. Without it, the old secret is
    /// refused at once.
    #[serde(default)]
    #[schema(example = "24h")]
    overlap: Option<String>,
}

/// Give a key a new secret, which is shown only in this response.
#[utoipa::path(
    post, path = "/v1/keys/{key}/rotate", tag = "keys", request_body = Option<Rotation>,
    params(("key" = String, Path), Repeatable),
    responses((status = 200, body = KeyView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn rotate(
    State(api): State<ApiState>,
    By(caller): By,
    Id(key): Id<KeyId>,
    MaybeBody(rotation): MaybeBody<Rotation>,
) -> Changed {
    Ok(ok(api.control.rotate_key(&caller, key, rotation.overlap).await?))
}

/// End the overlap of a rotation: the old secret is refused from now on.
#[utoipa::path(
    post, path = "/v1/keys/{key}/end-overlap", tag = "keys", params(("key" = String, Path), Repeatable),
    responses((status = 200, body = KeyView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn end_overlap(State(api): State<ApiState>, By(caller): By, Id(key): Id<KeyId>) -> Changed {
    Ok(ok(api.control.end_overlap(&caller, key).await?))
}

/// Disable a key until it is enabled again.
#[utoipa::path(
    post, path = "/v1/keys/{key}/disable", tag = "keys",
    params(("key" = String, Path), Repeatable),
    responses((status = 200, body = KeyView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn disable(State(api): State<ApiState>, By(caller): By, Id(key): Id<KeyId>) -> Changed {
    Ok(ok(api.control.set_key_state(&caller, key, KeyState::Disabled).await?))
}

/// Enable a disabled key.
#[utoipa::path(
    post, path = "/v1/keys/{key}/enable", tag = "keys",
    params(("key" = String, Path), Repeatable),
    responses((status = 200, body = KeyView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn enable(State(api): State<ApiState>, By(caller): By, Id(key): Id<KeyId>) -> Changed {
    Ok(ok(api.control.set_key_state(&caller, key, KeyState::Active).await?))
}

/// Report a key that was found where it should not be. The key is disabled until it is enabled again.
#[utoipa::path(
    post, path = "/v1/keys/report-leaked", tag = "keys", request_body = LeakInput, params(Repeatable),
    responses((status = 200, body = KeyView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn report_leaked(State(api): State<ApiState>, By(caller): By, Body(leak): Body<LeakInput>) -> Changed {
    Ok(ok(api.control.report_leaked(&caller, leak).await?))
}

/// Revoke a key permanently.
#[utoipa::path(
    delete, path = "/v1/keys/{key}", tag = "keys",
    params(("key" = String, Path), Repeatable),
    responses((status = 200, body = KeyView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn revoke(State(api): State<ApiState>, By(caller): By, Id(key): Id<KeyId>) -> Changed {
    Ok(ok(api.control.set_key_state(&caller, key, KeyState::Revoked).await?))
}
