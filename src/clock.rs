//! Reads the machine's clocks; no other file does.
//!
//! Limits and deadlines use [`Moment`], which is monotonic; files, operators and expiry dates use [`WallTime`].
//! A test clock stands still until it is advanced.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::types::{Moment, WallTime, nanos};

/// The first moment, in nanoseconds: not zero, so that moments of the past two years can be expressed.
const ORIGIN: u64 = 1 << 56;

/// A source of monotonic time and wall time. Cheap to clone; all clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    System { start: Instant },
    Test { moment: Arc<AtomicU64>, wall: Arc<AtomicI64> },
}

impl Clock {
    /// A clock that reads the machine's clocks.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads clocks")]
    pub fn system() -> Self {
        Self(Kind::System { start: Instant::now() })
    }

    /// A clock that stands still until [`Clock::advance`]d.
    #[must_use]
    pub fn test(wall: WallTime) -> Self {
        let moment = Arc::new(AtomicU64::new(ORIGIN));
        Self(Kind::Test { moment, wall: Arc::new(AtomicI64::new(wall.0)) })
    }

    /// The current moment, for limits and durations.
    #[must_use]
    pub fn now(&self) -> Moment {
        match &self.0 {
            Kind::System { start } => Moment(ORIGIN.saturating_add(nanos(start.elapsed()))),
            Kind::Test { moment, .. } => Moment(moment.load(Ordering::SeqCst)),
        }
    }

    /// The current wall time, for operators and files.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads clocks")]
    pub fn wall(&self) -> WallTime {
        match &self.0 {
            Kind::System { .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                WallTime(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
            Kind::Test { wall, .. } => WallTime(wall.load(Ordering::SeqCst)),
        }
    }

    /// Converts a moment to an [`Instant`] of the standard library; a test clock returns the current instant.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads clocks")]
    pub fn instant(&self, moment: Moment) -> Instant {
        match &self.0 {
            Kind::System { start } => *start + Duration::from_nanos(moment.0.saturating_sub(ORIGIN)),
            Kind::Test { .. } => Instant::now(),
        }
    }

    /// Spins until a moment, for waits that are shorter than a sleep. Returns immediately for a test clock.
    pub fn busy_until(&self, moment: Moment) {
        while matches!(self.0, Kind::System { .. }) && self.now() < moment {
            std::hint::spin_loop();
        }
    }

    /// Advances a test clock; does nothing to a system clock.
    pub fn advance(&self, by: Duration) {
        if let Kind::Test { moment, wall } = &self.0 {
            moment.fetch_add(nanos(by), Ordering::SeqCst);
            wall.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }

    /// Sets a test clock's wall time, like an administrator who sets the machine's clock; moments do not change.
    pub fn set_wall(&self, to: WallTime) {
        if let Kind::Test { wall, .. } = &self.0 {
            wall.store(to.0, Ordering::SeqCst);
        }
    }
}

/// A worker's coarse clock: reads the clock once per poll of a task, which takes microseconds, and returns that
/// time until the next poll.
#[derive(Debug)]
pub struct CoarseClock {
    clock: Clock,
    now: Cell<Moment>,
    wall: Cell<WallTime>,
    /// When the wall clock was last read.
    wall_read: Cell<Moment>,
}

impl CoarseClock {
    /// Largest age of the wall time: an expiry date takes effect at most this late.
    const WALL_AGE: Duration = Duration::from_millis(1);

    /// Starts with the current time.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let (now, wall) = (Cell::new(clock.now()), Cell::new(clock.wall()));
        Self { wall_read: Cell::new(now.get()), clock, now, wall }
    }

    /// Reads the clock, at the start of a poll.
    pub fn refresh(&self) -> Moment {
        let now = self.clock.now();
        self.now.set(now);
        now
    }

    /// The moment of the current poll.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.now.get()
    }

    /// The wall time, at most 1 ms older than the current poll.
    #[must_use]
    pub fn wall(&self) -> WallTime {
        if self.now().since(self.wall_read.get()) >= Self::WALL_AGE {
            self.wall_read.set(self.now());
            self.wall.set(self.clock.wall());
        }
        self.wall.get()
    }
}
