//! Represents amounts of credits as signed 64-bit counts of millionths. Never a float, never clamped.

use std::fmt;
use std::str::FromStr;

/// Number of digits after the decimal point.
const DECIMALS: usize = 6;
/// Millionths in a credit.
const MILLION: u64 = 1_000_000;
/// Longest amount without its exponent that is parsed, in bytes; bounds the work on hostile input.
const MAX_TEXT: usize = 40;

/// An exact amount of credits, in millionths: `0.25` is 250,000.
///
/// The largest amount is ±9,223,372,036,854.775807 credits. All arithmetic is checked: an overflow is reported to
/// the caller and never yields a wrapped or clamped amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Credits(i64);

/// Why a text is not an amount of credits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreditsError {
    /// The text is not a decimal number.
    #[error("is not a decimal number")]
    NotANumber,
    /// The number has more than six digits after the decimal point.
    #[error("has more than six decimals")]
    TooPrecise,
    /// The number of millionths does not fit in 64 bits.
    #[error("is too large (at most 9223372036854.775807)")]
    TooLarge,
}

impl Credits {
    /// No credits.
    pub const ZERO: Self = Self(0);
    /// The largest amount.
    pub const MAX: Self = Self(i64::MAX);

    /// An amount from its millionths.
    #[must_use]
    pub const fn from_millionths(millionths: i64) -> Self {
        Self(millionths)
    }

    /// The amount in millionths.
    #[must_use]
    pub const fn millionths(self) -> i64 {
        self.0
    }

    /// `self + other`, or `None` on overflow.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// `self - other`, or `None` on overflow.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// True if the amount is less than zero.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// True if the amount is zero.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Parses the text of a JSON number (RFC 8259, section 6), which may have an exponent: `1e-05`.
    ///
    /// # Errors
    /// The same as those of [`Credits::from_str`]. Trailing zeros are no error: `1.50000000` is valid.
    pub fn from_json_number(text: &str) -> Result<Self, CreditsError> {
        let Some(at) = text.find(['e', 'E']) else {
            return text.parse();
        };
        let (mantissa, exponent) = (&text[..at], &text[at + 1..]);
        let exponent: i32 = exponent.parse().map_err(|_| CreditsError::NotANumber)?;
        decimal(mantissa, exponent)
    }
}

impl FromStr for Credits {
    type Err = CreditsError;

    /// Parses `8500`, `-1`, `8499.75`. No exponent, no thousands separators, no sign other than `-`.
    fn from_str(text: &str) -> Result<Self, CreditsError> {
        decimal(text, 0)
    }
}

/// Computes `mantissa × 10^exponent` exactly.
fn decimal(mantissa: &str, exponent: i32) -> Result<Credits, CreditsError> {
    if mantissa.len() > MAX_TEXT {
        return Err(CreditsError::TooLarge);
    }
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return Err(CreditsError::NotANumber),
        None => (digits, ""),
    };
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return Err(CreditsError::NotANumber);
    }
    let mut value: i128 = 0;
    for byte in whole.bytes().chain(fraction.bytes()) {
        value = value * 10 + i128::from(byte - b'0'); // cannot overflow: the check below bounds it
        if value > i128::from(i64::MAX) * 1_000_000_000 {
            return Err(CreditsError::TooLarge);
        }
    }
    let shift = i64::from(exponent) + DECIMALS as i64 - fraction.len() as i64;
    let millionths = shifted(value, shift)?;
    let millionths = if negative { -millionths } else { millionths };
    i64::try_from(millionths).map(Credits).map_err(|_| CreditsError::TooLarge)
}

/// Computes `value × 10^shift`, in millionths. Refuses fractions of a millionth.
fn shifted(mut value: i128, shift: i64) -> Result<i128, CreditsError> {
    if value == 0 {
        return Ok(0);
    }
    if shift > DECIMALS as i64 + 13 {
        return Err(CreditsError::TooLarge);
    }
    for _ in 0..shift {
        value = value.checked_mul(10).ok_or(CreditsError::TooLarge)?;
    }
    for _ in shift..0 {
        if value % 10 != 0 {
            return Err(CreditsError::TooPrecise);
        }
        value /= 10;
    }
    Ok(value)
}

/// An amount of credits as text, without an allocation.
#[derive(Clone, Copy, Debug)]
pub struct CreditsText {
    bytes: [u8; Self::MAX],
    start: usize,
}

impl CreditsText {
    /// Size of the buffer: a sign, 13 digits, a point and 6 digits need 21 bytes.
    const MAX: usize = 24;

    /// The text, in ASCII.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default() // ASCII only
    }

    fn push_front(&mut self, byte: u8) {
        self.start -= 1;
        self.bytes[self.start] = byte;
    }
}

impl Credits {
    /// Exact decimal text without trailing zeros: `8500`, `8499.75`, `-0.000001`.
    #[must_use]
    pub fn text(self) -> CreditsText {
        let mut text = CreditsText { bytes: [0; CreditsText::MAX], start: CreditsText::MAX };
        let (whole, mut rest) = (self.0.unsigned_abs() / MILLION, self.0.unsigned_abs() % MILLION);
        if rest > 0 {
            let mut digits = DECIMALS;
            while rest.is_multiple_of(10) {
                (rest, digits) = (rest / 10, digits - 1);
            }
            for _ in 0..digits {
                text.push_front(b'0' + (rest % 10) as u8);
                rest /= 10;
            }
            text.push_front(b'.');
        }
        let mut buffer = itoa::Buffer::new();
        let whole = buffer.format(whole).as_bytes();
        let end = text.start;
        text.start -= whole.len();
        text.bytes[text.start..end].copy_from_slice(whole);
        if self.0 < 0 {
            text.push_front(b'-');
        }
        text
    }
}

impl fmt::Display for Credits {
    /// Writes the same text as [`Credits::text`].
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.text().as_str())
    }
}

impl serde::Serialize for Credits {
    /// Serializes the amount as an exact JSON number.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error;
        serde_json::Number::from_str(&self.to_string()).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for Credits {
    /// Deserializes a JSON number, which is parsed as decimal text, or a string.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let value = serde_json::Value::deserialize(deserializer)?;
        let text = match &value {
            serde_json::Value::Number(number) => number.to_string(),
            serde_json::Value::String(text) => text.clone(),
            _ => return Err(D::Error::custom("credits are a number or a string")),
        };
        Self::from_json_number(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_are_read_and_shown_exactly() {
        let table = [
            ("0", 0, "0"),
            ("8500", 8_500_000_000, "8500"),
            ("8499.75", 8_499_750_000, "8499.75"),
            ("0.25", 250_000, "0.25"),
            ("0.000001", 1, "0.000001"),
            ("-0.000001", -1, "-0.000001"),
            ("1.500000000", 1_500_000, "1.5"),
            ("9223372036854.775807", i64::MAX, "9223372036854.775807"),
        ];
        for (text, millionths, shown) in table {
            let credits: Credits = text.parse().unwrap();
            assert_eq!(credits.millionths(), millionths, "{text}");
            assert_eq!(credits.to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        use CreditsError::{NotANumber, TooLarge, TooPrecise};
        let table = [
            ("", NotANumber),
            ("-", NotANumber),
            ("1.", NotANumber),
            (".5", NotANumber),
            ("+1", NotANumber),
            ("1e3", NotANumber),
            ("0x10", NotANumber),
            ("NaN", NotANumber),
            ("1_000", NotANumber),
            ("0.0000001", TooPrecise),
            ("9223372036854.775808", TooLarge),
            ("99999999999999999999999999999999999999999", TooLarge),
        ];
        for (text, error) in table {
            assert_eq!(text.parse::<Credits>(), Err(error), "{text}");
        }
    }

    #[test]
    fn json_numbers_may_have_exponents() {
        let read = |text| Credits::from_json_number(text).map(Credits::millionths);
        assert_eq!(read("1e-05"), Ok(10));
        assert_eq!(read("2.5E1"), Ok(25_000_000));
        assert_eq!(read("1e-7"), Err(CreditsError::TooPrecise));
        assert_eq!(read("1e99"), Err(CreditsError::TooLarge));
        assert_eq!(read("0e99999"), Ok(0));
        assert_eq!(read("1e"), Err(CreditsError::NotANumber));
        assert_eq!(read("1e-2147483648"), Err(CreditsError::TooPrecise));
    }

    proptest! {
        #[test]
        fn every_amount_survives_text_and_json(millionths: i64) {
            prop_assume!(millionths != i64::MIN);
            let credits = Credits::from_millionths(millionths);
            prop_assert_eq!(credits.to_string().parse::<Credits>(), Ok(credits));
            let json = serde_json::to_string(&credits).unwrap();
            prop_assert_eq!(&json, &credits.to_string());
            prop_assert_eq!(serde_json::from_str::<Credits>(&json).unwrap(), credits);
        }

        #[test]
        fn no_text_panics(text in "[-+.0-9eE]{0,50}") {
            let _ = text.parse::<Credits>();
            let _ = Credits::from_json_number(&text);
        }
    }
}
