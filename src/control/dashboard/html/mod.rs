//! How pages are built: the frame around them, parts they share, charts, numbers and times.

pub(super) mod chart;
pub(super) mod format;
mod frame;
mod icons;
pub(super) mod parts;

pub(super) use frame::{Frame, Place, enter_page, error_page};
