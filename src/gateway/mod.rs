//! The data plane: client connections, and the requests on them.
//!
//! Three parts, of which [`listener`] and [`request`] use only [`connection`]:
//!
//! * [`listener`]: sockets, accepting, connection slots per address, the handshake before HTTP;
//! * [`request`]: one request, from its head to its access log line;
//! * [`connection`]: one client connection; it calls the request handler only through a trait.
//!
//! [`worker`] runs them on one thread. Threads share only the snapshot, the directory, the limits, the
//! connection slots, the counters, the access log and the ledger.

mod connection;
mod listener;
mod request;
mod worker;

pub use listener::{
    Bound, ConnectionSlots, ListeningSockets, PassedSocket, PublicAddress, Purpose, bind, take_passed,
};
pub use request::limits;
#[cfg(test)]
pub(crate) use request::waiting;
pub use worker::{WorkerSeed, run};
