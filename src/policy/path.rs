//! Normalises request paths, and refuses paths that two HTTP implementations could interpret differently.
//!
//! The rules are in the contract's section 4. An accepted path has one normal form (RFC 3986, section 6.2.2):
//! unreserved characters are decoded, reserved characters stay as the client sent them, and percent-encodings
//! use upper case. Route matching, scopes, prices and the upstream all use that same form.

use std::borrow::Cow;

use percent_encoding::{percent_decode_str, percent_encode_byte};

/// Longest accepted path, in bytes. hyper's own bound on a request target is the same.
pub const MAX_PATH: usize = 65_534;

/// How often a decoded segment is decoded again, to find what a server that decodes repeatedly would see. A
/// segment that changes each of these times is refused, so that the work is linear in its length.
const MAX_DECODINGS: usize = 3;

/// Why a path is refused before routes are searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// The path does not begin with `/`.
    #[error("the path must begin with /")]
    NotAbsolute,
    /// The path is longer than [`MAX_PATH`].
    #[error("the path is too long")]
    TooLong,
    /// The path contains `%` without two hex digits, or `%u`.
    #[error("the path has a broken percent-encoding")]
    BadEscape,
    /// The decoded path contains a control character, `#` or a backslash.
    #[error("the path has a character that is not allowed")]
    BadCharacter,
    /// The decoded path is not UTF-8, or contains an overlong encoding.
    #[error("the path is not valid UTF-8")]
    NotUtf8,
    /// A segment is `.` or `..`, with or without `;parameters`.
    #[error("the path has a . or .. segment")]
    DotSegment,
    /// The path contains `//`.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// The path contains `%2F`, which the route does not allow.
    #[error("the path has an encoded slash")]
    EncodedSlash,
    /// A second decoding yields one of the faults above, or the path is encoded too many times.
    #[error("the path is encoded twice")]
    DoubleEncoded,
}

/// An accepted path, in its normal form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormalPath<'a> {
    text: Cow<'a, str>,
    encoded_slash: bool,
}

impl NormalPath<'_> {
    /// The normal form, which is matched against routes and forwarded.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The normal form, if it differs from the path as it came.
    #[must_use]
    pub fn into_changed(self) -> Option<String> {
        match self.text {
            Cow::Borrowed(_) => None,
            Cow::Owned(text) => Some(text),
        }
    }

    /// True if the path contains `%2F`. Only routes with `encoded_slashes` accept such paths.
    #[must_use]
    pub fn has_encoded_slash(&self) -> bool {
        self.encoded_slash
    }
}

/// Checks a path and converts it to its normal form.
///
/// `merge_slashes` drops empty segments instead of refusing them. Borrows a path that has only characters that
/// need no encoding and no empty segment: the usual case, which costs one scan.
///
/// # Errors
/// The first fault found. An encoded slash is not reported here, since a route may allow it: see
/// [`NormalPath::has_encoded_slash`].
pub fn normalise(raw: &str, merge_slashes: bool) -> Result<NormalPath<'_>, PathFault> {
    if !raw.starts_with('/') {
        return Err(PathFault::NotAbsolute);
    }
    if raw.len() > MAX_PATH {
        return Err(PathFault::TooLong);
    }
    let mut before = 0;
    let mut suspicious = false; // has an empty segment, or one that begins with a dot
    for &byte in raw.as_bytes() {
        if !PLAIN[usize::from(byte)] {
            return encoded(raw, merge_slashes);
        }
        suspicious |= before == b'/' && matches!(byte, b'/' | b'.');
        before = byte;
    }
    if suspicious {
        return plain(raw, merge_slashes);
    }
    Ok(NormalPath { text: Cow::Borrowed(raw), encoded_slash: false })
}

/// Bytes that may stay unencoded: `/`, and unreserved and reserved characters.
static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        plain[byte as usize] = byte == b'/' || is_unreserved(byte) || is_reserved(byte);
        byte += 1;
    }
    plain
};

/// True for unreserved characters (RFC 3986, section 2.3).
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// True for the other characters that a path may contain unencoded: sub-delims, `:` and `@` (RFC 3986, section 3.3).
const fn is_reserved(byte: u8) -> bool {
    matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@')
}

fn plain(raw: &str, merge_slashes: bool) -> Result<NormalPath<'_>, PathFault> {
    let mut merged = false;
    let mut segments = raw[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            merged = true;
        }
        check_dots(segment)?;
    }
    if !merged {
        return Ok(NormalPath { text: Cow::Borrowed(raw), encoded_slash: false });
    }
    if !merge_slashes {
        return Err(PathFault::EmptySegment);
    }
    Ok(NormalPath { text: Cow::Owned(merge(raw)), encoded_slash: false })
}

fn merge(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !text.ends_with('/') {
            text.push(character);
        }
    }
    text
}

fn encoded(raw: &str, merge_slashes: bool) -> Result<NormalPath<'_>, PathFault> {
    let mut text = String::with_capacity(raw.len() + 8);
    let mut encoded_slash = false;
    let mut segments = raw[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            if !merge_slashes {
                return Err(PathFault::EmptySegment);
            }
            continue;
        }
        let decoded = decode(segment)?;
        check_decoded(&decoded)?;
        check_deeper(&decoded)?;
        encoded_slash |= decoded.contains('/');
        text.push('/');
        encode_into(&mut text, segment);
    }
    Ok(NormalPath { text: Cow::Owned(text), encoded_slash })
}

/// Percent-decodes once. Refuses malformed percent-encodings and invalid UTF-8 (overlong forms are invalid).
fn decode(segment: &str) -> Result<Cow<'_, str>, PathFault> {
    let bytes = segment.as_bytes();
    if memchr::memchr_iter(b'%', bytes).any(|at| escape(bytes, at).is_none()) {
        return Err(PathFault::BadEscape);
    }
    percent_decode_str(segment).decode_utf8().map_err(|_| PathFault::NotUtf8)
}

/// Decodes the percent-encoded byte that begins at `at`; `None` if no valid percent-encoding begins there.
fn escape(bytes: &[u8], at: usize) -> Option<u8> {
    let mut byte = [0];
    let digits = bytes.get(at..at + 3)?.strip_prefix(b"%")?;
    hex::decode_to_slice(digits, &mut byte).ok()?;
    Some(byte[0])
}

fn check_decoded(decoded: &str) -> Result<(), PathFault> {
    if has_bad_character(decoded.as_bytes()) {
        return Err(PathFault::BadCharacter);
    }
    if decoded.contains('/') && decoded.split('/').any(str::is_empty) {
        return Err(PathFault::EmptySegment);
    }
    decoded.split('/').try_for_each(check_dots)
}

/// True if UTF-8 text contains a control character (ASCII, or U+0080 to U+009F), `#` or a backslash.
fn has_bad_character(text: &[u8]) -> bool {
    let bad = |byte: &u8| byte.is_ascii_control() || matches!(byte, b'#' | b'\\');
    text.iter().any(bad) || !text.is_ascii() && text.windows(2).any(|two| two[0] == 0xC2 && two[1] < 0xA0)
}

/// Refuses the segments `.` and `..`, also as `..;x`: servlet containers ignore parameters after a semicolon.
fn check_dots(segment: &str) -> Result<(), PathFault> {
    let name = segment.split(';').next().unwrap_or_default();
    // Some servers trim white space around a segment, so " .." is refused like "..".
    if matches!(name.trim(), "." | "..") {
        return Err(PathFault::DotSegment);
    }
    Ok(())
}

/// Checks a segment for faults that a server would find by decoding it again. Decodes until the text no longer
/// changes, at most [`MAX_DECODINGS`] times.
fn check_deeper(decoded: &str) -> Result<(), PathFault> {
    let mut text = Cow::Borrowed(decoded);
    for _ in 0..MAX_DECODINGS {
        if !text.contains('%') {
            return Ok(());
        }
        let again = lenient_decode(&text)?;
        if *again == *text {
            return Ok(());
        }
        let slashes = |text: &str| text.matches('/').count();
        if slashes(&again) > slashes(&text) || check_decoded(&again).is_err() {
            return Err(PathFault::DoubleEncoded);
        }
        text = Cow::Owned(again.into_owned());
    }
    Err(PathFault::DoubleEncoded)
}

/// Percent-decodes as lenient servers do: valid percent-encodings are decoded, a lone `%` stays. Refuses `%u`
/// and invalid UTF-8.
fn lenient_decode(text: &str) -> Result<Cow<'_, str>, PathFault> {
    if text.contains("%u") || text.contains("%U") {
        return Err(PathFault::DoubleEncoded);
    }
    percent_decode_str(text).decode_utf8().map_err(|_| PathFault::DoubleEncoded)
}

/// Appends a segment in normal form. Reserved characters stay encoded or unencoded as the client sent them,
/// since `%3B` and `;` may have different meanings to the upstream. Percent-encodings use upper case.
fn encode_into(text: &mut String, segment: &str) {
    let mut push = |byte: u8, bare: bool| match bare {
        true => text.push(char::from(byte)),
        false => text.push_str(percent_encode_byte(byte)),
    };
    let bytes = segment.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if let Some(byte) = escape(bytes, at) {
            push(byte, is_unreserved(byte));
            at += 3;
        } else {
            push(bytes[at], is_unreserved(bytes[at]) || is_reserved(bytes[at]));
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_have_one_normal_form() {
        let table = [
            ("/", "/"),
            ("/api/v1/people", "/api/v1/people"),
            ("/api/", "/api/"),
            ("/%61pi", "/api"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/café", "/caf%C3%A9"),
            ("/a%3bb;c", "/a%3Bb;c"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%20b", "/a%20b"),
            ("/a%2541", "/a%2541"),
            ("/100%25", "/100%25"),
            ("/a{b}", "/a%7Bb%7D"),
            ("/...", "/..."),
            ("/.well-known/x", "/.well-known/x"),
        ];
        for (raw, normal) in table {
            assert_eq!(normalise(raw, false).unwrap().as_str(), normal, "{raw}");
        }
        assert!(normalise("/a%2fb", false).unwrap().has_encoded_slash());
        assert_eq!(normalise("//a///b/", true).unwrap().as_str(), "/a/b/");
        assert_eq!(normalise("//a///%62/", true).unwrap().as_str(), "/a/b/");
    }

    #[test]
    fn what_two_readers_could_take_differently_is_refused() {
        use PathFault::*;
        let table = [
            ("*", NotAbsolute),
            ("", NotAbsolute),
            ("/a//b", EmptySegment),
            ("//", EmptySegment),
            ("/%61//b", EmptySegment),
            ("/./a", DotSegment),
            ("/a/..", DotSegment),
            ("/a/..;x=1/b", DotSegment),
            ("/a/%2e%2E/b", DotSegment),
            ("/a/..%3bx/b", DotSegment),
            ("/a/.;/b", DotSegment),
            ("/a/..%20/b", DotSegment),
            ("/a%2f..%2fb", DotSegment),
            ("/a%2f%2fb", EmptySegment),
            ("/%2fb", EmptySegment),
            ("/a/b%2f", EmptySegment),
            ("/a%2fb%252fc", DoubleEncoded),
            ("/a\\b", BadCharacter),
            ("/a%5cb", BadCharacter),
            ("/a%00", BadCharacter),
            ("/a%0d%0a", BadCharacter),
            ("/a%7f", BadCharacter),
            ("/a%c2%85", BadCharacter),
            ("/a%23b", BadCharacter),
            ("/%", BadEscape),
            ("/%4", BadEscape),
            ("/%zz", BadEscape),
            ("/%u002e", BadEscape),
            ("/%c0%ae%c0%ae/", NotUtf8),
            ("/%ff", NotUtf8),
            ("/%252e%252e/", DoubleEncoded),
            ("/%25252e%25252e/", DoubleEncoded),
            ("/a%252fb", DoubleEncoded),
            ("/a%255cb", DoubleEncoded),
            ("/a%2500", DoubleEncoded),
            ("/a%25u002e", DoubleEncoded),
            ("/a%25c0%25ae", DoubleEncoded),
            ("/a%2525252541", DoubleEncoded),
        ];
        for (raw, fault) in table {
            assert_eq!(normalise(raw, false).unwrap_err(), fault, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn bad_characters_are_control_characters_and_two_more(text: String) {
            let bad = text.chars().any(|c| c.is_control() || matches!(c, '#' | '\\'));
            prop_assert_eq!(has_bad_character(text.as_bytes()), bad);
        }

        #[test]
        fn normalising_twice_changes_nothing(raw in "/[a-z%0-9.;/ \\\\é~{}]{0,24}", merge: bool) {
            if let Ok(once) = normalise(&raw, merge) {
                let twice = normalise(once.as_str(), merge).unwrap();
                prop_assert_eq!(once.as_str(), twice.as_str());
                prop_assert_eq!(once.has_encoded_slash(), twice.has_encoded_slash());
            }
        }

        #[test]
        fn no_reader_finds_a_dot_segment_in_what_passes(raw in "/(%25|%2e|%2f|%5c|;|\\.|/|a|%252e|%c0%ae){0,10}") {
            if let Ok(path) = normalise(&raw, false) {
                let mut text = path.as_str().to_owned();
                for _ in 0..6 {
                    for segment in text.replace('\\', "/").split('/') {
                        let name = segment.split(';').next().unwrap();
                        prop_assert!(name != "." && name != "..", "{raw} gave {text}");
                    }
                    text = percent_decode_str(&text).decode_utf8_lossy().into_owned();
                }
            }
        }
    }
}
