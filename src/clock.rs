//! The only file that reads a clock.
//!
//! Limits run on [`Moment`], which never goes back; files, people and expiry dates on
//! [`WallTime`]. A test clock stands still until it is told to move.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::types::{Moment, WallTime, nanos};

/// Moments begin here rather than at zero, so that a past of two years can be expressed.
const ORIGIN: u64 = 1 << 56;

/// Tells the time. Cheap to clone; all clones agree.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    System { start: Instant },
    Test { moment: Arc<AtomicU64>, wall: Arc<AtomicI64> },
}

impl Clock {
    /// The machine's clocks.
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

    /// Now, for limits and durations.
    #[must_use]
    pub fn now(&self) -> Moment {
        match &self.0 {
            Kind::System { start } => Moment(ORIGIN.saturating_add(nanos(start.elapsed()))),
            Kind::Test { moment, .. } => Moment(moment.load(Ordering::SeqCst)),
        }
    }

    /// Now, for people and files.
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

    /// The moment as the standard library's timers name it; for a test clock, the present.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads clocks")]
    pub fn instant(&self, moment: Moment) -> Instant {
        match &self.0 {
            Kind::System { start } => *start + Duration::from_nanos(moment.0.saturating_sub(ORIGIN)),
            Kind::Test { .. } => Instant::now(),
        }
    }

    /// Keeps the processor busy until then: for less than it takes to sleep. A test clock's time does
    /// not come by waiting.
    pub fn busy_until(&self, moment: Moment) {
        while matches!(self.0, Kind::System { .. }) && self.now() < moment {
            std::hint::spin_loop();
        }
    }

    /// Moves a test clock; the system's goes by itself.
    pub fn advance(&self, by: Duration) {
        if let Kind::Test { moment, wall } = &self.0 {
            moment.fetch_add(nanos(by), Ordering::SeqCst);
            wall.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }

    /// Sets a test clock's wall time, as whoever sets a machine's clock; moments go on as before.
    pub fn set_wall(&self, to: WallTime) {
        if let Kind::Test { wall, .. } = &self.0 {
            wall.store(to.0, Ordering::SeqCst);
        }
    }
}

/// A worker's time: read once per turn of one of its tasks, then told from memory. Within a turn,
/// which takes microseconds, time stands still.
#[derive(Debug)]
pub struct Beat {
    clock: Clock,
    now: Cell<Moment>,
    wall: Cell<WallTime>,
    /// When the wall clock was last read.
    wall_read: Cell<Moment>,
}

impl Beat {
    /// How old the wall time may be: what expires, expires at most this late.
    const WALL_AGE: Duration = Duration::from_millis(1);

    /// Begins with the present time.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let (now, wall) = (Cell::new(clock.now()), Cell::new(clock.wall()));
        Self { wall_read: Cell::new(now.get()), clock, now, wall }
    }

    /// Begins a turn: reads the clock.
    pub fn tick(&self) -> Moment {
        let now = self.clock.now();
        self.now.set(now);
        now
    }

    /// The time of this turn.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.now.get()
    }

    /// The wall time of this turn.
    #[must_use]
    pub fn wall(&self) -> WallTime {
        if self.now().since(self.wall_read.get()) >= Self::WALL_AGE {
            self.wall_read.set(self.now());
            self.wall.set(self.clock.wall());
        }
        self.wall.get()
    }
}
