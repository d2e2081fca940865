//! The admin API: HTTP on the operators' listener, one handler for each operation, described as OpenAPI 3.1.
//!
//! A request passes [`access`] (token, rate), [`repeats`] (bound of the body, `Idempotency-Key`), then its handler,
//! which calls the operation. Health checks need no token and touch no file.

mod access;
mod accounts;
mod extract;
mod gateway;
mod health;
mod keys;
mod metrics;
mod paging;
mod problem;
mod quota;
mod repeats;
mod routes;
mod server;
mod state;
mod usage;

pub use routes::openapi;
pub use server::Admin;
