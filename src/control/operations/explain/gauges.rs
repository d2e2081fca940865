//! How much of each limit a key has left now.

use crate::control::Control;
use crate::control::operations::caller::{Caller, Permission};
use crate::control::operations::error::{OperationError, Result};
use crate::control::operations::terms::LimitTerms;
use crate::directory::Slots;
use crate::policy::limit::{Counter, Limit, Scope};
use crate::snapshot::{AccountStatus, limits_of};
use crate::types::{KeyId, RouteNum};

/// A limit of a key, and what is left of it.
#[derive(Clone, Debug)]
pub struct LimitGauge {
    /// The limit.
    pub limit: LimitTerms,
    /// Requests that it admits now; `None` if that depends on the route or the client's address.
    pub left: Option<u32>,
}

impl Control {
    /// The limits that apply to a key, with what is left of each; none for a key that is in use nowhere.
    ///
    /// # Errors
    /// If there is no such key.
    pub async fn limit_gauges(&self, caller: &Caller, id: KeyId) -> Result<Vec<LimitGauge>> {
        let (row, _) = self.key_of(caller, Permission::ReadAccounts, id).await?;
        let hash = self.in_force.load().keys.get(&row.id).map(|listed| listed.hash);
        let hash = hash.or_else(|| row.secrets.first().map(|secret| secret.hash));
        let Some(key) = hash.and_then(|hash| self.directory.find(&hash)) else { return Ok(Vec::new()) };
        let view = self.snapshot();
        let AccountStatus::Served(plan) = view.account_status(key.account.num, key.account.stored_plan())
        else {
            return Err(OperationError::Missing(format!("there is no key {id}")));
        };
        let own = key.limits().map(|limits| &**limits);
        let gauge = |limit: &Limit| {
            let left = match limit.scope {
                Scope::Key => Some(self.left(limit, key.used_meter().map(|meter| meter.lock().clone()))),
                Scope::Account => Some(self.left(limit, Some(key.account.meter().lock().clone()))),
                Scope::KeyRoute | Scope::Address => None,
            };
            LimitGauge { limit: LimitTerms::of(limit), left }
        };
        Ok(limits_of(own, plan).map(gauge).collect())
    }

    fn left(&self, limit: &Limit, slots: Option<Slots>) -> u32 {
        let now = self.clock.now();
        let slots = slots.unwrap_or_default();
        let known = slots.iter().find(|slot| slot.limit == limit.id && slot.route == RouteNum(0));
        let counter = known.map_or_else(|| Counter::fresh(limit), |slot| slot.counter.clone());
        let status = counter.peek(limit, now);
        if status.admitted { status.remaining.saturating_add(1) } else { 0 }
    }
}
