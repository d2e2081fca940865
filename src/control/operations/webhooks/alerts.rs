//! Sets when an account is told that its credits run low.

use serde_json::json;

use super::Alerts;
use crate::control::Control;
use crate::control::operations::caller::{Caller, Noted, Permission};
use crate::control::operations::error::{OperationError, Result};
use crate::types::{AccountId, Credits};

/// Most balances of one account.
const MAX_THRESHOLDS: usize = 10;

impl Control {
    /// Reads when an account is told about its balance.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn alerts(&self, caller: &Caller, account: AccountId) -> Result<Alerts> {
        caller.may_in(Permission::ReadAccounts, &account)?;
        let credits_low = self.read_webhooks(move |webhooks| Ok(webhooks.thresholds(&account)?)).await?;
        Ok(Alerts { credits_low })
    }

    /// Sets when an account is told about its balance, also one of the configuration file.
    ///
    /// # Errors
    /// If there is no such account, or a balance is not positive.
    pub async fn set_alerts(
        &self,
        caller: &Caller,
        account: AccountId,
        mut alerts: Alerts,
    ) -> Result<Alerts> {
        caller.may_in(Permission::Alerts, &account)?;
        if alerts.credits_low.len() > MAX_THRESHOLDS {
            return OperationError::invalid(
                "credits_low",
                format!("there are at most {MAX_THRESHOLDS} balances"),
            );
        }
        if alerts.credits_low.iter().any(|credits| *credits <= Credits::ZERO) {
            return OperationError::invalid("credits_low", "a balance is more than 0 credits");
        }
        alerts.credits_low.sort_unstable();
        alerts.credits_low.dedup();
        let _alone = self.changes.lock().await;
        let before = self.alerts(&Caller::command(), account.clone()).await?;
        let (object, wanted) = (format!("account/{account}"), alerts.credits_low.clone());
        let (notes, output) = caller.noted("account.alerts", move |()| {
            let terms = |alerts: &Alerts| Some(json!({ "credits_low": alerts.credits_low }));
            let (before, after) = (terms(&before), terms(&alerts));
            Noted { object: object.clone(), before, after, output: alerts.clone() }
        });
        let change = self
            .bookkeeper
            .webhooks(move |webhooks, at| webhooks.set_thresholds(&account, &wanted, &notes, at));
        change.await?;
        output.take()
    }
}
