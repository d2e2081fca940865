//! Invites people: to an account, to be operators, or to open an account.

use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::members::MAX_MEMBERS;
use super::{Email, LinkView, MemberRoleName, RoleName};
use crate::control::Control;
use crate::control::mail::Letter;
use crate::control::operations::caller::{Caller, Noted, Permission};
use crate::control::operations::error::{OperationError, Result};
use crate::ledger::store::{Invited, LinkPurpose, LinkRow, MemberRole, Note, Role, UserEdit};
use crate::types::{AccountId, KeyHash};

/// Most invitations to one account, or of operators, that wait.
const MAX_INVITATIONS: usize = 200;

/// Somebody to invite: to an account with a role, as an operator, or with neither to open an account of their own.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewInvitation)]
pub struct InvitationInput {
    /// The e-mail address.
    #[schema(value_type = String, format = Email, max_length = 254, example = "ada@example.com")]
    pub email: Email,
    /// The account to invite to.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub account: Option<AccountId>,
    /// The role in the account; `viewer` if it is left out.
    #[serde(default)]
    #[schema(value_type = Option<MemberRoleName>)]
    pub role: Option<MemberRole>,
    /// The role as an operator.
    #[serde(default)]
    #[schema(value_type = Option<RoleName>)]
    pub operator: Option<Role>,
}

fn may(caller: &Caller, permission: Permission, account: Option<&AccountId>) -> Result<()> {
    match account {
        Some(account) => caller.may_in(permission, account),
        None => caller.may(if permission == Permission::Team { Permission::Manage } else { permission }),
    }
}

impl Control {
    /// Invites somebody. The invitation works for a week, and once.
    ///
    /// # Errors
    /// If there is no such account, or it has too many members and invitations.
    pub async fn invite(&self, caller: &Caller, input: InvitationInput) -> Result<LinkView> {
        let InvitationInput { email, account, role, operator } = input;
        may(caller, Permission::Team, account.as_ref())?;
        let invited = match (&account, role, operator) {
            (Some(account), role, None) => {
                let known = self.members(caller, account.clone()).await?;
                if known.len() >= MAX_MEMBERS {
                    let message = format!("there are {MAX_MEMBERS} members, which is the most");
                    return Err(OperationError::Conflict(message));
                }
                if known.iter().any(|member| member.user.email == email.as_str()) {
                    return Err(OperationError::Conflict("this user is a member already".to_owned()));
                }
                Some(Invited::Member(account.clone(), role.unwrap_or(MemberRole::Viewer)))
            }
            (None, None, Some(role)) => Some(Invited::Operator(role)),
            (None, None, None) => None,
            (None, Some(_), _) => return OperationError::invalid("role", "name the account too"),
            (Some(_), _, Some(_)) => {
                return OperationError::invalid(
                    "operator",
                    "invite to an account or as an operator, not both",
                );
            }
        };
        let _alone = self.changes.lock().await;
        if self.invitations(caller, account.clone()).await?.len() >= MAX_INVITATIONS {
            return Err(OperationError::Conflict(format!(
                "{MAX_INVITATIONS} invitations wait, which is the most"
            )));
        }
        let link = self.link_row(LinkPurpose::Invitation, email.as_str(), None, invited, &caller.actor)?;
        // A later invitation takes the place of an earlier one.
        let earlier = UserEdit::DropInvitations { email: email.as_str().to_owned(), account };
        self.bookkeeper.note(vec![Note::User(earlier)]).await?;
        let (to, by) = (email.as_str().to_owned(), caller.actor.clone());
        self.make_link(caller, "user.invite", link, |url| Letter::invitation(to, &by, url)).await
    }

    /// Lists the invitations to an account that wait, or those of operators.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn invitations(&self, caller: &Caller, account: Option<AccountId>) -> Result<Vec<LinkView>> {
        may(caller, Permission::ReadAccounts, account.as_ref())?;
        let rows = self.invitation_rows(account).await?;
        Ok(rows.iter().map(LinkView::of).collect())
    }

    async fn invitation_rows(&self, account: Option<AccountId>) -> Result<Vec<LinkRow>> {
        let now = self.clock.wall();
        let rows = self.read_users(move |users| Ok(users.invitations(account.as_ref(), MAX_INVITATIONS)?));
        Ok(rows.await?.into_iter().filter(|row| now < row.expires).collect())
    }

    /// Takes an invitation back.
    ///
    /// # Errors
    /// If there is none with this id.
    pub async fn take_back_invitation(
        &self,
        caller: &Caller,
        account: Option<AccountId>,
        id: &str,
    ) -> Result<LinkView> {
        may(caller, Permission::Team, account.as_ref())?;
        let missing = || OperationError::Missing("there is no such invitation".to_owned());
        let hash = id.parse::<KeyHash>().map_err(|_| missing())?;
        let rows = self.invitation_rows(account.clone()).await?;
        let row = rows.into_iter().find(|row| row.hash == hash).ok_or_else(missing)?;
        let output = LinkView::of(&row);
        let before = Some(json!({ "account": account, "email": row.email, "role": output.role }));
        let noted = Noted { object: format!("link/{}", output.id), before, after: None, output };
        self.change_people(caller, "user.uninvite", noted, vec![UserEdit::UseLink(hash)]).await
    }
}
