//! The data plane: client connections, and the life of each request on them.
//!
//! Three rooms, each of which knows only those below it:
//!
//! * [`listener`]: sockets, accepting, slots per address, the handshake before HTTP;
//! * [`request`]: one request's life, from its head to its log line;
//! * [`connection`]: one client connection, which is handed the request handler and does not name it.
//!
//! [`worker`] runs them on one thread. Nothing crosses threads but what is shared on purpose: the snapshot, the
//! directory, the limits, the ledger.

mod connection;
mod listener;
mod request;
mod worker;

pub use listener::{ConnectionSlots, ListeningSockets, PublicAddress, bind};
pub use request::limits;
#[cfg(test)]
pub(crate) use request::waiting;
pub use worker::{WorkerSeed, run};
