//! `/v1/usage`, `/v1/accounts/{account}/refusals`: what was used, and what was refused.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{By, Id, Params};
use super::paging::{PageQuery, cursor};
use super::problem::{Failures, ListFailures, ObjectFailures, Problem};
use super::state::ApiState;
use crate::control::operations::{Grouping, Page, RefusalView, Step, UsageQuery, UsageReport};
use crate::types::AccountId;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(usage)).routes(routes!(refusals))
}

/// Which usage.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UsageParams {
    /// Only this account.
    #[serde(default)]
    #[param(value_type = String, required = false, pattern = "^[A-Za-z0-9._-]{1,64}$")]
    account: Option<AccountId>,
    /// Only this key.
    #[serde(default)]
    #[param(value_type = String, required = false, pattern = "^key_[0-9a-f]{16}$")]
    key: Option<crate::types::KeyId>,
    /// Only this route.
    #[serde(default)]
    #[param(value_type = String, required = false)]
    route: Option<String>,
    /// From here on: a time, or how long ago. The last day if it is left out.
    #[serde(default)]
    #[param(value_type = String, required = false, example = "7d")]
    from: Option<String>,
    /// Until here: a time, or how long ago. Now if it is left out.
    #[serde(default)]
    #[param(value_type = String, required = false)]
    to: Option<String>,
    /// The length of the intervals.
    #[serde(default)]
    #[param(inline, value_type = Step, required = false)]
    step: Step,
    /// What else to tell apart.
    #[serde(default)]
    #[param(inline, value_type = Grouping, required = false)]
    by: Option<Grouping>,
    /// The format of the response.
    #[serde(default)]
    #[param(inline, value_type = Format, required = false)]
    format: Format,
}

/// The format of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// JSON.
    #[default]
    Json,
    /// Comma-separated values with a header line (RFC 4180).
    Csv,
}

/// Report usage by time: requests by outcome, credits, bytes, durations.
#[utoipa::path(
    get, path = "/v1/usage", tag = "usage", params(UsageParams),
    responses(
        (status = 200, content((UsageReport = "application/json"), (String = "text/csv"))),
        Failures, ListFailures, ObjectFailures
    ),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn usage(
    State(api): State<ApiState>,
    By(caller): By,
    Params(params): Params<UsageParams>,
) -> Result<Response, Problem> {
    let UsageParams { account, key, route, from, to, step, by, format } = params;
    let query = UsageQuery { account, key, route, from, to, step, by, zone: 0 };
    let report = api.control.usage(&caller, query).await?;
    if format == Format::Json {
        return Ok(Json(report).into_response());
    }
    let failed =
        |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the report cannot be written");
    let csv = report.to_csv().map_err(failed)?;
    let kind = HeaderValue::from_static("text/csv; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], csv).into_response())
}

/// List the refused requests of an account, newest first: time, route, reason, request id.
#[utoipa::path(
    get, path = "/v1/accounts/{account}/refusals", tag = "usage", params(("account" = String, Path), PageQuery),
    responses((status = 200, body = Page<RefusalView>), Failures, ListFailures, ObjectFailures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn refusals(
    State(api): State<ApiState>,
    By(caller): By,
    Id(account): Id<AccountId>,
    Params(page): Params<PageQuery>,
) -> Result<Json<Page<RefusalView>>, Problem> {
    let before = cursor::<u64>(page.cursor.as_deref())?;
    Ok(Json(api.control.refusals(&caller, account, before, page.most()?).await?))
}
