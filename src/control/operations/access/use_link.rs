//! Uses links up.

use serde_json::json;

use super::sign_in::caller_of;
use super::{NewSession, Origin, SignIn, Visitor};
use crate::control::Control;
use crate::control::operations::caller::{Caller, Noted};
use crate::control::operations::error::{OperationError, Result};
use crate::ledger::store::{Invited, LinkPurpose, LinkRow, MemberRow, Note, SessionOf, UserEdit, UserRow};
use crate::types::{AccountId, Secret};

/// What a new user fills in.
#[derive(Debug, Default)]
pub struct LinkUse {
    /// The user's name.
    pub name: String,
    /// The password; `None` for users who have one.
    pub password: Option<Secret<String>>,
}

impl Control {
    /// Uses a link. `visitor`: who is signed in already.
    ///
    /// # Errors
    /// If it was used already or is too old, or is for a user who must sign in first.
    pub async fn use_link(
        &self,
        secret: &str,
        input: LinkUse,
        visitor: Option<&Visitor>,
        origin: &Origin,
    ) -> Result<SignIn> {
        self.people.attempt(origin, None, self.clock.now())?;
        let link = self.link_of(secret).await?;
        let used = UserEdit::UseLink(link.hash);
        match link.purpose {
            LinkPurpose::Portal => self.hand_over(link, origin).await.map(SignIn::Done),
            LinkPurpose::Invitation => self.accept(link, input, visitor, origin).await.map(SignIn::Done),
            LinkPurpose::Code => OperationError::missing("this is no link"),
            LinkPurpose::SignIn | LinkPurpose::Verify => {
                let mut row = self.user_row(link.user.as_deref().unwrap_or(&link.email)).await?;
                if row.is_disabled {
                    return OperationError::missing("this link was used already, or is too old");
                }
                if self.dashboard()?.smtp.is_some() {
                    row.verified = row.verified.or(Some(self.clock.wall())); // the link came by e-mail
                }
                let id = row.id.clone();
                let known = self.read_users(move |users| Ok(users.memberships(&id, 1)?)).await?;
                if link.purpose == LinkPurpose::Verify && known.is_empty() && row.operator.is_none() {
                    let caller = caller_of(&row.email, origin);
                    return self.open_account(&caller, row, vec![used], origin).await.map(SignIn::Done);
                }
                let seen = UserEdit::Put(Box::new(row.clone()));
                self.begin_sign_in(row, vec![used, seen], origin).await
            }
        }
    }

    /// Begins the session of a person whom the operator's own site handed over.
    async fn hand_over(&self, link: LinkRow, origin: &Origin) -> Result<NewSession> {
        let Some(Invited::Member(account, role)) = link.invited else {
            return OperationError::missing("this link leads nowhere");
        };
        let of = SessionOf::Guest { account: account.clone(), role, person: link.email };
        let (secret, begin) = self.session_of(of, origin)?;
        let edits = [UserEdit::UseLink(link.hash), begin];
        self.bookkeeper.note(edits.into_iter().map(Note::User).collect()).await?;
        Ok(NewSession { secret, account: Some(account) })
    }

    /// Accepts an invitation: as a new user, or as the user whom it is for. Since the link may have been shown to whoever
    /// made it, it does not sign a known user in.
    async fn accept(
        &self,
        link: LinkRow,
        input: LinkUse,
        visitor: Option<&Visitor>,
        origin: &Origin,
    ) -> Result<NewSession> {
        let email = link.email.clone();
        let known = self.read_users(move |users| Ok(users.user_named(&email)?)).await?;
        let user = visitor.and_then(Visitor::user);
        let (mut row, mut edits) = match (known, user) {
            (Some(row), Some(user)) if row.id == user.id => {
                (row, vec![UserEdit::EndSessionsOf { user: user.id.clone(), except: None }])
            }
            (Some(_), _) => {
                let message = format!("sign in as {} first, then open this link again", link.email);
                return Err(OperationError::Forbidden(message));
            }
            (None, _) => {
                let none =
                    || OperationError::Invalid { field: "password", message: "choose a password".to_owned() };
                let password = self.people.passwords.hash(input.password.ok_or_else(none)?).await?;
                let mut row = self.new_user(&link.email, &input.name, Some(password))?;
                if self.dashboard()?.smtp.is_some() {
                    row.verified = Some(self.clock.wall());
                }
                (row, Vec::new())
            }
        };
        edits.push(UserEdit::UseLink(link.hash));
        let caller = caller_of(&row.email, origin);
        let account = match link.invited.clone() {
            None => return self.open_account(&caller, row, edits, origin).await,
            Some(Invited::Operator(role)) => {
                row.operator = Some(role);
                None
            }
            Some(Invited::Member(account, role)) => {
                let since = self.clock.wall();
                edits.push(UserEdit::Put(Box::new(row.clone())));
                edits.push(UserEdit::PutMember(MemberRow {
                    user: row.id.clone(),
                    account: account.clone(),
                    role,
                    since,
                }));
                Some(account)
            }
        };
        self.join(&caller, &link, row, edits, account, origin).await
    }

    async fn join(
        &self,
        caller: &Caller,
        link: &LinkRow,
        mut row: UserRow,
        mut edits: Vec<UserEdit>,
        account: Option<AccountId>,
        origin: &Origin,
    ) -> Result<NewSession> {
        row.last_sign_in = Some(self.clock.wall());
        let (secret, begin) = self.session_of(SessionOf::User(row.id.clone()), origin)?;
        let (_, role) = super::links::target(link);
        let after = json!({ "account": account, "email": row.email, "role": role, "invited_by": link.by });
        let noted =
            Noted { object: format!("user/{}", row.id), before: None, after: Some(after), output: () };
        edits.extend([UserEdit::Put(Box::new(row)), begin]);
        self.change_people(caller, "user.join", noted, edits).await?;
        Ok(NewSession { secret, account })
    }
}
