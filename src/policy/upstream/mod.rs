//! Decisions about the servers of an upstream.

pub mod balance;
pub mod retry;
