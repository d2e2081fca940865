//! Responses that are not pages: to another address, or an error.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use crate::control::dashboard::html::error_page;
use crate::control::operations::OperationError;

/// Sends the browser to another page (303), so that a reload repeats no change.
pub(in crate::control::dashboard) struct See(pub(in crate::control::dashboard) String);

impl IntoResponse for See {
    fn into_response(self) -> Response {
        let mut response = StatusCode::SEE_OTHER.into_response();
        if let Ok(to) = HeaderValue::from_str(&self.0) {
            response.headers_mut().insert(header::LOCATION, to);
        }
        response
    }
}

/// Why there is no page.
#[derive(Debug)]
pub(in crate::control::dashboard) enum Failure {
    /// Nobody is signed in. Where to go afterwards.
    SignIn(String),
    /// An operation failed.
    Operation(OperationError),
}

impl<E: Into<OperationError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Operation(error.into())
    }
}

impl Failure {
    /// The status of an error.
    pub(in crate::control::dashboard) fn status(error: &OperationError) -> StatusCode {
        match error {
            OperationError::Invalid { .. } | OperationError::Config(_) => StatusCode::UNPROCESSABLE_ENTITY,
            OperationError::Missing(_) => StatusCode::NOT_FOUND,
            OperationError::Conflict(_)
            | OperationError::InFile(_)
            | OperationError::InsufficientCredits(_)
            | OperationError::Stale(_) => StatusCode::CONFLICT,
            OperationError::Forbidden(_) => StatusCode::FORBIDDEN,
            OperationError::Throttled { .. } => StatusCode::TOO_MANY_REQUESTS,
            OperationError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl Failure {
    /// A page that shows a form again, with the status of what was wrong with it.
    pub(in crate::control::dashboard) fn told(
        mut page: Response,
        error: Option<&OperationError>,
    ) -> Response {
        if let Some(error) = error {
            *page.status_mut() = Self::status(error);
        }
        page
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let error = match self {
            Self::SignIn(next) => return See(format!("/sign-in?next={next}")).into_response(),
            Self::Operation(error) => error,
        };
        let status = Self::status(&error);
        let (title, text) = match &error {
            OperationError::Missing(text) => ("There is nothing here", text.clone()),
            OperationError::Forbidden(text) => ("You may not do this", text.clone()),
            OperationError::Throttled { message, .. } => ("Too many attempts", message.clone()),
            OperationError::Unavailable(text) => ("This did not work; try again", text.clone()),
            other => ("This did not work", other.to_string()),
        };
        let mut response = (status, error_page(title, &text)).into_response();
        if let OperationError::Throttled { seconds, .. } = error {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
