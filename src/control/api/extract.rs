//! Reads the parts of a request that handlers need: who asks, ids in the path, parameters, the body, versions.

use std::fmt::Display;
use std::str::FromStr;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::control::operations::Caller;

/// Who asks. The authentication has put it into the request.
pub(super) struct By(pub(super) Caller);

impl<S: Sync> FromRequestParts<S> for By {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Caller>().cloned();
        let missing = || Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "a token is needed");
        caller.map(By).ok_or_else(missing)
    }
}

/// An id in the path. One that no object can have is not found.
pub(super) struct Id<T>(pub(super) T);

impl<S: Send + Sync, T: FromStr<Err: Display>> FromRequestParts<S> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let ids = ids_of(parts, state).await?;
        parsed(&ids, 0).map(Id)
    }
}

/// Both ids in a path.
pub(super) struct Ids<T, U>(pub(super) T, pub(super) U);

impl<S, T, U> FromRequestParts<S> for Ids<T, U>
where
    S: Send + Sync,
    T: FromStr<Err: Display>,
    U: FromStr<Err: Display>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let ids = ids_of(parts, state).await?;
        Ok(Self(parsed(&ids, 0)?, parsed(&ids, 1)?))
    }
}

fn not_found(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
}

async fn ids_of<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Vec<(String, String)>, Problem> {
    let path = Path::<Vec<(String, String)>>::from_request_parts(parts, state).await;
    path.map(|Path(ids)| ids).map_err(|error| not_found(error.to_string()))
}

fn parsed<T: FromStr<Err: Display>>(ids: &[(String, String)], at: usize) -> Result<T, Problem> {
    let (_, text) = ids.get(at).ok_or_else(|| not_found("no id"))?;
    text.parse().map_err(|error| not_found(format!("there is nothing here: {error}")))
}

/// The parameters in the query.
pub(super) struct Params<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "invalid_parameter", detail);
        Query::try_from_uri(&parts.uri)
            .map(|Query(params)| Self(params))
            .map_err(|error| bad(error.to_string()))
    }
}

/// A JSON body. Its length was bounded before.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let detail = "the body must be JSON, with Content-Type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", detail));
        }
        let bytes = Bytes::from_request(request, state).await;
        let unread = |_| Problem::new(StatusCode::BAD_REQUEST, "bad_request", "the body cannot be read");
        parse(&bytes.map_err(unread)?).map(Self)
    }
}

/// A JSON body that may be left out.
pub(super) struct MaybeBody<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for MaybeBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let is_json = is_json(request.headers());
        let bytes = Bytes::from_request(request, state).await;
        match bytes {
            Ok(bytes) if bytes.is_empty() => Ok(Self(T::default())),
            Ok(bytes) if is_json => parse(&bytes).map(Self),
            _ => {
                let detail = "the body must be JSON, with Content-Type: application/json";
                Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", detail))
            }
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut deserializer);
    let value = parsed.map_err(|error| {
        let (field, inner) = (error.path().to_string(), error.inner());
        if inner.is_data() {
            // serde's messages quote at most a name or a type, and no other text of the body.
            let message = inner.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            return Problem::field(StatusCode::UNPROCESSABLE_ENTITY, "invalid_value", &field, message);
        }
        Problem::new(StatusCode::BAD_REQUEST, "not_json", format!("the body is not JSON: {inner}"))
    })?;
    let end = deserializer.end();
    end.map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "not_json", format!("the body is not JSON: {error}"))
    })?;
    Ok(value)
}

/// The version that a change is based on: the `ETag` in `If-Match` (RFC 9110, section 13.1.1). `None` if any is
/// accepted.
pub(super) struct IfMatch(pub(super) Option<u64>);

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(header::IF_MATCH) else { return Ok(Self(None)) };
        let text = value.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(Self(None));
        }
        let version = text.trim_matches('"').parse().ok();
        let stale = || {
            let message = "it is the ETag of the object, or *";
            Problem::field(StatusCode::BAD_REQUEST, "invalid_parameter", "If-Match", message)
        };
        version.map(|version| Self(Some(version))).ok_or_else(stale)
    }
}

/// An object and its version, which is sent as its `ETag`.
pub(super) struct Versioned<T>(pub(super) StatusCode, pub(super) u64, pub(super) T);

impl<T: Serialize> IntoResponse for Versioned<T> {
    fn into_response(self) -> Response {
        let mut response = (self.0, Json(self.2)).into_response();
        if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", self.1)) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}
