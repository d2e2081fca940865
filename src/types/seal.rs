//! Encrypts what is stored for a client, with a key that only the client's next request can derive.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};

/// A key for AES-256-GCM, derived with HKDF-SHA-256 (RFC 5869). It is never stored.
pub struct SealKey(RandomizedNonceKey);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealKey").finish_non_exhaustive()
    }
}

impl SealKey {
    /// Derives a key from a client's secret. `purpose` and `info` tell keys of the same secret apart. `None` if the
    /// cryptographic library fails.
    #[must_use]
    pub fn derive(purpose: &[u8], secret: &[u8], info: &[&[u8]]) -> Option<Self> {
        RandomizedNonceKey::new(&AES_256_GCM, &derive(purpose, secret, info)?).ok().map(Self)
    }

    /// Encrypts a text: a nonce, then the text with its tag. `None` if the cryptographic library fails.
    #[must_use]
    pub fn seal(&self, mut text: Vec<u8>) -> Option<Vec<u8>> {
        let nonce = self.0.seal_in_place_append_tag(Aad::empty(), &mut text).ok()?;
        Some([nonce.as_ref().as_slice(), &text].concat())
    }

    /// Decrypts a text. `None` if it was not sealed with this key.
    #[must_use]
    pub fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut text = sealed.to_vec();
        let length =
            self.0.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::empty(), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }
}

/// Derives 32 bytes from a secret. `None` if the cryptographic library fails.
#[must_use]
pub fn derive(purpose: &[u8], secret: &[u8], info: &[&[u8]]) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    let secret = Salt::new(HKDF_SHA256, purpose).extract(secret);
    secret.expand(info, HKDF_SHA256).ok()?.fill(&mut key).ok()?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_only_with_its_key() {
        let key =
            |purpose: &[u8], secret: &[u8], info: &[u8]| SealKey::derive(purpose, secret, &[info]).unwrap();
        let sealed = key(b"answers", b"secret", b"1").seal(b"the text".to_vec()).unwrap();
        assert_eq!(key(b"answers", b"secret", b"1").open(&sealed).as_deref(), Some(&b"the text"[..]));
        for other in [
            key(b"other", b"secret", b"1"),
            key(b"answers", b"terces", b"1"),
            key(b"answers", b"secret", b"2"),
        ] {
            assert_eq!(other.open(&sealed), None);
        }
        assert_eq!(key(b"answers", b"secret", b"1").open(&sealed[..11]), None);
        assert!(!sealed.windows(4).any(|part| part == b"text"));
    }
}
