//! Tests how requests are billed: by outcome, by item, by what streams tell.

mod jobs;
mod prices;
