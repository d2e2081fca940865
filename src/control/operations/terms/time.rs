//! Times of operations' inputs and outputs.

use serde::{Serialize, Serializer};

use crate::config::parse_duration;
use crate::control::operations::error::{OperationError, Result};
use crate::types::WallTime;

/// A time that is written as RFC 3339, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub WallTime);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Parses how long ago, or a time in RFC 3339.
pub(in crate::control) fn past(field: &'static str, text: &str, now: WallTime) -> Result<WallTime> {
    let at = moment(field, text, now)?;
    let is_duration = parse_duration(text).is_ok();
    Ok(WallTime(if is_duration { now.0.saturating_mul(2) - at.0 } else { at.0 }))
}

/// Parses a duration from now, or a time in RFC 3339.
pub(in crate::control) fn moment(field: &'static str, text: &str, now: WallTime) -> Result<WallTime> {
    if let Ok(duration) = parse_duration(text) {
        let millis = i64::try_from(duration.as_millis()).ok().and_then(|millis| now.0.checked_add(millis));
        let too_far = || OperationError::Invalid { field, message: format!("{text} is too far away") };
        return millis
            .filter(|millis| jiff::Timestamp::from_millisecond(*millis).is_ok())
            .map(WallTime)
            .ok_or_else(too_far);
    }
    match text.parse::<jiff::Timestamp>() {
        Ok(moment) => Ok(WallTime(moment.as_millisecond())),
        Err(_) => OperationError::invalid(
            field,
            format!("{text} is neither a duration such as 90d nor a time such as 2027-01-01T00:00:00Z"),
        ),
    }
}
