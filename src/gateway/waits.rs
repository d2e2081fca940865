//! What one request waits for, as far as deadlines are concerned.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;

use super::connection::MAX_SILENCE;
use crate::types::{KeyHash, Moment};

/// Bytes a second that pay for the time a client makes the gateway wait: one that moves less than
/// this runs out of patience in the end, however evenly it moves.
pub(super) const MIN_RATE: u32 = 256;

/// How much longer a client is waited for that moves bytes, but few: time spent waiting adds up,
/// bytes moved pay it back at [`MIN_RATE`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    since: Option<Moment>,
    spent: Duration,
}

impl Patience {
    /// The client is waited for from now on, if it is not already.
    pub(super) fn begin(&mut self, now: Moment) {
        self.since.get_or_insert(now);
    }

    /// It moved so many bytes.
    pub(super) fn end(&mut self, now: Moment, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.spent += now.since(since);
        }
        if !self.spent.is_zero() {
            let paid = u32::try_from(bytes).unwrap_or(u32::MAX);
            self.spent = self.spent.saturating_sub(Duration::from_secs(1) * paid / MIN_RATE);
        }
    }

    /// Bytes went to it meanwhile: its share of the connection's, which is not known more exactly.
    pub(super) fn pay(&mut self, now: Moment, bytes: usize) {
        if let Some(since) = &mut self.since {
            let paid = Duration::from_secs(1) * u32::try_from(bytes).unwrap_or(u32::MAX) / MIN_RATE;
            let rest = paid.saturating_sub(self.spent);
            self.spent = self.spent.saturating_sub(paid);
            *since = since.plus(rest).min(now);
        }
    }

    /// It is waited for no longer, nor held to what it made wait before.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Whether the client is waited for.
    pub(super) fn is_on(&self) -> bool {
        self.since.is_some()
    }

    /// How long it may go on; `None` where it is over. Unbounded while nobody waits.
    pub(super) fn left(&self, now: Moment, allowed: Duration) -> Option<Duration> {
        let Some(since) = self.since else { return Some(Duration::MAX) };
        allowed.checked_sub(self.spent + now.since(since)).filter(|left| !left.is_zero())
    }
}

/// What one request waits for. On one thread; the lock, never contended, is there because hyper
/// wants I/O that could cross threads.
#[derive(Debug, Default)]
pub(super) struct Waits(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// For more of the request's body.
    body: Patience,
    /// For the client to take what it was given of the answer; with HTTP/2 only. What it takes is
    /// paid by its share while it waits, and whole at its end: so the rate may be half of [`MIN_RATE`].
    taking: Patience,
    /// How much it was given last.
    given: usize,
    /// While the answer's head is awaited: how long it may take after the last of the body.
    answer_timeout: Option<Duration>,
    /// When it must be there; `None` while the client is awaited.
    answer_due: Option<Moment>,
    /// The request's body is half of a conversation, whose silences mean nothing.
    conversing: bool,
    /// When it last moved, either way; `None` where that is not counted. What else goes on on its
    /// connection, such as a PING, does not count.
    moved: Option<Moment>,
    /// The key that it came with, as its hash: once that opens the gate no more, the request ends.
    key: Option<KeyHash>,
    /// It does not.
    key_ended: bool,
    /// Time is up: the request's task ends.
    cut: bool,
    waker: Option<Waker>,
}

impl Waits {
    /// A request begins. `moved` where its silence counts by itself; with HTTP/1.1 the connection's does.
    pub(super) fn begin(&self, moved: Option<Moment>) {
        *self.0.lock() = State { moved, ..State::default() };
    }

    /// The upstream's answer is awaited from now on.
    pub(super) fn awaits_answer(&self, now: Moment, timeout: Duration) {
        let mut state = self.0.lock();
        (state.answer_timeout, state.answer_due) = (Some(timeout), Some(now.plus(timeout)));
    }

    /// It is awaited no longer.
    pub(super) fn has_answer(&self) {
        let mut state = self.0.lock();
        (state.answer_timeout, state.answer_due) = (None, None);
    }

    /// How long until the answer must be there; `None` while the client is awaited.
    pub(super) fn answer_left(&self, now: Moment) -> Option<Duration> {
        self.0.lock().answer_due.map(|due| due.since(now))
    }

    /// The request's body may be silent for as long as it likes.
    pub(super) fn converses(&self) {
        self.0.lock().conversing = true;
    }

    /// The upstream side waits for the client: its time, not the upstream's.
    pub(super) fn waits_for_body(&self, now: Moment) {
        let mut state = self.0.lock();
        if !state.conversing {
            state.body.begin(now);
        }
        state.answer_due = None;
    }

    /// The upstream side got so much of the body; nothing at its end.
    pub(super) fn got_body(&self, now: Moment, bytes: usize) {
        let mut state = self.0.lock();
        state.body.end(now, bytes);
        state.moved = state.moved.map(|_| now);
        state.answer_due = state.answer_timeout.map(|timeout| now.plus(timeout));
    }

    /// The client's side was given so much of the answer.
    pub(super) fn gave(&self, now: Moment, bytes: usize) {
        let mut state = self.0.lock();
        state.given = bytes;
        state.moved = state.moved.map(|_| now);
        state.taking.begin(now);
    }

    /// It asks for more.
    pub(super) fn took(&self, now: Moment) {
        let mut state = self.0.lock();
        let given = std::mem::take(&mut state.given);
        state.taking.end(now, given);
    }

    /// The request is over: nobody is waited for.
    pub(super) fn end(&self) {
        let mut state = self.0.lock();
        state.body.forget();
        state.taking.forget();
        (state.moved, state.key) = (None, None);
    }

    /// How long until this is to be looked at again; `None` where the client's time is up, or where
    /// nothing moved for [`MAX_SILENCE`].
    /// `written`: its share of what went to the client since the last look.
    pub(super) fn left(&self, now: Moment, idle: Duration, written: usize) -> Option<Duration> {
        let mut state = self.0.lock();
        state.taking.pay(now, written);
        let client = state.body.left(now, idle)?.min(state.taking.left(now, idle)?);
        let quiet = state.moved.map_or(Duration::ZERO, |moved| now.since(moved));
        MAX_SILENCE.checked_sub(quiet).filter(|left| !left.is_zero())?;
        Some(state.answer_due.map_or(client, |due| client.min(due.since(now))))
    }

    /// Whether the client is waited for to take more.
    pub(super) fn is_untaken(&self) -> bool {
        self.0.lock().taking.is_on()
    }

    /// The request came with a key.
    pub(super) fn came_with(&self, key: KeyHash) {
        self.0.lock().key = Some(key);
    }

    /// Those of the tunnel that the request became: its key can still end it.
    pub(super) fn of_tunnel(&self) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { key: self.0.lock().key, ..State::default() })))
    }

    /// Whether the request is over for what became of its key.
    pub(super) fn lost_its_key(&self, opens: impl FnOnce(&KeyHash) -> bool) -> bool {
        let mut state = self.0.lock();
        state.key_ended |= state.key.as_ref().is_some_and(|key| !opens(key));
        state.key_ended
    }

    /// Whether it was found so.
    pub(super) fn has_lost_its_key(&self) -> bool {
        self.0.lock().key_ended
    }

    /// Whom to tell when there is something to look at.
    pub(super) fn watch(&self, waker: &Waker) {
        let mut state = self.0.lock();
        if !state.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
    }

    /// Lets the request's task look, where it is not the connection's own.
    pub(super) fn wake(&self) {
        if let Some(waker) = &self.0.lock().waker {
            waker.wake_by_ref();
        }
    }

    /// Ends the request's task.
    pub(super) fn cut(&self) {
        self.0.lock().cut = true;
        self.wake();
    }

    pub(super) fn is_cut(&self) -> bool {
        self.0.lock().cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const MINUTE: Duration = Duration::from_secs(60);

    fn drip(bytes: usize) -> Option<u64> {
        let mut patience = Patience::default();
        (0..600).find(|second| {
            patience.begin(Moment(second * SECOND));
            let over = patience.left(Moment((second + 1) * SECOND), MINUTE).is_none();
            patience.end(Moment((second + 1) * SECOND), bytes);
            over
        })
    }

    #[test]
    fn a_request_that_moves_has_no_end_and_a_silent_one_has() {
        let hour = |hours: u64| Moment(hours * 3600 * SECOND);
        let (http2, http1) = (Waits::default(), Waits::default());
        http2.begin(Some(hour(0)));
        http1.begin(None);
        for half in 1..10 {
            let now = Moment(half * 1800 * SECOND);
            http2.gave(now, 1);
            http2.took(now);
            assert!(http2.left(now, MINUTE, 0).is_some());
            assert!(http1.left(now, MINUTE, 0).is_some(), "its connection counts");
        }
        assert!(http2.left(hour(6), MINUTE, 0).is_none());
        assert!(http1.left(hour(6), MINUTE, 0).is_some());
    }

    #[test]
    fn who_moves_little_runs_out_of_patience_and_who_moves_enough_never_does() {
        assert_eq!(drip(0), Some(59));
        assert_eq!(drip(1), Some(60));
        assert_eq!(drip(MIN_RATE as usize / 2), Some(118));
        assert_eq!(drip(MIN_RATE as usize), None);
    }
}
