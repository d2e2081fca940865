//! Hashes and checks passwords: argon2id (RFC 9106) with the parameters that OWASP recommends, a few at a time.

use std::sync::Arc;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

use crate::control::operations::error::{OperationError, Result};
use crate::types::Secret;

/// Passwords that are hashed at the same time. Each needs 19 MiB, and some 50 ms of a CPU.
const AT_ONCE: usize = 2;
/// Longest time to wait for a place.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Shortest password, in characters (NIST SP 800-63B recommends at least 8).
const MIN: usize = 10;
/// Longest password, in bytes.
const MAX: usize = 256;
/// Random bytes of a hash.
const SALT: usize = 16;
/// The hash that is checked where there is none, with the same parameters, so that it takes as long.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Hashes and checks passwords.
#[derive(Debug)]
pub(super) struct Passwords {
    places: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

fn hash(password: &str, salt: [u8; SALT]) -> Result<String> {
    let hash = Argon2::default().hash_password_with_salt(password.as_bytes(), &salt);
    let failed = |error| OperationError::Unavailable(format!("the password cannot be hashed: {error}"));
    Ok(hash.map_err(failed)?.to_string())
}

impl Passwords {
    async fn run<R: Send + 'static>(&self, work: impl FnOnce() -> Result<R> + Send + 'static) -> Result<R> {
        let place = tokio::time::timeout(MAX_WAIT, Arc::clone(&self.places).acquire_owned()).await;
        let busy = || OperationError::Unavailable("too many people sign in just now; try again".to_owned());
        let place = place.ok().and_then(std::result::Result::ok).ok_or_else(busy)?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(place);
            result
        });
        done.await.map_err(|error| OperationError::Unavailable(format!("hashing was aborted: {error}")))?
    }

    /// The hash of a new password, with its parameters and salt (PHC string).
    ///
    /// # Errors
    /// If the password is too short or too long, or too many people sign in.
    pub(super) async fn hash(&self, password: Secret<String>) -> Result<Secret<String>> {
        if password.reveal().chars().count() < MIN {
            return OperationError::invalid("password", format!("a password has at least {MIN} characters"));
        }
        if password.reveal().len() > MAX {
            return OperationError::invalid("password", format!("a password has at most {MAX} bytes"));
        }
        let mut salt = [0; SALT];
        let failed = |error| OperationError::Unavailable(format!("no random numbers: {error}"));
        getrandom::fill(&mut salt).map_err(failed)?;
        self.run(move || hash(password.reveal(), salt).map(Secret::new)).await
    }

    /// True if the password belongs to the hash. Takes as long where there is no hash.
    ///
    /// # Errors
    /// If too many people sign in.
    pub(super) async fn check(
        &self,
        password: Secret<String>,
        known: Option<Secret<String>>,
    ) -> Result<bool> {
        self.run(move || {
            if password.reveal().len() > MAX {
                return Ok(false);
            }
            let hash = known.as_ref().map_or(NOBODY, |known| known.reveal().as_str());
            let is_right = Argon2::default().verify_password(password.reveal().as_bytes(), hash).is_ok();
            Ok(is_right && known.is_some())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_password_of_a_hash_is_right() {
        let (passwords, secret) = (Passwords::default(), |text: &str| Secret::new(text.to_owned()));
        let known = passwords.hash(secret("correct horse battery")).await.unwrap();
        let parameters = |hash: &str| hash.rsplitn(3, '$').nth(2).map(str::to_owned);
        assert_eq!(
            parameters(known.reveal()),
            parameters(NOBODY),
            "the same work for users that do not exist"
        );
        assert!(passwords.check(secret("correct horse battery"), Some(known.clone())).await.unwrap());
        assert!(!passwords.check(secret("correct horse batterz"), Some(known.clone())).await.unwrap());
        assert!(!passwords.check(secret(""), None).await.unwrap());
        assert!(!passwords.check(secret(&"x".repeat(1 << 20)), Some(known)).await.unwrap());
        for bad in ["short", &"x".repeat(MAX + 1)] {
            assert_eq!(passwords.hash(secret(bad)).await.unwrap_err().reason(), "invalid_value");
        }
    }
}
