//! The promises of the contract, kept by the real program: a module per promise.

mod check;
mod commands;
mod crash;
mod http;
mod limits;
mod money;
mod prices;
mod privacy;
mod refusals;
mod reload;
mod support;
mod wrong_input;
