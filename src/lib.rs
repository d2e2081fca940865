//! Tollgate: an API gateway that checks keys, applies limits and charges credits exactly.
//!
//! Read `ARCHITECTURE.md` first. The way of one request is [`gateway`]'s `request/handler.rs`; every
//! decision it takes is a pure function in [`policy`]; money is [`ledger`]'s.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod directory;
pub mod gateway;
pub mod ledger;
pub mod policy;
pub mod snapshot;
pub mod telemetry;
pub mod tls;
pub mod types;
pub mod upstream;
