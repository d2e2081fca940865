//! The response of a request: its context, its body, what is owed for it, and responses of the gateway's own.

pub(super) mod body;
mod body_price;
pub(super) mod context;
mod data_chunks;
pub(super) mod respond;
pub(super) mod settlement;
