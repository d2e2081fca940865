//! What is wrong with a request's head, and how the client is told.

use crate::policy::reject::Reason;

/// What is wrong with a head, or with the body behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub(in crate::gateway) enum HeadFault {
    /// `#` in the request target.
    Fragment,
    /// Bytes in the request target that are not ASCII: what they mean is anybody's guess.
    NotAscii,
    /// `Content-Length` and `Transfer-Encoding` together, or one of them twice.
    Lengths,
    /// A length or an encoding that is not exactly what RFC 9112 allows.
    Framing,
    /// A line that ends in a bare LF, begins with white space or has no name.
    Line,
    /// A chunk of the body whose size or extension is not what RFC 9112 allows.
    Chunk,
    /// More bytes or more fields than are taken.
    TooLarge,
    /// A method that is not letters, with `-` or `_` between them.
    Method,
}

impl HeadFault {
    /// A sentence for the client.
    #[must_use]
    pub(in crate::gateway) const fn message(self) -> &'static str {
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
}

impl HeadFault {
    /// What it is refused for.
    pub(in crate::gateway) const fn reason(self) -> Reason {
        match self {
            Self::TooLarge => Reason::HeaderTooLarge,
            _ => Reason::BadRequest,
        }
    }
}
