//! Links that can be used once: they sign a user in, invite somebody, verify an e-mail address, or hand a person over.

use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::{Email, secret};
use crate::control::Control;
use crate::control::mail::Letter;
use crate::control::operations::caller::{Caller, Noted};
use crate::control::operations::error::{OperationError, Result};
use crate::control::operations::keys::ShownKey;
use crate::control::operations::terms::Time;
use crate::ledger::store::{Invited, LinkPurpose, LinkRow, UserEdit};
use crate::types::{AccountId, KeyHash, Secret, WallTime};

const MINUTE: i64 = 60 * 1000;
const DAY: i64 = 24 * 60 * MINUTE;
/// How long an invitation and a link of a new user work, in milliseconds. No link works longer.
pub(super) const LONGEST: i64 = 7 * DAY;

/// How long links of a purpose work, in milliseconds.
fn longest(purpose: LinkPurpose) -> i64 {
    match purpose {
        LinkPurpose::Invitation => LONGEST,
        LinkPurpose::Verify => DAY,
        LinkPurpose::SignIn => DAY,
        LinkPurpose::Portal => 15 * MINUTE,
        LinkPurpose::Code => 5 * MINUTE,
    }
}

/// A link that was made.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Link)]
pub struct LinkView {
    /// The link's id.
    pub id: String,
    /// Whom it is for.
    pub email: String,
    /// What it is for: `sign-in`, `invitation` or `portal`.
    pub purpose: &'static str,
    /// The account that it leads to; null if it leads to none.
    #[schema(value_type = Option<String>)]
    pub account: Option<AccountId>,
    /// The role there, or as an operator.
    pub role: Option<&'static str>,
    /// The link, if it was made by this request and is not only sent by e-mail; otherwise absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub link: Option<ShownKey>,
    /// True if it is sent by e-mail.
    pub mailed: bool,
    /// When it stops working.
    #[schema(value_type = String, format = DateTime)]
    pub expires: Time,
}

/// What a link leads to, before it is used.
#[derive(Clone, Debug)]
pub struct OpenLink {
    /// What it is for.
    pub purpose: LinkPurpose,
    /// Whom it is for.
    pub email: String,
    /// The account it invites to.
    pub account: Option<AccountId>,
    /// The role there; of an operator if there is no account.
    pub role: Option<&'static str>,
    /// True if whom it is for has signed up before.
    pub is_known: bool,
}

/// Where a link leads to, and the role there.
pub(super) fn target(row: &LinkRow) -> (Option<AccountId>, Option<&'static str>) {
    match &row.invited {
        Some(Invited::Member(account, role)) => (Some(account.clone()), Some(role.name())),
        Some(Invited::Operator(role)) => (None, Some(role.name())),
        None => (None, None),
    }
}

impl LinkView {
    pub(super) fn of(row: &LinkRow) -> Self {
        let (account, role) = target(row);
        Self {
            id: hex::encode(row.hash.0),
            email: row.email.clone(),
            purpose: row.purpose.name(),
            account,
            role,
            link: None,
            mailed: false,
            expires: Time(row.expires),
        }
    }
}

impl Control {
    /// A new link, not written yet, and its secret.
    pub(super) fn link_row(
        &self,
        purpose: LinkPurpose,
        email: &str,
        user: Option<String>,
        invited: Option<Invited>,
        by: &str,
    ) -> Result<(Secret<String>, LinkRow)> {
        let (secret, now) = (secret()?, self.clock.wall());
        let row = LinkRow {
            hash: KeyHash::of(secret.reveal().as_bytes()),
            purpose,
            email: email.to_owned(),
            user,
            invited,
            by: by.to_owned(),
            created: now,
            expires: WallTime(now.0.saturating_add(longest(purpose))),
        };
        Ok((secret, row))
    }

    /// The address of a link.
    pub(super) fn link_url(&self, secret: &Secret<String>) -> Result<String> {
        Ok(format!("{}/link/{}", self.dashboard_url()?, secret.reveal()))
    }

    /// Makes a link, sends it if e-mail is configured, and shows it if it is not, or to operators.
    pub(super) async fn make_link(
        &self,
        caller: &Caller,
        action: &'static str,
        (secret, row): (Secret<String>, LinkRow),
        letter: impl FnOnce(&str) -> Letter,
    ) -> Result<LinkView> {
        let (dashboard, url) = (self.dashboard()?, self.link_url(&secret)?);
        let mailed = dashboard.smtp.is_some() && row.purpose != LinkPurpose::Portal;
        let is_shown =
            !mailed || matches!(caller.authority, crate::control::operations::Authority::Operator(_));
        let view = LinkView { mailed, ..LinkView::of(&row) };
        let after = json!({ "account": view.account, "email": view.email, "purpose": view.purpose, "role": view.role });
        let shown = is_shown.then(|| ShownKey::Whole(Secret::new(url.clone())));
        let object = match &row.user {
            Some(id) => format!("user/{id}"),
            None => format!("link/{}", view.id),
        };
        let output = LinkView { link: shown, ..view };
        let noted = Noted { object, before: None, after: Some(after), output };
        let view = self.change_people(caller, action, noted, vec![UserEdit::PutLink(row)]).await?;
        if mailed {
            self.people.mailer.send(&dashboard, letter(&url), self.clock.now());
        }
        Ok(view)
    }

    /// Finds a link that works still.
    pub(super) async fn link_of(&self, secret: &str) -> Result<LinkRow> {
        let (hash, now) = (KeyHash::of(secret.as_bytes()), self.clock.wall());
        let row = self.read_users(move |users| Ok(users.link(&hash)?)).await?;
        let gone = || OperationError::Missing("this link was used already, or is too old".to_owned());
        row.filter(|row| now < row.expires).ok_or_else(gone)
    }

    /// Looks at a link without using it, because programs open links in e-mail before people do.
    ///
    /// # Errors
    /// If it was used already, or is too old.
    pub async fn open_link(&self, secret: &str) -> Result<OpenLink> {
        let row = self.link_of(secret).await?;
        let (account, role) = target(&row);
        let (email, by_email) = (row.email.clone(), row.email.clone());
        let known = self.read_users(move |users| Ok(users.user_named(&by_email)?)).await?;
        Ok(OpenLink { purpose: row.purpose, email, account, role, is_known: known.is_some() })
    }

    /// Makes a link that signs a user in, for an operator who passes it on.
    ///
    /// # Errors
    /// If there is no such user.
    pub async fn sign_in_link(&self, caller: &Caller, user: &str) -> Result<LinkView> {
        caller.may(crate::control::operations::Permission::Manage)?;
        let row = self.user_row(user).await?;
        let link = self.link_row(LinkPurpose::SignIn, &row.email, Some(row.id), None, &caller.actor)?;
        let to = row.email;
        self.make_link(caller, "user.sign_in_link", link, |url| Letter::sign_in(to, url)).await
    }

    /// Sends a link that signs a user in, if there is such a user. Returns before it is known whether there is, so that
    /// the response does not tell.
    ///
    /// # Errors
    /// If e-mail is not configured, or this was tried too often.
    pub fn mail_sign_in_link(
        self: &std::sync::Arc<Self>,
        email: Email,
        origin: &super::Origin,
    ) -> Result<()> {
        if self.dashboard()?.smtp.is_none() {
            return Err(OperationError::Conflict("ask the operator for a sign-in link".to_owned()));
        }
        self.people.attempt(origin, Some(email.as_str()), self.clock.now())?;
        let control = std::sync::Arc::clone(self);
        let caller =
            Caller { origin: origin.address.clone(), actor: "sign-in".to_owned(), ..Caller::command() };
        tokio::spawn(async move {
            match control.user_row(email.as_str()).await {
                Ok(row) if !row.is_disabled => {
                    if let Err(error) = control.sign_in_link(&caller, &row.id).await {
                        tracing::warn!(%error, "a sign-in link could not be made");
                    }
                }
                _ => {} // there is nobody to send it to
            }
        });
        Ok(())
    }
}
