//! Listening sockets, accepting connections, slots per address, and the handshake before HTTP.

mod accept;
mod handshake;
mod slots;
mod sockets;

pub(super) use accept::accept_connections;
pub use slots::ConnectionSlots;
pub use sockets::{Bound, ListeningSockets, PassedSocket, PublicAddress, Purpose, bind, take_passed};
