//! Defines the ids of accounts, routes and keys, their numbers in the ledger, key hashes and secrets.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// Why a text is not a valid id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IdError(pub &'static str);

/// Longest account id or route name.
const MAX_NAME: usize = 64;

fn checked_name(text: &str, what: &'static str) -> Result<Arc<str>, IdError> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(valid) {
        return Err(IdError(what));
    }
    Ok(Arc::from(text))
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                checked_name(text, $rule).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.pad(&self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type!(
    /// The id of an account, chosen by the operator: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    AccountId,
    "an account id is 1 to 64 of A-Z a-z 0-9 . _ -"
);
name_type!(
    /// A route's name, which prices and scopes refer to: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    RouteName,
    "a route name is 1 to 64 of A-Z a-z 0-9 . _ -"
);
name_type!(
    /// The name of a bucket of credits: 1 to 64 of `A-Z a-z 0-9 . _ -`. [`BucketName::default`] is that of credits for
    /// which none was named.
    BucketName,
    "a bucket's name is 1 to 64 of A-Z a-z 0-9 . _ -"
);

name_type!(
    /// The name of a group of an account's keys: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    GroupName,
    "a group's name is 1 to 64 of A-Z a-z 0-9 . _ -"
);

impl Default for BucketName {
    fn default() -> Self {
        Self(Arc::from("default"))
    }
}

impl BucketName {
    /// True for the bucket of credits for which none was named.
    #[must_use]
    pub fn is_default(&self) -> bool {
        &*self.0 == "default"
    }
}

macro_rules! number_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);
    };
}

number_type!(
    /// An account's number in the ledger. It is on disk before the account is served, and is never reused.
    AccountNum
);
number_type!(
    /// A key's number in the ledger.
    KeyNum
);
number_type!(
    /// A route's number in the ledger.
    RouteNum
);
/// A name as a number, such as that of a limit, a plan or an upstream server: the first 64 bits of the name's
/// SHA-256. The same name has the same number in every snapshot and after every restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameId(pub u64);

impl NameId {
    /// The number of a name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(KeyId::of_hash(&KeyHash::of(name.as_bytes())).0)
    }
}

/// The id of a key, which stays the same if its secret is replaced. Its text is `key_` and 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u64);

impl KeyId {
    /// The id of a key in the configuration file: the first 64 bits of its hash.
    #[must_use]
    pub fn of_hash(hash: &KeyHash) -> Self {
        let mut first = [0; 8];
        first.copy_from_slice(&hash.0[..8]);
        Self(u64::from_be_bytes(first))
    }
}

impl KeyId {
    /// The text of the id, in ASCII.
    #[must_use]
    pub fn to_text(self) -> [u8; 20] {
        let mut text = *b"key_0000000000000000";
        let encoded = hex::encode_to_slice(self.0.to_be_bytes(), &mut text[4..]);
        debug_assert!(encoded.is_ok(), "8 bytes are 16 digits");
        text
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&String::from_utf8_lossy(&self.to_text()))
    }
}

impl FromStr for KeyId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = || IdError("a key id is key_ and 16 hex digits");
        let mut bytes = [0; 8];
        let digits = text.strip_prefix("key_").ok_or_else(error)?;
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| error())?;
        Ok(Self(u64::from_be_bytes(bytes)))
    }
}

impl serde::Serialize for KeyId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for KeyId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The SHA-256 of a key. Tollgate keeps only this hash, not the key. `Debug` shows its first four digits only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// The start of the hash, which tells the secrets of one key apart.
    #[must_use]
    pub const fn start(&self) -> u32 {
        let [a, b, c, d, ..] = self.0;
        u32::from_be_bytes([a, b, c, d])
    }

    /// Hashes the bytes of a key as a client sent them.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// All 64 hex digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "KeyHash({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

impl FromStr for KeyHash {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map_err(|_| IdError("a SHA-256 is 64 hex digits"))?;
        Ok(Self(hash))
    }
}

/// A value that must never be printed. `Debug` and `Display` show `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a secret.
    pub const fn new(inner: T) -> Self {
        Self(inner)
    }

    /// The secret itself. Call this only where the secret is used, such as to show a new key once.
    pub const fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn key_ids_survive_text(id: u64) {
            prop_assert_eq!(KeyId(id).to_string().parse::<KeyId>(), Ok(KeyId(id)));
        }
    }

    #[test]
    fn a_hash_is_64_hex_digits_and_nothing_else() {
        let hash = KeyHash::of(b"ak_live_your_key_here");
        assert_eq!(hash.to_hex().parse::<KeyHash>(), Ok(hash));
        for wrong in ["", "ak_live_your_key_here", &"g".repeat(64), &"é".repeat(32)] {
            assert!(wrong.parse::<KeyHash>().is_err());
        }
    }

    #[test]
    fn a_secret_never_prints() {
        let secret = Secret::new("sesame");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
    }
}
