//! The pure core: every decision about a request, as a function of its arguments.
//!
//! No I/O, no clock, no async, no locks, no logging. What the gateway does, `explain` shows and
//! property tests check is the same code.

pub mod client_address;
pub mod cors;
pub mod credit;
pub mod forward;
pub mod grpc;
pub mod json;
pub mod key;
pub mod limit;
pub mod outcome;
pub mod path;
pub mod price;
pub mod reject;
pub mod request_head;
pub mod route;
pub mod values;
