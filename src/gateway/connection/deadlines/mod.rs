//! Deadlines of a connection and of the requests on it.
//!
//! [`connection`] limits the time in each phase of a connection, [`request`] has the deadlines of one
//! request, and [`slow_client`] limits the total time that a client makes the gateway wait.

pub(super) mod connection;
pub(super) mod request;
mod slow_client;

pub(super) use slow_client::SlowClientAllowance;
