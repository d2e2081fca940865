//! `/metrics`: Prometheus's text format, or OpenMetrics if the client accepts it.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};

use super::problem::Problem;
use super::state::ApiState;
use crate::control::metrics::MetricsFormat;
use crate::control::operations::Caller;

/// All metrics. The authentication has let the request pass.
pub(super) async fn metrics(State(api): State<ApiState>, headers: HeaderMap) -> Result<Response, Problem> {
    let accepts = |wanted: &str| {
        let mut values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        values.any(|value| value.contains(wanted))
    };
    let format = match accepts("application/openmetrics-text") {
        true => MetricsFormat::OpenMetrics,
        false => MetricsFormat::Prometheus,
    };
    let text = api.control.metrics(&Caller::command(), format).await?;
    let kind = HeaderValue::from_static(format.content_type());
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
