//! Creates and parses the ids of requests.

use std::fmt;
use std::str::FromStr;

use super::ids::{IdError, KeyHash};

/// The id of a request and of its hold. Its text is `req_` and 18 digits, or 26 digits if a trusted proxy sent an id
/// with the request.
///
/// From the high bits down: 32 bits of the ledger's epoch, which grows at each start; 12 bits of the worker's number;
/// 44 bits of a counter; 40 bits of the hash of the proxy's id, or zeros. So no id repeats, and a hold can be found by
/// the proxy's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u128);

/// The digits of Crockford's base 32, which has no letters that look like digits.
const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Number of digits for the 88 bits of epoch, worker and counter.
const ID_DIGITS: usize = 18;
/// Number of digits for the 40 bits of the hash of a proxy's id.
const MARK_DIGITS: usize = 8;
const MARK_BITS: u32 = 40;
/// Number of digits and of bits in an id that a version before 0.2 created.
const OLD_DIGITS: usize = 21;
const OLD_BITS: u32 = 105;

/// The epoch and the worker's number: the part that all request ids of a worker have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestIdStart(u64);

impl RequestIdStart {
    /// The common part for a worker. `epoch`: the epoch of the ledger. Only the low 12 bits of `worker` are used.
    #[must_use]
    pub fn new(epoch: u32, worker: u16) -> Self {
        Self(u64::from(epoch) << 12 | u64::from(worker & 0xfff))
    }
}

/// 40 bits of the hash of a proxy's id of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProxyMark(u128);

impl RequestId {
    /// The `count`-th id of a worker. `given`: the id that a trusted proxy gave the request.
    #[must_use]
    pub fn new(start: RequestIdStart, count: u64, given: Option<&[u8]>) -> Self {
        let number = (u128::from(start.0) << 44) + u128::from(count);
        Self(number << MARK_BITS | given.map_or(0, mark))
    }

    /// What the ids of requests with this proxy's id have in common.
    #[must_use]
    pub fn proxy_mark(given: &[u8]) -> ProxyMark {
        ProxyMark(mark(given))
    }

    /// The mark of the proxy's id of this request; `None` if no proxy gave it one.
    #[must_use]
    pub fn mark(self) -> Option<ProxyMark> {
        let mark = self.0 & ((1 << MARK_BITS) - 1);
        (mark != 0).then_some(ProxyMark(mark))
    }

    /// True if a proxy's id of this request has the mark.
    #[must_use]
    pub fn has(self, mark: ProxyMark) -> bool {
        self.0 & ((1 << MARK_BITS) - 1) == mark.0
    }

    /// True if the proxy's id of this request is `given`. Also true for one in 2^40 other ids, since 40 bits of
    /// their hashes are compared.
    #[must_use]
    pub fn is_of_proxy(self, given: &[u8]) -> bool {
        let is_old = self.0 >> OLD_BITS == 0;
        self.0 & ((1 << MARK_BITS) - 1) == mark(given) || is_old && self.0 >> 64 == old_mark(given)
    }

    /// The text `req_…`, without an allocation.
    #[must_use]
    pub fn text(self) -> RequestIdText {
        let mut text = RequestIdText { bytes: *b"req_00000000000000000000000000", length: 4 + ID_DIGITS };
        let (number, mark) = (self.0 >> MARK_BITS, self.0 & ((1 << MARK_BITS) - 1));
        write_digits(number, &mut text.bytes[4..4 + ID_DIGITS]);
        if mark != 0 {
            write_digits(mark, &mut text.bytes[4 + ID_DIGITS..]);
            text.length += MARK_DIGITS;
        }
        text
    }
}

fn write_digits(number: u128, digits: &mut [u8]) {
    // A digit has five bits, so the low 60 bits are twelve digits. Two halves keep the arithmetic in 64 bits.
    let part = |bits: u128| u64::try_from(bits & ((1 << 60) - 1)).unwrap_or_default();
    let (mut low, mut high) = (part(number), part(number >> 60));
    for (index, digit) in digits.iter_mut().rev().enumerate() {
        let part = if index < 12 { &mut low } else { &mut high };
        *digit = BASE32[(*part & 31) as usize];
        *part >>= 5;
    }
}

/// 40 bits of the hash of a proxy's id, never zero.
fn mark(given: &[u8]) -> u128 {
    let [a, b, c, d, e, ..] = KeyHash::of(given).0;
    u128::from(u64::from_be_bytes([0, 0, 0, a, b, c, d, e]).max(1))
}

/// 41 bits of the hash of a proxy's id, which versions before 0.2 stored above the low 64 bits of an id.
fn old_mark(given: &[u8]) -> u128 {
    let [a, b, c, d, e, f, g, h, ..] = KeyHash::of(given).0;
    u128::from(u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 23)
}

/// The text of a request id.
#[derive(Clone, Copy, Debug)]
pub struct RequestIdText {
    bytes: [u8; 4 + ID_DIGITS + MARK_DIGITS],
    length: usize,
}

impl std::ops::Deref for RequestIdText {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl FromStr for RequestId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = || IdError("a request id is req_ and 18 or 26 digits");
        let digits = text.strip_prefix("req_").ok_or_else(error)?.as_bytes();
        let number = |digits: &[u8]| {
            digits.iter().try_fold(0_u128, |number, digit| {
                let value = BASE32.iter().position(|known| known == digit)?;
                Some(number << 5 | value as u128)
            })
        };
        let (id, mark) = match digits.len() {
            ID_DIGITS => (number(digits), Some(0)),
            length if length == ID_DIGITS + MARK_DIGITS => {
                let (id, mark) = digits.split_at(ID_DIGITS);
                (number(id), number(mark))
            }
            OLD_DIGITS => return number(digits).map(Self).ok_or_else(error),
            _ => return Err(error()),
        };
        let id = id.filter(|id| *id < 1 << (u128::BITS - MARK_BITS)).ok_or_else(error)?;
        Ok(Self(id << MARK_BITS | mark.ok_or_else(error)?))
    }
}

impl serde::Serialize for RequestId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for RequestId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn request_ids_never_repeat_and_are_found_by_a_proxys() {
        let start = RequestIdStart::new(1_800_000_000, 7);
        let ids = [
            RequestId::new(start, 0, None),
            RequestId::new(start, 1, None),
            RequestId::new(start, 0, Some(b"abc")),
            RequestId::new(start, 1, Some(b"abc")),
            RequestId::new(start, 0, Some(b"abd")),
            RequestId::new(RequestIdStart::new(1_800_000_000, 8), 0, None),
            RequestId::new(RequestIdStart::new(1_800_000_001, 7), 0, None),
        ];
        for (at, id) in ids.iter().enumerate() {
            assert!(ids[..at].iter().all(|other| other != id && other.to_string() != id.to_string()));
            assert_eq!(id.to_string().parse::<RequestId>().unwrap(), *id);
            assert_eq!(id.is_of_proxy(b"abc"), (2..4).contains(&at));
        }
        assert_eq!(ids[0].to_string().len(), 22);
        let old = "req_1v3k7h0yqz0000000000a".parse::<RequestId>().unwrap();
        assert_eq!(old.to_string().parse::<RequestId>().unwrap(), old, "made by an earlier version");
    }

    proptest! {
        #[test]
        fn request_ids_survive_text(id: u128) {
            prop_assert_eq!(RequestId(id).to_string().parse::<RequestId>(), Ok(RequestId(id)));
        }
    }
}
