//! The minimum data rate of a client, as an allowance of waiting time.

use std::time::Duration;

use crate::types::Moment;

/// Minimum data rate of a client, in bytes a second. A client below it uses up its allowance in the end,
/// however evenly it sends or reads.
pub(super) const MIN_RATE: u32 = 256;

/// The total time that a client made the gateway wait. Each byte that the client sends or reads reduces
/// it, at [`MIN_RATE`].
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::gateway::connection) struct SlowClientAllowance {
    waiting_since: Option<Moment>,
    spent: Duration,
}

impl SlowClientAllowance {
    /// Starts to wait for the client, unless the gateway already does.
    pub(in crate::gateway::connection) fn start_waiting(&mut self, now: Moment) {
        self.waiting_since.get_or_insert(now);
    }

    /// Stops waiting: the client sent or read this many bytes.
    pub(in crate::gateway::connection) fn stop_waiting(&mut self, now: Moment, bytes: usize) {
        if let Some(since) = self.waiting_since.take() {
            self.spent += now.since(since);
        }
        if !self.spent.is_zero() {
            let paid = u32::try_from(bytes).unwrap_or(u32::MAX);
            self.spent = self.spent.saturating_sub(Duration::from_secs(1) * paid / MIN_RATE);
        }
    }

    /// Counts bytes that the client read while the gateway still waits: its estimated share of the bytes
    /// that were written to the connection.
    pub(super) fn pay_back(&mut self, now: Moment, bytes: usize) {
        if let Some(since) = &mut self.waiting_since {
            let paid = Duration::from_secs(1) * u32::try_from(bytes).unwrap_or(u32::MAX) / MIN_RATE;
            let rest = paid.saturating_sub(self.spent);
            self.spent = self.spent.saturating_sub(paid);
            *since = since.plus(rest).min(now);
        }
    }

    /// Stops waiting and sets the total time to zero.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// True while the gateway waits for the client.
    pub(in crate::gateway::connection) fn is_waiting(&self) -> bool {
        self.waiting_since.is_some()
    }

    /// The rest of the `allowed` waiting time; `None` if it is used up, [`Duration::MAX`] while the
    /// gateway does not wait for the client.
    pub(in crate::gateway::connection) fn time_left(
        &self,
        now: Moment,
        allowed: Duration,
    ) -> Option<Duration> {
        let Some(since) = self.waiting_since else { return Some(Duration::MAX) };
        allowed.checked_sub(self.spent + now.since(since)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// The second in which a client that moves this many bytes a second uses up an allowance of 60 s;
    /// `None` if it does not within ten minutes.
    fn given_up_after(bytes_a_second: usize) -> Option<u64> {
        let mut allowance = SlowClientAllowance::default();
        (0..600).find(|second| {
            allowance.start_waiting(Moment(second * SECOND));
            let now = Moment((second + 1) * SECOND);
            let is_over = allowance.time_left(now, Duration::from_secs(60)).is_none();
            allowance.stop_waiting(now, bytes_a_second);
            is_over
        })
    }

    #[test]
    fn a_client_below_the_minimum_rate_is_given_up_and_one_at_it_never_is() {
        assert_eq!(given_up_after(0), Some(59));
        assert_eq!(given_up_after(1), Some(60));
        assert_eq!(given_up_after(MIN_RATE as usize / 2), Some(118));
        assert_eq!(given_up_after(MIN_RATE as usize), None);
    }
}
