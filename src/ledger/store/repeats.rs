//! Defines the rows of requests with an idempotency key.

use crate::types::{KeyHash, RequestId, WallTime};

/// A request with an idempotency key, which is forwarded and charged once.
#[derive(Clone, PartialEq, Eq)]
pub struct RepeatRow {
    /// The account and the idempotency key, as a hash.
    pub id: KeyHash,
    /// The request, as a hash.
    pub request: KeyHash,
    /// The id of the first request.
    pub hold: RequestId,
    /// Until when a repeated request gets the same answer.
    pub until: WallTime,
    /// The answer, encrypted with a key that only the client's next request can derive. `None` while the request is in
    /// progress, and after a crash; empty if the answer was not kept.
    pub answer: Option<Vec<u8>>,
}

impl std::fmt::Debug for RepeatRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let answer = self.answer.as_ref().map(|answer| (answer.len(), KeyHash::of(answer)));
        write!(f, "RepeatRow({:?} {:?} {:?} {:?} {answer:?})", self.id, self.request, self.hold, self.until)
    }
}
