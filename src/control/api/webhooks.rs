//! `/v1/accounts/{account}/webhooks`, `/v1/webhooks`: endpoints of webhooks, and deliveries to them.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Body, By, Id, Ids, MaybeBody, Params};
use super::paging::{PageQuery, Repeatable, cursor};
use super::problem::{ChangeFailures, Failures, ListFailures, ObjectFailures, Problem};
use super::state::{ApiState, created};
use crate::control::operations::{
    Alerts, DeliveryView, EndpointInput, EndpointPatch, EndpointView, Page, Renewal, Sent,
};
use crate::ledger::store::DeliveriesOf;
use crate::types::AccountId;

type Answer<T> = Result<Json<T>, Problem>;
type Made = Result<(StatusCode, Json<EndpointView>), Problem>;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(deliveries_of_account))
        .routes(routes!(replay_of_account))
        .routes(routes!(delete_of_account))
        .routes(routes!(create_own, list_own))
        .routes(routes!(show, change, delete))
        .routes(routes!(secret))
        .routes(routes!(rotate))
        .routes(routes!(test))
        .routes(routes!(deliveries))
        .routes(routes!(replay))
        .routes(routes!(alerts, set_alerts))
        .routes(routes!(renewal, set_renewal))
}

/// How to replace a secret.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SecretRotation)]
pub(super) struct Rotation {
    /// How long messages are signed by the old secret too: a duration such as `24h`, or a time. Without it, only the new
    /// secret signs.
    #[serde(default)]
    #[schema(example = "24h")]
    overlap: Option<String>,
}

/// Create an endpoint for the events of an account. Its secret is shown only in this response.
#[utoipa::path(
    post, path = "/v1/accounts/{account}/webhooks", tag = "webhooks", request_body = EndpointInput, params(("account" = String, Path), Repeatable),
    responses((status = 201, body = EndpointView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn create(
    State(api): State<ApiState>,
    By(caller): By,
    Id(account): Id<AccountId>,
    Body(input): Body<EndpointInput>,
) -> Made {
    created(&caller);
    Ok((StatusCode::CREATED, Json(api.control.create_endpoint(&caller, Some(account), input).await?)))
}

/// List the endpoints of an account.
#[utoipa::path(
    get, path = "/v1/accounts/{account}/webhooks", tag = "webhooks", params(("account" = String, Path)),
    responses((status = 200, body = Vec<EndpointView>), Failures, ObjectFailures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn list(
    State(api): State<ApiState>,
    By(caller): By,
    Id(account): Id<AccountId>,
) -> Answer<Vec<EndpointView>> {
    Ok(Json(api.control.endpoints(&caller, Some(account)).await?))
}

/// List the deliveries to all endpoints of an account, the newest first.
#[utoipa::path(
    get, path = "/v1/accounts/{account}/webhooks/deliveries", tag = "webhooks", params(("account" = String, Path), PageQuery),
    responses((status = 200, body = Page<DeliveryView>), Failures, ListFailures, ObjectFailures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn deliveries_of_account(
    State(api): State<ApiState>,
    By(caller): By,
    Id(account): Id<AccountId>,
    Params(page): Params<PageQuery>,
) -> Answer<Page<DeliveryView>> {
    let before = cursor(page.cursor.as_deref())?;
    Ok(Json(api.control.deliveries(&caller, DeliveriesOf::Account(account), before, page.most()?).await?))
}

/// Send the message of a delivery again.
#[utoipa::path(
    post, path = "/v1/accounts/{account}/webhooks/deliveries/{delivery}/replay", tag = "webhooks", params(("account" = String, Path), ("delivery" = u64, Path), Repeatable),
    responses((status = 200, body = Sent), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn replay_of_account(
    State(api): State<ApiState>,
    By(caller): By,
    Ids(account, number): Ids<AccountId, u64>,
) -> Answer<Sent> {
    Ok(Json(api.control.replay(&caller, DeliveriesOf::Account(account), number).await?))
}

/// Delete an endpoint of an account, and its deliveries.
#[utoipa::path(
    delete, path = "/v1/accounts/{account}/webhooks/{endpoint}", tag = "webhooks", params(("account" = String, Path), ("endpoint" = String, Path), Repeatable),
    responses((status = 200, body = EndpointView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn delete_of_account(
    State(api): State<ApiState>,
    By(caller): By,
    Ids(account, endpoint): Ids<AccountId, String>,
) -> Answer<EndpointView> {
    Ok(Json(api.control.delete_endpoint(&caller, &endpoint, Some(&account)).await?))
}

/// Create an endpoint for the events of all accounts, for the operator. Its secret is shown only in this response.
#[utoipa::path(
    post, path = "/v1/webhooks", tag = "webhooks", request_body = EndpointInput, params(Repeatable),
    responses((status = 201, body = EndpointView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn create_own(State(api): State<ApiState>, By(caller): By, Body(input): Body<EndpointInput>) -> Made {
    created(&caller);
    Ok((StatusCode::CREATED, Json(api.control.create_endpoint(&caller, None, input).await?)))
}

/// List the operator's endpoints.
#[utoipa::path(
    get, path = "/v1/webhooks", tag = "webhooks",
    responses((status = 200, body = Vec<EndpointView>), Failures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn list_own(State(api): State<ApiState>, By(caller): By) -> Answer<Vec<EndpointView>> {
    Ok(Json(api.control.endpoints(&caller, None).await?))
}

/// Show an endpoint, without its secret.
#[utoipa::path(
    get, path = "/v1/webhooks/{endpoint}", tag = "webhooks", params(("endpoint" = String, Path)),
    responses((status = 200, body = EndpointView), Failures, ObjectFailures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn show(State(api): State<ApiState>, By(caller): By, Id(endpoint): Id<String>) -> Answer<EndpointView> {
    Ok(Json(api.control.endpoint(&caller, &endpoint).await?))
}

/// Change the events of an endpoint, or disable or enable it.
#[utoipa::path(
    patch, path = "/v1/webhooks/{endpoint}", tag = "webhooks", request_body = EndpointPatch, params(("endpoint" = String, Path), Repeatable),
    responses((status = 200, body = EndpointView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn change(
    State(api): State<ApiState>,
    By(caller): By,
    Id(endpoint): Id<String>,
    Body(patch): Body<EndpointPatch>,
) -> Answer<EndpointView> {
    Ok(Json(api.control.change_endpoint(&caller, &endpoint, patch).await?))
}

/// Delete an endpoint, and its deliveries.
#[utoipa::path(
    delete, path = "/v1/webhooks/{endpoint}", tag = "webhooks", params(("endpoint" = String, Path), Repeatable),
    responses((status = 200, body = EndpointView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn delete(
    State(api): State<ApiState>,
    By(caller): By,
    Id(endpoint): Id<String>,
) -> Answer<EndpointView> {
    Ok(Json(api.control.delete_endpoint(&caller, &endpoint, None).await?))
}

/// Show the secret of an endpoint.
#[utoipa::path(
    get, path = "/v1/webhooks/{endpoint}/secret", tag = "webhooks", params(("endpoint" = String, Path)),
    responses((status = 200, body = EndpointView), Failures, ObjectFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn secret(
    State(api): State<ApiState>,
    By(caller): By,
    Id(endpoint): Id<String>,
) -> Answer<EndpointView> {
    Ok(Json(api.control.endpoint_secret(&caller, &endpoint).await?))
}

/// Give an endpoint a new secret, which is shown only in this response.
#[utoipa::path(
    post, path = "/v1/webhooks/{endpoint}/rotate", tag = "webhooks", request_body = Option<Rotation>, params(("endpoint" = String, Path), Repeatable),
    responses((status = 200, body = EndpointView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn rotate(
    State(api): State<ApiState>,
    By(caller): By,
    Id(endpoint): Id<String>,
    MaybeBody(rotation): MaybeBody<Rotation>,
) -> Answer<EndpointView> {
    Ok(Json(api.control.rotate_endpoint(&caller, &endpoint, rotation.overlap).await?))
}

/// Send the event `webhook.test` to an endpoint.
#[utoipa::path(
    post, path = "/v1/webhooks/{endpoint}/test", tag = "webhooks", params(("endpoint" = String, Path), Repeatable),
    responses((status = 200, body = Sent), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn test(State(api): State<ApiState>, By(caller): By, Id(endpoint): Id<String>) -> Answer<Sent> {
    Ok(Json(api.control.test_endpoint(&caller, &endpoint).await?))
}

/// List the deliveries to an endpoint, the newest first.
#[utoipa::path(
    get, path = "/v1/webhooks/{endpoint}/deliveries", tag = "webhooks", params(("endpoint" = String, Path), PageQuery),
    responses((status = 200, body = Page<DeliveryView>), Failures, ListFailures, ObjectFailures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn deliveries(
    State(api): State<ApiState>,
    By(caller): By,
    Id(endpoint): Id<String>,
    Params(page): Params<PageQuery>,
) -> Answer<Page<DeliveryView>> {
    let before = cursor(page.cursor.as_deref())?;
    Ok(Json(api.control.deliveries(&caller, DeliveriesOf::Endpoint(endpoint), before, page.most()?).await?))
}

/// Send the message of a delivery to an endpoint again.
#[utoipa::path(
    post, path = "/v1/webhooks/{endpoint}/deliveries/{delivery}/replay", tag = "webhooks", params(("endpoint" = String, Path), ("delivery" = u64, Path), Repeatable),
    responses((status = 200, body = Sent), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn replay(
    State(api): State<ApiState>,
    By(caller): By,
    Ids(endpoint, number): Ids<String, u64>,
) -> Answer<Sent> {
    Ok(Json(api.control.replay(&caller, DeliveriesOf::Endpoint(endpoint), number).await?))
}

/// Show at which balances `credits.low` is sent to an account.
#[utoipa::path(
    get, path = "/v1/accounts/{account}/alerts", tag = "webhooks", params(("account" = String, Path)),
    responses((status = 200, body = Alerts), Failures, ObjectFailures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn alerts(State(api): State<ApiState>, By(caller): By, Id(account): Id<AccountId>) -> Answer<Alerts> {
    Ok(Json(api.control.alerts(&caller, account).await?))
}

/// Set at which balances `credits.low` is sent to an account.
#[utoipa::path(
    patch, path = "/v1/accounts/{account}/alerts", tag = "webhooks", request_body = Alerts, params(("account" = String, Path), Repeatable),
    responses((status = 200, body = Alerts), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn set_alerts(
    State(api): State<ApiState>,
    By(caller): By,
    Id(account): Id<AccountId>,
    Body(alerts): Body<Alerts>,
) -> Answer<Alerts> {
    Ok(Json(api.control.set_alerts(&caller, account, alerts).await?))
}

/// Show how an account is renewed.
#[utoipa::path(
    get, path = "/v1/accounts/{account}/renewal", tag = "webhooks", params(("account" = String, Path)),
    responses((status = 200, body = Renewal), Failures, ObjectFailures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn renewal(State(api): State<ApiState>, By(caller): By, Id(account): Id<AccountId>) -> Answer<Renewal> {
    Ok(Json(api.control.renewal(&caller, account).await?))
}

/// Set how an account is renewed: by asking your billing for credits with `billing.top_up_requested`.
#[utoipa::path(
    patch, path = "/v1/accounts/{account}/renewal", tag = "webhooks", request_body = Renewal,
    params(("account" = String, Path), Repeatable),
    responses((status = 200, body = Renewal), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn set_renewal(
    State(api): State<ApiState>,
    By(caller): By,
    Id(account): Id<AccountId>,
    Body(renewal): Body<Renewal>,
) -> Answer<Renewal> {
    Ok(Json(api.control.set_renewal(&caller, account, renewal).await?))
}
