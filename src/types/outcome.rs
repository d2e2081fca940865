//! Defines the outcome of a request that is recorded in the ledger with its charge.

/// The outcome of a request in the ledger: the class of the upstream's status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StatusClass {
    /// No response: the upstream could not be reached or timed out, or the request was cancelled. Also the outcome of a
    /// kept hold that was settled at its deadline.
    #[default]
    None,
    /// 2xx, and 101.
    Success,
    /// 3xx.
    Redirect,
    /// 4xx.
    ClientError,
    /// 5xx.
    ServerError,
}

impl StatusClass {
    const ALL: [Self; 5] = [Self::None, Self::Success, Self::Redirect, Self::ClientError, Self::ServerError];

    /// The class of a status.
    #[must_use]
    pub const fn of_status(status: u16) -> Self {
        match status / 100 {
            3 => Self::Redirect,
            4 => Self::ClientError,
            5 => Self::ServerError,
            _ => Self::Success,
        }
    }

    /// The byte that represents the class in the journal.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Success => 2,
            Self::Redirect => 3,
            Self::ClientError => 4,
            Self::ServerError => 5,
        }
    }

    /// The class that a byte of the journal represents; `None` if there is none.
    #[must_use]
    pub fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.code() == code)
    }

    /// The name in the store and in exports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Success => "2xx",
            Self::Redirect => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
        }
    }

    /// The class with this name; `None` if there is none.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }
}
