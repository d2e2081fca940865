//! Makes every decision about a request, in functions that depend only on their arguments.
//!
//! No I/O, no clock, no async, no locks, no logging. The gateway, the `explain` command and the property
//! tests all run this same code.

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
pub mod upstream;
pub mod values;
