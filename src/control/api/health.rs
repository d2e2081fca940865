//! `/healthz` and `/readyz`, for load balancers and service managers.

use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderValue, StatusCode, header};

use super::state::ApiState;

pub(super) fn router() -> Router<ApiState> {
    Router::new().route("/healthz", get(health)).route("/readyz", get(ready))
}

fn plain(status: StatusCode, body: &'static str) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")]
        .map(|(name, value)| (name, HeaderValue::from_static(value)));
    (status, headers, body).into_response()
}

async fn health() -> Response {
    plain(StatusCode::OK, "{\"status\":\"ok\"}\n")
}

async fn ready(State(api): State<ApiState>) -> Response {
    if api.draining.load(Ordering::SeqCst) {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "{\"status\":\"draining\"}\n");
    }
    if !api.control.is_ready() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "{\"status\":\"the ledger cannot be written\"}\n");
    }
    plain(StatusCode::OK, "{\"status\":\"ready\"}\n")
}
