//! Answers requests that failed: problem details (RFC 9457), with a code for programs and the fields that are wrong.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoResponses, ToSchema};

use crate::control::operations::OperationError;

/// Why a request failed.
#[derive(Clone, Debug)]
pub(super) struct Problem(Box<Details>);

/// Why a request failed (RFC 9457).
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Details {
    /// Always `about:blank`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The name of the status.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong, and what to do.
    detail: String,
    /// A stable name of the reason, for programs.
    code: &'static str,
    /// The fields of the body or the parameters that are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    /// The problems of a refused configuration.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schema(value_type = Option<Vec<Object>>)]
    problems: Value,
    /// Seconds after which to try again.
    #[serde(skip)]
    retry_after: Option<u64>,
}

/// A field that is wrong.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct FieldError {
    /// The field, such as `limits[0].window`.
    field: String,
    /// What is wrong with it.
    message: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Details {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            code,
            errors: Vec::new(),
            problems: Value::Null,
            retry_after: None,
        }))
    }

    /// A field that is wrong.
    pub(super) fn field(status: StatusCode, code: &'static str, field: &str, message: &str) -> Self {
        let error = FieldError { field: field.to_owned(), message: message.to_owned() };
        let mut problem = Self::new(status, code, format!("{field}: {message}"));
        problem.0.errors.push(error);
        problem
    }

    /// Too many requests; `seconds`: when to try again.
    pub(super) fn too_many(code: &'static str, detail: &str, seconds: u64) -> Self {
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail);
        problem.0.retry_after = Some(seconds);
        problem
    }
}

impl From<OperationError> for Problem {
    fn from(error: OperationError) -> Self {
        let status = match &error {
            OperationError::Invalid { field, message } => {
                return Self::field(StatusCode::UNPROCESSABLE_ENTITY, error.reason(), field, message);
            }
            OperationError::Throttled { message, seconds } => {
                return Self::too_many(error.reason(), message, *seconds);
            }
            OperationError::Missing(_) => StatusCode::NOT_FOUND,
            OperationError::Conflict(_)
            | OperationError::InFile(_)
            | OperationError::InsufficientCredits(_) => StatusCode::CONFLICT,
            OperationError::Stale(_) => StatusCode::PRECONDITION_FAILED,
            OperationError::Forbidden(_) => StatusCode::FORBIDDEN,
            OperationError::Config(_) => StatusCode::UNPROCESSABLE_ENTITY,
            OperationError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut problem = Self::new(status, error.reason(), error.to_string());
        if matches!(error, OperationError::Config(_)) {
            problem.0.problems = error.problems_json();
        }
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.0.retry_after;
        let mut response = (status, Json(*self.0)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"tollgate admin\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The failures that every operation may answer with.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its description is used")]
pub(super) enum Failures {
    /// The request is malformed.
    #[response(status = 400, content_type = "application/problem+json")]
    BadRequest(#[to_schema] Details),
    /// The token is missing, unknown, expired or revoked.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(#[to_schema] Details),
    /// The token's role does not allow this.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(#[to_schema] Details),
    /// Too many requests.
    #[response(status = 429, content_type = "application/problem+json")]
    TooMany(#[to_schema] Details),
    /// The ledger cannot be read or written now.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(#[to_schema] Details),
}

/// The further failures of operations on an object.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its description is used")]
pub(super) enum ObjectFailures {
    /// There is no such object.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(#[to_schema] Details),
}

/// The further failures of lists.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its description is used")]
pub(super) enum ListFailures {
    /// The cursor is not one of this list.
    #[response(status = 422, content_type = "application/problem+json")]
    Unprocessable(#[to_schema] Details),
}

/// The further failures of operations that change something.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its description is used")]
pub(super) enum ChangeFailures {
    /// There is no such object.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(#[to_schema] Details),
    /// The change contradicts the present state, or the configuration file defines the object.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(#[to_schema] Details),
    /// The object was changed since the version in `If-Match`.
    #[response(status = 412, content_type = "application/problem+json")]
    Stale(#[to_schema] Details),
    /// The body is too large.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(#[to_schema] Details),
    /// The body is not JSON by its `Content-Type`.
    #[response(status = 415, content_type = "application/problem+json")]
    NotJson(#[to_schema] Details),
    /// A value is not accepted, or the idempotency key was used for another request.
    #[response(status = 422, content_type = "application/problem+json")]
    Unprocessable(#[to_schema] Details),
}
