//! Lets customers create their own user and account.

use super::sign_in::caller_of;
use super::{Email, NewSession, Origin, new_id};
use crate::control::Control;
use crate::control::mail::Letter;
use crate::control::operations::accounts::{AccountInput, AccountPatch, AccountView};
use crate::control::operations::caller::{Caller, Noted, Permission};
use crate::control::operations::credits::BookingInput;
use crate::control::operations::error::{OperationError, Result};
use crate::control::operations::terms::Patch;
use crate::ledger::store::{LinkPurpose, MemberRole, MemberRow, SessionOf, UserEdit, UserRow};
use crate::snapshot::dashboard::SignUp;
use crate::types::{AccountId, Credits, Secret};

/// Longest name of a user, in characters.
pub(super) const MAX_NAME: usize = 100;
/// The reference of the opening grant of an account that an operator approved.
const GRANT: &str = "sign-up";
/// Most accounts that wait for approval in a list.
const MAX_AWAITING: usize = 1_000;

/// A customer who signs up.
#[derive(Debug)]
pub struct SignUpInput {
    /// The e-mail address.
    pub email: Email,
    /// The name of the person or company, also the account's.
    pub name: String,
    /// The password.
    pub password: Secret<String>,
}

/// What became of a sign-up.
#[derive(Debug)]
pub enum SignedUp {
    /// The user is signed in.
    Done(NewSession),
    /// A link was sent to the e-mail address.
    Verify,
}

/// Checks a person's name.
pub(super) fn check_name(name: &str) -> Result<String> {
    let name = name.trim();
    let fits = name.chars().count() <= MAX_NAME && !name.chars().any(char::is_control);
    if fits {
        Ok(name.to_owned())
    } else {
        OperationError::invalid("name", "a name is at most 100 characters on one line")
    }
}

impl Control {
    /// A new user, not written yet.
    pub(super) fn new_user(
        &self,
        email: &str,
        name: &str,
        password: Option<Secret<String>>,
    ) -> Result<UserRow> {
        Ok(UserRow {
            id: new_id("user")?,
            email: email.to_owned(),
            name: check_name(name)?,
            password,
            operator: None,
            verified: None,
            codes: None,
            is_disabled: false,
            created: self.clock.wall(),
            last_sign_in: None,
        })
    }

    /// Creates a user and an account of theirs. Where e-mail is configured, nothing is created before the address is
    /// verified: the link that is sent asks for the password, so that nobody prepares a user for somebody else. The response
    /// is the same for addresses that have a user.
    ///
    /// # Errors
    /// If sign-up is closed, the password is not accepted, or this was tried too often.
    pub async fn sign_up(&self, input: SignUpInput, origin: &Origin) -> Result<SignedUp> {
        let dashboard = self.dashboard()?;
        if !matches!(dashboard.sign_up, SignUp::Open | SignUp::Approval) {
            return Err(OperationError::Forbidden(
                "nobody can sign up here: ask for an invitation".to_owned(),
            ));
        }
        let SignUpInput { email, name, password } = input;
        check_name(&name)?;
        self.people.attempt(origin, Some(email.as_str()), self.clock.now())?;
        let caller = caller_of(email.as_str(), origin);
        let known = self.user_row(email.as_str()).await.ok();
        if dashboard.smtp.is_some() {
            match known.filter(|row| row.verified.is_some()) {
                Some(row) => {
                    let link =
                        self.link_row(LinkPurpose::SignIn, &row.email, Some(row.id), None, &caller.actor)?;
                    let to = row.email;
                    self.make_link(&caller, "user.sign_in_link", link, |url| Letter::known(to, url)).await?;
                }
                None => self.send_verification(email.as_str(), None, origin).await?,
            }
            return Ok(SignedUp::Verify);
        }
        let password = self.people.passwords.hash(password).await?;
        let _alone = self.changes.lock().await;
        if self.user_row(email.as_str()).await.is_ok() {
            let message = "there is a user with this e-mail address already: sign in".to_owned();
            return Err(OperationError::Conflict(message));
        }
        let row = self.new_user(email.as_str(), &name, Some(password))?;
        self.open_account(&caller, row, Vec::new(), origin, true).await.map(SignedUp::Done)
    }

    /// Creates an account for a user and signs the user in, in one transaction, while the caller holds the lock of changes.
    /// `edits`: what else belongs to it. `may_wait`: false for those whom an operator invited, who need no approval.
    pub(super) async fn open_account(
        &self,
        caller: &Caller,
        mut user: UserRow,
        mut edits: Vec<UserEdit>,
        origin: &Origin,
        may_wait: bool,
    ) -> Result<NewSession> {
        let dashboard = self.dashboard()?;
        let id: AccountId = new_id("acc")?
            .parse()
            .map_err(|_| OperationError::Unavailable("the new account's id is not accepted".to_owned()))?;
        let now = self.clock.wall();
        user.last_sign_in = Some(now);
        let (secret, begin) = self.session_of(SessionOf::User(user.id.clone()), origin)?;
        let member =
            MemberRow { user: user.id.clone(), account: id.clone(), role: MemberRole::Owner, since: now };
        let name = if user.name.is_empty() { user.email.clone() } else { user.name.clone() };
        edits.extend([UserEdit::Put(Box::new(user)), UserEdit::PutMember(member), begin]);
        let waits = may_wait && dashboard.sign_up == SignUp::Approval;
        if waits {
            edits.push(UserEdit::Await(id.clone()));
        }
        let plan = if waits { &dashboard.sandbox_plan } else { &dashboard.plan };
        let credits = Some(dashboard.credits).filter(|credits| !waits && *credits > Credits::ZERO);
        let input = AccountInput { id: id.clone(), name, plan: plan.clone(), credits };
        self.create_account_of(caller, input, edits).await?;
        Ok(NewSession { secret, account: Some(id) })
    }

    /// Lists the accounts that wait for approval, the oldest first.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn awaiting_approval(&self, caller: &Caller) -> Result<Vec<AccountId>> {
        caller.may(Permission::ReadAccounts)?;
        self.read_users(|users| Ok(users.awaiting(MAX_AWAITING)?)).await
    }

    /// True if an account waits for approval.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn awaits_approval(&self, id: &AccountId) -> Result<bool> {
        let id = id.clone();
        self.read_users(move |users| Ok(users.is_awaiting(&id)?)).await
    }

    /// Approves an account that signed up: it gets the plan and the opening credits. After a crash in between it waits
    /// still, and approving it again grants nothing twice.
    ///
    /// # Errors
    /// If the account does not wait for approval.
    pub async fn approve_account(&self, caller: &Caller, id: AccountId) -> Result<AccountView> {
        caller.may(Permission::Manage)?;
        if !self.awaits_approval(&id).await? {
            return OperationError::missing(format!("account {id} does not wait for approval"));
        }
        let dashboard = self.dashboard()?;
        let own = Caller { repeat: None, ..caller.clone() };
        let plan = dashboard.plan.clone().map_or(Patch::Null, Patch::Value);
        let patch = AccountPatch { plan, ..AccountPatch::default() };
        self.change_account(&own, id.clone(), patch, None).await?;
        if dashboard.credits > Credits::ZERO {
            let input = BookingInput {
                credits: dashboard.credits,
                reference: GRANT.to_owned(),
                ..BookingInput::default()
            };
            self.grant(&own, id.clone(), input).await?;
        }
        let view = self.account(caller, id.clone()).await?;
        let noted = Noted { object: format!("account/{id}"), before: None, after: None, output: view };
        self.change_people(caller, "account.approve", noted, vec![UserEdit::Approve(id)]).await
    }

    /// Declines an account that signed up: it is closed, and waits no longer.
    ///
    /// # Errors
    /// If the account does not wait for approval.
    pub async fn decline_account(&self, caller: &Caller, id: AccountId) -> Result<AccountView> {
        caller.may(Permission::Manage)?;
        if !self.awaits_approval(&id).await? {
            return OperationError::missing(format!("account {id} does not wait for approval"));
        }
        let own = Caller { repeat: None, ..caller.clone() };
        let view = self.delete_account(&own, id.clone(), None).await?;
        let noted = Noted { object: format!("account/{id}"), before: None, after: None, output: view };
        self.change_people(caller, "account.decline", noted, vec![UserEdit::Approve(id)]).await
    }
}
