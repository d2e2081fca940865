//! Defines what shadow rules would have done about a request. They refuse and charge nothing, so that an operator sees
//! what a rule would do before it is in force.

use crate::policy::reject::Reason;

/// A kind of rule that may be a shadow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ShadowRule {
    /// The scopes of a key.
    Scope,
    /// A limit.
    Limit,
    /// A price, for which there were not enough credits.
    Credits,
}

impl ShadowRule {
    /// All kinds, in the order in which they are checked.
    pub const ALL: [Self; 3] = [Self::Scope, Self::Limit, Self::Credits];

    /// The name in metrics and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scope => "scope",
            Self::Limit => "limit",
            Self::Credits => "credits",
        }
    }

    /// The reason of the refusals that it would cause.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Scope => Reason::RouteForbidden,
            Self::Limit => Reason::RateLimited,
            Self::Credits => Reason::InsufficientCredits,
        }
    }
}

/// The kinds of shadow rules that would have refused a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shadow(u8);

impl Shadow {
    /// These kinds, and one more.
    #[must_use]
    pub const fn with(self, rule: ShadowRule) -> Self {
        Self(self.0 | 1 << rule as u8)
    }

    /// True if no shadow rule would have refused the request.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The kinds.
    pub fn rules(self) -> impl Iterator<Item = ShadowRule> {
        ShadowRule::ALL.into_iter().filter(move |rule| self.0 & 1 << *rule as u8 != 0)
    }
}
