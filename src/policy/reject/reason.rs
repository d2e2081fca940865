//! Lists the reasons for which requests are refused.

use http::StatusCode;

/// Why a request is refused, in the order of the table in the contract's section 4.
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
    NoJob,
    BodyTooLarge,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    ResponseNotKept,
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
    pub const ALL: [Self; 22] = [
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
        Self::NoJob,
        Self::BodyTooLarge,
        Self::IdempotencyInProgress,
        Self::IdempotencyKeyReused,
        Self::ResponseNotKept,
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
            Self::NoJob => "no_job",
            Self::BodyTooLarge => "body_too_large",
            Self::IdempotencyInProgress => "idempotency_in_progress",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::ResponseNotKept => "response_not_kept",
            Self::RateLimited => "rate_limited",
            Self::ConcurrencyLimited => "concurrency_limited",
            Self::InsufficientCredits => "insufficient_credits",
            Self::LedgerUnavailable => "ledger_unavailable",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::Overloaded => "overloaded",
        }
    }

    /// The default status; a dialect may set another one.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::NoRoute | Self::NoJob => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::MissingKey | Self::KeyInQuery | Self::InvalidKey => StatusCode::UNAUTHORIZED,
            Self::AccountSuspended | Self::RouteForbidden | Self::AddressForbidden => StatusCode::FORBIDDEN,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::IdempotencyInProgress | Self::ResponseNotKept => StatusCode::CONFLICT,
            Self::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimited | Self::ConcurrencyLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::InsufficientCredits => StatusCode::PAYMENT_REQUIRED,
            Self::UpstreamUnreachable => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::LedgerUnavailable | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The default message, used if neither the dialect nor [`super::Refusal::detail`] has one.
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
            Self::NoJob => "This account has no such job.",
            Self::BodyTooLarge => "The request's body is too large.",
            Self::IdempotencyInProgress => {
                "The first request with this Idempotency-Key is still in progress."
            }
            Self::IdempotencyKeyReused => "Another request was made with this Idempotency-Key.",
            Self::ResponseNotKept => {
                "The first request with this Idempotency-Key was made, but its response was not kept. To make it again, send \
                 another key."
            }
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
