//! Lists, changes and deletes users.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::sign_up::check_name;
use super::{Email, MemberRoleName, RoleName, Visitor};
use crate::control::Control;
use crate::control::operations::caller::{Caller, Noted, Permission};
use crate::control::operations::error::{OperationError, Result};
use crate::control::operations::terms::{Page, Patch, Time};
use crate::ledger::store::{MemberRole, MemberRow, Role, UserEdit, UserFilter, UserRow};
use crate::types::{AccountId, Secret};

/// A person who may sign in to the dashboard.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub struct UserView {
    /// The user's id.
    pub id: String,
    /// The e-mail address.
    pub email: String,
    /// The user's name.
    pub name: String,
    /// What the user may do as an operator; null for customers.
    #[schema(value_type = Option<RoleName>)]
    pub operator: Option<Role>,
    /// True if the user proved to read the address's e-mail.
    pub verified: bool,
    /// True if the user signs in with one-time codes too.
    pub one_time_codes: bool,
    /// True if the user may not sign in.
    pub disabled: bool,
    /// When the user was created.
    #[schema(value_type = String, format = DateTime)]
    pub created: Time,
    /// When the user last signed in; null if never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_sign_in: Option<Time>,
}

/// A user to create. Users sign in by links until they choose a password.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewUser)]
pub struct UserInput {
    /// The e-mail address.
    #[schema(value_type = String, format = Email, max_length = 254, example = "ada@example.com")]
    pub email: Email,
    /// The user's name.
    #[serde(default)]
    #[schema(max_length = 100)]
    pub name: String,
    /// An account that the user has access to.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub account: Option<AccountId>,
    /// What the user may do there; `viewer` if it is left out.
    #[serde(default)]
    #[schema(value_type = Option<MemberRoleName>)]
    pub role: Option<MemberRole>,
    /// What the user may do as an operator.
    #[serde(default)]
    #[schema(value_type = Option<RoleName>)]
    pub operator: Option<Role>,
}

/// A change of a user.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserPatch {
    /// A new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 100)]
    pub name: Option<String>,
    /// What the user may do as an operator; null for a customer.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<RoleName>)]
    pub operator: Patch<Role>,
    /// True if the user may not sign in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

impl UserView {
    pub(super) fn of(row: &UserRow) -> Self {
        Self {
            id: row.id.clone(),
            email: row.email.clone(),
            name: row.name.clone(),
            operator: row.operator,
            verified: row.verified.is_some(),
            one_time_codes: row.codes.is_some(),
            disabled: row.is_disabled,
            created: Time(row.created),
            last_sign_in: row.last_sign_in.map(Time),
        }
    }

    fn terms(&self) -> Value {
        json!({
            "email": self.email,
            "name": self.name,
            "operator": self.operator,
            "disabled": self.disabled,
            "one_time_codes": self.one_time_codes,
        })
    }
}

impl Control {
    /// The row of a user, by id or e-mail address.
    pub(super) async fn user_row(&self, user: &str) -> Result<UserRow> {
        let wanted = user.to_owned();
        let found = self.read_users(move |users| match wanted.contains('@') {
            true => Ok(users.user_named(&wanted.to_lowercase())?),
            false => Ok(users.user(&wanted)?),
        });
        found.await?.ok_or_else(|| OperationError::Missing("there is no such user".to_owned()))
    }

    /// Creates a user who signs in by links.
    ///
    /// # Errors
    /// If there is no such account, or another user has the e-mail address.
    pub async fn create_user(&self, caller: &Caller, input: UserInput) -> Result<UserView> {
        caller.may(Permission::Manage)?;
        let UserInput { email, name, account, role, operator } = input;
        if account.is_none() && role.is_some() {
            return OperationError::invalid("role", "name the account too");
        }
        if let Some(id) = account.clone().filter(|id| self.directory.account(id).is_none()) {
            return Err(id.into());
        }
        let row = UserRow { operator, ..self.new_user(email.as_str(), &name, None)? };
        let member = account.map(|account| {
            let (user, role) = (row.id.clone(), role.unwrap_or(MemberRole::Viewer));
            UserEdit::PutMember(MemberRow { user, account, role, since: row.created })
        });
        let output = UserView::of(&row);
        let (object, after) = (format!("user/{}", row.id), Some(output.terms()));
        let edits = std::iter::once(UserEdit::Put(Box::new(row))).chain(member).collect();
        self.change_people(caller, "user.create", Noted { object, before: None, after, output }, edits).await
    }

    /// Lists users in the order of their e-mail addresses. `after`: an address.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn users(
        &self,
        caller: &Caller,
        operators: bool,
        after: Option<String>,
        most: usize,
    ) -> Result<Page<UserView>> {
        caller.may(Permission::ReadAll)?;
        let filter = UserFilter { operators, after };
        let rows = self.read_users(move |users| Ok(users.users(&filter, most + 1)?)).await?;
        Ok(Page::of(rows.iter().map(UserView::of).collect(), most, |user: &UserView| user.email.clone()))
    }

    /// Shows a user, by id or e-mail address.
    ///
    /// # Errors
    /// If there is no such user.
    pub async fn user(&self, caller: &Caller, user: &str) -> Result<UserView> {
        caller.may(Permission::ReadAll)?;
        Ok(UserView::of(&self.user_row(user).await?))
    }

    /// Changes a user, by id or e-mail address. Where their rights change, their sessions end.
    ///
    /// # Errors
    /// If there is no such user.
    pub async fn change_user(&self, caller: &Caller, user: &str, patch: UserPatch) -> Result<UserView> {
        caller.may(Permission::Manage)?;
        let name = patch.name.as_deref().map(check_name).transpose()?;
        self.edit_user(caller, user, "user.change", move |row| {
            let before = (row.operator, row.is_disabled);
            row.name = name.unwrap_or(std::mem::take(&mut row.name));
            row.operator = patch.operator.into_option().unwrap_or(row.operator);
            row.is_disabled = patch.disabled.unwrap_or(row.is_disabled);
            let ends = before != (row.operator, row.is_disabled);
            let end = UserEdit::EndSessionsOf { user: row.id.clone(), except: None };
            let drop = UserEdit::DropLinksTo(row.email.clone());
            Ok(if ends { vec![end, drop] } else { Vec::new() })
        })
        .await
    }

    /// Changes a user's row, with further changes that belong to it.
    pub(super) async fn edit_user(
        &self,
        caller: &Caller,
        user: &str,
        action: &'static str,
        edit: impl FnOnce(&mut UserRow) -> Result<Vec<UserEdit>>,
    ) -> Result<UserView> {
        let _alone = self.changes.lock().await;
        let mut row = self.user_row(user).await?;
        let before = Some(UserView::of(&row).terms());
        let more = edit(&mut row)?;
        let output = UserView::of(&row);
        let (object, after) = (format!("user/{}", row.id), Some(output.terms()));
        let edits = std::iter::once(UserEdit::Put(Box::new(row))).chain(more).collect();
        self.change_people(caller, action, Noted { object, before, after, output }, edits).await
    }

    /// Deletes a user, with their sessions and roles. Audit entries keep their e-mail address.
    ///
    /// # Errors
    /// If there is no such user.
    pub async fn delete_user(&self, caller: &Caller, user: &str) -> Result<UserView> {
        caller.may(Permission::Manage)?;
        let _alone = self.changes.lock().await;
        let row = self.user_row(user).await?;
        let output = UserView::of(&row);
        let (object, before) = (format!("user/{}", row.id), Some(output.terms()));
        let noted = Noted { object, before, after: None, output };
        self.change_people(
            caller,
            "user.delete",
            noted,
            vec![UserEdit::DropLinksTo(row.email), UserEdit::Delete(row.id)],
        )
        .await
    }

    /// Changes the visitor's own name.
    ///
    /// # Errors
    /// If the name is not accepted.
    pub async fn rename_self(&self, visitor: &Visitor, name: &str) -> Result<()> {
        let (caller, user) = visitor.own()?;
        let name = check_name(name)?;
        let edit = |row: &mut UserRow| {
            row.name = name;
            Ok(Vec::new())
        };
        self.edit_user(&caller, &user.id, "user.rename", edit).await.map(drop)
    }

    /// Changes the visitor's own password. Their sessions end, and a new one begins: its secret is returned.
    ///
    /// # Errors
    /// If the current password is wrong, or the new one is not accepted.
    pub async fn change_password(
        &self,
        visitor: &Visitor,
        current: Secret<String>,
        new: Secret<String>,
    ) -> Result<Secret<String>> {
        let (caller, user) = visitor.own()?;
        self.people.attempt(&visitor.origin, Some(&user.email), self.clock.now())?;
        if user.password.is_some() && !self.people.passwords.check(current, user.password.clone()).await? {
            return OperationError::invalid("current", "this is not your password");
        }
        let hash = self.people.passwords.hash(new).await?;
        let (secret, edits) = self.renewed(visitor)?;
        let edit = |row: &mut UserRow| {
            row.password = Some(hash);
            Ok(edits)
        };
        self.edit_user(&caller, &user.id, "user.password", edit).await?;
        Ok(secret)
    }
}
