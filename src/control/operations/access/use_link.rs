//! Uses links up.

use serde_json::json;

use super::members::MAX_MEMBERS;
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
        match link.purpose {
            LinkPurpose::Portal => self.hand_over(link, origin).await.map(SignIn::Done),
            LinkPurpose::Invitation => self.accept(link, input, visitor, origin).await.map(SignIn::Done),
            LinkPurpose::Code => OperationError::missing("this is no link"),
            LinkPurpose::Verify => self.verify(link, input, origin).await,
            LinkPurpose::SignIn => {
                let _alone = self.changes.lock().await;
                let row = self.user_row(link.user.as_deref().unwrap_or(&link.email)).await?;
                if row.is_disabled {
                    return OperationError::missing("this link was used already, or is too old");
                }
                let verified = self.dashboard()?.smtp.is_some();
                let mut edits = vec![UserEdit::UseLink(link.hash)];
                if verified && row.verified.is_none() {
                    // The person who chose the password did not prove that the address is theirs.
                    let row = UserRow { password: None, codes: None, ..row };
                    edits.push(UserEdit::Put(Box::new(row.clone())));
                    edits.push(UserEdit::EndSessionsOf { user: row.id.clone(), except: None });
                    return self.begin_sign_in(row, true, edits, origin).await;
                }
                self.begin_sign_in(row, verified, edits, origin).await
            }
        }
    }

    /// Verifies an e-mail address: the person chooses a password now, and gets an account if they have none.
    async fn verify(&self, link: LinkRow, input: LinkUse, origin: &Origin) -> Result<SignIn> {
        let password = self.new_password(input.password).await?;
        let _alone = self.changes.lock().await;
        let caller = caller_of(&link.email, origin);
        let now = Some(self.clock.wall());
        let mut edits = vec![UserEdit::UseLink(link.hash)];
        let known = self.user_row(&link.email).await.ok();
        if known.as_ref().is_some_and(|row| row.is_disabled || row.verified.is_some()) {
            return OperationError::missing("this link was used already, or is too old");
        }
        let Some(row) = known else {
            let row = UserRow { verified: now, ..self.new_user(&link.email, &input.name, Some(password))? };
            return self.open_account(&caller, row, edits, origin, true).await.map(SignIn::Done);
        };
        let row = UserRow { password: Some(password), codes: None, verified: now, ..row };
        edits.push(UserEdit::EndSessionsOf { user: row.id.clone(), except: None });
        edits.push(UserEdit::Put(Box::new(row.clone())));
        self.begin_sign_in(row, true, edits, origin).await
    }

    /// The hash of a password that must be chosen.
    async fn new_password(&self, password: Option<Secret<String>>) -> Result<Secret<String>> {
        let none = || OperationError::Invalid { field: "password", message: "choose a password".to_owned() };
        self.people.passwords.hash(password.ok_or_else(none)?).await
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

    /// Accepts an invitation: as a new user, or as the user whom it is for. It does not sign a known user in, since the
    /// person who made the link may have seen it.
    async fn accept(
        &self,
        link: LinkRow,
        input: LinkUse,
        visitor: Option<&Visitor>,
        origin: &Origin,
    ) -> Result<NewSession> {
        let (email, user) = (link.email.clone(), visitor.and_then(Visitor::user));
        let is_known = self.user_row(&email).await.is_ok();
        let password = if is_known { None } else { Some(self.new_password(input.password).await?) };
        let _alone = self.changes.lock().await;
        let (mut row, mut edits) = match (self.user_row(&email).await.ok(), user, password) {
            (Some(row), Some(user), _) if row.id == user.id && !row.is_disabled => {
                (row, vec![UserEdit::EndSessionsOf { user: user.id.clone(), except: None }])
            }
            (None, _, Some(password)) => {
                let row = self.new_user(&email, &input.name, Some(password))?;
                let verified = self.dashboard()?.smtp.is_some().then(|| self.clock.wall());
                (UserRow { verified, ..row }, Vec::new())
            }
            _ => {
                let message = format!("sign in as {email} first, then open this link again");
                return Err(OperationError::Forbidden(message));
            }
        };
        self.refuse_joined(&link, &row).await?;
        edits.push(UserEdit::UseLink(link.hash));
        let to = super::links::target(&link).0;
        edits.push(UserEdit::DropInvitations { email: email.clone(), account: to });
        let caller = caller_of(&row.email, origin);
        let account = match link.invited.clone() {
            None => return self.open_account(&caller, row, edits, origin, false).await,
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

    /// Refuses an invitation to what the user is already, and to an account that has too many members.
    async fn refuse_joined(&self, link: &LinkRow, row: &UserRow) -> Result<()> {
        let is_joined = match &link.invited {
            Some(Invited::Member(account, _)) => {
                let of = account.clone();
                let members = self.read_users(move |users| Ok(users.members(&of, MAX_MEMBERS)?)).await?;
                if members.len() >= MAX_MEMBERS {
                    return Err(OperationError::Conflict("this account has too many members".to_owned()));
                }
                members.iter().any(|(member, _)| member.user == row.id)
            }
            Some(Invited::Operator(_)) => row.operator.is_some(),
            None => false,
        };
        if is_joined { Err(OperationError::Conflict("you have joined already".to_owned())) } else { Ok(()) }
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
