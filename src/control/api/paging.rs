//! Parameters: pages of lists, and the headers of changes.

use std::str::FromStr;

use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::problem::Problem;
use crate::control::operations::{DEFAULT_LIMIT, MAX_LIMIT};
use crate::types::AccountId;

/// Which page of a list.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// `next_cursor` of the page before; the first page if it is left out.
    #[serde(default)]
    #[param(value_type = String, required = false)]
    pub(super) cursor: Option<String>,
    /// Rows of the page.
    #[serde(default)]
    #[param(value_type = usize, required = false, minimum = 1, maximum = 1000, default = 50)]
    pub(super) limit: Option<usize>,
}

impl PageQuery {
    /// Rows of the page.
    pub(super) fn most(&self) -> Result<usize, Problem> {
        most(self.limit)
    }
}

/// Which keys.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct KeysQuery {
    /// Only keys that are not revoked and were not used for this time, such as `30d`.
    #[serde(default)]
    #[param(value_type = String, required = false, pattern = "^[0-9]{1,9}(ms|s|m|h|d)$")]
    pub(super) idle: Option<String>,
    /// `next_cursor` of the page before; the first page if it is left out.
    #[serde(default)]
    #[param(value_type = String, required = false)]
    pub(super) cursor: Option<String>,
    /// Rows of the page.
    #[serde(default)]
    #[param(value_type = usize, required = false, minimum = 1, maximum = 1000, default = 50)]
    pub(super) limit: Option<usize>,
}

/// Which jobs.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct JobsQuery {
    /// Only jobs of this account.
    #[serde(default)]
    #[param(value_type = String, required = false, pattern = "^[A-Za-z0-9._-]{1,64}$")]
    pub(super) account: Option<AccountId>,
    /// Only jobs with this id of the upstream.
    #[serde(default)]
    #[param(value_type = String, required = false)]
    pub(super) id: Option<String>,
    /// `next_cursor` of the page before; the first page if it is left out.
    #[serde(default)]
    #[param(value_type = String, required = false)]
    pub(super) cursor: Option<String>,
    /// Rows of the page.
    #[serde(default)]
    #[param(value_type = usize, required = false, minimum = 1, maximum = 1000, default = 50)]
    pub(super) limit: Option<usize>,
}

/// Which audit entries.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Only changes of this object, such as `account/acme`.
    #[serde(default)]
    #[param(value_type = String, required = false)]
    pub(super) object: Option<String>,
    /// Only changes by this actor, such as `command` or `token:ci`.
    #[serde(default)]
    #[param(value_type = String, required = false)]
    pub(super) by: Option<String>,
    /// `next_cursor` of the page before; the newest entries if it is left out.
    #[serde(default)]
    #[param(value_type = String, required = false)]
    pub(super) cursor: Option<String>,
    /// Rows of the page.
    #[serde(default)]
    #[param(value_type = usize, required = false, minimum = 1, maximum = 1000, default = 50)]
    pub(super) limit: Option<usize>,
}

/// The header of a change that may be repeated.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct Repeatable {
    /// The client's own id of this change: repeating it within a day changes nothing, and gets the same response.
    #[param(value_type = String, required = false, rename = "Idempotency-Key", min_length = 1, max_length = 255, pattern = "^[!-~]+$")]
    idempotency_key: Option<String>,
}

/// The header of a change that is based on a version.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct Versions {
    /// The `ETag` of the object that the change is based on: if it was changed since, the response is 412.
    #[param(value_type = String, required = false, rename = "If-Match", pattern = "^(\\*|\"[0-9]{1,18}\")$")]
    if_match: Option<String>,
}

/// Rows of a page, from the parameter `limit`.
pub(super) fn most(limit: Option<usize>) -> Result<usize, Problem> {
    match limit {
        None => Ok(DEFAULT_LIMIT),
        Some(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
        Some(_) => {
            let message = format!("it is from 1 to {MAX_LIMIT}");
            Err(Problem::field(StatusCode::BAD_REQUEST, "invalid_parameter", "limit", &message))
        }
    }
}

/// Where a page begins, from the parameter `cursor`.
pub(super) fn cursor<T: FromStr>(text: Option<&str>) -> Result<Option<T>, Problem> {
    let parsed = text.filter(|text| !text.is_empty()).map(str::parse).transpose();
    parsed.map_err(|_| {
        let message = "it is not the next_cursor of a page of this list";
        Problem::field(StatusCode::UNPROCESSABLE_ENTITY, "invalid_parameter", "cursor", message)
    })
}
