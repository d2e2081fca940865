//! Implements the account commands: create, list, suspend, grant, adjust.

use std::sync::Arc;

use serde_json::{Value, json};

use super::books::{aside, send};
use super::{Control, Failure, Rows, refused};
use crate::directory::Account;
use crate::ledger::entry::EntryKind;
use crate::ledger::store::{AccountRow, AccountState, Booking, each_account};
use crate::snapshot::AccountStatus;
use crate::types::{AccountId, Credits, NameId};

/// Longest reference of a booking, in characters.
const MAX_REFERENCE: usize = 200;

impl Control {
    pub(super) async fn create_account(&self, id: AccountId, plan: Option<String>) -> Result<Value, Failure> {
        let _alone = self.state.lock().await; // otherwise a reload could remove the plan in the meantime
        let view = self.snapshot();
        if let Some(name) = plan.as_ref().filter(|name| !view.plans.contains_key(&NameId::of(name))) {
            let mut known: Vec<&str> = view.plans.values().map(|plan| plan.name.as_str()).collect();
            known.sort_unstable();
            return refused(format!("there is no plan `{name}` (known: {})", known.join(", ")));
        }
        let row = self.bookkeeper.create_account(id, plan).await?;
        self.put_account(row.clone(), row.plan.as_deref().map(NameId::of), Vec::new());
        Ok(self.describe(&row))
    }

    /// True if the current configuration serves the account: the account is in the file or was created by command, and
    /// its plan exists.
    pub(super) fn serves(&self, account: &Account) -> bool {
        let view = self.snapshot();
        matches!(view.account_status(account.num, account.stored_plan()), AccountStatus::Served(_))
    }

    fn describe(&self, row: &AccountRow) -> Value {
        let account = self.directory.account(&row.id);
        let view = self.snapshot();
        let account_status =
            account.as_ref().map(|account| view.account_status(account.num, account.stored_plan()));
        let plan = match account_status {
            Some(AccountStatus::Served(plan)) => plan.map(|plan| plan.name.clone()),
            _ => None,
        };
        let available = self.bookkeeper.purse(row.num).map(|purse| purse.available());
        let held = available.and_then(|available| row.balance.checked_sub(available));
        let present = account.as_ref().is_some_and(|account| self.serves(account));
        json!({
            "id": row.id,
            "plan": plan,
            "balance": row.balance,
            "available": available,
            "held": held.map(|held| held.max(Credits::ZERO)),
            "state": if present { json!(row.state) } else { json!("dropped by the file") },
            "webhooks": account.map(|account| account.webhooks().to_vec()),
            "source": row.source,
        })
    }

    pub(super) async fn list_accounts(self: &Arc<Self>, rows: Rows) -> Result<Value, Failure> {
        let (reader, control) = (self.bookkeeper.reader().await?, Arc::clone(self));
        let count = aside(reader, move |mut reader| {
            let mut count = 0_u64;
            each_account(&mut *reader, |row| {
                count += 1;
                send(&rows, control.describe(&row))
            })?;
            Ok(count)
        });
        Ok(json!({ "accounts": count.await? }))
    }

    pub(super) async fn show_account(&self, id: AccountId) -> Result<Value, Failure> {
        match self.bookkeeper.reader().await?.account(&id)? {
            Some(row) => Ok(self.describe(&row)),
            None => refused(format!("there is no account {id}")),
        }
    }

    pub(super) async fn suspend_account(&self, id: AccountId, suspended: bool) -> Result<Value, Failure> {
        let _alone = self.state.lock().await;
        let state = if suspended { AccountState::Suspended } else { AccountState::Active };
        self.bookkeeper.set_account_state(id.clone(), state).await?;
        if let Some(account) = self.directory.account(&id) {
            account.set_suspended(suspended);
        }
        self.show_account(id).await
    }

    pub(super) async fn book(
        &self,
        account: AccountId,
        adjustment: bool,
        amount: Credits,
        reference: String,
    ) -> Result<Value, Failure> {
        let length = reference.chars().count();
        if length == 0 || length > MAX_REFERENCE || reference.chars().any(char::is_control) {
            return refused(format!("a reference is 1 to {MAX_REFERENCE} characters on one line"));
        }
        if !adjustment && amount <= Credits::ZERO {
            return refused("a grant is more than 0 credits; to take some away, adjust");
        }
        if amount.is_zero() {
            return refused("an adjustment by 0 credits changes nothing");
        }
        if reference == "opening" && !adjustment {
            return refused("the reference `opening` is that of the file's opening grant");
        }
        let kind = if adjustment { EntryKind::Adjustment } else { EntryKind::Grant };
        let booking = Booking { account, kind, amount, reference, actor: "command" };
        let booked = self.bookkeeper.book(booking).await?;
        let entry = booked.entry;
        let available = self.directory.account(&entry.account).map(|account| account.purse.available());
        Ok(json!({
            "account": entry.account,
            "entry": entry.number,
            "amount": entry.amount,
            "reference": entry.reference,
            "repeated": booked.repeated,
            "available": available,
        }))
    }
}
