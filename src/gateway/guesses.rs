//! Keys that did not work, by client address: who guesses is kept from guessing on.
//!
//! A request whose key works costs one look at a number here, unless somebody failed lately.

use std::net::IpAddr;
use std::time::Duration;

use super::addresses::ByAddress;
use super::limits::counted;
use crate::types::{Moment, nanos};

const MINUTE: Duration = Duration::from_secs(60);

/// When all failures of an address are paid for, at so many a minute.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    paid: ByAddress<Moment>,
}

impl Guesses {
    /// Whether an address may try a key.
    ///
    /// # Errors
    /// The whole seconds until it may again.
    pub(super) fn may_try(&self, address: IpAddr, per_minute: u32, now: Moment) -> Result<(), u64> {
        if per_minute == 0 || self.paid.is_empty() {
            return Ok(());
        }
        let paid = self.paid.get(&counted(address)).unwrap_or(now);
        let ahead = paid.since(now) + cost(per_minute);
        match ahead.checked_sub(MINUTE).filter(|wait| !wait.is_zero()) {
            Some(wait) => Err(wait.as_secs() + 1),
            None => Ok(()),
        }
    }

    /// A key of this address did not work.
    pub(super) fn failed(&self, address: IpAddr, per_minute: u32, now: Moment) {
        if per_minute == 0 {
            return;
        }
        let fails = |paid: &mut Moment| {
            *paid = Moment(paid.0.max(now.0).saturating_add(nanos(cost(per_minute))));
        };
        // Beyond the bound nobody new is counted: there are that many who are.
        let _ = self.paid.update(counted(address), || now, fails);
    }

    /// Forgets whose failures are paid for.
    pub(super) fn sweep(&self, now: Moment) {
        self.paid.sweep_some(|_, paid| *paid > now);
    }
}

fn cost(per_minute: u32) -> Duration {
    MINUTE / per_minute.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessing_costs_the_guesser_and_nobody_else() {
        let (guesses, one, other) =
            (Guesses::default(), IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let now = Moment(1_000_000_000_000);
        for _ in 0..60 {
            assert_eq!(guesses.may_try(one, 60, now), Ok(()));
            guesses.failed(one, 60, now);
        }
        assert_eq!(guesses.may_try(one, 60, now), Err(2));
        assert_eq!(guesses.may_try(other, 60, now), Ok(()));
        assert_eq!(guesses.may_try(one, 0, now), Ok(()), "no limit");
        let later = now.plus(Duration::from_secs(2));
        assert_eq!(guesses.may_try(one, 60, later), Ok(()));
        guesses.failed(one, 60, later);
        guesses.failed(one, 60, later);
        assert!(guesses.may_try(one, 60, later).is_err());
        for _ in 0..32 {
            guesses.sweep(now.plus(MINUTE * 3));
        }
        assert!(guesses.paid.is_empty());
    }
}
