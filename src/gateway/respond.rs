//! Answers that Tollgate makes itself. The only writer of error bodies.

use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use serde::Serialize;

use super::outbound::Outbound;
use crate::policy::grpc;
use crate::policy::reject::{Dialect, Reason, Refusal};
use crate::types::Credits;

const CHALLENGE: HeaderValue = HeaderValue::from_static("ApiKey realm=\"tollgate\"");

/// Fields of most answers that are made here.
const USUAL_FIELDS: usize = 8;

/// A refusal in the words of a dialect.
pub(super) fn refuse(dialect: &Dialect, refusal: &Refusal, request_id: &HeaderValue) -> Response<Outbound> {
    let worded = dialect.word(refusal, request_id.to_str().unwrap_or_default());
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
        // What follows on this connection is not read as a request.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A refusal as a gRPC call's outcome: a head that says all ("Trailers-Only").
pub(super) fn refuse_call(refusal: &Refusal) -> Response<Outbound> {
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

/// An answer without a body, with these headers.
pub(super) fn empty(status: StatusCode, headers: Vec<(HeaderName, HeaderValue)>) -> Response<Outbound> {
    let mut response = whole(status, Bytes::new());
    response.headers_mut().extend(headers);
    response
}

#[derive(Serialize)]
struct AccountInfo<'a> {
    credits: Credits,
    webhooks: &'a [String],
}

/// The balance less holds in flight, and the webhooks.
pub(super) fn account_info(credits: Credits, webhooks: &[String]) -> Response<Outbound> {
    // Two fields of plain types always serialise.
    let body = serde_json::to_vec(&AccountInfo { credits, webhooks }).unwrap_or_default();
    let mut response = whole(StatusCode::OK, Bytes::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Leaves the body out, where it answers HEAD over HTTP/2: with HTTP/1.1 hyper does.
pub(super) fn only_head(response: &mut Response<Outbound>) {
    if let Outbound::Whole(body) = response.body_mut()
        && let Some(body) = body.take()
    {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
}

fn whole(status: StatusCode, body: Bytes) -> Response<Outbound> {
    let mut response = Response::new(Outbound::Whole(Some(body).filter(|body| !body.is_empty())));
    *response.status_mut() = status;
    *response.headers_mut() = HeaderMap::with_capacity(USUAL_FIELDS);
    response
}
