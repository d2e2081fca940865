//! Hands customers over from the operator's own site.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{LinkView, MemberRoleName};
use crate::control::Control;
use crate::control::mail::Letter;
use crate::control::operations::caller::{Caller, Permission};
use crate::control::operations::error::{OperationError, Result};
use crate::ledger::store::{Invited, LinkPurpose, MemberRole};
use crate::types::AccountId;

/// Longest name of a person, in characters.
const MAX_PERSON: usize = 100;

/// A customer whom the operator's own site has signed in.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewPortalSession)]
pub struct PortalInput {
    /// The account to show.
    #[schema(value_type = String)]
    pub account: AccountId,
    /// What the customer may do there; everything if it is left out.
    #[serde(default)]
    #[schema(value_type = Option<MemberRoleName>)]
    pub role: Option<MemberRole>,
    /// Who the customer is, for the audit log.
    #[serde(default)]
    #[schema(max_length = 100, example = "customer 42")]
    pub person: String,
}

impl Control {
    /// Makes a link that signs a customer in to one account, for a day at most. It works for 15 minutes, and once.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn portal_session(&self, caller: &Caller, input: PortalInput) -> Result<LinkView> {
        caller.may(Permission::Manage)?;
        let PortalInput { account, role, person } = input;
        if self.directory.account(&account).is_none() {
            return Err(account.into());
        }
        if person.chars().count() > MAX_PERSON || person.chars().any(char::is_control) {
            return OperationError::invalid(
                "person",
                format!("this is at most {MAX_PERSON} characters on one line"),
            );
        }
        let invited = Invited::Member(account, role.unwrap_or(MemberRole::Owner));
        let link = self.link_row(LinkPurpose::Portal, &person, None, Some(invited), &caller.actor)?;
        self.make_link(caller, "portal.session", link, |url| Letter::sign_in(person, url)).await
    }
}
