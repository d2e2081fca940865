//! `/v1/jobs`: credits that requests hold until the work of an upstream is done.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::control::api::extract::{Body, By, Id, Params};
use crate::control::api::paging::{JobsQuery, Repeatable, cursor, most};
use crate::control::api::problem::{ChangeFailures, Failures, ListFailures, ObjectFailures, Problem};
use crate::control::api::state::ApiState;
use crate::control::operations::{JobView, Page, SettledView, SettlementInput};
use crate::ledger::store::{JobFilter, JobPlace};

type Answer<T> = Result<Json<T>, Problem>;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(settle))
}

/// List jobs: open ones first, then those that were settled, the last one first.
#[utoipa::path(
    get, path = "/v1/jobs", tag = "accounts", params(JobsQuery),
    responses((status = 200, body = Page<JobView>), Failures, ListFailures, ObjectFailures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn list(
    State(api): State<ApiState>,
    By(caller): By,
    Params(query): Params<JobsQuery>,
) -> Answer<Page<JobView>> {
    let after = cursor::<JobPlace>(query.cursor.as_deref())?;
    let filter = JobFilter { account: query.account, external_id: query.id, after };
    Ok(Json(api.control.jobs(&caller, filter, most(query.limit)?).await?))
}

/// Settle a job, once. One that was settled before is answered as it was.
#[utoipa::path(
    post, path = "/v1/jobs/{job}/settle", tag = "accounts", request_body = SettlementInput,
    params(("job" = String, Path), Repeatable),
    responses((status = 200, body = SettledView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("credits")))
)]
async fn settle(
    State(api): State<ApiState>,
    By(caller): By,
    Id(job): Id<String>,
    Body(input): Body<SettlementInput>,
) -> Answer<SettledView> {
    Ok(Json(api.control.settle_job(&caller, job, input).await?))
}
