//! Generates API keys: prefix, environment, 32 random characters (190 bits) and a checksum of six
//! characters.

use crate::types::Secret;

/// The digits of keys.
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Longest environment, in characters.
pub const MAX_ENVIRONMENT: usize = 16;
/// Number of random characters in a key: log2(62^32) is 190 bits.
const RANDOM: usize = 32;
/// Number of checksum characters: 62^6 exceeds 2^32, so they can represent every CRC-32.
const CHECK: usize = 6;
/// Random bytes at or above this value are discarded, so that every character is equally likely.
const FAIR: u8 = 62 * 4;

/// Generates a key from random bytes; `None` if `random` ends before it yields 32 bytes below `FAIR`.
#[must_use]
pub fn make(prefix: &str, environment: &str, random: impl Iterator<Item = u8>) -> Option<Secret<String>> {
    let mut key = format!("{prefix}_{environment}_");
    let drawn = random.filter(|&byte| byte < FAIR).take(RANDOM);
    let before = key.len();
    key.extend(drawn.map(|byte| char::from(BASE62[usize::from(byte % 62)])));
    if key.len() - before < RANDOM {
        return None;
    }
    key.push_str(&check(&key));
    Some(Secret::new(key))
}

/// The checksum of a key: the CRC-32 of the preceding text as six base62 digits.
fn check(text: &str) -> String {
    let mut rest = crc32fast::hash(text.as_bytes());
    let mut digits = [b'0'; CHECK];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    digits.iter().map(|&digit| char::from(digit)).collect()
}

/// True if a text has the form and the checksum of a generated key. Detects typing errors without a
/// lookup.
#[must_use]
pub fn is_well_formed(key: &str) -> bool {
    let Some(at) = key.len().checked_sub(CHECK).filter(|&at| key.is_char_boundary(at)) else {
        return false;
    };
    let (text, digits) = key.split_at(at);
    let random = text.rsplit('_').next().unwrap_or_default();
    random.len() == RANDOM && text.matches('_').count() >= 2 && check(text) == digits
}

/// A regular expression that finds generated keys with this prefix in any text. Most of what it finds by accident does
/// not have the checksum of [`is_well_formed`].
#[must_use]
pub fn pattern(prefix: &str) -> String {
    let digits = RANDOM + CHECK;
    format!(r"\b{prefix}_[a-z0-9]{{1,{MAX_ENVIRONMENT}}}_[0-9A-Za-z]{{{digits}}}\b")
}

/// The shortened form of a key that operators see: the prefix, then the first four and the last four
/// characters. Only `…` if the key is too short to be shortened.
#[must_use]
pub fn hint(key: &str) -> String {
    let random = key.rfind('_').map_or(0, |at| at + 1);
    match (key.get(..random + 4), key.len().checked_sub(4).and_then(|at| key.get(at..))) {
        (Some(first), Some(last)) if key.len() >= random + 16 => format!("{first}…{last}"),
        _ => "…".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_made_key_checks_and_a_mistyped_one_does_not(seed: [u8; 32], at in 0_usize..46, typed in "[0-9A-Za-z]") {
            let random = seed.into_iter().cycle().map(|byte| byte % FAIR);
            let key = make("ak", "live", random).unwrap();
            let key = key.reveal();
            prop_assert_eq!(key.len(), 46);
            prop_assert!(is_well_formed(key));
            let mut wrong = key.clone();
            wrong.replace_range(at..at + 1, &typed);
            prop_assert!(wrong == *key || !is_well_formed(&wrong));
        }
    }

    #[test]
    fn hints_show_eight_characters_of_46() {
        let key = make("ak", "live", (0..).map(|byte| byte % FAIR)).unwrap();
        let hint = hint(key.reveal());
        assert_eq!(hint, format!("ak_live_0123…{}", &key.reveal()[42..]));
        assert_eq!(super::hint("short"), "…");
    }

    #[test]
    fn too_little_randomness_makes_no_key() {
        assert!(make("ak", "live", std::iter::repeat_n(255, 1000)).is_none());
        assert!(make("ak", "live", std::iter::repeat_n(1, 31)).is_none());
    }
}
