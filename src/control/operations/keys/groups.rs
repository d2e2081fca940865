//! Groups of an account's keys, which have a spending limit together: a team, an environment.

use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::control::Control;
use crate::control::operations::caller::{Caller, Noted, Permission};
use crate::control::operations::error::{OperationError, Result};
use crate::control::operations::terms::{SpendTerms, spending_schema};
use crate::ledger::store::{Changed, GroupRow};
use crate::types::{AccountId, Credits, GroupName};

/// The terms of a group.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GroupTerms)]
pub struct GroupInput {
    /// The most credits that the group's keys may spend together: in all, or in each period as
    /// `{"credits": 100, "every": "day"}`. What they have spent in the group counts, in the period or in all; but a limit with
    /// another period begins to count now.
    #[schema(schema_with = spending_schema)]
    pub spend_limit: SpendTerms,
}

/// A group of an account's keys.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Group)]
pub struct GroupView {
    /// The account.
    #[schema(value_type = String)]
    pub account: AccountId,
    /// The group's name.
    #[schema(value_type = String)]
    pub name: GroupName,
    /// The most credits that the group's keys may spend together, in all or in each period.
    #[schema(schema_with = spending_schema)]
    pub spend_limit: Option<SpendTerms>,
    /// The credits that keys have spent in the group, as of some seconds ago.
    #[schema(value_type = f64)]
    pub spent: Credits,
    /// The part of them that counts against the limit.
    #[schema(value_type = f64)]
    pub spent_in_period: Credits,
    /// How many keys are in it, without revoked ones.
    pub keys: usize,
}

impl GroupView {
    fn of(row: &GroupRow, account: &AccountId) -> Self {
        Self {
            account: account.clone(),
            name: row.id.1.clone(),
            spend_limit: row.spending.limit.map(SpendTerms),
            spent: row.spending.spent,
            spent_in_period: row.spending.counted(),
            keys: row.keys,
        }
    }
}

/// All groups of an account.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Groups)]
pub struct GroupsView {
    /// The groups, in the order of their names.
    pub data: Vec<GroupView>,
}

impl Control {
    /// Lists the groups of an account.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn groups(&self, caller: &Caller, account: AccountId) -> Result<GroupsView> {
        caller.may_in(Permission::ReadAccounts, &account)?;
        let data = self.read_folded(move |reader| {
            let row = reader.account(&account)?.ok_or_else(|| account.clone())?;
            let mut data = Vec::new();
            reader.each_group(Some(row.num), &mut |group| data.push(GroupView::of(&group, &account)))?;
            Ok(data)
        });
        Ok(GroupsView { data: data.await? })
    }

    /// Sets the spending limit of a group, which is created if it does not exist.
    ///
    /// # Errors
    /// If there is no such account, it has too many groups, or the limit is out of bounds.
    pub async fn put_group(
        &self,
        caller: &Caller,
        account: AccountId,
        name: GroupName,
        input: GroupInput,
    ) -> Result<GroupView> {
        let limit = input.spend_limit.checked()?;
        self.change_group(caller, account, name, Some(limit)).await
    }

    /// Deletes a group that no key is in.
    ///
    /// # Errors
    /// If there is no such group, or keys are in it.
    pub async fn delete_group(
        &self,
        caller: &Caller,
        account: AccountId,
        name: GroupName,
    ) -> Result<GroupView> {
        self.change_group(caller, account, name, None).await
    }

    async fn change_group(
        &self,
        caller: &Caller,
        account: AccountId,
        name: GroupName,
        limit: Option<crate::policy::credit::SpendLimit>,
    ) -> Result<GroupView> {
        let _alone = self.changes.lock().await;
        caller.may_in(Permission::Keys, &account)?;
        let (owner, object) = (account.clone(), format!("group/{account}/{name}"));
        let action = if limit.is_some() { "group.change" } else { "group.delete" };
        let (notes, output) = caller.noted(action, move |changed: &Changed<Option<GroupRow>>| {
            let terms = |row: &GroupRow| {
                json!({ "account": owner, "name": row.id.1, "spend_limit": row.spending.limit.map(SpendTerms) })
            };
            let shown = changed.after.as_ref().or(changed.before.as_ref());
            Noted {
                object: object.clone(),
                before: changed.before.as_ref().map(terms),
                after: changed.after.as_ref().map(terms),
                output: shown.map(|row| GroupView::of(row, &owner)),
            }
        });
        self.bookkeeper.change_group(account, name, limit, notes).await?;
        let unstored = || OperationError::Unavailable("the ledger did not store the group".to_owned());
        output.take()?.ok_or_else(unstored)
    }
}
