//! Secrets between the request that made them and the page that shows them, once. So a reload shows no secret, and none is
//! in an address, a cookie or a log.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::types::{KeyHash, Moment, Secret};

/// Most secrets that wait to be shown; the oldest gives way.
const MAX: usize = 1_000;
/// How long a secret waits.
const LONGEST: Duration = Duration::from_secs(120);

/// A secret, or several, to be shown once.
#[derive(Clone)]
pub(super) struct Reveal {
    /// The secrets.
    pub(super) secrets: Vec<Secret<String>>,
    at: Moment,
}

/// Secrets that wait to be shown, by the session that made them and what they belong to.
#[derive(Default)]
pub(super) struct Reveals(Mutex<HashMap<(KeyHash, String), Reveal>>);

impl Reveals {
    /// Keeps secrets for the next page of a session.
    pub(super) fn put(&self, session: KeyHash, of: &str, secrets: Vec<Secret<String>>, now: Moment) {
        let mut waiting = self.0.lock();
        waiting.retain(|_, reveal| now.since(reveal.at) < LONGEST);
        if waiting.len() >= MAX {
            let oldest = waiting.iter().min_by_key(|(_, reveal)| reveal.at).map(|(id, _)| id.clone());
            oldest.and_then(|id| waiting.remove(&id));
        }
        waiting.insert((session, of.to_owned()), Reveal { secrets, at: now });
    }

    /// Takes the secrets, if they were not shown yet.
    pub(super) fn take(&self, session: KeyHash, of: &str, now: Moment) -> Option<Vec<Secret<String>>> {
        let reveal = self.0.lock().remove(&(session, of.to_owned()))?;
        (now.since(reveal.at) < LONGEST).then_some(reveal.secrets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_once_to_its_session_only() {
        let (reveals, now) = (Reveals::default(), Moment(1_000_000_000));
        let (own, other) = (KeyHash([1; 32]), KeyHash([2; 32]));
        let secret = || vec![Secret::new("s".to_owned())];
        reveals.put(own, "key", secret(), now);
        assert!(reveals.take(other, "key", now).is_none());
        assert!(reveals.take(own, "other", now).is_none());
        assert!(reveals.take(own, "key", now).is_some());
        assert!(reveals.take(own, "key", now).is_none());
        reveals.put(own, "key", secret(), now);
        assert!(reveals.take(own, "key", now.plus(LONGEST)).is_none(), "too late");
        for number in 0..=MAX {
            reveals.put(own, &number.to_string(), secret(), Moment(1_000_000_000 + number as u64));
        }
        assert!(reveals.take(own, "0", now).is_none(), "the oldest gave way");
        assert!(reveals.take(own, &MAX.to_string(), now).is_some());
    }
}
