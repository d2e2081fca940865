//! Creates, reads, changes and deletes accounts.

mod export;
mod import;
mod lots;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

pub use export::{Exported, ExportedKey};
pub use import::AccountLine;
pub(in crate::control) use lots::{ExpiringView, RefillView};

use super::caller::{Caller, Noted, Permission};
use super::error::{OperationError, Result};
use super::terms::{LimitTerms, Page, Patch, SpendTerms, Time, optional_spending_schema};
use crate::control::Control;
use crate::directory::Account;
use crate::ledger::store::{
    AccountChange, AccountRow, AccountState, Changed, NewAccount, Note, Notes, Source, UserEdit,
};
use crate::snapshot::AccountStatus;
use crate::types::{AccountId, Credits, NameId};

/// Longest name of an account, in characters.
const MAX_NAME: usize = 200;

/// An account to create.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewAccount)]
pub struct AccountInput {
    /// The account's id, chosen by the operator.
    #[schema(value_type = String, min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._-]+$", example = "acme")]
    pub id: AccountId,
    /// A name for people.
    #[serde(default)]
    #[schema(max_length = 200)]
    pub name: String,
    /// The plan; none if it is left out.
    #[serde(default)]
    pub plan: Option<String>,
    /// The opening grant, not negative, with at most six decimals: a number or a string.
    #[serde(default)]
    #[schema(value_type = Option<f64>, minimum = 0, example = 100)]
    pub credits: Option<Credits>,
}

/// Changes of an account. What is left out stays as it is.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AccountPatch)]
pub struct AccountPatch {
    /// A new name.
    #[serde(default)]
    #[schema(max_length = 200)]
    pub name: Option<String>,
    /// A new plan; null for none.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub plan: Patch<String>,
    /// `true` suspends the account: its keys are refused. `false` resumes it.
    #[serde(default)]
    pub suspended: Option<bool>,
}

/// An account.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Account)]
pub struct AccountView {
    /// The account's id.
    #[schema(value_type = String)]
    pub id: AccountId,
    /// A name for people; may be empty.
    pub name: String,
    /// The plan; null if it has none.
    pub plan: Option<String>,
    /// `active`, `suspended`, `closed`, or `dropped by the file` if the configuration file no longer defines it.
    pub state: &'static str,
    /// The sum of the account's entries.
    #[schema(value_type = f64)]
    pub balance: Credits,
    /// The balance by bucket.
    #[schema(value_type = BTreeMap<String, f64>)]
    pub buckets: BTreeMap<String, Credits>,
    /// The part of the balance that expires, the soonest first.
    pub expiring: Vec<ExpiringView>,
    /// What the account's plan refills, and when it does so next; null if it does not.
    pub refill: Option<RefillView>,
    /// The balance less the credits held for requests in flight.
    #[schema(value_type = f64)]
    pub available: Credits,
    /// The credits held for requests in flight.
    #[schema(value_type = f64)]
    pub held: Credits,
    /// The most credits that the account may spend, in all or in each period; null for no limit.
    #[schema(schema_with = optional_spending_schema)]
    pub spend_limit: Option<SpendTerms>,
    /// What the account has spent that counts against that limit, as of some seconds ago.
    #[schema(value_type = f64)]
    pub spent_in_period: Credits,
    /// The limits of the account's plan.
    pub limits: Vec<LimitTerms>,
    /// The URLs that events are sent to.
    pub webhooks: Vec<String>,
    /// When the ledger first saw the account.
    #[schema(value_type = String, format = DateTime)]
    pub created: Time,
    /// `file` if the configuration file defines the account, otherwise `store`.
    #[schema(value_type = String)]
    pub source: Source,
    /// Grows with each change.
    #[serde(skip)]
    pub version: u64,
}

impl Control {
    /// Creates an account.
    ///
    /// # Errors
    /// If the id is used already, or the plan does not exist.
    pub async fn create_account(&self, caller: &Caller, input: AccountInput) -> Result<AccountView> {
        let _alone = self.changes.lock().await; // otherwise a reload could remove the plan in the meantime
        self.create_account_of(caller, input, Vec::new()).await
    }

    /// Creates an account, with people whom it belongs to, while the caller holds the lock of changes.
    pub(super) async fn create_account_of(
        &self,
        caller: &Caller,
        input: AccountInput,
        people: Vec<UserEdit>,
    ) -> Result<AccountView> {
        caller.may(Permission::Manage)?;
        let new = self.new_account(caller, input)?;
        let describe = self.describer();
        let (notes, output) = caller.noted("account.create", move |rows: &Vec<AccountRow>| {
            // The ledger creates one row for one account.
            let view = rows.first().map(|row| describe.account(row));
            let object = view.as_ref().map(|view| format!("account/{}", view.id)).unwrap_or_default();
            Noted { object, before: None, after: rows.first().map(terms_of_new), output: view }
        });
        let notes: Notes<Vec<AccountRow>> = Arc::new(move |rows| {
            let people = people.iter().cloned().map(Note::User);
            notes(rows).into_iter().chain(people).collect()
        });
        self.add_accounts(vec![new], notes).await?;
        let none = || OperationError::Unavailable("the ledger did not create the account".to_owned());
        output.take()?.ok_or_else(none)
    }

    /// Checks an account that is to be created.
    fn new_account(&self, caller: &Caller, input: AccountInput) -> Result<NewAccount> {
        let AccountInput { id, name, plan, credits } = input;
        check_name(&name)?;
        self.check_plan(plan.as_deref())?;
        if credits.is_some_and(Credits::is_negative) {
            return OperationError::invalid("credits", "an opening grant is not negative");
        }
        Ok(NewAccount { id, name, plan, opening: credits.map(|credits| (credits, caller.actor.clone())) })
    }

    /// Creates accounts in the ledger, all or none, then in the directory.
    async fn add_accounts(&self, new: Vec<NewAccount>, notes: Notes<Vec<AccountRow>>) -> Result<()> {
        let mut added = Vec::new();
        for row in self.bookkeeper.create_accounts(new, notes).await? {
            let plan = row.plan.as_deref().map(NameId::of);
            added.extend(self.put_account(row, plan, Vec::new()));
        }
        self.limit_now(&added).await;
        self.refill_now().await;
        Ok(())
    }

    fn check_plan(&self, plan: Option<&str>) -> Result<()> {
        let view = self.snapshot();
        let Some(name) = plan.filter(|name| !view.plans.contains_key(&NameId::of(name))) else {
            return Ok(());
        };
        let mut known: Vec<&str> = view.plans.values().map(|plan| plan.name.as_str()).collect();
        known.sort_unstable();
        let message = format!("there is no plan `{name}` (known: {})", known.join(", "));
        OperationError::invalid("plan", message)
    }

    /// True if the current configuration serves the account: the account is in the file or was created by command, and
    /// its plan exists.
    pub(in crate::control) fn serves(&self, account: &Account) -> bool {
        let view = self.snapshot();
        matches!(view.account_status(account.num, account.stored_plan()), AccountStatus::Served(_))
    }

    /// Reads an account.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn account(&self, caller: &Caller, id: AccountId) -> Result<AccountView> {
        caller.may_in(Permission::ReadAccounts, &id)?;
        let describe = self.describer();
        let row = self.read_folded(move |reader| Ok(reader.account(&id)?.ok_or(id)?)).await;
        Ok(describe.account(&row?))
    }

    /// Reads an account for a page of the dashboard, as it was at most a second ago.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn account_now(&self, caller: &Caller, id: AccountId) -> Result<AccountView> {
        caller.may_in(Permission::ReadAccounts, &id)?;
        let describe = self.describer();
        let row = self.read_page(move |reader| Ok(reader.account(&id)?.ok_or(id)?)).await;
        Ok(describe.account(&row?))
    }

    /// Lists accounts in the order of their ids.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn accounts(
        &self,
        caller: &Caller,
        after: Option<AccountId>,
        most: usize,
    ) -> Result<Page<AccountView>> {
        caller.may(Permission::ReadAccounts)?;
        let rows = self.read(move |reader| Ok(reader.accounts(after.as_ref(), most + 1)?)).await?;
        let describe = self.describer();
        let views = rows.iter().map(|row| describe.account(row)).collect();
        Ok(Page::of(views, most, |view: &AccountView| view.id.to_string()))
    }

    /// Changes an account. `version`: the version that the change is based on; `None` for any.
    ///
    /// # Errors
    /// If there is no such account, it was changed since, the plan does not exist, or the file defines what is to be
    /// changed.
    pub async fn change_account(
        &self,
        caller: &Caller,
        id: AccountId,
        patch: AccountPatch,
        version: Option<u64>,
    ) -> Result<AccountView> {
        caller.may(Permission::Manage)?;
        let AccountPatch { name, plan, suspended } = patch;
        name.as_deref().map_or(Ok(()), check_name)?;
        let state = suspended.map(|suspended| match suspended {
            true => AccountState::Suspended,
            false => AccountState::Active,
        });
        let action = match (&name, &plan, suspended) {
            (None, Patch::Absent, Some(true)) => "account.suspend",
            (None, Patch::Absent, Some(false)) => "account.resume",
            _ => "account.change",
        };
        let _alone = self.changes.lock().await;
        let plan = plan.into_option();
        self.check_plan(plan.as_ref().and_then(Option::as_deref))?;
        if name.is_some() || plan.is_some() {
            self.refuse_file_account(&id).await?;
        }
        let change = AccountChange { version, name, plan, state };
        self.apply_to_account(caller, action, id, change).await
    }

    /// Deletes an account: revokes its keys, and closes it. Its entries stay, and its id cannot be used again.
    ///
    /// # Errors
    /// If there is no such account, it was changed since, or the file defines it.
    pub async fn delete_account(
        &self,
        caller: &Caller,
        id: AccountId,
        version: Option<u64>,
    ) -> Result<AccountView> {
        caller.may(Permission::Manage)?;
        let _alone = self.changes.lock().await;
        self.refuse_file_account(&id).await?;
        let owner = id.clone();
        let secrets = self.read(move |reader| {
            let mut hashes = Vec::new();
            crate::ledger::store::each_key(reader, Some(&owner), |row, _| {
                hashes.extend(row.secrets.iter().map(|secret| secret.hash));
                std::ops::ControlFlow::Continue(())
            })?;
            Ok(hashes)
        });
        let secrets = secrets.await?;
        let change = AccountChange { version, state: Some(AccountState::Closed), ..AccountChange::default() };
        let view = self.apply_to_account(caller, "account.delete", id, change).await?;
        secrets.iter().for_each(|hash| self.directory.remove(hash));
        Ok(view)
    }

    async fn apply_to_account(
        &self,
        caller: &Caller,
        action: &'static str,
        id: AccountId,
        change: AccountChange,
    ) -> Result<AccountView> {
        let describe = self.describer();
        let (notes, output) = caller.noted(action, move |changed: &Changed<AccountRow>| {
            let terms = |row: &AccountRow| json!({ "name": row.name, "plan": row.plan, "state": row.state });
            let Changed { before, after } = changed;
            let output = describe.account(after);
            let object = format!("account/{}", after.id);
            Noted { object, before: Some(terms(before)), after: Some(terms(after)), output }
        });
        let changed = self.bookkeeper.change_account(id, change, notes).await?;
        let row = changed.after;
        if row.source == Source::Store {
            let plan = row.plan.as_deref().map(NameId::of);
            let account = self.put_account(row, plan, Vec::new());
            self.limit_now(account.as_slice()).await;
            self.refill_now().await;
        } else if let Some(account) = self.directory.account(&row.id) {
            account.set_suspended(row.state != AccountState::Active);
        }
        output.take()
    }
}

/// What the audit log keeps of a new account.
fn terms_of_new(row: &AccountRow) -> Value {
    json!({ "name": row.name, "plan": row.plan, "credits": row.opening })
}

fn check_name(name: &str) -> Result<()> {
    if name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
        return OperationError::invalid(
            "name",
            format!("a name is at most {MAX_NAME} characters on one line"),
        );
    }
    Ok(())
}

impl From<AccountId> for OperationError {
    /// There is no account with this id.
    fn from(id: AccountId) -> Self {
        Self::Missing(format!("there is no account {id}"))
    }
}
