//! How long a connection may go on as it does.

use std::time::Duration;

use super::{Inner, Phase, Scanner};
use crate::types::Moment;

/// Longest silence within an answer: past it the connection is closed, whatever it waits for.
pub(in crate::gateway) const MAX_SILENCE: Duration = Duration::from_secs(3600);
/// How long a connection is idle until all is given up that it does not need for that.
const REST_AFTER: Duration = Duration::from_secs(1);
/// How long an HTTP/2 client has to leave once it was told to.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a look at a connection says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) enum Look {
    /// Look again after this long.
    Again(Duration),
    /// Nothing is going on, nor was for [`REST_AFTER`]; look again after this long.
    Rest(Duration),
    /// It was idle for long: tell it to end.
    Goodbye,
    /// Its time is up.
    Over,
}

impl Inner {
    pub(super) fn look(&mut self, now: Moment, header: Duration, idle: Duration) -> Option<Look> {
        const LOOK: Duration = Duration::from_secs(1);
        let left = |since: Moment, allowed: Duration| {
            allowed.checked_sub(now.since(since)).filter(|left| !left.is_zero())
        };
        let mut next = match self.phase {
            Phase::Head(since) => left(since, header)?,
            // The last of an answer is on its way.
            Phase::Idle(_) | Phase::Leaving(_) if self.writing.is_on() => LOOK,
            Phase::Idle(since) => match left(since, idle) {
                Some(left) if now.since(since) < REST_AFTER => left.min(REST_AFTER - now.since(since)),
                Some(left) if self.may_rest() => return Some(Look::Rest(left)),
                Some(left) => left,
                None => return Some(Look::Goodbye),
            },
            Phase::Busy if self.leaving => left(self.moved, idle)?.min(LOOK),
            Phase::Busy => left(self.moved, MAX_SILENCE)?.min(LOOK),
            Phase::Leaving(since) => left(since, GOODBYE)?,
        };
        next = next.min(self.writing.left(now, idle)?);
        if let Scanner::Frames(frames) = &self.scanner
            && let Some(since) = frames.head_since()
        {
            next = next.min(left(since, header)?);
        }
        let mut written = std::mem::take(&mut self.written);
        if let Scanner::Frames(frames) = &mut self.scanner {
            let waiting = self.streams.iter().filter(|stream| stream.is_untaken()).count();
            written = written.saturating_sub(frames.take_acks()) / waiting.max(1);
        }
        for stream in &self.streams {
            match (stream.left(now, idle, written), &self.scanner) {
                (Some(left), _) => {
                    if left.is_zero() {
                        stream.wake();
                    }
                    next = next.min(left);
                }
                (None, Scanner::Heads(_)) => return None,
                (None, Scanner::Frames(_)) => stream.cut(), // the others go on
            }
        }
        Some(Look::Again(next.max(Duration::from_millis(1))))
    }
}
