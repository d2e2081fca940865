//! Makes OTLP spans of traced requests. Names of attributes are those of OpenTelemetry's semantic conventions; others
//! begin with `tollgate.`.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

use crate::policy::outcome::Outcome;
use crate::telemetry::traces::{TracedRequest, TracedUpstream};
use crate::types::nanos;

const NAME: &str = "tollgate";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The name of methods that are not usual ones.
const OTHER_METHOD: &str = "_OTHER";
/// The flags of a span that is recorded (W3C Trace Context, section 3.2.2.5).
const SAMPLED: u32 = 1;

/// The spans of requests, encoded for a collector.
pub(super) fn encode(requests: &[TracedRequest]) -> Vec<u8> {
    let resource = Resource {
        attributes: vec![text("service.name", NAME), text("service.version", VERSION)],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: NAME.to_owned(),
        version: VERSION.to_owned(),
        ..InstrumentationScope::default()
    };
    let spans = requests.iter().flat_map(spans).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    let resource_spans =
        vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

fn spans(request: &TracedRequest) -> impl Iterator<Item = Span> {
    let ended = u64::try_from(request.ended.0).unwrap_or_default().saturating_mul(1_000_000);
    let started = ended.saturating_sub(nanos(request.duration));
    let server = server(request, (started, ended));
    let client = request.upstream.as_ref().map(|upstream| client(request, upstream, started));
    std::iter::once(server).chain(client)
}

/// The span of a request at the gateway.
fn server(request: &TracedRequest, (start, end): (u64, u64)) -> Span {
    let method = request.method.name().unwrap_or(OTHER_METHOD);
    let mut attributes = vec![
        text("http.request.method", method),
        number("http.response.status_code", request.status.into()),
        text("tollgate.request_id", &request.id.to_string()),
        text("tollgate.outcome", request.outcome.code()),
        text("tollgate.credits", &request.credits.to_string()),
    ];
    if let Some((name, path)) = &request.route {
        attributes.extend([text("http.route", path), text("tollgate.route", name)]);
    }
    if let Some((account, key)) = &request.caller {
        attributes
            .extend([text("tollgate.account", account.as_str()), text("tollgate.key", &key.to_string())]);
    }
    let is_error = request.status >= 500;
    if is_error {
        attributes.push(text("error.type", &error_type(request, Some(request.status))));
    }
    let path = request.route.as_ref().map(|(_, path)| &**path);
    Span {
        trace_id: request.ids.trace.to_be_bytes().to_vec(),
        span_id: request.ids.server.to_be_bytes().to_vec(),
        parent_span_id: request.ids.parent.map(|parent| parent.to_be_bytes().to_vec()).unwrap_or_default(),
        flags: SAMPLED,
        name: path.map_or_else(|| method.to_owned(), |path| format!("{method} {path}")),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        attributes,
        status: status(is_error),
        ..Span::default()
    }
}

/// The span of a request at its upstream.
fn client(request: &TracedRequest, upstream: &TracedUpstream, started: u64) -> Span {
    let method = request.method.name().unwrap_or(OTHER_METHOD);
    let mut attributes = vec![text("http.request.method", method), text("tollgate.upstream", &upstream.name)];
    attributes.extend(upstream.server.as_ref().map(|server| text("tollgate.server", server)));
    attributes.extend(upstream.status.map(|status| number("http.response.status_code", status.into())));
    let is_error = upstream.status.is_none_or(|status| status >= 400);
    if is_error {
        attributes.push(text("error.type", &error_type(request, upstream.status)));
    }
    let start = started.saturating_add(nanos(upstream.after));
    Span {
        trace_id: request.ids.trace.to_be_bytes().to_vec(),
        span_id: request.ids.client.to_be_bytes().to_vec(),
        parent_span_id: request.ids.server.to_be_bytes().to_vec(),
        flags: SAMPLED,
        name: method.to_owned(),
        kind: SpanKind::Client.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(nanos(upstream.duration)),
        attributes,
        status: status(is_error),
        ..Span::default()
    }
}

/// What kind of error a span ended with: the reason of the refusal, or the status of the response.
fn error_type(request: &TracedRequest, status: Option<u16>) -> String {
    match (request.outcome, status) {
        (Outcome::Proxied, Some(status)) => status.to_string(),
        (outcome, _) => outcome.code().to_owned(),
    }
}

fn status(is_error: bool) -> Option<Status> {
    is_error.then(|| Status { code: StatusCode::Error.into(), ..Status::default() })
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
