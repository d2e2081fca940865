//! Exact decimal numbers, from which prices are summed.

use crate::types::Credits;

/// Most decimals of a number; with more, a sum could not be exact in 128 bits.
const MAX_SCALE: u32 = 30;
/// Decimals of [`Credits`].
const MILLIONTHS: u32 = 6;

/// An exact decimal number: `mantissa × 10^-scale`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decimal {
    mantissa: i128,
    scale: u32,
}

impl Decimal {
    /// The number 1.
    pub const ONE: Self = Self { mantissa: 1, scale: 0 };

    /// Parses `12`, `-0.0000025`, `2.5e-6`; `None` for other text, and for numbers that do not fit in 128 bits or have more
    /// than 30 decimals.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (digits, exponent) = match text.find(['e', 'E']) {
            Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (is_negative, digits) = match digits.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, digits),
        };
        let (whole, fraction) = match digits.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (digits, ""),
        };
        if whole.is_empty() {
            return None;
        }
        let mut mantissa = 0_i128;
        for byte in whole.bytes().chain(fraction.bytes()) {
            let digit = i128::from(char::from(byte).to_digit(10)?);
            mantissa = mantissa.checked_mul(10)?.checked_add(digit)?;
        }
        let mut scale = i64::try_from(fraction.len()).ok()? - i64::from(exponent);
        if mantissa == 0 {
            return Some(Self::default());
        }
        while scale > 0 && mantissa % 10 == 0 {
            (mantissa, scale) = (mantissa / 10, scale - 1);
        }
        if scale < 0 {
            mantissa = mantissa.checked_mul(power(u32::try_from(-scale).ok()?)?)?;
        }
        let scale = u32::try_from(scale.max(0)).ok().filter(|scale| *scale <= MAX_SCALE)?;
        Some(Self { mantissa: if is_negative { -mantissa } else { mantissa }, scale })
    }

    /// True if the number may be a factor of a price: at most 18 decimals, and below 10^12.
    #[must_use]
    pub fn is_factor(self) -> bool {
        self.scale <= 18 && self.mantissa.unsigned_abs() < 10_u128.pow(12 + self.scale)
    }

    /// A whole number.
    #[must_use]
    pub fn from_count(count: u32) -> Self {
        Self { mantissa: i128::from(count), scale: 0 }
    }

    /// True if both are the same number.
    #[must_use]
    pub fn is_equal(self, other: Self) -> bool {
        let difference = self.plus(Self { mantissa: -other.mantissa, scale: other.scale });
        difference.is_some_and(|difference| difference.mantissa == 0)
    }

    /// A whole number divided by 2^20: bytes in MiB.
    #[must_use]
    pub fn mebibytes(bytes: u64) -> Self {
        // 2^-20 = 5^20 × 10^-20
        Self { mantissa: i128::from(bytes) * 5_i128.pow(20), scale: 20 }
    }

    /// A number of milliseconds in seconds.
    #[must_use]
    pub fn seconds(millis: u64) -> Self {
        Self { mantissa: i128::from(millis), scale: 3 }
    }

    /// The product; `None` if it does not fit.
    #[must_use]
    pub fn times(self, other: Self) -> Option<Self> {
        let product = self.mantissa.checked_mul(other.mantissa)?;
        Some(Self { mantissa: product, scale: self.scale + other.scale })
    }

    /// The sum; `None` if it does not fit.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        let scale = self.scale.max(other.scale);
        let aligned = |number: Self| number.mantissa.checked_mul(power(scale - number.scale)?);
        Some(Self { mantissa: aligned(self)?.checked_add(aligned(other)?)?, scale })
    }

    /// True if the number is less than zero.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.mantissa < 0
    }

    /// The number of credits, rounded up to a whole number of millionths; `None` if it does not fit.
    #[must_use]
    pub fn credits(self) -> Option<Credits> {
        let millionths = match self.scale.checked_sub(MILLIONTHS) {
            None | Some(0) => self.mantissa.checked_mul(power(MILLIONTHS - self.scale)?)?,
            Some(more) => {
                let Some(divisor) = power(more) else {
                    return self.mantissa.is_positive().then_some(SMALLEST);
                };
                self.mantissa.div_euclid(divisor) + i128::from(self.mantissa.rem_euclid(divisor) != 0)
            }
        };
        i64::try_from(millionths).ok().map(Credits::from_millionths)
    }
}

/// The smallest amount.
const SMALLEST: Credits = Credits::from_millionths(1);

impl From<Credits> for Decimal {
    fn from(credits: Credits) -> Self {
        Self { mantissa: i128::from(credits.millionths()), scale: MILLIONTHS }
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = format!("{:0>width$}", self.mantissa.unsigned_abs(), width = self.scale as usize + 1);
        let (whole, fraction) = digits.split_at(digits.len() - self.scale as usize);
        let fraction = fraction.trim_end_matches('0');
        let sign = if self.is_negative() { "-" } else { "" };
        let point = if fraction.is_empty() { "" } else { "." };
        write!(out, "{sign}{whole}{point}{fraction}")
    }
}

fn power(exponent: u32) -> Option<i128> {
    10_i128.checked_pow(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn numbers_are_read_as_they_are_written() {
        let table = [
            ("0", Some("0")),
            ("-0.0", Some("0")),
            ("12.50", Some("12.5")),
            ("2.5e-6", Some("0.0000025")),
            ("1e3", Some("1000")),
            ("-3E+2", Some("-300")),
            ("1e-31", None),
            ("1e99", None),
            ("1.", None),
            (".5", None),
            ("", None),
            ("-", None),
            ("1,5", None),
            ("0x1", None),
            ("NaN", None),
            ("340282366920938463463374607431768211456", None),
        ];
        for (text, expected) in table {
            assert_eq!(Decimal::parse(text).map(|number| number.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn sums_are_rounded_up_once() {
        // Three thirds of a millionth are one millionth, not three.
        let third = number("0.000000333333");
        let sum = third.plus(third).unwrap().plus(third).unwrap();
        assert_eq!(sum.credits().unwrap().millionths(), 1);
        assert_eq!(number("0.0000011").credits().unwrap().millionths(), 2);
        assert_eq!(number("0.000001").credits().unwrap().millionths(), 1);
        assert_eq!(number("1e-30").times(number("1e-30")).unwrap().credits(), Some(SMALLEST));
        assert_eq!(
            Decimal::mebibytes(1 << 20).times(number("0.5")).unwrap().credits().unwrap().to_string(),
            "0.5"
        );
        assert_eq!(Decimal::mebibytes(1).credits().unwrap().millionths(), 1);
        assert_eq!(Decimal::seconds(1500).times(number("2")).unwrap().credits().unwrap().to_string(), "3");
        assert_eq!(number("99999999999999999999").credits(), None);
    }

    proptest! {
        #[test]
        fn sums_of_products_are_those_of_whole_numbers(terms in prop::collection::vec((-1_000_000_i64..1_000_000, -1_000_000_i64..1_000_000), 1..9)) {
            let mut sum = Decimal::default();
            for (value, each) in &terms {
                // `each` counts billionths.
                let each = Decimal { mantissa: i128::from(*each), scale: 9 };
                sum = sum.plus(number(&value.to_string()).times(each).unwrap()).unwrap();
            }
            let billionths: i128 = terms.iter().map(|(value, each)| i128::from(*value) * i128::from(*each)).sum();
            let expected = billionths.div_euclid(1000) + i128::from(billionths.rem_euclid(1000) > 0);
            prop_assert_eq!(i128::from(sum.credits().unwrap().millionths()), expected);
            prop_assert_eq!(sum.is_negative(), billionths < 0);
        }
    }
}
