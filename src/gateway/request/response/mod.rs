//! Responses: their context, their bodies, their settlement, and responses that the gateway makes itself.

pub(super) mod body;
mod body_price;
pub(super) mod context;
mod data_chunks;
pub(super) mod due;
pub(super) mod respond;
pub(super) mod settlement;
pub(super) mod silence;
