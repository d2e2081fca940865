//! Tests the promises of the contract with the real program, in one module per promise.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    unreachable_pub,
    reason = "a test that meets the unexpected ends, and looks at the real clock"
)]

mod api;
mod billing;
mod check;
mod clocks;
mod commands;
mod crash;
mod crowds;
mod dashboard;
mod deadlines;
mod decisions;
mod disk;
#[path = "../engines/postgres.rs"]
mod engine;
mod faults;
mod fleet;
mod floods;
mod foreign;
mod http;
mod import;
mod limits;
mod memory;
mod metrics;
mod money;
#[path = "../engines/network.rs"]
mod network;
mod operation;
mod payments;
mod prices;
mod privacy;
mod proxies;
mod readers;
#[path = "../engines/redis.rs"]
mod redis_server;
mod refusals;
mod reload;
mod responses;
mod revoked;
mod stages;
mod streams;
mod support;
mod tls;
mod traces;
mod upgrade;
mod upstreams;
mod usage;
mod webhooks;
mod wrong_input;
