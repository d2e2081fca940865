//! `/v1/explain`, `/v1/requests`, `/v1/verify`, `/v1/charge`: what the gateway decides, and decided.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Body, By, Id};
use super::paging::Repeatable;
use super::problem::{ChangeFailures, Failures, ObjectFailures, Problem};
use super::state::ApiState;
use crate::control::operations::{
    BookingView, ChargeInput, CheckInput, ExplainInput, Explanation, RequestView, Verdict,
};

type Answer<T> = Result<Json<T>, Problem>;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(explain))
        .routes(routes!(request))
        .routes(routes!(verify))
        .routes(routes!(charge))
}

/// Show what was decided about a request of the last hour, by its id or the one that a trusted proxy gave it.
#[utoipa::path(
    get, path = "/v1/requests/{request}", tag = "decisions", params(("request" = String, Path)),
    responses((status = 200, body = RequestView), Failures, ObjectFailures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn request(
    State(api): State<ApiState>,
    By(caller): By,
    Id(request): Id<String>,
) -> Answer<RequestView> {
    Ok(Json(api.control.request(&caller, &request).await?))
}

/// Show the decisions that the gateway would make about a request. Counts and charges nothing.
#[utoipa::path(
    post, path = "/v1/explain", tag = "decisions", request_body = ExplainInput,
    responses((status = 200, body = Explanation), Failures, ChangeFailures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn explain(
    State(api): State<ApiState>,
    By(caller): By,
    Body(input): Body<ExplainInput>,
) -> Answer<Explanation> {
    Ok(Json(api.control.explain(&caller, input).await?))
}

/// Decide about a request with a key, for a service that receives its requests itself. Counts and charges nothing.
#[utoipa::path(
    post, path = "/v1/verify", tag = "decisions", request_body = CheckInput,
    responses((status = 200, body = Verdict), Failures, ChangeFailures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn verify(
    State(api): State<ApiState>,
    By(caller): By,
    Body(input): Body<CheckInput>,
) -> Answer<Verdict> {
    Ok(Json(api.control.check_key(&caller, &input)?))
}

/// Charge the account of a key, at most once for each reference, for a service that receives its requests itself.
#[utoipa::path(
    post, path = "/v1/charge", tag = "decisions", request_body = ChargeInput,
    params(Repeatable),
    responses((status = 200, body = BookingView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("credits")))
)]
async fn charge(
    State(api): State<ApiState>,
    By(caller): By,
    Body(input): Body<ChargeInput>,
) -> Answer<BookingView> {
    Ok(Json(api.control.charge(&caller, input).await?))
}
