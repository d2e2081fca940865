//! Counts requests of tokens and people, failed authentications of addresses, attempts to sign in and letters, within bounds.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::policy::limit::{Algorithm, Limit, LimitState, LimitStatus, Numbers, Scope};
use crate::policy::route::Methods;
use crate::types::{Moment, NameId};

/// Requests a second of one token, and at the same moment.
const REQUESTS: (u32, u32) = (200, 400);
/// Failed authentications a minute from one address, and at the same moment.
const FAILURES: (u32, u32) = (60, 30);
/// Attempts to sign in or up a minute from one address, and at the same moment.
const SIGN_INS: (u32, u32) = (20, 20);
/// Attempts to sign in a minute as one user from one address, and at the same moment.
const USER_SIGN_INS: (u32, u32) = (2, 10);
/// Attempts to sign in a minute as one user from all addresses, and at the same moment.
const ALL_USER_SIGN_INS: (u32, u32) = (30, 60);
/// Letters an hour to one recipient, and at the same moment: those about signing in, and those about events.
const LETTERS: (u32, u32) = (10, 5);
/// Requests a second of one person who is signed in, and at the same moment.
const PAGES: (u32, u32) = (20, 200);
/// Most addresses and tokens whose requests are counted. When there are more, further ones are refused until some have
/// their whole quota again.
const MAX_COUNTED: usize = 10_000;

/// A limit, and how much of it each address or token has used.
#[derive(Debug)]
pub(in crate::control) struct Quota<K> {
    limit: Limit,
    used: Mutex<HashMap<K, LimitState>>,
}

impl<K: Eq + Hash> Quota<K> {
    fn new(name: &str, (requests, burst): (u32, u32), window: Duration) -> Self {
        let limit = Limit {
            name: Arc::from(name),
            id: NameId::of(name),
            requests,
            window,
            burst,
            algorithm: Algorithm::Gcra,
            scope: Scope::Address,
            routes: Vec::new(),
            except: Vec::new(),
            methods: Methods::All,
            shadow: false,
            adds: false,
            outage: None,
            numbers: Numbers::of(name, requests, window),
        };
        Self { limit, used: Mutex::default() }
    }

    /// Requests of one token.
    pub(in crate::control) fn of_requests() -> Self {
        Self::new("requests", REQUESTS, Duration::from_secs(1))
    }

    /// Failed authentications from one address.
    pub(in crate::control) fn of_failures() -> Self {
        Self::new("failures", FAILURES, Duration::from_secs(60))
    }

    /// Attempts to sign in or up from one address.
    pub(in crate::control) fn of_sign_ins() -> Self {
        Self::new("sign-ins", SIGN_INS, Duration::from_secs(60))
    }

    /// Attempts to sign in as one user from one address.
    pub(in crate::control) fn of_user_sign_ins() -> Self {
        Self::new("user sign-ins", USER_SIGN_INS, Duration::from_secs(60))
    }

    /// Attempts to sign in as one user from all addresses.
    pub(in crate::control) fn of_all_user_sign_ins() -> Self {
        Self::new("all user sign-ins", ALL_USER_SIGN_INS, Duration::from_secs(60))
    }

    /// Letters to one recipient.
    pub(in crate::control) fn of_letters() -> Self {
        Self::new("letters", LETTERS, Duration::from_secs(3600))
    }

    /// Requests of one person who is signed in.
    pub(in crate::control) fn of_pages() -> Self {
        Self::new("pages", PAGES, Duration::from_secs(1))
    }

    /// Counts a request.
    ///
    /// # Errors
    /// The seconds after which to try again, if the quota is used up.
    pub(in crate::control) fn take(&self, of: K, now: Moment) -> Result<(), u64> {
        let mut used = self.used.lock();
        if used.len() >= MAX_COUNTED && !used.contains_key(&of) {
            used.retain(|_, state| !state.is_fresh(now));
            if used.len() >= MAX_COUNTED {
                return Err(1);
            }
        }
        let state = used.entry(of).or_insert_with(|| LimitState::fresh(&self.limit.rate()));
        state.adapt(&self.limit.rate(), now);
        let status: LimitStatus = state.peek(&self.limit.rate(), now);
        if !status.admitted {
            return Err(status.seconds());
        }
        state.take(&status, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_counted_and_bounded() {
        let quota = Quota::new("q", (60, 2), Duration::from_secs(60));
        let now = Moment(1_000_000_000);
        for _ in 0..2 {
            assert_eq!(quota.take(0, now), Ok(()));
        }
        assert_eq!(quota.take(0, now), Err(1));
        for other in 1..MAX_COUNTED {
            assert_eq!(quota.take(other, now), Ok(()));
        }
        assert_eq!(quota.take(MAX_COUNTED, now), Err(1), "the table is full");
        assert_eq!(quota.take(MAX_COUNTED, now.plus(Duration::from_secs(5))), Ok(()));
        assert_eq!(quota.used.lock().len(), 1, "those with their whole quota are forgotten");
    }
}
