//! Defines the reasons of refusals, and builds their response bodies from the templates of a dialect.

mod reason;

use std::borrow::Cow;
use std::fmt::Write;

use http::{HeaderValue, StatusCode};

pub use reason::Reason;

use super::limit::ReachedLimit;

/// A refusal, before its response is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why the request is refused.
    pub reason: Reason,
    /// A more specific message than [`Reason::message`]; never contains text that the client sent.
    pub detail: Option<Cow<'static, str>>,
    /// Whole seconds for `Retry-After`.
    pub retry_after: Option<u64>,
    /// The value of `Allow`; required for a 405 (RFC 9110, section 15.5.6).
    pub allow: Option<String>,
    /// The error type of `Proxy-Status`, if the upstream is the reason (RFC 9209, section 2.3).
    pub proxy_error: Option<&'static str>,
    /// The limit that refused the request.
    pub limit: Option<ReachedLimit>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        let retry_after = matches!(reason, Reason::ConcurrencyLimited).then_some(1);
        Self { reason, detail: None, retry_after, allow: None, proxy_error: None, limit: None }
    }
}

impl Refusal {
    /// A refusal with a more specific message.
    #[must_use]
    pub fn because(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { detail: Some(detail.into()), ..reason.into() }
    }
}

/// The response for one reason in a dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The response's status.
    pub status: StatusCode,
    /// The text that replaces `{code}`.
    pub code: String,
    /// The text that replaces `{message}`; `None` for the refusal's own message.
    pub message: Option<String>,
    /// The response's content type.
    pub content_type: HeaderValue,
    /// The body, with placeholders.
    pub body: String,
}

/// The responses to refusals: one template per reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The templates, in the order of [`Reason::ALL`].
    templates: Vec<Template>,
    /// The bodies of the templates. Placeholders that do not depend on the request are already replaced.
    bodies: Vec<Vec<TemplatePart>>,
}

/// A part of a body, after the placeholders that do not depend on the request were replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
enum TemplatePart {
    /// Text that is sent unchanged.
    Text(String),
    /// The refusal's own message, or this one if it has none.
    Detail(&'static str),
    RequestId,
    RetryAfter,
}

/// Names of the placeholders, written in braces, in a body. A message may contain only `{retry_after}`.
pub const PLACEHOLDERS: [&str; 6] = ["status", "title", "code", "message", "request_id", "retry_after"];

/// The response to a refusal, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalResponse {
    /// The response's status.
    pub status: StatusCode,
    /// The response's content type.
    pub content_type: HeaderValue,
    /// The response's body.
    pub body: String,
}

impl Dialect {
    /// Creates a dialect; `template` returns the template of each reason.
    pub fn new(template: impl FnMut(Reason) -> Template) -> Self {
        let templates: Vec<Template> = Reason::ALL.into_iter().map(template).collect();
        let bodies = Reason::ALL.iter().zip(&templates).map(|(reason, template)| template.parts(*reason));
        Self { bodies: bodies.collect(), templates }
    }

    /// The template for a reason.
    #[must_use]
    pub fn template(&self, reason: Reason) -> &Template {
        &self.templates[reason as usize] // `new` created one for each reason
    }

    /// What clients get for a reason, as an example for documentation.
    #[must_use]
    pub fn example(&self, reason: Reason) -> RefusalResponse {
        let wait = matches!(reason, Reason::RateLimited | Reason::ConcurrencyLimited).then_some(12);
        self.build_response(&Refusal { retry_after: wait, ..Refusal::from(reason) }, "req_…")
    }

    /// Builds the response to a refusal.
    #[must_use]
    pub fn build_response(&self, refusal: &Refusal, request_id: &str) -> RefusalResponse {
        let template = self.template(refusal.reason);
        let mut digits = itoa::Buffer::new();
        let retry_after = refusal.retry_after.map_or("null", |seconds| digits.format(seconds));
        let mut body = String::with_capacity(template.body.len() + USUAL_FILLING);
        for part in &self.bodies[refusal.reason as usize] {
            match part {
                TemplatePart::Text(text) => body.push_str(text),
                TemplatePart::Detail(usual) => {
                    escape_into(&mut body, refusal.detail.as_deref().unwrap_or(usual));
                }
                TemplatePart::RequestId => escape_into(&mut body, request_id),
                TemplatePart::RetryAfter => body.push_str(retry_after),
            }
        }
        RefusalResponse { status: template.status, content_type: template.content_type.clone(), body }
    }
}

/// Usual length of the texts that replace the placeholders of a body, in bytes.
const USUAL_FILLING: usize = 96;

impl Template {
    /// Splits the body into parts, and replaces the placeholders that do not depend on the request.
    fn parts(&self, reason: Reason) -> Vec<TemplatePart> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut push = |text: &mut String, part: TemplatePart| {
            if !text.is_empty() {
                parts.push(TemplatePart::Text(std::mem::take(text)));
            }
            parts.push(part);
        };
        // If the default message contains `{retry_after}`, no detail of a refusal replaces it.
        let message = self.message.as_deref();
        let message = message.or_else(|| Some(reason.message()).filter(|text| text.contains(WAIT)));
        for piece in split_template(&self.body) {
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
                            push(&mut text, TemplatePart::RetryAfter);
                        }
                        escape_into(&mut text, more);
                    }
                }
                (Piece::Name("message"), None) => push(&mut text, TemplatePart::Detail(reason.message())),
                (Piece::Name("request_id"), _) => push(&mut text, TemplatePart::RequestId),
                (Piece::Name(_), _) => push(&mut text, TemplatePart::RetryAfter), // `retry_after`
            }
        }
        if !text.is_empty() {
            parts.push(TemplatePart::Text(text));
        }
        parts
    }
}

/// The placeholder for the seconds to wait in a message.
const WAIT: &str = "{retry_after}";

/// A part of a template's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text outside of placeholders.
    Text(&'a str),
    /// The name of a placeholder.
    Name(&'a str),
}

/// Splits a body at its placeholders. Braces around a name that is not in [`PLACEHOLDERS`] are text.
pub fn split_template(body: &str) -> impl Iterator<Item = Piece<'_>> {
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

/// The name of a placeholder `{name}` that begins at byte `at`; names have lower-case letters and `_` only.
#[must_use]
pub fn placeholder_at(text: &str, at: usize) -> Option<&str> {
    let inner = text.get(at..)?.strip_prefix('{')?;
    let name = &inner[..inner.find('}')?];
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    (!name.is_empty() && name.bytes().all(valid)).then_some(name)
}

/// Appends text, escaped for the inside of a JSON string (RFC 8259, section 7).
fn escape_into(out: &mut String, text: &str) {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        out.push_str(text); // the usual case
        return;
    }
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
        let body = dialect.build_response(&refusal, "req_1").body;
        let expected = r#"{"s":429,"c":"a\"b","m":"wait\u000a12","r":12,"x":{y},"é":"Too Many Requests"}"#;
        assert_eq!(body, expected);
        assert!(dialect.build_response(&Reason::NoRoute.into(), "").body.contains(r#""r":null"#));
    }
}
