//! Handles one request, from its head to its access log line. Read `handler.rs` first.

mod access_log;
mod authentication;
mod call;
mod handler;
mod items;
mod jobs;
pub mod limits;
mod permit;
mod repeats;
mod request_body;
mod response;
mod revocation;
mod routing;
mod services;
mod target;
mod tunnel;
mod upstream_request;
#[cfg(test)]
pub(crate) mod waiting;
mod websocket;

pub(super) use handler::Handler;
pub(super) use revocation::end_revoked_requests;
pub(super) use services::Services;
