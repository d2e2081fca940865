//! Decodes JSON strings (RFC 8259, section 7) in pieces: escapes, surrogate pairs and UTF-8.

/// The position of the reader in a string, after the opening quote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Text {
    /// Between characters.
    #[default]
    Plain,
    /// Inside a multi-byte UTF-8 character: the number of bytes left, and the range of the next byte.
    Within { left: u8, least: u8, most: u8 },
    /// After a backslash; with the high surrogate that precedes it, if any.
    Escape(Option<u16>),
    /// Inside `\uD83D`: number of digits left, value so far, and the high surrogate that precedes it, if any.
    Hex { left: u8, value: u16, high: Option<u16> },
    /// After a high surrogate: the low surrogate must follow.
    HighSurrogate(u16),
}

/// The result of one [`Text::read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextEvent<'a> {
    /// Unescaped bytes of the string.
    Part(&'a [u8]),
    /// One character, decoded from an escape.
    Character(char),
    /// No character is complete yet.
    More,
    /// The closing quote.
    End,
    /// The string is not valid JSON.
    Broken,
}

impl Text {
    /// Reads at least one byte, and returns what was read and the bytes that are left.
    pub(super) fn read<'a>(&mut self, bytes: &'a [u8]) -> (TextEvent<'a>, &'a [u8]) {
        if *self == Self::Plain {
            let plain = |byte: &u8| PLAIN[usize::from(*byte)];
            let length = bytes.iter().position(|byte| !plain(byte)).unwrap_or(bytes.len());
            if length > 0 {
                return (TextEvent::Part(&bytes[..length]), &bytes[length..]);
            }
        }
        let (this, rest) = bytes.split_at(bytes.len().min(1));
        let Some(&byte) = this.first() else { return (TextEvent::More, rest) };
        (self.one(byte, this), rest)
    }

    fn one<'a>(&mut self, byte: u8, this: &'a [u8]) -> TextEvent<'a> {
        let (next, event) = match *self {
            Self::Plain => match byte {
                b'"' => (Self::Plain, TextEvent::End),
                b'\\' => (Self::Escape(None), TextEvent::More),
                _ => match first_of_several(byte) {
                    Some(within) => (within, TextEvent::Part(this)),
                    None => (Self::Plain, TextEvent::Broken),
                },
            },
            Self::Within { left, least, most } => {
                let next = if left == 1 {
                    Self::Plain
                } else {
                    Self::Within { left: left - 1, least: 0x80, most: 0xBF }
                };
                let sound = (least..=most).contains(&byte);
                (next, if sound { TextEvent::Part(this) } else { TextEvent::Broken })
            }
            Self::Escape(high) => match (escaped(byte), high) {
                (Some(character), None) => (Self::Plain, TextEvent::Character(character)),
                (None, _) if byte == b'u' => (Self::Hex { left: 4, value: 0, high }, TextEvent::More),
                _ => (Self::Plain, TextEvent::Broken),
            },
            Self::HighSurrogate(high) if byte == b'\\' => (Self::Escape(Some(high)), TextEvent::More),
            Self::HighSurrogate(_) => (Self::Plain, TextEvent::Broken),
            Self::Hex { left, value, high } => hex(byte, left, value, high),
        };
        *self = next;
        event
    }
}

/// Bytes that need no escape: ASCII from the space on, except the quote and the backslash. Includes DEL.
static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 0x80 {
        plain[byte] = byte != b'"' as usize && byte != b'\\' as usize;
        byte += 1;
    }
    plain
};

/// The state after the first byte of a multi-byte character; `None` for an invalid byte (RFC 3629, section 4).
fn first_of_several(byte: u8) -> Option<Text> {
    let (left, least, most) = match byte {
        0xC2..=0xDF => (1, 0x80, 0xBF),
        0xE0 => (2, 0xA0, 0xBF),
        0xED => (2, 0x80, 0x9F),
        0xE1..=0xEF => (2, 0x80, 0xBF),
        0xF0 => (3, 0x90, 0xBF),
        0xF1..=0xF3 => (3, 0x80, 0xBF),
        0xF4 => (3, 0x80, 0x8F),
        _ => return None,
    };
    Some(Text::Within { left, least, most })
}

fn escaped(byte: u8) -> Option<char> {
    match byte {
        b'"' | b'\\' | b'/' => Some(char::from(byte)),
        b'b' => Some('\u{8}'),
        b'f' => Some('\u{c}'),
        b'n' => Some('\n'),
        b'r' => Some('\r'),
        b't' => Some('\t'),
        _ => None,
    }
}

/// Reads a digit of `\uD83D`. A surrogate without its counterpart is invalid.
fn hex<'a>(byte: u8, left: u8, value: u16, high: Option<u16>) -> (Text, TextEvent<'a>) {
    let Some(digit) = char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok()) else {
        return (Text::Plain, TextEvent::Broken);
    };
    let value = value << 4 | digit;
    if left > 1 {
        return (Text::Hex { left: left - 1, value, high }, TextEvent::More);
    }
    if high.is_none() && (0xD800..0xDC00).contains(&value) {
        return (Text::HighSurrogate(value), TextEvent::More);
    }
    let units = [high.unwrap_or(value), value];
    let units = if high.is_some() { &units[..] } else { &units[1..] };
    match char::decode_utf16(units.iter().copied()).next() {
        Some(Ok(character)) => (Text::Plain, TextEvent::Character(character)),
        _ => (Text::Plain, TextEvent::Broken),
    }
}
