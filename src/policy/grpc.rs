//! Recognises gRPC calls, and converts between refusals, gRPC statuses and HTTP statuses.
//!
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::reject::Reason;

/// The field with the status code of a call.
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The field with the error message of a call, percent-encoded.
pub const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// The content type of a refusal.
pub const TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// The bytes that are percent-encoded in a message: everything except printable ASCII, and `%`.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// True if a request is a gRPC call, which gRPC servers recognise by its content type.
#[must_use]
pub fn is_call(headers: &HeaderMap) -> bool {
    const PREFIX: &[u8] = b"application/grpc";
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        let starts = value.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
        starts && matches!(value.get(PREFIX.len()), None | Some(b'+' | b';'))
    })
}

/// The gRPC status that corresponds to a reason.
#[must_use]
pub fn status_of(reason: Reason) -> u8 {
    const INVALID_ARGUMENT: u8 = 3;
    const DEADLINE_EXCEEDED: u8 = 4;
    const NOT_FOUND: u8 = 5;
    const PERMISSION_DENIED: u8 = 7;
    const RESOURCE_EXHAUSTED: u8 = 8;
    const FAILED_PRECONDITION: u8 = 9;
    const ABORTED: u8 = 10;
    const UNIMPLEMENTED: u8 = 12;
    const UNAVAILABLE: u8 = 14;
    const UNAUTHENTICATED: u8 = 16;
    match reason {
        Reason::BadRequest | Reason::HeaderTooLarge => INVALID_ARGUMENT,
        Reason::NoRoute | Reason::MethodNotAllowed => UNIMPLEMENTED,
        Reason::NoJob => NOT_FOUND,
        Reason::MissingKey | Reason::KeyInQuery | Reason::InvalidKey => UNAUTHENTICATED,
        Reason::AccountSuspended | Reason::RouteForbidden | Reason::AddressForbidden => PERMISSION_DENIED,
        Reason::BodyTooLarge
        | Reason::RateLimited
        | Reason::ConcurrencyLimited
        | Reason::InsufficientCredits => RESOURCE_EXHAUSTED,
        Reason::IdempotencyInProgress => ABORTED,
        Reason::IdempotencyKeyReused | Reason::ResponseNotKept => FAILED_PRECONDITION,
        Reason::LedgerUnavailable | Reason::UpstreamUnreachable | Reason::Overloaded => UNAVAILABLE,
        Reason::UpstreamTimeout => DEADLINE_EXCEEDED,
    }
}

/// Percent-encodes a message as the value of `grpc-message`.
#[must_use]
pub fn message(text: &str) -> HeaderValue {
    let encoded = utf8_percent_encode(text, ENCODED).to_string();
    HeaderValue::try_from(encoded).unwrap_or_else(|_| HeaderValue::from_static("refused"))
}

/// The HTTP status by which a call is priced, from its `grpc-status`; `None` if that is absent or no number.
/// The mapping is that of `google.rpc.Code`; 0 is 200.
#[must_use]
pub fn counts_as(headers: &HeaderMap) -> Option<StatusCode> {
    let status: u8 = headers.get(&STATUS)?.to_str().ok()?.parse().ok()?;
    let counts = match status {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    };
    StatusCode::from_u16(counts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_by_their_content_type() {
        let table = [
            ("application/grpc", true),
            ("Application/GRPC+proto", true),
            ("application/grpc;x", true),
            ("application/grpc-web", false),
            ("application/json", false),
            ("application/grp", false),
        ];
        for (text, expected) in table {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(text))]);
            assert_eq!(is_call(&headers), expected, "{text}");
        }
    }

    #[test]
    fn outcomes_count_as_statuses() {
        let of = |text| counts_as(&HeaderMap::from_iter([(STATUS, HeaderValue::from_static(text))]));
        assert_eq!(of("0"), Some(StatusCode::OK));
        assert_eq!(of("16"), Some(StatusCode::UNAUTHORIZED));
        assert_eq!(of("99"), Some(StatusCode::INTERNAL_SERVER_ERROR));
        assert_eq!(of("x"), None);
        assert_eq!(message("50% off\n"), "50%25 off%0A");
    }
}
