//! Takes leaked keys out of use, and tells scanners how keys are recognised.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::KeyView;
use crate::control::Control;
use crate::control::operations::caller::{Caller, Permission};
use crate::control::operations::check::RawKey;
use crate::control::operations::error::{OperationError, Result};
use crate::ledger::store::{KeyChange, KeyEdit};
use crate::policy::key::{KeyState, generate};
use crate::types::KeyHash;

/// A key that was found where it should not be: either the key or its SHA-256.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LeakedKey, min_properties = 1, max_properties = 1)]
pub struct LeakInput {
    /// The key, as it was found.
    #[serde(default)]
    #[schema(value_type = String, min_length = 1, max_length = 512)]
    pub key: Option<RawKey>,
    /// The key's SHA-256 as 64 hexadecimal digits.
    #[serde(default)]
    #[schema(value_type = String, pattern = "^[0-9a-fA-F]{64}$")]
    pub sha256: Option<String>,
}

/// How secret scanners recognise generated keys, without asking Tollgate.
#[derive(Clone, Debug, Serialize)]
pub struct KeyPattern {
    /// A regular expression for generated keys.
    pub pattern: String,
    /// The checksum that tells keys from texts that only look like keys.
    pub checksum: &'static str,
    /// A command that prints True if the checksum of the key in its last argument is right.
    pub test: &'static str,
}

const CHECKSUM: &str = "the last 6 characters are the CRC-32 (as in zlib) of all characters before them, as base 62 \
                        digits of 0-9A-Za-z, the most significant first";
const TEST: &str = "python3 -c 'import string as s,sys,zlib;k=sys.argv[1];d=s.digits+s.ascii_uppercase+s.ascii_lowercase;\
                    n=zlib.crc32(k[:-6].encode());print(\"\".join(d[n//62**i%62] for i in range(5,-1,-1))==k[-6:])'";

impl Control {
    /// Disables a key that was found where it should not be, until it is enabled again. It stops working within a
    /// second, also if only its old secret was found.
    ///
    /// # Errors
    /// If there is no such key, or the input has not exactly one of `key` and `sha256`.
    pub async fn report_leaked(&self, caller: &Caller, input: LeakInput) -> Result<KeyView> {
        caller.may(Permission::Manage)?;
        let hash = match (&input.key, &input.sha256) {
            (Some(key), None) => key.hash()?,
            (None, Some(text)) => match text.parse::<KeyHash>() {
                Ok(hash) => hash,
                Err(_) => return OperationError::invalid("sha256", "a hash is 64 hexadecimal digits"),
            },
            (Some(_), Some(_)) => return OperationError::invalid("sha256", "give either `key` or `sha256`"),
            (None, None) => return OperationError::invalid("key", "give the key, or its hash in `sha256`"),
        };
        let _alone = self.changes.lock().await;
        let Some(id) = self.directory.find(&hash).map(|key| key.id) else {
            return Err(OperationError::Missing("no key that is in use has this hash".to_owned()));
        };
        let edit = KeyEdit { version: None, change: KeyChange::State(KeyState::Disabled) };
        self.apply_to_key(caller, "key.report_leaked", id, edit, None).await
    }

    /// How secret scanners recognise generated keys.
    #[must_use]
    pub fn key_pattern(&self) -> KeyPattern {
        let pattern = generate::pattern(&self.snapshot().settings.key_prefix);
        KeyPattern { pattern, checksum: CHECKSUM, test: TEST }
    }
}
