//! Numbers, credits and times as people read them.

use maud::{Markup, html};

use crate::types::{Credits, WallTime};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Puts commas between thousands of the digits before the point.
fn grouped(text: &str) -> String {
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |rest| ("−", rest));
    let (whole, rest) = text.find('.').map_or((text, ""), |at| text.split_at(at));
    let mut out = String::from(sign);
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

/// An exact amount of credits: at most six decimals, none of them zero at the end.
pub(in crate::control::dashboard) fn credits(credits: Credits) -> String {
    grouped(&credits.to_string())
}

/// An amount of credits with its sign.
pub(in crate::control::dashboard) fn signed(amount: Credits) -> String {
    if amount > Credits::ZERO { format!("+{}", credits(amount)) } else { credits(amount) }
}

/// A number.
pub(in crate::control::dashboard) fn count(number: u64) -> String {
    grouped(&number.to_string())
}

/// A number and the word for what it counts.
pub(in crate::control::dashboard) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A share in percent.
pub(in crate::control::dashboard) fn percent(share: Option<f64>) -> String {
    match share {
        None => "–".to_owned(),
        Some(share) if share >= 99.95 => "100 %".to_owned(),
        Some(share) => format!("{share:.1} %"),
    }
}

/// A duration in milliseconds.
pub(in crate::control::dashboard) fn millis(time: Option<std::time::Duration>) -> String {
    match time.map(|time| time.as_secs_f64() * 1000.0) {
        None => "–".to_owned(),
        Some(millis) if millis < 10.0 => format!("{millis:.1} ms"),
        Some(millis) if millis < 10_000.0 => format!("{millis:.0} ms"),
        Some(millis) => format!("{:.1} s", millis / 1000.0),
    }
}

/// How far away a time is.
fn distance(millis: i64) -> String {
    let (number, unit) = match millis {
        ..HOUR => (millis / MINUTE, "minute"),
        HOUR..DAY => (millis / HOUR, "hour"),
        _ => (millis / DAY, "day"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

/// A time relative to now, with the absolute time as its title.
pub(in crate::control::dashboard) fn ago(at: WallTime, now: WallTime) -> Markup {
    let text = match now.0.saturating_sub(at.0) {
        near if near.abs() < MINUTE => "just now".to_owned(),
        past @ 0.. => format!("{} ago", distance(past)),
        future => format!("in {}", distance(-future)),
    };
    html! { time.nowrap datetime=(at) title=(at) { (text) } }
}

/// A time to the minute, in UTC; in the reader's time zone where there is a script.
pub(in crate::control::dashboard) fn at(at: WallTime) -> Markup {
    let text = at.to_string();
    let short = text.get(..16).unwrap_or(&text).replace('T', " ");
    html! { time.nowrap datetime=(text) title=(text) data-local="" { (short) " UTC" } }
}

/// The name of a day by its number since the Unix epoch: `12 Nov`.
pub(in crate::control::dashboard) fn day(number: i64) -> String {
    let at = jiff::Timestamp::from_second(number.saturating_mul(86_400)).unwrap_or_default();
    at.strftime("%-d %b").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let table = [
            ("0", "0"),
            ("999", "999"),
            ("1000", "1,000"),
            ("-1234567.25", "−1,234,567.25"),
            ("12.000001", "12.000001"),
        ];
        for (text, expected) in table {
            assert_eq!(grouped(text), expected);
        }
        assert_eq!(signed(Credits::from_millionths(1_500_000)), "+1.5");
        assert_eq!(counted(1, "call", "calls"), "1 call");
        assert_eq!(counted(1_200, "call", "calls"), "1,200 calls");
    }

    #[test]
    fn times_are_relative() {
        let now = WallTime(1_800_000_000_000);
        for (past, text) in
            [(0, "just now"), (MINUTE, "1 minute ago"), (5 * HOUR, "5 hours ago"), (-3 * DAY, "in 3 days")]
        {
            assert!(ago(WallTime(now.0 - past), now).into_string().contains(text), "{text}");
        }
        assert_eq!(day(20_404), "12 Nov");
    }
}
