//! Deadlines of a connection and of the requests on it.
//!
//! [`connection`] says how long a connection may stay as it is, [`request`] what one request waits for, and
//! [`slow_client`] how much time a client may take in sum.

pub(super) mod connection;
pub(super) mod request;
mod slow_client;

pub(super) use slow_client::SlowClientAllowance;
