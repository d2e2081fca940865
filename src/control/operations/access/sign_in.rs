//! Signs users in: password, then a one-time code where the user has them.

use serde_json::json;

use super::codes::check_code;
use super::{Email, NewSession, Origin};
use crate::control::Control;
use crate::control::mail::Letter;
use crate::control::operations::caller::{Authority, Caller, Noted};
use crate::control::operations::error::{OperationError, Result};
use crate::ledger::store::{LinkPurpose, Role, SessionOf, UserEdit, UserRow};
use crate::types::Secret;

/// What became of an attempt to sign in.
#[derive(Debug)]
pub enum SignIn {
    /// The user is signed in.
    Done(NewSession),
    /// The user is asked for a one-time code, within five minutes. The secret belongs to this attempt.
    CodeNeeded(Secret<String>),
    /// A link to verify the address was sent: the user signs in with that.
    Verify,
}

/// The same for a user that does not exist, a wrong password, and a user who may not sign in.
fn refused() -> OperationError {
    OperationError::Forbidden("the e-mail address or the password is wrong".to_owned())
}

/// The caller of what people do before they are signed in.
pub(super) fn caller_of(email: &str, origin: &Origin) -> Caller {
    Caller {
        actor: format!("user:{email}"),
        origin: origin.address.clone(),
        authority: Authority::Operator(Role::Owner),
        repeat: None,
    }
}

impl Control {
    /// Signs a user in by e-mail address and password. Takes as long, and says the same, for users that do not exist.
    ///
    /// # Errors
    /// If it is wrong, or was tried too often.
    pub async fn sign_in(&self, email: Email, password: Secret<String>, origin: &Origin) -> Result<SignIn> {
        self.people.attempt(origin, Some(email.as_str()), self.clock.now())?;
        let name = email.as_str().to_owned();
        let row = self.read_users(move |users| Ok(users.user_named(&name)?)).await?;
        let known = row.as_ref().and_then(|row| row.password.clone());
        let is_right = self.people.passwords.check(password, known).await?;
        let row = row.filter(|_| is_right).ok_or_else(refused)?;
        let _alone = self.changes.lock().await;
        // The user may have been changed while the password was checked.
        let (checked, id) = (row.password, row.id);
        let row = self.user_row(&id).await.map_err(|_| refused())?;
        if row.is_disabled || row.password != checked {
            return Err(refused());
        }
        if row.verified.is_none() && self.dashboard()?.smtp.is_some() {
            self.send_verification(&row.email, Some(row.id), origin).await?;
            return Ok(SignIn::Verify);
        }
        self.begin_sign_in(row, false, Vec::new(), origin).await
    }

    /// Begins a session of a user who has proved who they are, or asks for their one-time code, while the caller holds the
    /// lock of changes. `verified`: true if they proved to read their e-mail. `edits`: what belongs to the proof, such as a
    /// link that is used up.
    pub(super) async fn begin_sign_in(
        &self,
        row: UserRow,
        verified: bool,
        mut edits: Vec<UserEdit>,
        origin: &Origin,
    ) -> Result<SignIn> {
        let caller = caller_of(&row.email, origin);
        if row.codes.is_some() {
            let id = Some(row.id.clone());
            let (secret, link) = self.link_row(LinkPurpose::Code, &row.email, id, None, &caller.actor)?;
            edits.push(UserEdit::PutLink(link));
            let notes = edits.into_iter().map(crate::ledger::store::Note::User).collect();
            self.bookkeeper.note(notes).await?;
            return Ok(SignIn::CodeNeeded(secret));
        }
        self.finish_sign_in(&caller, row, verified, edits, origin).await.map(SignIn::Done)
    }

    /// Signs in a user who was asked for a one-time code.
    ///
    /// # Errors
    /// If the code is wrong or was used already, or this was tried too often.
    pub async fn sign_in_with_code(&self, attempt: &str, code: &str, origin: &Origin) -> Result<NewSession> {
        let link = self.link_of(attempt).await?;
        let user = link.user.as_deref().filter(|_| link.purpose == LinkPurpose::Code);
        let user = user.ok_or_else(|| OperationError::Missing("sign in again".to_owned()))?;
        self.people.attempt(origin, Some(&link.email), self.clock.now())?;
        let _alone = self.changes.lock().await; // so that no code is used twice
        let mut row = self.user_row(user).await?;
        if row.is_disabled {
            return Err(refused());
        }
        if let Some(codes) = &mut row.codes {
            check_code(codes, code, self.clock.wall())?;
        }
        let caller = caller_of(&row.email, origin);
        let edits = vec![UserEdit::UseLink(link.hash), UserEdit::Put(Box::new(row.clone()))];
        self.finish_sign_in(&caller, row, false, edits, origin).await
    }

    /// Begins the session.
    async fn finish_sign_in(
        &self,
        caller: &Caller,
        row: UserRow,
        verified: bool,
        mut edits: Vec<UserEdit>,
        origin: &Origin,
    ) -> Result<NewSession> {
        let (secret, begin) = self.session_of(SessionOf::User(row.id.clone()), origin)?;
        let object = format!("user/{}", row.id);
        edits.extend([UserEdit::SignedIn { user: row.id, at: self.clock.wall(), verified }, begin]);
        let after = Some(json!({ "from": origin.address }));
        let noted = Noted { object, before: None, after, output: () };
        self.change_people(caller, "user.sign_in", noted, edits).await?;
        Ok(NewSession { secret, account: None })
    }

    /// Sends a link that verifies an e-mail address: of a user, or of somebody who signs up.
    pub(super) async fn send_verification(
        &self,
        email: &str,
        user: Option<String>,
        origin: &Origin,
    ) -> Result<()> {
        let caller = caller_of(email, origin);
        let link = self.link_row(LinkPurpose::Verify, email, user, None, &caller.actor)?;
        let to = email.to_owned();
        self.make_link(&caller, "user.verify", link, |url| Letter::verify(to, url)).await.map(drop)
    }
}
