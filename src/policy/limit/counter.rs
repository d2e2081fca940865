//! Counts the requests of one limit: alone, or together with the other gateways of a fleet.

use std::time::Duration;

use super::definition::{Limit, LimitStatus, Rate};
use super::share::{Answer, Ask, Peeked, Share, least_age};
use super::state::LimitState;
use crate::types::Moment;

/// What a limit has counted here, and its share of what a fleet counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// What this gateway has counted.
    pub own: LimitState,
    /// Its share, once it was used where a fleet counts together.
    share: Option<Box<Share>>,
}

impl From<LimitState> for Counter {
    fn from(own: LimitState) -> Self {
        Self { own, share: None }
    }
}

impl Counter {
    /// The counter of a limit that has counted nothing.
    #[must_use]
    pub fn fresh(limit: &Limit) -> Self {
        LimitState::fresh(&limit.rate()).into()
    }

    /// Checks the next request, as far as this gateway knows.
    #[must_use]
    pub fn peek(&self, limit: &Limit, now: Moment) -> LimitStatus {
        if let Some(Peeked::Decided(status)) = self.share.as_ref().map(|share| share.peek(now)) {
            return status;
        }
        let (rate, mut own) = (limit.rate(), self.own.clone());
        own.adapt(&rate, now);
        own.peek(&rate, now)
    }

    /// True if the counter has no effect any more: it can be replaced by [`Counter::fresh`].
    #[must_use]
    pub fn is_fresh(&self, now: Moment) -> bool {
        self.own.is_fresh(now) && self.share.as_ref().is_none_or(|share| share.is_reported(now))
    }

    /// Checks the next request against this gateway's share, without counting it. `id`: a number that differs from those of all
    /// shares of the limit, if it has no share yet.
    pub fn peek_share(&mut self, id: impl FnOnce() -> u64, now: Moment) -> Peeked {
        self.share.get_or_insert_with(|| Box::new(Share::new(id()))).peek(now)
    }

    /// Checks the next request against this gateway's part of the limit, while the store does not answer. `gateways`: how many
    /// there are.
    pub fn peek_alone(&mut self, rate: &Rate, gateways: u32, now: Moment) -> LimitStatus {
        let part = rate.part(gateways);
        self.own.adapt(&part, now);
        self.own.peek(&part, now)
    }

    /// Counts a request that was admitted, and uses the share for it. `gateways`: as for [`Counter::peek_alone`] if that admitted
    /// it, otherwise 1. Returns true if the store must be asked now, so that no request will have to wait.
    pub fn take_shared(&mut self, rate: &Rate, gateways: u32, now: Moment) -> bool {
        let part = rate.part(gateways);
        self.own.adapt(&part, now);
        self.own.count(&part, now);
        self.share.as_mut().is_some_and(|share| {
            share.take(rate, now);
            share.must_ask(now)
        })
    }

    /// A request waits for the store. Returns true if it must be asked.
    pub fn wait(&mut self) -> bool {
        self.share.as_mut().is_some_and(|share| share.wait())
    }

    /// True if the store must be asked now, or something must be reported to it; `None` if it knows everything.
    pub fn must_ask(&mut self, now: Moment) -> Option<bool> {
        let share = self.share.as_mut()?;
        let must = share.must_ask(now);
        (must || !share.is_reported(now)).then_some(must)
    }

    /// The message to the store, and what this gateway counted before it opened the share. `gives_up`: everything is given back.
    pub fn ask(&mut self, rate: &Rate, gives_up: bool, now: Moment) -> Option<(Ask, Vec<(Duration, u32)>)> {
        let share = self.share.as_mut()?;
        let ask = share.ask(rate.most(), gives_up, now);
        let mut history = Vec::new();
        if ask.opens {
            self.own.adapt(rate, now);
            let mut reported = u32::try_from(share.unconfirmed()).unwrap_or(u32::MAX);
            for (age, n) in self.own.history(now) {
                let rest = n.saturating_sub(reported);
                reported = reported.saturating_sub(n);
                history.extend((rest > 0).then_some((least_age(age), rest)));
            }
        }
        Some((ask, history))
    }

    /// True if the store, which did not answer, is asked again now; then it counts as asked.
    pub fn probe(&mut self, now: Moment) -> bool {
        self.share.as_mut().is_some_and(|share| share.probe(now))
    }

    /// Takes in the answer to a message.
    pub fn answered(&mut self, ask: &Ask, answer: Answer, now: Moment) {
        if let Some(share) = &mut self.share {
            share.answered(ask, answer, now);
        }
    }

    /// There is no answer to a message.
    pub fn unanswered(&mut self, now: Moment) {
        if let Some(share) = &mut self.share {
            share.unanswered(now);
        }
    }
}
