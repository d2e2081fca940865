//! Amounts of money, in the smallest unit of their currency.

use std::fmt;

/// Currencies without a smaller unit, as payment services count them (what Stripe calls zero-decimal, without UGX, which it
/// counts in hundredths).
const WHOLE: [&str; 15] =
    ["bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"];
/// Currencies with a unit of a thousandth.
const THOUSANDTHS: [&str; 5] = ["bhd", "jod", "kwd", "omr", "tnd"];
/// Currencies that are counted in hundredths, but have no smaller unit any more.
const WHOLE_HUNDREDTHS: [&str; 2] = ["isk", "ugx"];
/// Most digits of an amount, so that it is far from any bound of numbers.
const MAX_DIGITS: usize = 12;

/// A currency: its ISO 4217 code in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// Reads a code of three letters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 3] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(u8::is_ascii_alphabetic).then(|| Self(bytes.map(|byte| byte.to_ascii_lowercase())))
    }

    /// The code in lower case.
    #[must_use]
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Number of decimals of an amount.
    #[must_use]
    pub fn decimals(&self) -> usize {
        if WHOLE.contains(&self.code()) {
            0
        } else if THOUSANDTHS.contains(&self.code()) {
            3
        } else {
            2
        }
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.code())
    }
}

/// An amount of money that is not negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Money {
    /// In the smallest unit, such as cents.
    pub minor: u64,
    /// The currency.
    pub currency: Currency,
}

impl Money {
    /// Reads an amount such as `10`, `10.5` or `10.50`, with at most as many decimals as the currency has. Thousandths end in 0,
    /// as Stripe wants them.
    #[must_use]
    pub fn parse(text: &str, currency: Currency) -> Option<Self> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let decimals = currency.decimals();
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > MAX_DIGITS || part.len() > decimals || text.ends_with('.') {
            return None;
        }
        if !is_number(whole) || !is_number(part) {
            return None;
        }
        let minor: u64 = format!("{whole}{part:0<decimals$}").parse().ok()?;
        let step = match decimals {
            3 => 10,
            _ if WHOLE_HUNDREDTHS.contains(&currency.code()) => 100,
            _ => 1,
        };
        minor.is_multiple_of(step).then_some(Self { minor, currency })
    }
}

impl fmt::Display for Money {
    /// Writes `10.50 EUR`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.currency.code().to_ascii_uppercase();
        let decimals = self.currency.decimals();
        let unit = 10_u64.pow(u32::try_from(decimals).unwrap_or_default());
        let (whole, part) = (self.minor / unit, self.minor % unit);
        match decimals {
            0 => write!(out, "{whole} {code}"),
            _ => write!(out, "{whole}.{part:0decimals$} {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_in_the_units_of_their_currency() {
        for (text, code, minor, shown) in [
            ("10", "EUR", 1000, "10.00 EUR"),
            ("10.5", "usd", 1050, "10.50 USD"),
            ("0.07", "usd", 7, "0.07 USD"),
            ("1200", "jpy", 1200, "1200 JPY"),
            ("1.5", "kwd", 1500, "1.500 KWD"),
            ("1.550", "kwd", 1550, "1.550 KWD"),
            ("5", "ugx", 500, "5.00 UGX"),
            ("007", "usd", 700, "7.00 USD"),
        ] {
            let money = Money::parse(text, Currency::parse(code).unwrap()).unwrap();
            assert_eq!((money.minor, money.to_string()), (minor, shown.to_owned()));
        }
        let usd = Currency::parse("usd").unwrap();
        for wrong in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1.234", "1 000", "1,5", "9999999999999", "١"]
        {
            assert_eq!(Money::parse(wrong, usd), None, "{wrong}");
        }
        for (text, code) in [("1.5", "jpy"), ("1.555", "kwd"), ("1.5", "ugx"), ("0.01", "isk")] {
            assert_eq!(Money::parse(text, Currency::parse(code).unwrap()), None, "{text} {code}");
        }
        assert!(["", "us", "usdt", "u$d", "€"].iter().all(|code| Currency::parse(code).is_none()));
    }
}
