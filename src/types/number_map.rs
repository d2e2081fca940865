//! A map whose keys are numbers that clients cannot choose, with a hash of a few instructions.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map whose keys are numbers that clients cannot choose. Others could choose numbers that collide.
pub type NumberMap<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Hashes numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }
    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }
    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }
    fn write_u64(&mut self, number: u64) {
        const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(ODD);
    }
    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::{BuildHasher, Hash};

    use super::*;

    /// Maps use the low bits for the place and the highest seven to compare: both must differ between near numbers.
    #[test]
    fn near_numbers_have_different_hashes() {
        fn spread<T: Hash>(numbers: impl Iterator<Item = T>) -> (usize, usize) {
            let hash = BuildHasherDefault::<NumberHasher>::default();
            let hashes: Vec<u64> = numbers.map(|number| hash.hash_one(number)).collect();
            let count = |part: fn(&u64) -> u64| hashes.iter().map(part).collect::<HashSet<_>>().len();
            (count(|hash| hash & 0xfff), count(|hash| hash >> 57))
        }
        for (low, high) in [
            spread(0..4_096_u64),
            spread((0..4_096_u32).map(|number| (number, 7_u8))),
            spread((0..4_096_usize).map(|number| number << 20)),
        ] {
            assert!(low > 2_048 && high == 128, "{low} {high}");
        }
    }
}
