//! Parses `[usage]`: how long usage is kept.

use std::time::Duration;

use crate::config::parse::context::{Context, single};
use crate::config::raw;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long usage is kept in intervals of a minute, of an hour and of a day, unless the file says otherwise.
const KEPT: [Duration; 3] = [DAY.saturating_mul(2), DAY.saturating_mul(60), DAY.saturating_mul(800)];

pub(in crate::config::parse) fn build(context: &mut Context, files: &[raw::File]) -> [Duration; 3] {
    let raw = single(context, files, "usage", |file| file.usage.as_ref());
    let settings = [&raw.minutes, &raw.hours, &raw.days];
    let [minutes, hours, days] = [0, 1, 2].map(|at| context.duration(settings[at].as_ref(), KEPT[at]));
    for (setting, shorter, longer) in [(&raw.hours, minutes, hours), (&raw.days, hours, days)] {
        if let Some(setting) = setting.as_ref().filter(|_| longer < shorter) {
            context.error(&setting.span, "longer intervals cannot be kept for less time than shorter ones");
        }
    }
    [minutes, hours.max(minutes), days.max(hours)]
}
