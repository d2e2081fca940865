//! Keeps the answers to requests with an `Idempotency-Key`, so that a repeated request changes nothing and gets the
//! same answer, also after a crash.
//!
//! An answer may contain a new key, which must not be stored. So it is encrypted (AES-256-GCM), with a key that is
//! derived (HKDF-SHA-256, RFC 5869) from the client's token and its idempotency key, neither of which is stored.

use std::sync::atomic::{AtomicU16, Ordering};

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::ledger::store::AnswerRow;
use crate::types::KeyHash;
use crate::types::seal::SealKey;

/// Longest idempotency key, in bytes.
pub const MAX_IDEMPOTENCY_KEY: usize = 255;

/// A request that may be repeated.
pub struct Repeat {
    id: KeyHash,
    request: KeyHash,
    key: SealKey,
    /// The HTTP status of a success.
    status: AtomicU16,
}

impl std::fmt::Debug for Repeat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repeat").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A stored answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Stored {
    /// The same request was answered so.
    Same {
        /// The HTTP status.
        status: u16,
        /// The body.
        body: Value,
    },
    /// Another request was made with this idempotency key.
    Other,
}

impl Repeat {
    /// A request with an idempotency key. `token` is the client's token, `request` a hash of what it asks for. `None` if
    /// the cryptographic library fails.
    #[must_use]
    pub fn new(token: &[u8], idempotency_key: &[u8], request: KeyHash) -> Option<Self> {
        let key = SealKey::derive(b"tollgate answers", token, &[b"answer ", idempotency_key])?;
        let id = Sha256::new().chain_update(KeyHash::of(token).0).chain_update(idempotency_key).finalize();
        Some(Self { id: KeyHash(id.into()), request, key, status: AtomicU16::new(200) })
    }

    /// Identifies the answer.
    #[must_use]
    pub fn id(&self) -> &KeyHash {
        &self.id
    }

    /// Sets the HTTP status of a success, which is 200 otherwise.
    pub fn succeeds_with(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// Encrypts an answer. `None` if the cryptographic library fails, so that the answer is not kept.
    pub(super) fn seal(&self, body: &impl Serialize) -> Option<AnswerRow> {
        let text = json!({ "status": self.status.load(Ordering::Relaxed), "body": body }).to_string();
        let answer = self.key.seal(text.into_bytes())?;
        Some(AnswerRow { id: self.id, request: self.request, answer })
    }

    /// Decrypts an answer. `None` if it was not sealed by the same client.
    #[must_use]
    pub fn open(&self, row: &AnswerRow) -> Option<Stored> {
        if row.request != self.request {
            return Some(Stored::Other);
        }
        let mut answer: Value = serde_json::from_slice(&self.key.open(&row.answer)?).ok()?;
        let status = u16::try_from(answer["status"].as_u64()?).ok()?;
        Some(Stored::Same { status, body: answer["body"].take() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_only_by_the_client_that_got_them() {
        let request = KeyHash::of(b"POST /v1/accounts {}");
        let repeat = |token: &[u8], key: &[u8], request| Repeat::new(token, key, request).unwrap();
        let (one, body) = (repeat(b"token", b"id-1", request), json!({ "key": "ak_live_secret" }));
        one.succeeds_with(201);
        let row = one.seal(&body).unwrap();
        let same = Stored::Same { status: 201, body };
        assert_eq!(repeat(b"token", b"id-1", request).open(&row), Some(same));
        assert_eq!(
            one.open(&AnswerRow { request: KeyHash::of(b"other"), ..row.clone() }),
            Some(Stored::Other)
        );
        for other in [repeat(b"nekot", b"id-1", request), repeat(b"token", b"id-2", request)] {
            assert_eq!(other.open(&row), None);
            assert_ne!(other.id(), one.id());
        }
        assert!(!String::from_utf8_lossy(&row.answer).contains("secret"));
    }
}
