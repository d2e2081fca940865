//! Defines the outcomes of requests, for the access log, the counters and the metrics.

mod shadow;
pub mod usage;

pub use shadow::{Shadow, ShadowRule};

use super::reject::Reason;

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream's response was sent to the client.
    Proxied,
    /// Tollgate sent its own response: account info, or the response to a CORS preflight.
    Answered,
    /// Tollgate sent the response to an earlier request with the same idempotency key.
    Replayed,
    /// The client disconnected before its response began.
    ClientGone,
    /// The charge could not be written to disk in time: the response was aborted.
    Cut,
    /// The key stopped being valid while the request was in flight.
    KeyEnded,
    /// Tollgate refused the request for this reason.
    Refused(Reason),
}

impl Outcome {
    /// Number of outcomes.
    pub const COUNT: usize = 6 + Reason::ALL.len();

    /// All outcomes, in the order of [`Outcome::index`].
    pub fn all() -> impl Iterator<Item = Self> {
        let plain =
            [Self::Proxied, Self::Answered, Self::Replayed, Self::ClientGone, Self::Cut, Self::KeyEnded];
        plain.into_iter().chain(Reason::ALL.into_iter().map(Self::Refused))
    }

    /// The index of this outcome in [`Outcome::all`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Proxied => 0,
            Self::Answered => 1,
            Self::Replayed => 2,
            Self::ClientGone => 3,
            Self::Cut => 4,
            Self::KeyEnded => 5,
            Self::Refused(reason) => 6 + reason as usize,
        }
    }

    /// The name in logs and counters; for a refusal, [`Reason::code`].
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Proxied => "proxied",
            Self::Answered => "answered",
            Self::Replayed => "replayed",
            Self::ClientGone => "client_gone",
            Self::Cut => "cut",
            Self::KeyEnded => "key_ended",
            Self::Refused(reason) => reason.code(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_place_and_its_name() {
        let all: Vec<Outcome> = Outcome::all().collect();
        assert_eq!(all.len(), Outcome::COUNT);
        for (at, outcome) in all.iter().enumerate() {
            assert_eq!(outcome.index(), at);
            assert!(all[..at].iter().all(|other| other.code() != outcome.code()));
        }
    }
}
