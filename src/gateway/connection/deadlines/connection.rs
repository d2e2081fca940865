//! Deadlines of a connection: the longest time in each of its phases.

use std::time::Duration;

use super::request::MAX_SILENCE;
use crate::gateway::connection::scan::Scanner;
use crate::gateway::connection::state::{Connection, Inner, Phase};
use crate::types::Moment;

/// How long a connection is idle before hyper's state and buffers are dropped.
const DORMANT_AFTER: Duration = Duration::from_secs(1);
/// How long an HTTP/2 client has to close after GOAWAY.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest time between two checks while a request is served or a response is being read.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Shortest time between two checks.
const MIN_CHECK: Duration = Duration::from_millis(1);

/// What must happen to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway::connection) enum Verdict {
    /// It continues; check again after this long.
    Continue(Duration),
    /// It has been idle for [`DORMANT_AFTER`]: hyper's state can be dropped. Check again after this long.
    Dormant(Duration),
    /// A withheld head waits for a parser that accepts many fields.
    NeedsParser,
    /// It was idle for too long: close it gracefully.
    ShutDown,
    /// A deadline has passed: close it.
    Close,
}

impl Connection {
    /// Checks the deadlines of the connection and of its requests.
    ///
    /// A head must arrive within `header_timeout` of its first byte, a connection may be idle for
    /// `idle_timeout`. The latter is also the allowance of a client that sends or reads slowly, and the longest
    /// silence after a client closed its sending side. No silence is longer than [`MAX_SILENCE`].
    pub(in crate::gateway::connection) fn check_deadlines(
        &self,
        now: Moment,
        header_timeout: Duration,
        idle_timeout: Duration,
    ) -> Verdict {
        self.lock().check_deadlines(now, header_timeout, idle_timeout).unwrap_or(Verdict::Close)
    }
}

impl Inner {
    fn check_deadlines(
        &mut self,
        now: Moment,
        header_timeout: Duration,
        idle_timeout: Duration,
    ) -> Option<Verdict> {
        if self.is_key_revoked {
            return None;
        }
        if self.needs_parser() {
            return Some(Verdict::NeedsParser);
        }
        let phase = match self.check_phase(now, header_timeout, idle_timeout)? {
            Verdict::Continue(left) => left,
            verdict => return Some(verdict),
        };
        let mut left = phase.min(self.reading.time_left(now, idle_timeout)?);
        if let Scanner::Frames(frames) = &self.scanner
            && let Some(since) = frames.incomplete_block_since()
        {
            left = left.min(time_left(now, since, header_timeout)?);
        }
        left = left.min(self.check_requests(now, idle_timeout)?);
        Some(Verdict::Continue(left.max(MIN_CHECK)))
    }

    fn check_phase(&self, now: Moment, header_timeout: Duration, idle_timeout: Duration) -> Option<Verdict> {
        Some(Verdict::Continue(match self.phase {
            Phase::ReadingHead(since) => time_left(now, since, header_timeout)?,
            // The client is still reading the end of a response.
            Phase::Idle(_) | Phase::ShuttingDown(_) if self.reading.is_waiting() => CHECK_EVERY,
            Phase::Idle(since) => match time_left(now, since, idle_timeout) {
                Some(left) if now.since(since) < DORMANT_AFTER => left.min(DORMANT_AFTER - now.since(since)),
                Some(left) if self.may_be_dormant() => return Some(Verdict::Dormant(left)),
                Some(left) => left,
                None => return Some(Verdict::ShutDown),
            },
            Phase::Serving if self.is_client_closing && !self.half_close => return None,
            Phase::Serving => {
                let allowed = if self.is_client_closing { idle_timeout } else { MAX_SILENCE };
                time_left(now, self.last_activity, allowed)?.min(CHECK_EVERY)
            }
            Phase::ShuttingDown(since) => time_left(now, since, SHUTDOWN_TIMEOUT)?,
        }))
    }

    /// Checks the requests in flight. A request whose time is up ends alone over HTTP/2, with its connection
    /// over HTTP/1.1.
    fn check_requests(&mut self, now: Moment, idle_timeout: Duration) -> Option<Duration> {
        let mut written = std::mem::take(&mut self.written);
        if let Scanner::Frames(frames) = &mut self.scanner {
            let readers = self.requests.iter().filter(|request| request.is_client_reading()).count();
            written = written.saturating_sub(frames.take_ack_bytes()) / readers.max(1);
        }
        let mut next = Duration::MAX;
        for request in &self.requests {
            match (request.time_left(now, idle_timeout, written), &self.scanner) {
                (Some(left), _) => {
                    if left.is_zero() {
                        request.wake();
                    }
                    next = next.min(left);
                }
                (None, Scanner::Heads(_)) => return None,
                (None, Scanner::Frames(_)) => request.cancel(),
            }
        }
        Some(next)
    }

    /// True if a withheld head needs another parser, and the current parser is done with all requests before
    /// it. A parser that is about to close the connection is not replaced.
    fn needs_parser(&self) -> bool {
        let is_quiet = self.phase != Phase::Serving && !self.is_closing && !self.reading.is_waiting();
        is_quiet && matches!(&self.scanner, Scanner::Heads(heads) if heads.withholds_head())
    }

    /// True if hyper's state can be dropped without losing bytes that were read or must be written. Never true
    /// for HTTP/2, whose state must last as long as the connection.
    fn may_be_dormant(&self) -> bool {
        matches!(&self.scanner, Scanner::Heads(heads) if heads.is_between_requests())
            && !self.reading.is_waiting()
    }
}

/// The time that is left of `allowed`, counted from `since`; `None` if it has passed.
fn time_left(now: Moment, since: Moment, allowed: Duration) -> Option<Duration> {
    allowed.checked_sub(now.since(since)).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;
    use crate::gateway::connection::io::socket::Socket;
    use crate::gateway::connection::protocol::{Negotiated, Protocol};
    use crate::gateway::connection::state::ConnectionSettings;

    const HEADER: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(5);

    fn connection(protocol: Protocol) -> Connection {
        let peer = ([192, 0, 2, 1], 443).into();
        let negotiated = Negotiated { socket: Socket::Closed, protocol, peer };
        let settings = ConnectionSettings::default();
        Connection::new(negotiated, Moment(0), Moment(0), Box::new(()), &settings)
    }

    /// A client that reads the end of a response slowly is not idle, so its connection is not shut down.
    #[test]
    fn reading_the_end_of_a_response_may_take_longer_than_the_idle_timeout() {
        let after = |time: Duration| Moment(0).plus(time);
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let connection = connection(protocol);
            let (request, _) = connection.start_request();
            let _ = connection.lock().bytes_written(Poll::Pending);
            connection.end_request(&request, Moment(0));
            let mut now = Duration::ZERO;
            while now < 10 * IDLE {
                now += IDLE - Duration::from_secs(1);
                connection.start_poll(after(now));
                let verdict = connection.check_deadlines(after(now), HEADER, IDLE);
                assert!(matches!(verdict, Verdict::Continue(_)), "{verdict:?} after {now:?}");
                let _ = connection.lock().bytes_written(Poll::Ready(Ok(10_000)));
                let _ = connection.lock().bytes_written(Poll::Pending);
            }
            connection.start_poll(after(now));
            let _ = connection.lock().bytes_written(Poll::Ready(Ok(100)));
            let verdict =
                connection.check_deadlines(after(now + IDLE - Duration::from_secs(1)), HEADER, IDLE);
            assert!(matches!(verdict, Verdict::Continue(_) | Verdict::Dormant(_)), "{verdict:?}");
            assert_eq!(connection.check_deadlines(after(now + IDLE), HEADER, IDLE), Verdict::ShutDown);
        }
    }

    /// A client that reads nothing is disconnected after the idle timeout.
    #[test]
    fn a_response_whose_end_the_client_does_not_read_is_given_up() {
        let connection = connection(Protocol::Http1);
        let (request, _) = connection.start_request();
        let _ = connection.lock().bytes_written(Poll::Pending);
        connection.end_request(&request, Moment(0));
        let verdict = connection.check_deadlines(Moment(0).plus(IDLE / 2), HEADER, IDLE);
        assert!(matches!(verdict, Verdict::Continue(_)), "{verdict:?}");
        assert_eq!(connection.check_deadlines(Moment(0).plus(IDLE), HEADER, IDLE), Verdict::Close);
    }
}
