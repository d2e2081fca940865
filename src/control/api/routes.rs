//! The routes of the API, and their description.

use std::collections::HashSet;

use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::{Json, Router};
use http::{Method, StatusCode, Uri};
use utoipa::OpenApi;
use utoipa::openapi::RefOr;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;

use super::layers::{access, repeats};
use super::problem::{FieldError, Problem};
use super::state::ApiState;
use super::{accounts, decisions, gateway, health, keys, metrics, people, usage, webhooks};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tollgate admin API",
        description = "Accounts, keys, credits and the gateway itself. Every request needs a token, as \
                       `Authorization: Bearer TOKEN`. Lists are paged by `cursor` and `limit`. A write with an \
                       `Idempotency-Key` may be repeated: it changes nothing again, and gets the same answer."
    ),
    components(schemas(FieldError)),
    security(("token" = []))
)]
struct Description;

fn described() -> OpenApiRouter<ApiState> {
    let mut description = Description::openapi();
    let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = description.components.get_or_insert_default();
    components.security_schemes.insert("token".to_owned(), token.into());
    OpenApiRouter::with_openapi(description)
        .merge(accounts::router())
        .merge(keys::router())
        .merge(gateway::router())
        .merge(decisions::router())
        .merge(usage::router())
        .merge(webhooks::router())
        .merge(people::router())
}

/// The API as OpenAPI 3.1, generated from the handlers.
#[must_use]
pub fn openapi() -> serde_json::Value {
    serde_json::to_value(described().to_openapi()).unwrap_or_default() // plain values always serialise
}

/// The methods and paths of operations that change something: those that are described with an `Idempotency-Key`.
pub(super) fn writes() -> HashSet<(Method, String)> {
    let is_write = |operation: &Operation| {
        let mut parameters = operation.parameters.iter().flatten();
        parameters.any(|parameter| matches!(parameter, RefOr::T(one) if one.name == "Idempotency-Key"))
    };
    let mut writes = HashSet::new();
    for (path, item) in described().to_openapi().paths.paths {
        let operations =
            [(Method::POST, item.post), (Method::PATCH, item.patch), (Method::DELETE, item.delete)];
        for (method, operation) in operations {
            if operation.is_some_and(|operation| is_write(&operation)) {
                writes.insert((method, path.clone()));
            }
        }
    }
    writes
}

async fn no_route(method: Method, uri: Uri) -> Problem {
    let detail = format!("there is no {method} {}; GET /openapi.json lists all calls", uri.path());
    Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
}

async fn other_method() -> Problem {
    let detail = "this path has other methods: see Allow";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

/// All routes of the operators' listener.
pub(super) fn router(state: ApiState) -> Router {
    let (api, description) = described().split_for_parts();
    let description = Json(description);
    let described = move || async move { description.clone().into_response() };
    let guarded = api
        .route("/openapi.json", axum::routing::get(described))
        .route("/metrics", axum::routing::get(metrics::metrics))
        .method_not_allowed_fallback(other_method)
        .fallback(no_route)
        .layer(from_fn_with_state(state.clone(), repeats::repeat))
        .layer(from_fn_with_state(state.clone(), access::authenticate));
    health::router().merge(guarded).with_state(state)
}
