//! Defines what a price consists of: charges with conditions, and amounts that are sums of terms.

use std::fmt;

use http::HeaderName;

use super::decimal::Decimal;
use crate::policy::json::Pointer;
use crate::types::Credits;

/// One rule of a price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The response statuses that the charge applies to.
    pub status: StatusMatch,
    /// What the response must contain too; all of it.
    pub when: Vec<Condition>,
    /// The amount that such a response costs.
    pub amount: Amount,
}

/// Something that a response must contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Where.
    pub source: Source,
    /// The text of the number, string or boolean there: one of these.
    pub any_of: Vec<String>,
}

/// An amount of credits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Fixed; at most the hold.
    Fixed(Credits),
    /// A number of the response. One with more than six decimals is unreadable.
    Read(Source),
    /// The sum of terms, rounded up to a millionth.
    Sum(Vec<Term>),
}

/// A part of an amount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// A fixed amount.
    Fixed(Credits),
    /// A number times a factor.
    Each {
        /// The number.
        from: Source,
        /// The factor. May be negative: a discount.
        each: Decimal,
        /// True if an absent number counts as 0.
        is_optional: bool,
    },
}

/// Where a number or a text is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// This header of the response; of a gRPC call also a trailer.
    Header(HeaderName),
    /// This trailer of the response.
    Trailer(HeaderName),
    /// The JSON response body at this pointer; in an event stream or JSON lines, the last event that has it.
    Json(Pointer),
    /// The last event of an event stream, at this pointer.
    LastEvent(Pointer),
    /// The number of items in the request.
    Items,
    /// What is held.
    Held,
    /// The size of the response body in MiB.
    Mebibytes,
    /// The time from the response head to the end of the body in seconds.
    Seconds,
}

impl Source {
    /// True if it is known only after the response head.
    pub(super) fn is_in_body(&self) -> bool {
        !matches!(self, Self::Header(_) | Self::Items | Self::Held)
    }

    /// The pointer whose value is read from the body.
    pub(super) fn pointer(&self) -> Option<&Pointer> {
        match self {
            Self::Json(pointer) | Self::LastEvent(pointer) => Some(pointer),
            _ => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(out, "header:{name}"),
            Self::Trailer(name) => write!(out, "trailer:{name}"),
            Self::Json(pointer) => write!(out, "json:{pointer}"),
            Self::LastEvent(pointer) => write!(out, "last-event:{pointer}"),
            Self::Items => out.write_str("items"),
            Self::Held => out.write_str("held"),
            Self::Mebibytes => out.write_str("MiB"),
            Self::Seconds => out.write_str("seconds"),
        }
    }
}

impl Amount {
    /// All sources of the amount.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        let (read, terms) = match self {
            Self::Fixed(_) => (None, &[][..]),
            Self::Read(source) => (Some(source), &[][..]),
            Self::Sum(terms) => (None, &terms[..]),
        };
        let from = terms.iter().filter_map(|term| match term {
            Term::Fixed(_) => None,
            Term::Each { from, .. } => Some(from),
        });
        read.into_iter().chain(from)
    }
}

impl Charge {
    /// All sources of the charge.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.when.iter().map(|condition| &condition.source).chain(self.amount.sources())
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(credits) => write!(out, "{credits}"),
            Self::Read(source) => write!(out, "{source}"),
            Self::Sum(terms) => {
                for (at, term) in terms.iter().enumerate() {
                    out.write_str(if at > 0 { " + " } else { "" })?;
                    match term {
                        Term::Fixed(credits) => write!(out, "{credits}")?,
                        Term::Each { from, each, .. } => write!(out, "{each} × {from}")?,
                    }
                }
                Ok(())
            }
        }
    }
}

/// The statuses that a charge applies to: one (`404`) or a class (`2xx`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusMatch {
    /// Exactly this status.
    One(u16),
    /// All statuses with this first digit.
    Class(u16),
}

impl fmt::Display for StatusMatch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(status) => write!(out, "{status}"),
            Self::Class(class) => write!(out, "{class}xx"),
        }
    }
}

impl StatusMatch {
    /// Parses `404` or `2xx`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(class) = text.strip_suffix("xx") {
            let class = class.parse().ok().filter(|class| (1..=5).contains(class))?;
            return Some(Self::Class(class));
        }
        let status = text.parse().ok().filter(|status| (200..=599).contains(status))?;
        Some(Self::One(status))
    }

    /// True if this status matches.
    #[must_use]
    pub fn covers(self, status: u16) -> bool {
        match self {
            Self::One(one) => one == status,
            Self::Class(class) => status / 100 == class,
        }
    }
}
