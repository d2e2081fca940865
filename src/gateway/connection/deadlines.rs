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
    /// A head waits for a parser that takes many fields.
    ManyFields,
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
        if self.key_ended {
            return None;
        }
        if self.needs_other_parser() {
            return Some(Look::ManyFields);
        }
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
            Phase::Busy if self.leaving && !self.half_close => return None,
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Poll;

    use super::*;
    use crate::gateway::arrive::{Arrived, Protocol};
    use crate::gateway::connection::{Connection, Rules};
    use crate::gateway::places::Places;
    use crate::gateway::socket::Socket;

    const HEADER: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(5);

    async fn connection(protocol: Protocol) -> Connection {
        let place = Arc::new(Places::new(1)).take(&Arc::default()).await.unwrap();
        let arrived = Arrived { socket: Socket::Closed, protocol, peer: ([192, 0, 2, 1], 443).into() };
        Connection::new(arrived, Moment(0), Moment(0), place, &Rules::default())
    }

    /// A client that takes the last of an answer slowly is not idle, nor does it have to leave.
    #[tokio::test]
    async fn the_end_of_an_answer_may_take_longer_than_an_idle_connection() {
        let after = |time: Duration| Moment(0).plus(time);
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let connection = connection(protocol).await;
            let (waits, _) = connection.begin();
            let _ = connection.lock().wrote(Poll::Pending);
            connection.end(&waits, Moment(0));
            let mut now = Duration::ZERO;
            while now < 10 * IDLE {
                now += IDLE - Duration::from_secs(1);
                connection.tick(after(now));
                let look = connection.look(after(now), HEADER, IDLE);
                assert!(matches!(look, Look::Again(_)), "{look:?} after {now:?}");
                let _ = connection.lock().wrote(Poll::Ready(Ok(10_000)));
                let _ = connection.lock().wrote(Poll::Pending);
            }
            connection.tick(after(now));
            let _ = connection.lock().wrote(Poll::Ready(Ok(100)));
            let look = connection.look(after(now + IDLE - Duration::from_secs(1)), HEADER, IDLE);
            assert!(matches!(look, Look::Again(_) | Look::Rest(_)), "{look:?}");
            assert_eq!(connection.look(after(now + IDLE), HEADER, IDLE), Look::Goodbye);
        }
    }

    /// One that takes nothing has no more time for it than to be idle.
    #[tokio::test]
    async fn an_answer_whose_end_nobody_takes_is_given_up() {
        let connection = connection(Protocol::Http1).await;
        let (waits, _) = connection.begin();
        let _ = connection.lock().wrote(Poll::Pending);
        connection.end(&waits, Moment(0));
        let look = connection.look(Moment(0).plus(IDLE / 2), HEADER, IDLE);
        assert!(matches!(look, Look::Again(_)), "{look:?}");
        assert_eq!(connection.look(Moment(0).plus(IDLE), HEADER, IDLE), Look::Over);
    }
}
