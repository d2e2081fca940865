//! Requests in tables, and what to do about refused ones.

use maud::{Markup, html};

use crate::control::dashboard::html::format;
use crate::control::operations::RequestView;
use crate::policy::reject::Reason;
use crate::types::WallTime;

/// A table of requests.
pub(super) fn requests_table(requests: &[RequestView], now: WallTime) -> Markup {
    html! {
        table {
            thead { tr { th { "Time" } th { "Route" } th { "Outcome" } th.num { "Status" } th.num { "Took" } th.num { "Credits" } th { "Request" } } }
            tbody {
                @for request in requests {
                    tr {
                        td { (format::ago(request.at.0, now)) }
                        td { (request.route.as_deref().unwrap_or("–")) }
                        td { (request.outcome) }
                        td.num { (request.status) }
                        td.num { (format!("{:.1} ms", request.duration_ms)) }
                        td.num { (format::credits(request.credits)) }
                        td { code { (request.id) } }
                    }
                }
            }
        }
    }
}

/// What to do about a refusal.
pub(super) fn remedy(reason: Reason) -> &'static str {
    match reason {
        Reason::BadRequest => "Check the path and the headers of the request.",
        Reason::HeaderTooLarge => "Send smaller or fewer headers.",
        Reason::NoRoute => "Check the path: the docs list all routes.",
        Reason::MethodNotAllowed => "Use one of the methods in the Allow header.",
        Reason::MissingKey => "Send your key in the header that the docs name.",
        Reason::KeyInQuery => {
            "Send your key in the header, and treat the one in the URL as leaked: rotate it."
        }
        Reason::InvalidKey => "Check that the key is complete, not revoked and not expired.",
        Reason::AccountSuspended => "Ask the operator why the account is suspended.",
        Reason::RouteForbidden => "Use a key that may call this route, or change this key's scopes.",
        Reason::AddressForbidden => {
            "Send the request from an address that the key allows, or change the key."
        }
        Reason::IdempotencyInProgress => "Wait for the first request, then send the request again.",
        Reason::IdempotencyKeyReused => "Use another Idempotency-Key for each request; a random one is best.",
        Reason::ResponseNotKept => {
            "Check what the first request did. To make it again, send another Idempotency-Key."
        }
        Reason::NoJob => "Check the job's id. It must be a job of this account.",
        Reason::BodyTooLarge => "Send a smaller body.",
        Reason::RateLimited => "Wait as long as Retry-After says, and send requests more evenly.",
        Reason::ConcurrencyLimited => "Wait for some responses before sending more requests.",
        Reason::InsufficientCredits => "Get more credits, or raise the key's spending limit.",
        Reason::LedgerUnavailable => "Try again in a moment.",
        Reason::UpstreamUnreachable | Reason::UpstreamTimeout => "Try again; it cost nothing.",
        Reason::Overloaded => "Try again after a pause.",
    }
}
