//! Decides if a failed request to an upstream may be sent again.

use http::Method;

/// How often requests are sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Most retries of one request.
    pub most: u32,
    /// The share of the requests of the last seconds that may be retried, in percent.
    pub budget: u32,
}

impl Default for Retries {
    fn default() -> Self {
        Self { most: 1, budget: 20 }
    }
}

/// A try that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedTry {
    /// A byte of the request was written, so the server may have acted on it.
    pub is_sent: bool,
    /// The connection failed, in contrast to a server that responded with something malformed.
    pub is_connection_lost: bool,
    /// The body can be sent from its beginning.
    pub has_body: bool,
    /// How many tries of the request were made before this one.
    pub before: u32,
}

/// True if a request with this method may be sent again (RFC 9110, section 9.2.2). The budget is checked besides.
#[must_use]
pub fn may_retry(failed: &FailedTry, method: &Method, retries: &Retries) -> bool {
    let is_harmless = !failed.is_sent || failed.is_connection_lost && method.is_idempotent();
    is_harmless && failed.has_body && failed.before < retries.most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_that_cannot_act_twice_are_sent_again() {
        let retries = Retries::default();
        let unsent = FailedTry { is_sent: false, is_connection_lost: true, has_body: true, before: 0 };
        let sent = FailedTry { is_sent: true, ..unsent };
        for (failed, get, post) in [
            (unsent, true, true),
            (sent, true, false),
            (FailedTry { is_connection_lost: false, ..sent }, false, false),
            (FailedTry { has_body: false, ..unsent }, false, false),
            (FailedTry { before: 1, ..unsent }, false, false),
        ] {
            for (method, wanted) in
                [(Method::GET, get), (Method::PUT, get), (Method::POST, post), (Method::PATCH, post)]
            {
                assert_eq!(may_retry(&failed, &method, &retries), wanted, "{method} {failed:?}");
            }
        }
    }
}
