//! Refills the accounts on plans with a refill, when it is due.

use std::sync::Arc;
use std::time::Duration;

use super::Control;
use super::operations::Result;
use crate::ledger::RefillOrder;
use crate::ledger::store::DueRefill;
use crate::snapshot::{AccountStatus, Plan, Snapshot};
use crate::types::{NameId, Repeats, WallTime};

/// How often due refills are looked for.
const EVERY: Duration = Duration::from_secs(1);
/// Most accounts that are refilled in one transaction, which takes the books thread some 20 ms.
const AT_ONCE: usize = 256;
/// Most transactions before a start or another operation goes on. The rest follows in the background.
const MAX_ROUNDS: usize = 8;
/// When to look again at an account that the configuration does not have, in milliseconds.
const ABSENT_EVERY: i64 = 3_600_000;

impl Control {
    /// Refills accounts when it is due, until it is cancelled.
    pub async fn refill_accounts(self: Arc<Self>) {
        let mut failures = Repeats::default();
        loop {
            tokio::time::sleep(EVERY).await;
            if let Err(error) = self.refill_due().await
                && let Some(more) = failures.should_log(self.clock.now())
            {
                tracing::error!(%error, more, "accounts could not be refilled; trying again");
            }
        }
    }

    /// Refills the accounts whose refill is due after a change. If that fails, it is tried again in the background.
    pub async fn refill_now(&self) {
        if let Err(error) = self.refill_due().await {
            tracing::debug!(%error, "accounts could not be refilled yet");
        }
    }

    /// Refills the accounts whose refill is due, or the first of them if there are many.
    async fn refill_due(&self) -> Result<()> {
        if self.snapshot().plans.values().all(|plan| plan.refill.is_none()) {
            return Ok(());
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
        let refill = of_plan.and_then(|plan| refill_now(plan, created, refilled, now));
        let again = (!is_served).then_some(WallTime(now.0.saturating_add(ABSENT_EVERY)));
        RefillOrder { num, account, plan, refill, again }
    }
}

/// The refill of a plan, the period, and the number of periods that began since the last refill.
fn refill_now(
    plan: &Plan,
    anchor: WallTime,
    refilled: Option<WallTime>,
    now: WallTime,
) -> Option<(Arc<crate::policy::credit::refill::Refill>, crate::policy::credit::refill::Period, u64)> {
    let refill = plan.refill.as_ref()?;
    let period = refill.calendar.period(anchor, now)?;
    let last = refilled.and_then(|refilled| refill.calendar.period(anchor, refilled));
    let periods = last.map_or(1, |last| period.number.saturating_sub(last.number));
    Some((Arc::clone(refill), period, u64::try_from(periods).unwrap_or_default()))
}
