//! Sessions of people who signed in with a browser.

use serde::Serialize;

use super::people::Origin;
use super::secret;
use crate::control::Control;
use crate::control::operations::caller::{Authority, Caller, Noted};
use crate::control::operations::error::{OperationError, Result};
use crate::control::operations::terms::Time;
use crate::ledger::store::{MemberRole, Note, Role, SessionOf, SessionRow, UserEdit, UserRow};
use crate::types::{AccountId, KeyHash, Secret, WallTime};

const HOUR: i64 = 3600 * 1000;
/// A session that is not used for this long has ended, in milliseconds.
const IDLE: i64 = 24 * HOUR;
/// Longest session of a user, however much it is used.
const LONGEST: i64 = 14 * 24 * HOUR;
/// Longest session of a person whom the operator's own site handed over.
const LONGEST_GUEST: i64 = 24 * HOUR;
/// How often the last use of a session is written, in milliseconds.
const USE_NOTED_EVERY: i64 = 60_000;
/// Most sessions of one user; the one that was not used for longest gives way.
const MAX_SESSIONS: usize = 50;
/// Most accounts of one user.
pub(super) const MAX_ACCOUNTS: usize = 100;
/// Longest name of a browser that is kept, in characters.
const MAX_AGENT: usize = 200;

/// A session that has just begun.
#[derive(Debug)]
pub struct NewSession {
    /// The secret, which the browser keeps in a cookie.
    pub secret: Secret<String>,
    /// Where to go first: the account, or `None` for operators and users without one.
    pub account: Option<AccountId>,
}

/// Who is signed in.
#[derive(Clone, Debug)]
pub enum Person {
    /// A user.
    User(Box<UserRow>),
    /// A person whom the operator's own site handed over, by their name there.
    Guest(String),
}

/// A person who is signed in, as of now.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// SHA-256 of the session's secret.
    pub session: KeyHash,
    /// Who it is.
    pub person: Person,
    /// The accounts that they may see, and what they may do there.
    pub accounts: Vec<(AccountId, MemberRole)>,
    /// Where the request came from.
    pub origin: Origin,
}

/// A session in a list.
#[derive(Clone, Debug, Serialize)]
pub struct SessionView {
    /// The session's id: SHA-256 of its secret.
    pub id: String,
    /// True for the session that asks.
    pub is_own: bool,
    /// When it began.
    pub created: Time,
    /// When it was last used, at most a minute ago.
    pub seen: Time,
    /// The address it began from.
    pub from: String,
    /// The browser.
    pub agent: String,
}

impl Visitor {
    /// The user, if it is one.
    #[must_use]
    pub fn user(&self) -> Option<&UserRow> {
        match &self.person {
            Person::User(row) => Some(row),
            Person::Guest(_) => None,
        }
    }

    /// What an operator may do; `None` for customers.
    #[must_use]
    pub fn operator(&self) -> Option<Role> {
        self.user().and_then(|user| user.operator)
    }

    /// The role in an account. Operators have all accounts, by their role as an operator.
    #[must_use]
    pub fn role_in(&self, account: &AccountId) -> Option<MemberRole> {
        self.accounts.iter().find(|(own, _)| own == account).map(|(_, role)| *role)
    }

    fn caller_with(&self, authority: Authority) -> Caller {
        let actor = match (&self.person, &authority) {
            (Person::User(row), Authority::Operator(_)) => format!("operator:{}", row.email),
            (Person::User(row), _) => format!("user:{}", row.email),
            (Person::Guest(name), _) => format!("portal:{name}"),
        };
        Caller { actor, origin: self.origin.address.clone(), authority, repeat: None }
    }

    /// The caller of operations in an account.
    ///
    /// # Errors
    /// If the person has nothing to do with the account: it does not exist for them.
    pub fn caller_in(&self, account: &AccountId) -> Result<Caller> {
        match (self.operator(), self.role_in(account)) {
            (Some(role), _) => Ok(self.caller_with(Authority::Operator(role))),
            (None, Some(role)) => Ok(self.caller_with(match self.person {
                Person::User(_) => Authority::Member(account.clone(), role),
                Person::Guest(_) => Authority::Guest(account.clone(), role),
            })),
            (None, None) => Err(account.clone().into()),
        }
    }

    /// The caller of an operator's operations.
    ///
    /// # Errors
    /// If the person is no operator: there is nothing for them.
    pub fn caller(&self) -> Result<Caller> {
        match self.operator() {
            Some(role) => Ok(self.caller_with(Authority::Operator(role))),
            None => OperationError::missing("there is nothing here"),
        }
    }

    /// The caller of operations of a user on themselves.
    pub(super) fn own(&self) -> Result<(Caller, &UserRow)> {
        let user = self.user();
        let forbidden =
            || OperationError::Forbidden("you sign in on another site: change it there".to_owned());
        let user = user.ok_or_else(forbidden)?;
        Ok((
            Caller {
                actor: format!("user:{}", user.email),
                ..self.caller_with(Authority::Operator(Role::Support))
            },
            user,
        ))
    }
}

fn is_live(row: &SessionRow, now: WallTime) -> bool {
    now < row.expires && now.0.saturating_sub(row.seen.0) < IDLE
}

impl Control {
    /// Finds who a session belongs to. `None` if it is unknown or has ended, or the user may not sign in any more.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn visitor(&self, secret: &str, origin: Origin) -> Result<Option<Visitor>> {
        let (hash, now) = (KeyHash::of(secret.as_bytes()), self.clock.wall());
        let found = self.read_users(move |users| {
            let Some(row) = users.session(&hash)?.filter(|row| is_live(row, now)) else { return Ok(None) };
            Ok(match row.of.clone() {
                SessionOf::Guest { account, role, person } => {
                    let (person, accounts) = (Person::Guest(person), vec![(account, role)]);
                    Some((row, person, accounts))
                }
                SessionOf::User(id) => {
                    let Some(user) = users.user(&id)?.filter(|user| !user.is_disabled) else {
                        return Ok(None);
                    };
                    let members = users.memberships(&id, MAX_ACCOUNTS)?;
                    let accounts = members.into_iter().map(|member| (member.account, member.role)).collect();
                    Some((row, Person::User(Box::new(user)), accounts))
                }
            })
        });
        let Some((row, person, accounts)) = found.await? else { return Ok(None) };
        self.people.request(row.hash, self.clock.now())?;
        if now.0.saturating_sub(row.seen.0) >= USE_NOTED_EVERY {
            let touch = UserEdit::TouchSession(row.hash, now);
            if let Err(error) = self.bookkeeper.note(vec![Note::User(touch)]).await {
                tracing::warn!(%error, "the last use of a session could not be written");
            }
        }
        Ok(Some(Visitor { session: row.hash, person, accounts, origin }))
    }

    /// A new session, with the changes that begin it.
    pub(super) fn session_of(&self, of: SessionOf, origin: &Origin) -> Result<(Secret<String>, UserEdit)> {
        let (secret, now) = (secret()?, self.clock.wall());
        let longest = if matches!(of, SessionOf::User(_)) { LONGEST } else { LONGEST_GUEST };
        let agent = origin.agent.chars().filter(|letter| !letter.is_control()).take(MAX_AGENT).collect();
        let row = SessionRow {
            hash: KeyHash::of(secret.reveal().as_bytes()),
            of,
            created: now,
            seen: now,
            expires: WallTime(now.0.saturating_add(longest)),
            origin: origin.address.clone(),
            agent,
        };
        Ok((secret, UserEdit::PutSession { row, most: MAX_SESSIONS }))
    }

    /// Replaces a visitor's session by a new one: after a change of their rights, a secret from before is worth nothing.
    pub(super) fn renewed(&self, visitor: &Visitor) -> Result<(Secret<String>, Vec<UserEdit>)> {
        let (_, user) = visitor.own()?;
        let (secret, begin) = self.session_of(SessionOf::User(user.id.clone()), &visitor.origin)?;
        let end = UserEdit::EndSessionsOf { user: user.id.clone(), except: None };
        Ok((secret, vec![end, UserEdit::DropLinksOf(user.id.clone()), begin]))
    }

    /// Lists the sessions of a user, the last used first.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn sessions(&self, visitor: &Visitor) -> Result<Vec<SessionView>> {
        let Some(id) = visitor.user().map(|user| user.id.clone()) else { return Ok(Vec::new()) };
        let now = self.clock.wall();
        let rows = self.read_users(move |users| Ok(users.sessions(&id, MAX_SESSIONS)?)).await?;
        let view = |row: SessionRow| SessionView {
            id: hex::encode(row.hash.0),
            is_own: row.hash == visitor.session,
            created: Time(row.created),
            seen: Time(row.seen),
            from: row.origin,
            agent: row.agent,
        };
        Ok(rows.into_iter().filter(|row| is_live(row, now)).map(view).collect())
    }

    /// Ends the visitor's session.
    ///
    /// # Errors
    /// If the ledger cannot be written.
    pub async fn sign_out(&self, visitor: &Visitor) -> Result<()> {
        Ok(self.bookkeeper.note(vec![Note::User(UserEdit::EndSession(visitor.session))]).await?)
    }

    /// Ends a session of a user, by its id, or with `None` all but the visitor's.
    ///
    /// # Errors
    /// If the user has no such session.
    pub async fn end_sessions(&self, visitor: &Visitor, id: Option<&str>) -> Result<()> {
        let (caller, user) = visitor.own()?;
        let edit = match id {
            None => {
                let drop = vec![Note::User(UserEdit::DropLinksOf(user.id.clone()))];
                self.bookkeeper.note(drop).await?;
                UserEdit::EndSessionsOf { user: user.id.clone(), except: Some(visitor.session) }
            }
            Some(id) => {
                let known = self.sessions(visitor).await?.into_iter().any(|session| session.id == id);
                let hash = id.parse::<KeyHash>().ok().filter(|_| known);
                let missing = || OperationError::Missing("this session has ended already".to_owned());
                UserEdit::EndSession(hash.ok_or_else(missing)?)
            }
        };
        let noted = Noted { object: format!("user/{}", user.id), before: None, after: None, output: () };
        self.change_people(&caller, "user.end_sessions", noted, vec![edit]).await
    }

    /// Deletes sessions and links that have ended.
    pub async fn prune_people(&self) {
        let now = self.clock.wall().0;
        let prune = UserEdit::Prune { expired: WallTime(now), idle: WallTime(now.saturating_sub(IDLE)) };
        if let Err(error) = self.bookkeeper.note(vec![Note::User(prune)]).await {
            tracing::warn!(%error, "sessions that have ended could not be deleted");
        }
    }
}
