//! The trace that a request is part of (W3C Trace Context, level 2).

use std::fmt;

/// Number of characters in a `traceparent` of version 00.
const TRACEPARENT: usize = 55;
/// The flag that says that the caller records its part of the trace.
const SAMPLED: u8 = 1;

/// A trace, the span that a request belongs to, and whether the trace is recorded: the value of `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace's id, never 0.
    pub trace: u128,
    /// The span's id, never 0.
    pub span: u64,
    /// True if the trace is recorded.
    pub sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent` field (section 3.2). `None` if it is malformed, so that it must be ignored. Later versions
    /// may add to the end.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, more) = value.split_at_checked(TRACEPARENT)?;
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let parts = [&known[..2], &known[3..35], &known[36..52], &known[53..]];
        let is_well_formed = [2, 35, 52].iter().all(|&at| known[at] == b'-')
            && parts.iter().all(|part| part.iter().all(is_digit))
            && match &known[..2] {
                b"ff" => false,
                b"00" => more.is_empty(),
                _ => more.first().is_none_or(|&byte| byte == b'-'),
            };
        let [_, trace, span, flags] = parts.map(|part| std::str::from_utf8(part).unwrap_or_default());
        let trace = u128::from_str_radix(trace, 16).ok()?;
        let span = u64::from_str_radix(span, 16).ok()?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        let is_valid = is_well_formed && trace != 0 && span != 0;
        is_valid.then_some(Self { trace, span, sampled: flags & SAMPLED != 0 })
    }

    /// The value of `traceparent`, without an allocation.
    #[must_use]
    pub fn text(self) -> TraceParent {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        // Each part is as long as its digits, so that this does not fail.
        let _ = hex::encode_to_slice(self.trace.to_be_bytes(), &mut text[3..35]);
        let _ = hex::encode_to_slice(self.span.to_be_bytes(), &mut text[36..52]);
        text[TRACEPARENT - 1] += u8::from(self.sampled);
        TraceParent(text)
    }
}

/// The value of a `traceparent` field.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceParent([u8; TRACEPARENT]);

impl TraceParent {
    /// The characters.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn traceparents_are_read_as_the_standard_says() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read = TraceContext::parse(good.as_bytes()).unwrap();
        let (trace, span) = (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7);
        assert_eq!(read, TraceContext { trace, span, sampled: true });
        let later = good.replacen("00", "cc", 1);
        for (text, sampled) in [
            (good.replace("-01", "-00"), Some(false)),
            (good.replace("-01", "-03"), Some(true)),
            (later.clone(), Some(true)),
            (format!("{later}-what-the-future-holds"), Some(true)),
            (format!("{later}x"), None),
            (format!("{good}-"), None),
            (format!("{good}0"), None),
            (good[..54].to_owned(), None),
            (String::new(), None),
            (good.to_uppercase(), None),
            (good.replacen("00", "ff", 1), None),
            (good.replace('-', "_"), None),
            (good.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)), None),
            (good.replace("00f067aa0ba902b7", &"0".repeat(16)), None),
            (good.replace("00f067aa0ba902b7", "+0f067aa0ba902b7"), None),
        ] {
            assert_eq!(TraceContext::parse(text.as_bytes()).map(|read| read.sampled), sampled, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace in 1..u128::MAX, span in 1..u64::MAX, sampled: bool) {
            let context = TraceContext { trace, span, sampled };
            let text = context.text();
            prop_assert_eq!(TraceContext::parse(text.as_bytes()), Some(context));
            let flags = u8::from(sampled);
            prop_assert_eq!(format!("{text:?}"), format!("00-{trace:032x}-{span:016x}-{flags:02x}"));
        }
    }
}
