//! Refills the accounts on plans with a refill, when it is due, and tops up accounts by saved cards.

use std::sync::Arc;
use std::time::Duration;

use super::Control;
use super::operations::Result;
use crate::ledger::store::{DueRefill, RefillState};
use crate::ledger::{RefillOrder, RefillWhat};
use crate::snapshot::{AccountStatus, Plan, Snapshot};
use crate::types::{NameId, Repeats, WallTime};

/// How often due refills are looked for.
const EVERY: Duration = Duration::from_secs(1);
/// Most accounts that are refilled in one transaction, so that others need not wait long for the books thread.
const AT_ONCE: usize = 256;
/// Most transactions before a start or another operation goes on. The rest follows in the background.
const MAX_ROUNDS: usize = 8;
/// Most refills that are made up for at once: those of a month, if there is one each hour.
const MAX_PERIODS: u64 = 744;
/// When to look again at an account that the configuration does not have, in milliseconds.
const ABSENT_EVERY: i64 = 3_600_000;

impl Control {
    /// Refills accounts when it is due, until it is cancelled.
    pub async fn refill_accounts(self: Arc<Self>) {
        let mut failures = Repeats::default();
        loop {
            tokio::time::sleep(EVERY).await;
            let alone = self.changes.lock().await; // otherwise a plan could change in the meantime
            let refilled = self.refill_due().await;
            drop(alone);
            if let Err(error) = refilled
                && let Some(more) = failures.should_log(self.clock.now())
            {
                tracing::error!(%error, more, "accounts could not be refilled; trying again");
            }
        }
    }

    /// Tops up accounts by saved cards when their balance is low, until it is cancelled.
    pub async fn top_up_accounts(self: Arc<Self>) {
        let mut failures = Repeats::default();
        loop {
            tokio::time::sleep(EVERY).await;
            if self.snapshot().settings.stripe.is_some()
                && let Err(error) = self.top_up_due().await
                && let Some(more) = failures.should_log(self.clock.now())
            {
                tracing::error!(%error, more, "accounts could not be topped up; trying again");
            }
        }
    }

    /// Takes back what payments that are asked back still miss, once an account has it, until it is cancelled.
    pub async fn take_back_missing(self: Arc<Self>) {
        let mut failures = Repeats::default();
        loop {
            tokio::time::sleep(EVERY).await;
            if self.snapshot().settings.stripe.is_some()
                && let Err(error) = self.take_missing().await
                && let Some(more) = failures.should_log(self.clock.now())
            {
                tracing::error!(%error, more, "credits could not be taken back; trying again");
            }
        }
    }

    /// Refills the accounts whose refill is due at a start. If that fails, it is tried again in the background.
    pub async fn refill_at_start(&self) {
        let _alone = self.changes.lock().await;
        self.refill_now().await;
    }

    /// Refills the accounts whose refill is due after a change, while the caller holds the lock of changes. If that fails, it
    /// is tried again in the background.
    pub(super) async fn refill_now(&self) {
        if let Err(error) = self.refill_due().await {
            tracing::debug!(%error, "accounts could not be refilled yet");
        }
    }

    /// Refills the accounts whose refill is due, or the first of them if there are many.
    async fn refill_due(&self) -> Result<()> {
        if !self.bookkeeper.leads() || self.snapshot().plans.values().all(|plan| plan.refill.is_none()) {
            return Ok(()); // accounts stay listed as due, for a plan that gets a refill
        }
        for _ in 0..MAX_ROUNDS {
            let now = self.clock.wall();
            let due = self.read(move |reader| Ok(reader.due_refills(now, AT_ONCE)?)).await?;
            if due.is_empty() {
                break;
            }
            let (view, is_last) = (self.snapshot(), due.len() < AT_ONCE);
            let orders = due.into_iter().map(|due| self.order(&view, due, now)).collect();
            self.bookkeeper.refill(orders).await?;
            if is_last {
                break;
            }
        }
        Ok(())
    }

    fn order(&self, view: &Snapshot, due: DueRefill, now: WallTime) -> RefillOrder {
        let DueRefill { num, account, created, plan, refilled } = due;
        let stored = self.directory.account(&account).and_then(|account| account.stored_plan());
        let is_served = matches!(view.account_status(num, stored), AccountStatus::Served(_));
        let of_plan = view.plans.get(&NameId::of(&plan)).filter(|_| is_served);
        let what = match of_plan {
            None => {
                let due = Some(WallTime(now.0.saturating_add(ABSENT_EVERY)));
                RefillWhat::Wait(RefillState { due, refilled: None, is_absent: true })
            }
            Some(plan) => refill_now(plan, created, refilled, now),
        };
        RefillOrder { num, account, plan, what }
    }
}

/// What to do about an account on a plan. `anchor`: when the account was created. `refilled`: the start of the last period
/// that was refilled.
fn refill_now(plan: &Plan, anchor: WallTime, refilled: Option<WallTime>, now: WallTime) -> RefillWhat {
    let wait = |due, refilled| RefillWhat::Wait(RefillState { due, refilled, is_absent: false });
    let Some(refill) = &plan.refill else { return wait(None, None) };
    if now < anchor {
        return wait(Some(anchor), refilled); // the clock is wrong
    }
    let Some(period) = refill.calendar.period(anchor, now) else { return wait(None, refilled) };
    let last = refilled.and_then(|refilled| refill.calendar.period(anchor, refilled));
    match last.map_or(1, |last| period.number.saturating_sub(last.number)) {
        periods @ 1.. => {
            let periods = periods.unsigned_abs();
            if periods > MAX_PERIODS {
                let (plan, made_up) = (&plan.name, MAX_PERIODS);
                tracing::warn!(plan, periods, made_up, "too many refills were missed to make up for all");
            }
            RefillWhat::Refill(Arc::clone(refill), period, periods.min(MAX_PERIODS))
        }
        // The clock was set back a little: the last refill counts.
        -1..=0 => wait(last.map(|last| last.end), refilled),
        // It was ahead by more than a period before, and is right now.
        _ => wait(Some(period.end), Some(period.start)),
    }
}
