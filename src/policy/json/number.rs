//! Checks the grammar of a JSON number (RFC 8259, section 6), one byte at a time.

/// The part of a number that was read last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    /// The minus sign.
    Minus,
    /// A leading zero: no digit may follow it.
    Zero,
    Whole,
    Point,
    Fraction,
    /// The `e` or `E` of the exponent.
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl Number {
    /// The state after a number's first byte; `None` if no number begins with this byte.
    pub(super) fn begin(byte: u8) -> Option<Self> {
        match byte {
            b'-' => Some(Self::Minus),
            b'0' => Some(Self::Zero),
            b'1'..=b'9' => Some(Self::Whole),
            _ => None,
        }
    }

    /// Continues the number, and returns how many of the bytes belong to it.
    pub(super) fn read(&mut self, bytes: &[u8]) -> usize {
        for (at, &byte) in bytes.iter().enumerate() {
            *self = match (*self, byte) {
                (Self::Minus, _) => match Self::begin(byte) {
                    Some(next) if next != Self::Minus => next,
                    _ => return at,
                },
                (Self::Whole, b'0'..=b'9') => Self::Whole,
                (Self::Zero | Self::Whole, b'.') => Self::Point,
                (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
                (Self::Zero | Self::Whole | Self::Fraction, b'e' | b'E') => Self::Exponent,
                (Self::Exponent, b'+' | b'-') => Self::ExponentSign,
                (Self::Exponent | Self::ExponentSign | Self::ExponentDigits, b'0'..=b'9') => {
                    Self::ExponentDigits
                }
                _ => return at,
            };
        }
        bytes.len()
    }

    /// True if the number is complete: it may end here.
    pub(super) fn is_whole(self) -> bool {
        matches!(self, Self::Zero | Self::Whole | Self::Fraction | Self::ExponentDigits)
    }
}
