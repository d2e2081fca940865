//! `/v1/accounts/{account}/payments`: what an account bought by a payment service.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::control::api::extract::{By, Id};
use crate::control::api::problem::{Failures, ObjectFailures, Problem};
use crate::control::api::state::ApiState;
use crate::control::operations::PaymentsView;
use crate::types::AccountId;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// List what an account bought, the last payment first, and what was taken back of it.
#[utoipa::path(
    get, path = "/v1/accounts/{account}/payments", tag = "credits", params(("account" = String, Path)),
    responses((status = 200, body = PaymentsView), Failures, ObjectFailures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn list(
    State(api): State<ApiState>,
    By(caller): By,
    Id(account): Id<AccountId>,
) -> Result<Json<PaymentsView>, Problem> {
    Ok(Json(api.control.payments(&caller, account).await?))
}
