//! Tests how requests are billed: by outcome, by item, by what streams tell.

mod buckets;
mod calendar;
pub mod examples;
mod groups;
pub mod jobs;
mod lasting;
mod prices;
mod reconcile;
mod refills;
mod repeat_faults;
pub mod repeats;
pub mod spending;
