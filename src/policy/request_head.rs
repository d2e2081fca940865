//! What every request head must satisfy, whatever HTTP version it came in, and how a client is told.

use super::reject::{Reason, Refusal};

/// Most header fields of a request.
pub const MAX_FIELDS: usize = 200;

/// Why a request head, or the HTTP/1.1 body after it, is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub enum HeadFault {
    /// `#` in the request target.
    Fragment,
    /// Non-ASCII bytes in the request target, whose encoding is unknown.
    NotAscii,
    /// `Content-Length` and `Transfer-Encoding` together, or one of them twice.
    Lengths,
    /// A length or a transfer coding that is not exactly what RFC 9112 allows.
    Framing,
    /// A line that ends in a bare LF, begins with white space or has no field name.
    Line,
    /// A chunk whose size or extension is not what RFC 9112, section 7.1 allows.
    Chunk,
    /// More bytes than `max_header_size`, or more than [`MAX_FIELDS`] fields.
    TooLarge,
    /// A method with other characters than letters, `-` and `_`.
    Method,
}

impl HeadFault {
    /// A sentence for the client.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Fragment => "The request target has a fragment.",
            Self::NotAscii => "The request target contains characters that must be percent-encoded.",
            Self::Lengths => "The request declares its length more than once.",
            Self::Framing => "The request's length or transfer encoding is malformed.",
            Self::Line => "The request has a malformed header line.",
            Self::Chunk => "The request's body has a malformed chunk.",
            Self::TooLarge => "The request's headers are too large, or too many.",
            Self::Method => "The request's method is malformed.",
        }
    }

    const fn reason(self) -> Reason {
        match self {
            Self::TooLarge => Reason::HeaderTooLarge,
            _ => Reason::BadRequest,
        }
    }
}

impl From<HeadFault> for Refusal {
    fn from(fault: HeadFault) -> Self {
        Self::because(fault.reason(), fault.message())
    }
}

/// True if a method consists of letters, with `-` or `_` only between them.
#[must_use]
pub fn is_method(method: &[u8]) -> bool {
    let ends = method.first().into_iter().chain(method.last());
    ends.copied().all(|byte| byte.is_ascii_alphabetic())
        && method.iter().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_'))
}
