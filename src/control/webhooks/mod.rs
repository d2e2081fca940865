//! Delivers the events of accounts to their endpoints, as Standard Webhooks 1.0.0 describes it: signed, at least once,
//! tried again for three days.

mod address;
mod client;
mod counts;
mod deliver;
mod doorbell;
mod schedule;

pub(in crate::control) use crate::policy::key::signature::{SECRET, secret};
pub(in crate::control) use client::check_url;
pub(in crate::control) use counts::DeliveryCounts;
pub(in crate::control) use doorbell::Doorbell;
