//! Limits how often a log message is logged that could otherwise be logged for every request.

use std::time::Duration;

use super::Moment;

/// Shortest time between two logged messages. Messages in between are left out and counted.
const EVERY: Duration = Duration::from_secs(10);

/// The time at which a message was last logged, and how often it has been left out since.
#[derive(Clone, Copy, Debug, Default)]
pub struct Repeats {
    last_logged: Option<Moment>,
    left_out: u64,
}

impl Repeats {
    /// Counts a message. Returns `Some` if it must be logged, with the number of messages left out before it.
    pub fn should_log(&mut self, now: Moment) -> Option<u64> {
        if self.last_logged.is_some_and(|logged| now.since(logged) < EVERY) {
            self.left_out += 1;
            return None;
        }
        self.last_logged = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }

    /// The number of messages left out since the last one was logged, if any, once `EVERY` has passed since
    /// then. The number is then reset.
    pub fn suppressed(&mut self, now: Moment) -> Option<u64> {
        let due = self.left_out > 0 && self.last_logged.is_some_and(|logged| now.since(logged) >= EVERY);
        due.then(|| self.should_log(now)).flatten()
    }

    /// True if no messages were left out and the last one was logged at least `EVERY` ago.
    #[must_use]
    pub fn is_over(&self, now: Moment) -> bool {
        self.left_out == 0 && self.last_logged.is_none_or(|logged| now.since(logged) >= EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_logged_and_the_rest_is_counted() {
        let (mut repeats, start) = (Repeats::default(), Moment(1));
        assert!(repeats.is_over(start));
        assert_eq!(repeats.should_log(start), Some(0));
        for _ in 0..1000 {
            assert_eq!(repeats.should_log(start.plus(EVERY / 2)), None);
        }
        assert_eq!(repeats.suppressed(start.plus(EVERY / 2)), None);
        assert_eq!(repeats.suppressed(start.plus(EVERY)), Some(1000));
        assert_eq!(repeats.should_log(start.plus(EVERY)), None);
        assert_eq!(repeats.should_log(start.plus(EVERY * 2)), Some(1));
        assert_eq!(repeats.suppressed(start.plus(EVERY * 3)), None);
        assert!(repeats.is_over(start.plus(EVERY * 3)));
    }
}
