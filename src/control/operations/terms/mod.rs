//! Inputs and outputs that several operations share: limits, pages, partial changes, times.

mod import;
mod limits;
mod page;
mod patch;
mod scopes;
mod spending;
mod time;

pub use import::{Imported, MAX_IMPORTED, RefusedLine};
pub use limits::{LimitAlgorithm, LimitScope, LimitTerms};
pub use page::{DEFAULT_LIMIT, MAX_LIMIT, Page};
pub use patch::Patch;
pub use spending::SpendTerms;
pub use time::Time;

pub(in crate::control) use limits::{restored, stored};
pub(in crate::control) use scopes::{optional_scopes_schema, scopes_schema};
pub(in crate::control) use spending::{optional_spending_schema, spending_schema};
pub(in crate::control) use time::{moment, past};
