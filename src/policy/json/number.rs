//! The grammar of a JSON number (RFC 8259, section 6), a byte at a time.

/// How much of a number was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    /// The sign.
    Minus,
    /// A zero before the point: no digit follows it.
    Zero,
    Whole,
    Point,
    Fraction,
    /// `e` or `E`.
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl Number {
    /// The state behind a number's first byte; `None` where none begins with it.
    pub(super) fn begin(byte: u8) -> Option<Self> {
        match byte {
            b'-' => Some(Self::Minus),
            b'0' => Some(Self::Zero),
            b'1'..=b'9' => Some(Self::Whole),
            _ => None,
        }
    }

    /// Reads on, and answers how many bytes belong to the number.
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

    /// Whether it may end here.
    pub(super) fn is_whole(self) -> bool {
        matches!(self, Self::Zero | Self::Whole | Self::Fraction | Self::ExponentDigits)
    }
}
