//! Makes writes repeatable: a request with an `Idempotency-Key` that was answered before gets the same answer, and
//! changes nothing. Bounds the length of bodies.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode};
use sha2::{Digest, Sha256};

use super::access::RawToken;
use crate::control::api::problem::Problem;
use crate::control::api::state::ApiState;
use crate::control::operations::{Caller, MAX_IDEMPOTENCY_KEY, Repeat, Stored};
use crate::types::KeyHash;

/// Longest body of a request, in bytes.
const MAX_BODY: usize = 256 * 1024;
/// Longest time for a client to send its body.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Reads the body, and answers a repeated request without performing it.
pub(in crate::control::api) async fn repeat(
    State(api): State<ApiState>,
    request: Request,
    next: Next,
) -> Response {
    match run(&api, request, next).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn run(api: &ApiState, request: Request, next: Next) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let body = match tokio::time::timeout(BODY_TIME, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let detail = format!("the body was cut, or has more than {MAX_BODY} bytes");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail));
        }
        Err(_) => {
            let detail = "the body did not arrive in time";
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail));
        }
    };
    let matched = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    let is_write = matched.is_some_and(|path| api.writes.contains(&(parts.method.clone(), path.to_owned())));
    let key = parts.headers.get("idempotency-key").filter(|_| is_write).cloned();
    let Some((key, token)) = key.zip(parts.extensions.get::<RawToken>().cloned()) else {
        return Ok(next.run(Request::from_parts(parts, Body::from(body))).await);
    };
    if key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY || !key.as_bytes().iter().all(u8::is_ascii_graphic) {
        let message = format!("it is 1 to {MAX_IDEMPOTENCY_KEY} visible ASCII characters");
        return Err(Problem::field(
            StatusCode::BAD_REQUEST,
            "invalid_parameter",
            "Idempotency-Key",
            &message,
        ));
    }
    let mut asked = Sha256::new();
    let uri = parts.uri.to_string();
    for part in [parts.method.as_str().as_bytes(), uri.as_bytes(), &body] {
        asked.update(part.len().to_le_bytes());
        asked.update(part);
    }
    let asked = KeyHash(asked.finalize().into());
    let repeat = Repeat::new(&token.0, key.as_bytes(), asked).map(Arc::new);
    let failed =
        || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the answer could not be kept");
    let repeat = repeat.ok_or_else(failed)?;
    if let Some(answer) = stored(api, &repeat).await? {
        return Ok(answer);
    }
    if let Some(caller) = parts.extensions.get_mut::<Caller>() {
        caller.repeat = Some(Arc::clone(&repeat));
    }
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    if response.status() == StatusCode::CONFLICT
        && let Some(answer) = stored(api, &repeat).await?
    {
        return Ok(answer); // the same request was made at the same time
    }
    Ok(response)
}

/// The answer that was given before, if there is one.
async fn stored(api: &ApiState, repeat: &Repeat) -> Result<Option<Response>, Problem> {
    match api.control.stored_answer(repeat).await? {
        None => Ok(None),
        Some(Stored::Same { status, body }) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
            let mut response = (status, Json(body)).into_response();
            response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
            Ok(Some(response))
        }
        Some(Stored::Other) => {
            let message = "another request was made with this key";
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            Err(Problem::field(status, "idempotency_key_reused", "Idempotency-Key", message))
        }
    }
}
