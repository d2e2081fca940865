//! A client's bytes: the socket with or without TLS, write coalescing below TLS, and the scanners' view.

pub(super) mod observed;
pub(super) mod socket;
pub(super) mod write_coalescing;
