//! The admin API: HTTP on the operators' listener, one handler for each operation, described as OpenAPI 3.1.
//!
//! A request passes [`layers::access`] (token, rate), [`layers::repeats`] (bound of the body, `Idempotency-Key`), then
//! its handler, which calls the operation. Health checks need no token and touch no file.

mod accounts;
mod decisions;
mod extract;
mod gateway;
mod health;
mod keys;
mod layers;
mod metrics;
mod paging;
mod people;
mod problem;
mod routes;
mod server;
mod state;
mod usage;
mod webhooks;

pub use routes::openapi;
pub use server::Admin;
