//! Keys that Tollgate makes: prefix, environment, 190 random bits, six characters that check them.

use crate::types::Secret;

/// What keys are written in.
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Random characters of a key: log2(62^32) is 190 bits.
const RANDOM: usize = 32;
/// Characters that check the ones before: 62^6 exceeds 2^32.
const CHECK: usize = 6;
/// Bytes at or above this are drawn again, so that no character is likelier than another.
const FAIR: u8 = 62 * 4;

/// Makes a key from random bytes; `None` where `random` yields too few that can be used.
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

/// Six base 62 digits of the CRC-32 of what precedes them.
fn check(text: &str) -> String {
    let mut rest = crc32fast::hash(text.as_bytes());
    let mut digits = [b'0'; CHECK];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    digits.iter().map(|&digit| char::from(digit)).collect()
}

/// Whether a text is a key that Tollgate could have made: tells typing errors apart offline.
#[must_use]
pub fn is_well_formed(key: &str) -> bool {
    let Some(at) = key.len().checked_sub(CHECK).filter(|&at| key.is_char_boundary(at)) else {
        return false;
    };
    let (text, digits) = key.split_at(at);
    let random = text.rsplit('_').next().unwrap_or_default();
    random.len() == RANDOM && text.matches('_').count() >= 2 && check(text) == digits
}

/// What people recognise a key by: prefix, first four, last four characters.
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
