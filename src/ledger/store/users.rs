//! Defines the rows of people who use the dashboard: users, their accounts, sessions, and links that can be used once.
//! They are written as notes, in the transaction of the audit entry that tells of them.

use serde::{Deserialize, Serialize};

use super::Result;
use crate::types::{AccountId, KeyHash, Secret, WallTime};

/// What an operator may do, or a token of the admin API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    Owner,
    /// Reads accounts, and books credits.
    Billing,
    /// Reads everything, changes nothing.
    Support,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Owner, Self::Billing, Self::Support];

    /// The role's name in commands, responses and the ledger.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Billing => "billing",
            Self::Support => "support",
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// What a customer may do in an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    /// Everything in the account, its members too.
    Owner,
    /// Keys and webhooks.
    Developer,
    /// Alerts and how credits are renewed.
    Billing,
    /// Reads.
    Viewer,
}

impl MemberRole {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Owner, Self::Developer, Self::Billing, Self::Viewer];

    /// The role's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Developer => "developer",
            Self::Billing => "billing",
            Self::Viewer => "viewer",
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// The one-time codes of a user (RFC 6238).
#[derive(Clone, PartialEq, Eq)]
pub struct OneTimeCodes {
    /// The secret that the user's authenticator has too.
    pub secret: Vec<u8>,
    /// The time step of the last code that was accepted: no code is accepted twice.
    pub last_step: u64,
    /// SHA-256 of the recovery codes that are not used yet.
    pub recovery: Vec<KeyHash>,
}

impl std::fmt::Debug for OneTimeCodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OneTimeCodes").field("recovery", &self.recovery.len()).finish_non_exhaustive()
    }
}

/// A person who may sign in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRow {
    /// The user's id.
    pub id: String,
    /// The e-mail address, in lower case; no two users have the same.
    pub email: String,
    /// The user's name; may be empty.
    pub name: String,
    /// The password's argon2id hash; `None` if the user signs in by links.
    pub password: Option<Secret<String>>,
    /// What the user may do as an operator; `None` for a customer.
    pub operator: Option<Role>,
    /// When the e-mail address was verified, if it was.
    pub verified: Option<WallTime>,
    /// The user's one-time codes, if they are on.
    pub codes: Option<OneTimeCodes>,
    /// The user may not sign in.
    pub is_disabled: bool,
    /// When the user was created.
    pub created: WallTime,
    /// When the user last signed in.
    pub last_sign_in: Option<WallTime>,
}

/// What a user may do in an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRow {
    /// The user's id.
    pub user: String,
    /// The account.
    pub account: AccountId,
    /// What the user may do there.
    pub role: MemberRole,
    /// Since when.
    pub since: WallTime,
}

/// Who a session belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionOf {
    /// A user, by their id.
    User(String),
    /// A person whom the operator's own site has signed in, for one account.
    Guest {
        /// The account.
        account: AccountId,
        /// What the person may do there.
        role: MemberRole,
        /// Who they are, in the operator's words.
        person: String,
    },
}

/// A browser that is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// SHA-256 of the session's secret.
    pub hash: KeyHash,
    /// Who is signed in.
    pub of: SessionOf,
    /// When the session began.
    pub created: WallTime,
    /// When it was last used, at most a minute ago.
    pub seen: WallTime,
    /// When it ends, however much it is used.
    pub expires: WallTime,
    /// The address it began from.
    pub origin: String,
    /// The browser's name for itself, shortened.
    pub agent: String,
}

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkPurpose {
    /// Signs a user in.
    SignIn,
    /// Makes the reader a member of an account, or an operator.
    Invitation,
    /// Proves that the user reads the e-mail of the address.
    Verify,
    /// Signs in a person whom the operator's own site handed over.
    Portal,
    /// The second step of a sign-in, which needs a one-time code.
    Code,
}

impl LinkPurpose {
    const ALL: [Self; 5] = [Self::SignIn, Self::Invitation, Self::Verify, Self::Portal, Self::Code];

    /// The name in the ledger and in links.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SignIn => "sign-in",
            Self::Invitation => "invitation",
            Self::Verify => "verify",
            Self::Portal => "portal",
            Self::Code => "code",
        }
    }

    /// The purpose of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.name() == name)
    }
}

/// What an invitation makes of the reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invited {
    /// A member of an account.
    Member(AccountId, MemberRole),
    /// An operator.
    Operator(Role),
}

/// A link that can be used once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkRow {
    /// SHA-256 of the link's secret.
    pub hash: KeyHash,
    /// What it is for.
    pub purpose: LinkPurpose,
    /// The address that it is sent to; of a portal link, who is handed over.
    pub email: String,
    /// The user whom it signs in or verifies.
    pub user: Option<String>,
    /// What an invitation makes of the reader; `None` if they get an account of their own.
    pub invited: Option<Invited>,
    /// Who made it.
    pub by: String,
    /// When it was made.
    pub created: WallTime,
    /// The time from which on it does not work.
    pub expires: WallTime,
}

/// A change of people. A store without users ignores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserEdit {
    /// Creates a user, or replaces the one with the same id. Refused as [`super::LedgerError::Taken`] if another user
    /// has the e-mail address.
    Put(Box<UserRow>),
    /// Notes that a user signed in, and perhaps that they proved to read their e-mail. Refused as
    /// [`super::LedgerError::Unknown`] if there is no such user, or they may not sign in.
    SignedIn {
        /// The user's id.
        user: String,
        /// When.
        at: WallTime,
        /// True if they proved to read their e-mail.
        verified: bool,
    },
    /// Deletes a user, with what belongs to them.
    Delete(String),
    /// Makes a user a member, or changes their role.
    PutMember(MemberRow),
    /// Takes a member's role.
    RemoveMember {
        /// The user's id.
        user: String,
        /// The account.
        account: AccountId,
    },
    /// Begins a session. The user's session that was not used for longest ends if there are more than `most`.
    PutSession {
        /// The session.
        row: SessionRow,
        /// Most sessions of one user.
        most: usize,
    },
    /// Notes that a session was used.
    TouchSession(KeyHash, WallTime),
    /// Ends a session.
    EndSession(KeyHash),
    /// Ends the sessions of a user, but one.
    EndSessionsOf {
        /// The user's id.
        user: String,
        /// The session that goes on.
        except: Option<KeyHash>,
    },
    /// Makes a link.
    PutLink(LinkRow),
    /// Uses a link up. Refused as [`super::LedgerError::Unknown`] if there is none, so that it is used once.
    UseLink(KeyHash),
    /// Deletes the links of a user.
    DropLinksOf(String),
    /// Deletes the invitations of an e-mail address to an account, or without one.
    DropInvitations {
        /// The e-mail address.
        email: String,
        /// The account.
        account: Option<AccountId>,
    },
    /// Deletes all links to an e-mail address.
    DropLinksTo(String),
    /// An account waits for an operator to approve it.
    Await(AccountId),
    /// An account waits no longer.
    Approve(AccountId),
    /// Deletes what has expired.
    Prune {
        /// Sessions and links that expired before are deleted.
        expired: WallTime,
        /// Sessions that were last used before are deleted.
        idle: WallTime,
    },
}

/// Which users are listed.
#[derive(Clone, Debug, Default)]
pub struct UserFilter {
    /// Only operators.
    pub operators: bool,
    /// Only users after this e-mail address.
    pub after: Option<String>,
}

/// Reads people.
#[expect(clippy::missing_errors_doc, reason = "they fail where the store cannot be read")]
pub trait UserReader {
    /// A user.
    fn user(&mut self, id: &str) -> Result<Option<UserRow>>;
    /// The user with an e-mail address.
    fn user_named(&mut self, email: &str) -> Result<Option<UserRow>>;
    /// Users in the order of their addresses, at most `most`.
    fn users(&mut self, filter: &UserFilter, most: usize) -> Result<Vec<UserRow>>;
    /// The accounts of a user, at most `most`.
    fn memberships(&mut self, user: &str, most: usize) -> Result<Vec<MemberRow>>;
    /// The role of a user in an account.
    fn membership(&mut self, user: &str, account: &AccountId) -> Result<Option<MemberRow>>;
    /// The members of an account, at most `most`.
    fn members(&mut self, account: &AccountId, most: usize) -> Result<Vec<(MemberRow, UserRow)>>;
    /// A session.
    fn session(&mut self, hash: &KeyHash) -> Result<Option<SessionRow>>;
    /// The sessions of a user, the last used first, at most `most`.
    fn sessions(&mut self, user: &str, most: usize) -> Result<Vec<SessionRow>>;
    /// A link.
    fn link(&mut self, hash: &KeyHash) -> Result<Option<LinkRow>>;
    /// The invitations to an account, or those of operators without one, newest first, at most `most`.
    fn invitations(&mut self, account: Option<&AccountId>, most: usize) -> Result<Vec<LinkRow>>;
    /// True if an account waits for an operator to approve it.
    fn is_awaiting(&mut self, account: &AccountId) -> Result<bool>;
    /// The accounts that wait for an operator to approve them, the oldest first, at most `most`.
    fn awaiting(&mut self, most: usize) -> Result<Vec<AccountId>>;
}
