//! Defines the faults of request heads for all HTTP versions, and the refusals that report them to clients.

use super::reject::{Reason, Refusal};

/// Largest number of header fields in a request.
pub const MAX_FIELDS: usize = 200;

/// Why a request head, or the HTTP/1.1 body after it, is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub enum HeadFault {
    /// The request target contains `#`.
    Fragment,
    /// The request target contains non-ASCII bytes, whose character encoding is unknown.
    NotAscii,
    /// Both `Content-Length` and `Transfer-Encoding` are present, or one of them is repeated.
    Lengths,
    /// The content length or the transfer coding is not exactly what RFC 9112 allows.
    Framing,
    /// A line ends in a bare LF, begins with white space, or has no field name.
    Line,
    /// The size or the extension of a chunk is not what RFC 9112, section 7.1 allows.
    Chunk,
    /// The head has more than `max_header_size` bytes, or more than [`MAX_FIELDS`] fields.
    TooLarge,
    /// The method contains characters other than letters, `-` and `_`, or begins or ends with `-` or `_`.
    Method,
}

impl HeadFault {
    /// The message for the client.
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
