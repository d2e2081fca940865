//! Builds the responses that the gateway makes itself. No other code writes error bodies.

use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use serde::Serialize;

use super::body::OutboundBody;
use crate::policy::grpc;
use crate::policy::reject::{Dialect, Reason, Refusal};
use crate::types::Credits;

const CHALLENGE: HeaderValue = HeaderValue::from_static("ApiKey realm=\"tollgate\"");

/// Tells that a response was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Capacity for header fields: enough for most of these responses.
const USUAL_FIELDS: usize = 8;

/// Builds the response to a refused request in a dialect.
pub(in crate::gateway::request) fn refuse(
    dialect: &Dialect,
    refusal: &Refusal,
    request_id: &HeaderValue,
) -> Response<OutboundBody> {
    let worded = dialect.build_response(refusal, request_id.to_str().unwrap_or_default());
    let mut response = whole(worded.status, Bytes::from(worded.body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, worded.content_type);
    if let Some(seconds) = refusal.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(allow) = refusal.allow.as_ref().and_then(|allow| HeaderValue::try_from(allow).ok()) {
        headers.insert(ALLOW, allow);
    }
    if worded.status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, CHALLENGE);
    }
    if matches!(refusal.reason, Reason::BadRequest | Reason::HeaderTooLarge | Reason::BodyTooLarge) {
        // Further bytes on this connection must not be read as a request.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Builds the response to a refused gRPC call: a head with the gRPC status, and no body ("Trailers-Only").
pub(in crate::gateway::request) fn refuse_grpc(refusal: &Refusal) -> Response<OutboundBody> {
    let mut response = whole(StatusCode::OK, Bytes::new());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, grpc::TYPE);
    headers.insert(grpc::STATUS, HeaderValue::from(u16::from(grpc::status_of(refusal.reason))));
    let wait = refusal.retry_after.map(|seconds| seconds.to_string()).unwrap_or_default();
    let sentence = refusal.detail.as_deref().unwrap_or(refusal.reason.message());
    headers.insert(grpc::MESSAGE, grpc::message(&sentence.replace("{retry_after}", &wait)));
    if let Some(seconds) = refusal.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A response with these headers and no body.
pub(in crate::gateway::request) fn empty(
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
) -> Response<OutboundBody> {
    let mut response = whole(status, Bytes::new());
    response.headers_mut().extend(headers);
    response
}

#[derive(Serialize)]
struct AccountInfo<'a> {
    credits: Credits,
    webhooks: &'a [String],
}

/// An account's available credits (balance less open holds) and webhooks.
pub(in crate::gateway::request) fn account_info(
    credits: Credits,
    webhooks: &[String],
) -> Response<OutboundBody> {
    // Serialising two plain fields cannot fail.
    let body = serde_json::to_vec(&AccountInfo { credits, webhooks }).unwrap_or_default();
    let mut response = whole(StatusCode::OK, Bytes::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The response to an upstream that told about a job: whether it was settled now.
pub(in crate::gateway::request) fn callback(settled: bool) -> Response<OutboundBody> {
    let body: &[u8] = if settled { b"{\"settled\":true}" } else { b"{\"settled\":false}" };
    let mut response = whole(StatusCode::OK, Bytes::from_static(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The response to a request that was made before.
pub(in crate::gateway::request) fn replay(
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
) -> Response<OutboundBody> {
    let mut response = whole(status, body);
    *response.headers_mut() = headers;
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// Removes the body of a response to HEAD over HTTP/2; over HTTP/1.1 hyper does that.
pub(in crate::gateway::request) fn remove_body(response: &mut Response<OutboundBody>) {
    if let OutboundBody::Whole(body) = response.body_mut()
        && let Some(body) = body.take()
    {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
}

fn whole(status: StatusCode, body: Bytes) -> Response<OutboundBody> {
    let mut response = Response::new(OutboundBody::Whole(Some(body).filter(|body| !body.is_empty())));
    *response.status_mut() = status;
    *response.headers_mut() = HeaderMap::with_capacity(USUAL_FIELDS);
    response
}
