//! Bounds a message that could come with every request: the first is said, further ones are counted.

use std::time::Duration;

use super::Moment;

/// How often a message that repeats itself is said again, with how many were left out.
const EVERY: Duration = Duration::from_secs(10);

/// When a message was last said, and how many more there were since.
#[derive(Clone, Copy, Debug, Default)]
pub struct Repeats {
    said: Option<Moment>,
    left_out: u64,
}

impl Repeats {
    /// The message comes once more: `Some` where it is to be said, with how many were left out before it.
    pub fn says(&mut self, now: Moment) -> Option<u64> {
        if self.said.is_some_and(|said| now.since(said) < EVERY) {
            self.left_out += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }

    /// How many were left out that nobody was told of, once it is time to tell.
    pub fn untold(&mut self, now: Moment) -> Option<u64> {
        let due = self.left_out > 0 && self.said.is_some_and(|said| now.since(said) >= EVERY);
        due.then(|| self.says(now)).flatten()
    }

    /// Whether nothing is to be told any more.
    #[must_use]
    pub fn is_over(&self, now: Moment) -> bool {
        self.left_out == 0 && self.said.is_none_or(|said| now.since(said) >= EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_and_the_rest_is_counted() {
        let (mut repeats, start) = (Repeats::default(), Moment(1));
        assert!(repeats.is_over(start));
        assert_eq!(repeats.says(start), Some(0));
        for _ in 0..1000 {
            assert_eq!(repeats.says(start.plus(EVERY / 2)), None);
        }
        assert_eq!(repeats.untold(start.plus(EVERY / 2)), None);
        assert_eq!(repeats.untold(start.plus(EVERY)), Some(1000));
        assert_eq!(repeats.says(start.plus(EVERY)), None);
        assert_eq!(repeats.says(start.plus(EVERY * 2)), Some(1));
        assert_eq!(repeats.untold(start.plus(EVERY * 3)), None);
        assert!(repeats.is_over(start.plus(EVERY * 3)));
    }
}
