//! Lists and changes who has access to an account.

use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::UserView;
use crate::control::Control;
use crate::control::operations::caller::{Authority, Caller, Noted, Permission};
use crate::control::operations::error::{OperationError, Result};
use crate::control::operations::terms::Time;
use crate::ledger::store::{MemberRole, MemberRow, UserEdit};
use crate::types::AccountId;

/// Most members of one account.
pub(super) const MAX_MEMBERS: usize = 200;

/// What a member may do in an account.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[schema(as = MemberRole)]
#[serde(rename_all = "lowercase")]
pub enum MemberRoleName {
    /// Everything in the account.
    Owner,
    /// Keys and webhooks.
    Developer,
    /// Alerts and how credits are renewed.
    Billing,
    /// Reads.
    Viewer,
}

/// A user who has access to an account.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Member)]
pub struct MemberView {
    /// The account.
    #[schema(value_type = String)]
    pub account: AccountId,
    /// The user.
    pub user: UserView,
    /// What the user may do there.
    #[schema(value_type = MemberRoleName)]
    pub role: MemberRole,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Time,
}

/// A change of a member.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MemberChange {
    /// The account.
    #[schema(value_type = String)]
    pub account: AccountId,
    /// The user's id.
    pub user: String,
    /// What the user may do there now; null for nothing.
    #[schema(value_type = Option<MemberRoleName>)]
    pub role: Option<MemberRole>,
}

impl Control {
    /// Lists the members of an account, in the order of their e-mail addresses.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn members(&self, caller: &Caller, account: AccountId) -> Result<Vec<MemberView>> {
        caller.may_in(Permission::ReadAccounts, &account)?;
        if self.directory.account(&account).is_none() {
            return Err(account.into());
        }
        let rows = self.read_users(move |users| Ok(users.members(&account, MAX_MEMBERS)?)).await?;
        let view = |(member, user): (MemberRow, _)| MemberView {
            account: member.account,
            user: UserView::of(&user),
            role: member.role,
            since: Time(member.since),
        };
        Ok(rows.into_iter().map(view).collect())
    }

    /// Changes a member's role, or takes it with `None`. The member's sessions end. Operators may make any user a member.
    ///
    /// # Errors
    /// If there is no such member, or the account would be left without an owner.
    pub async fn set_member(
        &self,
        caller: &Caller,
        account: AccountId,
        user: &str,
        role: Option<MemberRole>,
    ) -> Result<MemberChange> {
        caller.may_in(Permission::Team, &account)?;
        let _alone = self.changes.lock().await;
        let members = self.members(caller, account.clone()).await?;
        let found = members.iter().find(|member| member.user.id == user || member.user.email == user);
        let is_operator = matches!(caller.authority, Authority::Operator(_));
        let id = match (found, role) {
            (Some(member), _) => member.user.id.clone(),
            (None, Some(_)) if is_operator && members.len() < MAX_MEMBERS => self.user_row(user).await?.id,
            (None, _) => return OperationError::missing("there is no such member"),
        };
        let before = found.map(|member| member.role);
        if before.is_some() && before == role {
            return Ok(MemberChange { account, user: id, role });
        }
        let owners = members.iter().filter(|member| member.role == MemberRole::Owner).count();
        let is_last = before == Some(MemberRole::Owner) && role != before && owners == 1;
        if is_last && !is_operator {
            let message = "an account needs an owner: make somebody else one first";
            return Err(OperationError::Conflict(message.to_owned()));
        }
        let since = self.clock.wall();
        let edit = match role {
            Some(role) => {
                UserEdit::PutMember(MemberRow { user: id.clone(), account: account.clone(), role, since })
            }
            None => UserEdit::RemoveMember { user: id.clone(), account: account.clone() },
        };
        let mut edits = vec![edit, UserEdit::EndSessionsOf { user: id.clone(), except: None }];
        if let Some(member) = found {
            let email = member.user.email.clone();
            edits.push(UserEdit::DropInvitations { email, account: Some(account.clone()) });
        }
        let terms = |role: Option<MemberRole>| json!({ "account": account, "role": role });
        let (before, after) = (Some(terms(before)), Some(terms(role)));
        let object = format!("user/{id}");
        let noted = Noted { object, before, after, output: MemberChange { account, user: id, role } };
        let action = if role.is_some() { "member.change" } else { "member.remove" };
        self.change_people(caller, action, noted, edits).await
    }
}
