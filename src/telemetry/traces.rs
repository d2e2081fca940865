//! Passes the spans of traced requests from the workers to the control plane, which exports them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::routes::MethodIndex;
use crate::policy::forward::trace::SpanIds;
use crate::policy::outcome::Outcome;
use crate::types::{AccountId, Credits, KeyId, RequestId, WallTime};

/// Most requests whose spans wait to be exported. Those of further ones are dropped and counted.
const MAX_WAITING: usize = 4_096;
/// Number of waiting requests from which on they are exported immediately.
const FULL: usize = 256;

/// A traced request that is over: what its spans say. No key, query, body or header value but the given request id.
#[derive(Debug)]
pub struct TracedRequest {
    /// The ids of its spans.
    pub ids: SpanIds,
    /// When it ended.
    pub ended: WallTime,
    /// Its duration.
    pub duration: Duration,
    /// Its id.
    pub id: RequestId,
    /// Its method.
    pub method: MethodIndex,
    /// The route's name and path; `None` if no route matched.
    pub route: Option<(String, Arc<str>)>,
    /// Its account and key, if it was authenticated.
    pub caller: Option<(AccountId, KeyId)>,
    /// The status of the response.
    pub status: u16,
    /// The outcome.
    pub outcome: Outcome,
    /// The credits charged.
    pub credits: Credits,
    /// Its way to the upstream, if it was sent there.
    pub upstream: Option<TracedUpstream>,
}

/// A traced request's way to its upstream.
#[derive(Debug)]
pub struct TracedUpstream {
    /// The upstream's name.
    pub name: String,
    /// The server that it was last sent to; `None` if none could be selected.
    pub server: Option<String>,
    /// Time from the start of the request until it was sent.
    pub after: Duration,
    /// Time until the head of the response.
    pub duration: Duration,
    /// The status of the response; `None` if there was none.
    pub status: Option<u16>,
}

/// The traced requests of all workers that wait to be exported.
#[derive(Debug, Default)]
pub struct Traces {
    waiting: Mutex<Vec<TracedRequest>>,
    full: Notify,
    /// Requests whose spans a collector has taken.
    pub exported: AtomicU64,
    /// Requests whose spans were dropped, because they were not exported in time or the collector refused them.
    pub dropped: AtomicU64,
}

impl Traces {
    /// Adds a request. Only traced requests take this lock.
    pub fn add(&self, request: TracedRequest) {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= MAX_WAITING {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.push(request);
        if waiting.len() == FULL {
            self.full.notify_one();
        }
    }

    /// Takes all waiting requests.
    #[must_use]
    pub fn take(&self) -> Vec<TracedRequest> {
        std::mem::take(&mut self.waiting.lock())
    }

    /// Waits until many requests wait.
    pub async fn fill(&self) {
        self.full.notified().await;
    }
}
