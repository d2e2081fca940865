//! Decides a GCRA limit with the governor crate, on a state that the caller passes in.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use super::definition::LimitStatus;

/// A clock that always reads zero. governor measures time from the start of its limiter. Each check creates a
/// limiter that starts now, and passes it the state as the time from now to the theoretical arrival time.
#[derive(Clone, Debug)]
struct Now;

impl Clock for Now {
    type Instant = Nanos;
    fn now(&self) -> Nanos {
        Nanos::from(0)
    }
}

/// A state store for one check: `before` is read, and the new state is written to `after`. Times are from now.
struct Ahead {
    before: Nanos,
    after: Cell<Option<Nanos>>,
}

impl StateStore for Ahead {
    type Key = NotKeyed;
    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (outcome, after) = decide(Some(self.before))?;
        self.after.set(Some(after));
        Ok(outcome)
    }
}

pub(super) fn peek(arrival: u64, interval: u64, burst: u32, now: u64) -> LimitStatus {
    let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
    let interval = Duration::from_nanos(interval.max(1));
    // `with_period` fails only for a period of zero.
    let quota = Quota::with_period(interval).unwrap_or(Quota::per_second(burst)).allow_burst(burst);
    let state = Ahead { before: arrival.saturating_sub(now).into(), after: Cell::new(None) };
    let limiter = RateLimiter::<_, _, _, StateInformationMiddleware>::new(quota, state, Now);
    match limiter.check() {
        Ok(snapshot) => {
            let remaining = snapshot.remaining_burst_capacity();
            let ahead = limiter.into_state_store().after.get().map_or(0, Nanos::as_u64);
            LimitStatus {
                admitted: true,
                remaining,
                after: Duration::from_nanos(ahead),
                next: now.saturating_add(ahead),
            }
        }
        Err(refused) => LimitStatus {
            admitted: false,
            remaining: 0,
            after: refused.wait_time_from(Nanos::from(0)),
            next: arrival,
        },
    }
}

/// Converts a theoretical arrival time from the old interval per request to the new one. The number of used
/// requests stays the same, rounded up to a nanosecond.
pub(super) fn rescale(arrival: u64, now: u64, old: u64, new: u64) -> u64 {
    let ahead = u128::from(arrival.saturating_sub(now));
    let scaled = (ahead * u128::from(new)).div_ceil(u128::from(old.max(1)));
    now.saturating_add(u64::try_from(scaled).unwrap_or(u64::MAX))
}
