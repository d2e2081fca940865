//! The pages of a user about themselves.

mod codes;
mod settings;

pub(super) use codes::{codes_off, codes_on, codes_page, recovery};
pub(super) use settings::{end_session, end_sessions, password, rename, settings};
