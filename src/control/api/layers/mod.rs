//! What every request passes before its handler: authentication, the quota of failed ones, and repeated writes.

pub(super) mod access;
pub(super) mod repeats;
