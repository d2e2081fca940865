//! Tollgate: an API gateway that checks keys, applies limits and charges credits exactly.
//!
//! Read `ARCHITECTURE.md` first. `request/handler.rs` of [`gateway`] handles one request; its
//! decisions are pure functions in [`policy`]; [`ledger`] holds and charges credits.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod directory;
pub mod gateway;
pub mod ledger;
pub mod limit_store;
pub mod policy;
pub mod servers;
pub mod snapshot;
pub mod telemetry;
pub mod threads;
pub mod tls;
pub mod types;
pub mod upstream;
