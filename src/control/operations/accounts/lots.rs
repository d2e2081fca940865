//! Shows credits that expire, and refills.

use serde::Serialize;
use utoipa::ToSchema;

use crate::control::Control;
use crate::control::operations::terms::Time;
use crate::policy::credit::refill::{Mode, Refill};
use crate::types::{Credits, WallTime};

impl Control {
    /// The names of the configuration's buckets, the default one first.
    pub(in crate::control) fn bucket_names(&self) -> Vec<String> {
        let view = self.snapshot();
        let mut names: Vec<_> = view.buckets.iter().map(|(name, _)| name).collect();
        names.sort_by_key(|name| (!name.is_default(), name.as_str()));
        names.into_iter().map(ToString::to_string).collect()
    }
}

/// Credits that expire.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ExpiringCredits)]
pub struct ExpiringView {
    /// The bucket.
    pub bucket: String,
    /// The credits.
    #[schema(value_type = f64)]
    pub credits: Credits,
    /// When they expire. A time in the past: they are kept for requests in flight.
    #[schema(value_type = String, format = DateTime)]
    pub expires: Time,
}

/// What a plan refills.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Refill)]
pub struct RefillView {
    /// The credits.
    #[schema(value_type = f64)]
    pub credits: Credits,
    /// `hour`, `day`, `week`, `month` or `year`.
    pub every: &'static str,
    /// `reset`: what earlier refills left expires. `add`: they are added to it.
    pub mode: &'static str,
    /// The bucket that gets them.
    pub bucket: String,
    /// When the account is refilled next.
    #[schema(value_type = String, format = DateTime)]
    pub next: Time,
}

impl RefillView {
    /// `anchor`: when the account was created. `None` if the next refill is beyond the calendar.
    pub(in crate::control::operations) fn of(
        refill: &Refill,
        anchor: WallTime,
        now: WallTime,
    ) -> Option<Self> {
        let next = Time(refill.calendar.period(anchor, now)?.end);
        let mode = match refill.mode {
            Mode::Reset { .. } => "reset",
            Mode::Add { .. } => "add",
        };
        let (credits, bucket) = (refill.credits, refill.bucket.to_string());
        Some(Self { credits, every: refill.calendar.every.name(), mode, bucket, next })
    }
}
