//! I/O of a client connection: the socket with or without TLS, write coalescing below TLS, and observed
//! I/O for the scanners.

pub(super) mod observed;
pub(super) mod socket;
pub(super) mod write_coalescing;
