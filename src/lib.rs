//! Tollgate.
pub mod clock;
pub mod ledger;
pub mod policy;
pub mod types;
pub mod config;
pub mod snapshot;
pub mod directory;
pub mod gateway;
pub mod upstream;
