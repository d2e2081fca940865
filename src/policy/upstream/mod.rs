//! Decisions about the servers of an upstream.

pub mod balance;
pub mod ejection;
pub mod health;
pub mod retry;
