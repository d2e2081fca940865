//! Limits rejected keys per client address (`failed_keys_per_minute`), so that keys cannot be guessed: a GCRA.
//!
//! While no address has a rejected key on record, a request reads only one number here.

use std::net::IpAddr;
use std::time::Duration;

use super::by_address::ByAddress;
use crate::policy::client_address::client_network;
use crate::types::{Moment, nanos};

const MINUTE: Duration = Duration::from_secs(60);

/// Rejected keys by client address.
#[derive(Debug, Default)]
pub(in crate::gateway::request) struct FailedKeys {
    /// When the debt of an address will be paid: each rejected key adds a minute divided by the limit.
    paid_at: ByAddress<Moment>,
}

impl FailedKeys {
    /// Checks that an address may try a key.
    ///
    /// # Errors
    /// The number of seconds until the address may try again.
    pub(in crate::gateway::request) fn may_try(
        &self,
        address: IpAddr,
        per_minute: u32,
        now: Moment,
    ) -> Result<(), u64> {
        if per_minute == 0 || self.paid_at.is_empty() {
            return Ok(());
        }
        let paid = self.paid_at.get(&client_network(address)).unwrap_or(now);
        let ahead = paid.since(now) + cost(per_minute);
        match ahead.checked_sub(MINUTE).filter(|wait| !wait.is_zero()) {
            Some(wait) => Err(wait.as_secs() + 1),
            None => Ok(()),
        }
    }

    /// Records a rejected key of an address.
    pub(in crate::gateway::request) fn record(&self, address: IpAddr, per_minute: u32, now: Moment) {
        if per_minute == 0 {
            return;
        }
        let add = |paid: &mut Moment| {
            *paid = Moment(paid.0.max(now.0).saturating_add(nanos(cost(per_minute))));
        };
        // Beyond the bound of addresses, new ones are not counted.
        let _ = self.paid_at.update(client_network(address), || now, add);
    }

    /// Forgets addresses without debt.
    pub(super) fn sweep(&self, now: Moment) {
        self.paid_at.sweep_some(|_, paid| *paid > now);
    }
}

fn cost(per_minute: u32) -> Duration {
    MINUTE / per_minute.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_keys_limit_their_address_and_no_other() {
        let (failed_keys, one, other) =
            (FailedKeys::default(), IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let now = Moment(1_000_000_000_000);
        for _ in 0..60 {
            assert_eq!(failed_keys.may_try(one, 60, now), Ok(()));
            failed_keys.record(one, 60, now);
        }
        assert_eq!(failed_keys.may_try(one, 60, now), Err(2));
        assert_eq!(failed_keys.may_try(other, 60, now), Ok(()));
        assert_eq!(failed_keys.may_try(one, 0, now), Ok(()), "no limit");
        let later = now.plus(Duration::from_secs(2));
        assert_eq!(failed_keys.may_try(one, 60, later), Ok(()));
        failed_keys.record(one, 60, later);
        failed_keys.record(one, 60, later);
        assert!(failed_keys.may_try(one, 60, later).is_err());
        for _ in 0..32 {
            failed_keys.sweep(now.plus(MINUTE * 3));
        }
        assert!(failed_keys.paid_at.is_empty());
    }
}
