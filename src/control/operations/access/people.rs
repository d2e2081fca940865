//! What signing in needs besides the ledger: how passwords are hashed, how attempts are throttled, how e-mail is sent.

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use super::password::Passwords;
use crate::control::mail::Mailer;
use crate::control::operations::error::{OperationError, Result};
use crate::control::quota::Quota;
use crate::types::{KeyHash, Moment};

/// Where a request of a browser came from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The client's address.
    pub address: String,
    /// The browser's name for itself.
    pub agent: String,
}

/// What signing in needs besides the ledger.
#[derive(Debug)]
pub(in crate::control) struct People {
    pub(super) passwords: Passwords,
    /// Attempts to sign in or up from each address.
    by_address: Quota<String>,
    /// Attempts to sign in as each user from each address, so that nobody keeps others from signing in.
    by_user: Quota<(String, String)>,
    /// Attempts to sign in as each user from all addresses.
    by_user_anywhere: Quota<String>,
    /// Requests in each session.
    pages: Quota<KeyHash>,
    /// The address that the dashboard listens on.
    pub(super) address: OnceLock<SocketAddr>,
    /// The address that clients of the API connect to, and whether with TLS.
    pub(in crate::control) api_address: OnceLock<(SocketAddr, bool)>,
    pub(in crate::control) mailer: Mailer,
}

impl Default for People {
    fn default() -> Self {
        Self {
            passwords: Passwords::default(),
            by_address: Quota::of_sign_ins(),
            by_user: Quota::of_user_sign_ins(),
            by_user_anywhere: Quota::of_all_user_sign_ins(),
            pages: Quota::of_pages(),
            address: OnceLock::new(),
            api_address: OnceLock::new(),
            mailer: Mailer::default(),
        }
    }
}

fn throttled(seconds: u64) -> OperationError {
    let message = format!("too many attempts; try again in {seconds} seconds");
    OperationError::Throttled { message, seconds }
}

impl People {
    /// Counts an attempt to sign in or up.
    ///
    /// # Errors
    /// [`OperationError::Throttled`].
    pub(super) fn attempt(&self, origin: &Origin, user: Option<&str>, now: Moment) -> Result<()> {
        let network = network_of(&origin.address);
        self.by_address.take(network.clone(), now).map_err(throttled)?;
        let Some(user) = user else { return Ok(()) };
        self.by_user.take((user.to_owned(), network), now).map_err(throttled)?;
        self.by_user_anywhere.take(user.to_owned(), now).map_err(throttled)
    }

    /// Counts a request in a session.
    ///
    /// # Errors
    /// [`OperationError::Throttled`].
    pub(super) fn request(&self, session: KeyHash, now: Moment) -> Result<()> {
        let throttled = |seconds| {
            let message = format!("too many requests in this session; try again in {seconds} seconds");
            OperationError::Throttled { message, seconds }
        };
        self.pages.take(session, now).map_err(throttled)
    }
}

/// What attempts are counted by: an IPv4 address, or the network of an IPv6 address, of which one client has many.
fn network_of(address: &str) -> String {
    match address.parse() {
        Ok(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}")
        }
        _ => address.to_owned(),
    }
}
