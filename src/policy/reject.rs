//! Every refusal: its reason, and how a dialect words it.

use std::borrow::Cow;
use std::fmt::Write;

use http::{HeaderValue, StatusCode};

/// Why a request is refused. The order is that of the contract's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the codes and messages below say what each one means")]
pub enum Reason {
    BadRequest,
    HeaderTooLarge,
    NoRoute,
    MethodNotAllowed,
    MissingKey,
    KeyInQuery,
    InvalidKey,
    AccountSuspended,
    RouteForbidden,
    AddressForbidden,
    BodyTooLarge,
    RateLimited,
    ConcurrencyLimited,
    InsufficientCredits,
    LedgerUnavailable,
    UpstreamUnreachable,
    UpstreamTimeout,
    Overloaded,
}

impl Reason {
    /// All reasons, in order.
    pub const ALL: [Self; 18] = [
        Self::BadRequest,
        Self::HeaderTooLarge,
        Self::NoRoute,
        Self::MethodNotAllowed,
        Self::MissingKey,
        Self::KeyInQuery,
        Self::InvalidKey,
        Self::AccountSuspended,
        Self::RouteForbidden,
        Self::AddressForbidden,
        Self::BodyTooLarge,
        Self::RateLimited,
        Self::ConcurrencyLimited,
        Self::InsufficientCredits,
        Self::LedgerUnavailable,
        Self::UpstreamUnreachable,
        Self::UpstreamTimeout,
        Self::Overloaded,
    ];

    /// The reason's name in the contract, in logs and in configurations.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::HeaderTooLarge => "header_too_large",
            Self::NoRoute => "no_route",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::MissingKey => "missing_key",
            Self::KeyInQuery => "key_in_query",
            Self::InvalidKey => "invalid_key",
            Self::AccountSuspended => "account_suspended",
            Self::RouteForbidden => "route_forbidden",
            Self::AddressForbidden => "address_forbidden",
            Self::BodyTooLarge => "body_too_large",
            Self::RateLimited => "rate_limited",
            Self::ConcurrencyLimited => "concurrency_limited",
            Self::InsufficientCredits => "insufficient_credits",
            Self::LedgerUnavailable => "ledger_unavailable",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::Overloaded => "overloaded",
        }
    }

    /// The status where a dialect names no other.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::MissingKey | Self::KeyInQuery | Self::InvalidKey => StatusCode::UNAUTHORIZED,
            Self::AccountSuspended | Self::RouteForbidden | Self::AddressForbidden => StatusCode::FORBIDDEN,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RateLimited | Self::ConcurrencyLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::InsufficientCredits => StatusCode::PAYMENT_REQUIRED,
            Self::UpstreamUnreachable => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::LedgerUnavailable | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The sentence where neither the refusal nor the dialect has a better one.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::BadRequest => "The request is malformed.",
            Self::HeaderTooLarge => "The request's headers are too large.",
            Self::NoRoute => "There is no endpoint at this path.",
            Self::MethodNotAllowed => "This method is not allowed for this path.",
            Self::MissingKey => "The request does not contain an API key.",
            Self::KeyInQuery => "Send the API key in the header, never in the URL.",
            Self::InvalidKey => "The API key is not valid.",
            Self::AccountSuspended => "The account is suspended.",
            Self::RouteForbidden => "The API key does not have access to this endpoint.",
            Self::AddressForbidden => "The API key is not allowed from this address.",
            Self::BodyTooLarge => "The request's body is too large.",
            Self::RateLimited => "Rate limit exceeded. Retry after {retry_after} seconds.",
            Self::ConcurrencyLimited => "Too many concurrent requests with this API key.",
            Self::InsufficientCredits => "The account does not have enough credits.",
            Self::LedgerUnavailable => "The request cannot be charged right now. Try again later.",
            Self::UpstreamUnreachable => "The service behind the gateway cannot be reached.",
            Self::UpstreamTimeout => "The service behind the gateway did not answer in time.",
            Self::Overloaded => "The gateway is overloaded.",
        }
    }

    /// The reason with this code.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

/// A refusal on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// A sentence that says more than [`Reason::message`]; never holds what the client sent.
    pub detail: Option<Cow<'static, str>>,
    /// Whole seconds for `Retry-After`.
    pub retry_after: Option<u64>,
    /// The value of `Allow`, with a 405.
    pub allow: Option<String>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        let retry_after = matches!(reason, Reason::ConcurrencyLimited).then_some(1);
        Self { reason, detail: None, retry_after, allow: None }
    }
}

impl Refusal {
    /// A refusal with a sentence of its own.
    #[must_use]
    pub fn because(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { detail: Some(detail.into()), ..reason.into() }
    }
}

/// How one reason is worded in a dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The response's status.
    pub status: StatusCode,
    /// What `{code}` stands for.
    pub code: String,
    /// What `{message}` stands for; `None` for the refusal's own sentence.
    pub message: Option<String>,
    /// The response's content type.
    pub content_type: HeaderValue,
    /// The body, with placeholders.
    pub body: String,
}

/// How refusals are worded: one template per reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// In the order of [`Reason::ALL`].
    templates: Vec<Template>,
    /// Their bodies, filled in as far as they can be ahead of a request.
    bodies: Vec<Vec<Part>>,
}

/// A part of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Stands as it is.
    Text(String),
    /// The refusal's own sentence, or this one where it has none.
    Detail(&'static str),
    RequestId,
    RetryAfter,
}

/// Names that may stand in braces in a body; messages take `{retry_after}` only.
pub const PLACEHOLDERS: [&str; 6] = ["status", "title", "code", "message", "request_id", "retry_after"];

/// A worded refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worded {
    /// The response's status.
    pub status: StatusCode,
    /// The response's content type.
    pub content_type: HeaderValue,
    /// The response's body.
    pub body: String,
}

impl Dialect {
    /// A dialect from its templates, made for each reason.
    pub fn new(template: impl FnMut(Reason) -> Template) -> Self {
        let templates: Vec<Template> = Reason::ALL.into_iter().map(template).collect();
        let bodies = Reason::ALL.iter().zip(&templates).map(|(reason, template)| template.parts(*reason));
        Self { bodies: bodies.collect(), templates }
    }

    /// The template for a reason.
    #[must_use]
    pub fn template(&self, reason: Reason) -> &Template {
        &self.templates[reason as usize] // `new` made one for each reason
    }

    /// Words a refusal.
    #[must_use]
    pub fn word(&self, refusal: &Refusal, request_id: &str) -> Worded {
        let template = self.template(refusal.reason);
        let mut digits = itoa::Buffer::new();
        let retry_after = refusal.retry_after.map_or("null", |seconds| digits.format(seconds));
        let mut body = String::with_capacity(template.body.len() + USUAL_FILLING);
        for part in &self.bodies[refusal.reason as usize] {
            match part {
                Part::Text(text) => body.push_str(text),
                Part::Detail(usual) => escape_into(&mut body, refusal.detail.as_deref().unwrap_or(usual)),
                Part::RequestId => escape_into(&mut body, request_id),
                Part::RetryAfter => body.push_str(retry_after),
            }
        }
        Worded { status: template.status, content_type: template.content_type.clone(), body }
    }
}

/// Room for what usually stands in place of a body's placeholders, in bytes.
const USUAL_FILLING: usize = 96;

impl Template {
    /// The body, filled in with all that is known ahead of a request.
    fn parts(&self, reason: Reason) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut push = |text: &mut String, part: Part| {
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(text)));
            }
            parts.push(part);
        };
        // A sentence that says how long to wait is never a refusal's own.
        let message = self.message.as_deref();
        let message = message.or_else(|| Some(reason.message()).filter(|text| text.contains(WAIT)));
        for piece in pieces(&self.body) {
            match (piece, message) {
                (Piece::Text(more), _) => text.push_str(more),
                (Piece::Name("status"), _) => text.push_str(self.status.as_str()),
                (Piece::Name("title"), _) => {
                    escape_into(&mut text, self.status.canonical_reason().unwrap_or("Error"));
                }
                (Piece::Name("code"), _) => escape_into(&mut text, &self.code),
                (Piece::Name("message"), Some(message)) => {
                    for (at, more) in message.split(WAIT).enumerate() {
                        if at > 0 {
                            push(&mut text, Part::RetryAfter);
                        }
                        escape_into(&mut text, more);
                    }
                }
                (Piece::Name("message"), None) => push(&mut text, Part::Detail(reason.message())),
                (Piece::Name("request_id"), _) => push(&mut text, Part::RequestId),
                (Piece::Name(_), _) => push(&mut text, Part::RetryAfter), // the only one left
            }
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        parts
    }
}

/// Where a message says how long to wait.
const WAIT: &str = "{retry_after}";

/// A part of a template's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Stands as it is.
    Text(&'a str),
    /// The name of a placeholder.
    Name(&'a str),
}

/// Splits a body at its known placeholders; braces around anything else are text.
pub fn pieces(body: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some(name) = placeholder_at(rest, 0).filter(|name| PLACEHOLDERS.contains(name)) {
            rest = &rest[name.len() + 2..];
            return Some(Piece::Name(name));
        }
        let known = |at: &usize| placeholder_at(rest, *at).is_some_and(|n| PLACEHOLDERS.contains(&n));
        let end = (1..rest.len()).filter(|at| rest.is_char_boundary(*at)).find(known);
        let (text, more) = rest.split_at(end.unwrap_or(rest.len()));
        rest = more;
        Some(Piece::Text(text))
    })
}

/// `{name}` of lower-case letters at a byte of a text.
#[must_use]
pub fn placeholder_at(text: &str, at: usize) -> Option<&str> {
    let inner = text.get(at..)?.strip_prefix('{')?;
    let name = &inner[..inner.find('}')?];
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    (!name.is_empty() && name.bytes().all(valid)).then_some(name)
}

/// Escapes for the inside of a JSON string (RFC 8259, section 7).
fn escape_into(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", control as u32); // writing to a String cannot fail
            }
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_by_its_code() {
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
            assert_eq!(Reason::from_code(reason.code()), Some(reason));
        }
    }

    #[test]
    fn placeholders_are_filled_in_escaped() {
        let dialect = Dialect::new(|reason| Template {
            status: reason.status(),
            code: "a\"b".to_owned(),
            message: Some("wait\n{retry_after}".to_owned()),
            content_type: HeaderValue::from_static("application/json"),
            body: r#"{"s":{status},"c":"{code}","m":"{message}","r":{retry_after},"x":{y},"é":"{title}"}"#
                .to_owned(),
        });
        let refusal = Refusal { retry_after: Some(12), ..Reason::RateLimited.into() };
        let body = dialect.word(&refusal, "req_1").body;
        let expected = r#"{"s":429,"c":"a\"b","m":"wait\u000a12","r":12,"x":{y},"é":"Too Many Requests"}"#;
        assert_eq!(body, expected);
        assert!(dialect.word(&Reason::NoRoute.into(), "").body.contains(r#""r":null"#));
    }
}
