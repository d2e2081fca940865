//! Deadlines of one request: request body, response head, and the client reading the response.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;

use super::slow_client::SlowClientAllowance;
use crate::types::{KeyHash, Moment};

/// Longest time in which no byte of a request moves in either direction. Then the request ends, whatever it is
/// waiting for.
pub(in crate::gateway) const MAX_SILENCE: Duration = Duration::from_secs(3600);

/// Deadlines of one request. Used on one thread; the lock, never contended, exists because hyper requires
/// I/O that is `Send`.
#[derive(Debug, Default)]
pub(in crate::gateway) struct RequestDeadlines(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The client's allowance for sending the request body.
    sending: SlowClientAllowance,
    /// The client's allowance for reading the response; over HTTP/2 only. While the gateway waits, the
    /// stream's share of the connection's written bytes pays it back. The whole chunk pays it back again when
    /// h2 accepts the next one, so the effective minimum rate may be half of the nominal one.
    reading: SlowClientAllowance,
    /// Size of the last DATA chunk that was passed to h2.
    last_chunk: usize,
    /// While the response head is awaited: how long it may take after the end of the request body.
    response_timeout: Option<Duration>,
    /// When the response head must have arrived; `None` while the gateway waits for the client.
    response_due: Option<Moment>,
    /// The request body may be silent: it is one half of a bidirectional gRPC call.
    is_bidirectional: bool,
    /// When a byte of the request last moved, in either direction; `None` if the connection records that
    /// (HTTP/1.1). Other activity on the connection, such as PING, does not count.
    last_activity: Option<Moment>,
    /// Hash of the key that the request was authenticated with.
    key: Option<KeyHash>,
    /// The key stopped working while the request was in flight.
    is_key_revoked: bool,
    /// The request's task must end.
    is_cancelled: bool,
    waker: Option<Waker>,
}

impl RequestDeadlines {
    /// Starts a request. `now`: the current time over HTTP/2, where each request's silence is measured; `None`
    /// over HTTP/1.1, where the connection's is.
    pub(in crate::gateway::connection) fn start(&self, now: Option<Moment>) {
        *self.0.lock() = Inner { last_activity: now, ..Inner::default() };
    }

    /// Starts to wait for the upstream's response head.
    pub(in crate::gateway) fn await_response(&self, now: Moment, timeout: Duration) {
        let mut inner = self.0.lock();
        (inner.response_timeout, inner.response_due) = (Some(timeout), Some(now.plus(timeout)));
    }

    /// Stops waiting for the response head: it arrived, or the call failed.
    pub(in crate::gateway) fn stop_awaiting_response(&self) {
        let mut inner = self.0.lock();
        (inner.response_timeout, inner.response_due) = (None, None);
    }

    /// Time until the response head must have arrived; `None` while the gateway waits for the client.
    pub(in crate::gateway) fn response_time_left(&self, now: Moment) -> Option<Duration> {
        self.0.lock().response_due.map(|due| due.since(now))
    }

    /// True while the response head is awaited.
    pub(in crate::gateway::connection) fn is_awaiting_response(&self) -> bool {
        self.0.lock().response_timeout.is_some()
    }

    /// Disables the deadline of a silent request body.
    pub(in crate::gateway) fn allow_silent_body(&self) {
        self.0.lock().is_bidirectional = true;
    }

    /// Starts to wait for more of the request body. Meanwhile the response timeout is suspended.
    pub(in crate::gateway) fn await_request_body(&self, now: Moment) {
        let mut inner = self.0.lock();
        if !inner.is_bidirectional {
            inner.sending.start_waiting(now);
        }
        inner.response_due = None;
    }

    /// This many bytes of the request body arrived; 0 at its end. The response timeout starts again.
    pub(in crate::gateway) fn request_body_arrived(&self, now: Moment, bytes: usize) {
        let mut inner = self.0.lock();
        inner.sending.stop_waiting(now, bytes);
        inner.last_activity = inner.last_activity.map(|_| now);
        inner.response_due = inner.response_timeout.map(|timeout| now.plus(timeout));
    }

    /// A DATA chunk of this size was passed to h2, which sends it when the client opens its window.
    pub(in crate::gateway) fn chunk_given(&self, now: Moment, bytes: usize) {
        let mut inner = self.0.lock();
        inner.last_chunk = bytes;
        inner.last_activity = inner.last_activity.map(|_| now);
        inner.reading.start_waiting(now);
    }

    /// h2 polls for the next chunk: the client opened its window for the last one.
    pub(in crate::gateway) fn chunk_taken(&self, now: Moment) {
        let mut inner = self.0.lock();
        let bytes = std::mem::take(&mut inner.last_chunk);
        inner.reading.stop_waiting(now, bytes);
    }

    /// Ends the request: its client is not waited for any more.
    pub(in crate::gateway::connection) fn end(&self) {
        let mut inner = self.0.lock();
        inner.sending.reset();
        inner.reading.reset();
        (inner.last_activity, inner.key) = (None, None);
    }

    /// Time until these deadlines must be checked again; `None` if the client has used up its allowance, or
    /// after [`MAX_SILENCE`]. `written`: this request's share of the bytes that were written to the client
    /// since the last check.
    pub(in crate::gateway::connection) fn time_left(
        &self,
        now: Moment,
        idle_timeout: Duration,
        written: usize,
    ) -> Option<Duration> {
        let mut inner = self.0.lock();
        inner.reading.pay_back(now, written);
        let sending = inner.sending.time_left(now, idle_timeout)?;
        let client = sending.min(inner.reading.time_left(now, idle_timeout)?);
        let silence = inner.last_activity.map_or(Duration::ZERO, |last| now.since(last));
        MAX_SILENCE.checked_sub(silence).filter(|left| !left.is_zero())?;
        Some(inner.response_due.map_or(client, |due| client.min(due.since(now))))
    }

    /// True while the gateway waits for the client to read a DATA chunk.
    pub(in crate::gateway::connection) fn is_client_reading(&self) -> bool {
        self.0.lock().reading.is_waiting()
    }

    /// Sets the key of the request, so that the request can be ended when the key stops working.
    pub(in crate::gateway) fn set_key(&self, key: KeyHash) {
        self.0.lock().key = Some(key);
    }

    /// Deadlines of the tunnel that this request became: only its key can still end it.
    pub(in crate::gateway) fn for_tunnel(&self) -> Arc<Self> {
        let inner = Inner { key: self.0.lock().key, ..Inner::default() };
        Arc::new(Self(Mutex::new(inner)))
    }

    /// Checks the request's key; true if it does not work any more, now or at an earlier check.
    pub(in crate::gateway) fn check_key(&self, works: impl FnOnce(&KeyHash) -> bool) -> bool {
        let mut inner = self.0.lock();
        inner.is_key_revoked |= inner.key.as_ref().is_some_and(|key| !works(key));
        inner.is_key_revoked
    }

    /// True if a check found that the request's key does not work any more.
    pub(in crate::gateway) fn is_key_revoked(&self) -> bool {
        self.0.lock().is_key_revoked
    }

    /// Sets the waker of the request's task, for when the response deadline passes or the request is cancelled.
    pub(in crate::gateway) fn set_waker(&self, waker: &Waker) {
        let mut inner = self.0.lock();
        if !inner.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            inner.waker = Some(waker.clone());
        }
    }

    /// Wakes the request's task, if that is not the connection's own.
    pub(in crate::gateway::connection) fn wake(&self) {
        if let Some(waker) = &self.0.lock().waker {
            waker.wake_by_ref();
        }
    }

    /// Ends the request's task.
    pub(in crate::gateway) fn cancel(&self) {
        self.0.lock().is_cancelled = true;
        self.wake();
    }

    /// True if the request's task must end.
    pub(in crate::gateway) fn is_cancelled(&self) -> bool {
        self.0.lock().is_cancelled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn an_active_request_has_no_end_and_a_silent_one_ends() {
        let hours = |hours: u64| Moment(0).plus(MINUTE * 60 * u32::try_from(hours).unwrap());
        let (http2, http1) = (RequestDeadlines::default(), RequestDeadlines::default());
        http2.start(Some(hours(0)));
        http1.start(None);
        for half in 1..10 {
            let now = Moment(0).plus(MINUTE * 30 * half);
            http2.chunk_given(now, 1);
            http2.chunk_taken(now);
            assert!(http2.time_left(now, MINUTE, 0).is_some());
            assert!(http1.time_left(now, MINUTE, 0).is_some(), "its connection counts");
        }
        assert!(http2.time_left(hours(6), MINUTE, 0).is_none());
        assert!(http1.time_left(hours(6), MINUTE, 0).is_some());
    }
}
