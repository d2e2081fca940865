//! The gateway itself: configuration, ledger, tokens, audit log.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Body, By, Id, Params};
use super::paging::{AuditQuery, Repeatable, cursor, most};
use super::problem::{ChangeFailures, Failures, ListFailures, Problem};
use super::state::{ApiState, created};
use crate::control::operations::{
    AuditView, ConfigView, DoubtView, GivenBack, Page, Reloaded, TokenInput, TokenView, Verification,
};
use crate::ledger::store::AuditFilter;

type Answer<T> = Result<Json<T>, Problem>;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(config))
        .routes(routes!(reload))
        .routes(routes!(verify_ledger))
        .routes(routes!(in_doubt))
        .routes(routes!(give_back))
        .routes(routes!(create_token, tokens))
        .routes(routes!(revoke_token))
        .routes(routes!(audit))
}

/// Counters, health and upstreams.
#[utoipa::path(
    get, path = "/v1/status", tag = "gateway", responses((status = 200, body = Object), Failures),
    extensions(("x-permission" = json!("read_all")))
)]
async fn status(State(api): State<ApiState>, By(caller): By) -> Answer<Value> {
    Ok(Json(api.control.status(&caller)?))
}

/// The configuration in force, without anything secret.
#[utoipa::path(
    get, path = "/v1/config", tag = "gateway", responses((status = 200, body = ConfigView), Failures),
    extensions(("x-permission" = json!("read_all")))
)]
async fn config(State(api): State<ApiState>, By(caller): By) -> Answer<ConfigView> {
    Ok(Json(api.control.config(&caller)?))
}

/// Read the configuration file again. A file with mistakes changes nothing.
#[utoipa::path(
    post, path = "/v1/reload", tag = "gateway", params(Repeatable),
    responses((status = 200, body = Reloaded), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn reload(State(api): State<ApiState>, By(caller): By) -> Answer<Reloaded> {
    Ok(Json(api.control.reload(&caller).await?))
}

/// Recompute every balance and link from the entries.
#[utoipa::path(
    post, path = "/v1/ledger/verify", tag = "ledger", responses((status = 200, body = Verification), Failures),
    extensions(("x-permission" = json!("read_all")))
)]
async fn verify_ledger(State(api): State<ApiState>, By(caller): By) -> Answer<Verification> {
    Ok(Json(api.control.verify_ledger(&caller).await?))
}

/// List holds in doubt: a crash left them open, so they were charged in full.
#[utoipa::path(
    get, path = "/v1/ledger/in-doubt", tag = "ledger", responses((status = 200, body = Vec<DoubtView>), Failures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn in_doubt(State(api): State<ApiState>, By(caller): By) -> Answer<Vec<DoubtView>> {
    Ok(Json(api.control.in_doubt(&caller, None).await?))
}

/// Return the credits of a hold in doubt, once.
#[utoipa::path(
    post, path = "/v1/ledger/in-doubt/{request}/give-back", tag = "ledger",
    params(("request" = String, Path), Repeatable),
    responses((status = 200, body = GivenBack), Failures, ChangeFailures),
    extensions(("x-permission" = json!("credits")))
)]
async fn give_back(
    State(api): State<ApiState>,
    By(caller): By,
    Id(request): Id<String>,
) -> Answer<GivenBack> {
    Ok(Json(api.control.give_back(&caller, &request).await?))
}

/// Create a token of this API. It is shown only in this response.
#[utoipa::path(
    post, path = "/v1/tokens", tag = "gateway", request_body = TokenInput,
    params(Repeatable),
    responses((status = 201, body = TokenView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn create_token(
    State(api): State<ApiState>,
    By(caller): By,
    Body(input): Body<TokenInput>,
) -> Result<(StatusCode, Json<TokenView>), Problem> {
    created(&caller);
    Ok((StatusCode::CREATED, Json(api.control.create_token(&caller, input).await?)))
}

/// List the tokens of this API, without the tokens themselves.
#[utoipa::path(
    get, path = "/v1/tokens", tag = "gateway", responses((status = 200, body = Vec<TokenView>), Failures),
    extensions(("x-permission" = json!("read_all")))
)]
async fn tokens(State(api): State<ApiState>, By(caller): By) -> Answer<Vec<TokenView>> {
    Ok(Json(api.control.tokens(&caller).await?))
}

/// Revoke a token.
#[utoipa::path(
    delete, path = "/v1/tokens/{token}", tag = "gateway",
    params(("token" = String, Path, description = "The token's name."), Repeatable),
    responses((status = 200, body = TokenView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn revoke_token(
    State(api): State<ApiState>,
    By(caller): By,
    Id(name): Id<String>,
) -> Answer<TokenView> {
    Ok(Json(api.control.revoke_token(&caller, &name).await?))
}

/// List who changed what, newest first.
#[utoipa::path(
    get, path = "/v1/audit", tag = "gateway", params(AuditQuery),
    responses((status = 200, body = Page<AuditView>), Failures, ListFailures),
    extensions(("x-permission" = json!("read_all")))
)]
async fn audit(
    State(api): State<ApiState>,
    By(caller): By,
    Params(query): Params<AuditQuery>,
) -> Answer<Page<AuditView>> {
    let AuditQuery { object, by, cursor: before, limit } = query;
    let filter = AuditFilter { account: None, object, actor: by, before: cursor(before.as_deref())? };
    Ok(Json(api.control.audit(&caller, filter, most(limit)?).await?))
}
