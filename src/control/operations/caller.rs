//! Identifies who performs an operation, what they may do, and what is written about it.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;

use super::error::{OperationError, Result};
use super::repeat::Repeat;
use crate::ledger::store::{AuditRow, MemberRole, Note, Notes, Role};
use crate::types::AccountId;

/// Who performs an operation, from where.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The name in entries and in the audit log: `command`, `token:` and the token's name, `operator:` or `user:` and the
    /// user's e-mail address.
    pub actor: String,
    /// Where the request came from: an IP address, or `control socket`.
    pub origin: String,
    /// What the caller may do.
    pub authority: Authority,
    /// Present if the request has an idempotency key, so that its answer is kept.
    pub repeat: Option<Arc<Repeat>>,
}

/// What a caller may do, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authority {
    /// An operator: in all accounts.
    Operator(Role),
    /// A customer: in one account. Every other account is as if it did not exist.
    Member(AccountId, MemberRole),
    /// A person whom the operator's own site handed over, in one account. They give nobody access, since their own ends.
    Guest(AccountId, MemberRole),
}

/// A kind of operation, which a role may perform or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Read accounts, their keys, entries and usage.
    ReadAccounts,
    /// Read everything else: the configuration, tokens, the audit log.
    ReadAll,
    /// Book credits.
    Credits,
    /// Change keys of an account.
    Keys,
    /// Change webhooks of an account, and read their secrets.
    Endpoints,
    /// Change when an account is told about its balance, and how it is renewed; buy credits.
    Alerts,
    /// Change the members of an account.
    Team,
    /// Change everything else.
    Manage,
}

impl Permission {
    /// All permissions.
    pub const ALL: [Self; 8] = [
        Self::ReadAccounts,
        Self::ReadAll,
        Self::Credits,
        Self::Keys,
        Self::Endpoints,
        Self::Alerts,
        Self::Team,
        Self::Manage,
    ];

    /// True if a member of an account may perform operations of this kind there.
    #[must_use]
    pub fn is_of_member(self, role: MemberRole) -> bool {
        match self {
            Self::ReadAccounts => true,
            Self::Keys | Self::Endpoints => matches!(role, MemberRole::Owner | MemberRole::Developer),
            Self::Alerts => matches!(role, MemberRole::Owner | MemberRole::Billing),
            Self::Team => role == MemberRole::Owner,
            Self::ReadAll | Self::Credits | Self::Manage => false,
        }
    }

    /// True if the role may perform operations of this kind.
    #[must_use]
    pub fn is_of(self, role: Role) -> bool {
        match role {
            Role::Owner => true,
            Role::Billing => matches!(self, Self::ReadAccounts | Self::Credits),
            Role::Support => matches!(self, Self::ReadAccounts | Self::ReadAll),
        }
    }
}

/// What is written about a change, and the output of the operation.
pub(in crate::control) struct Noted<V> {
    /// What was changed, such as `account/acme`.
    pub(in crate::control) object: String,
    /// The object before the change, without secrets.
    pub(in crate::control) before: Option<Value>,
    /// The object after the change, without secrets.
    pub(in crate::control) after: Option<Value>,
    /// The output of the operation.
    pub(in crate::control) output: V,
}

/// The output of an operation, once its change is written.
pub(super) struct Output<V>(Arc<Mutex<Option<V>>>);

impl<V> Output<V> {
    /// Takes the output.
    ///
    /// # Errors
    /// If the change was not written.
    pub(super) fn take(self) -> Result<V> {
        let output = self.0.lock().take();
        output.ok_or_else(|| OperationError::Unavailable("the ledger did not make the change".to_owned()))
    }
}

impl Caller {
    /// An operator who uses the command line on the gateway's machine.
    #[must_use]
    pub fn command() -> Self {
        let (actor, origin) = ("command".to_owned(), "control socket".to_owned());
        Self { actor, origin, authority: Authority::Operator(Role::Owner), repeat: None }
    }

    /// The gateway itself, because the configuration files changed.
    #[must_use]
    pub fn file() -> Self {
        Self { actor: "file".to_owned(), origin: "configuration file".to_owned(), ..Self::command() }
    }

    /// The payment service, whose messages are signed.
    pub(super) fn payments() -> Self {
        Self { actor: "stripe".to_owned(), origin: "signed message".to_owned(), ..Self::command() }
    }

    /// An operator who sent SIGHUP to the gateway.
    #[must_use]
    pub fn signal() -> Self {
        Self { origin: "signal".to_owned(), ..Self::command() }
    }

    /// True for customers: members of an account, and guests.
    pub(super) fn is_customer(&self) -> bool {
        !matches!(self.authority, Authority::Operator(_))
    }

    /// Checks that an operator with the needed role calls.
    ///
    /// # Errors
    /// [`OperationError::Forbidden`].
    pub fn may(&self, permission: Permission) -> Result<()> {
        let role = match self.authority {
            Authority::Operator(role) if permission.is_of(role) => return Ok(()),
            Authority::Operator(role) => format!("the role {}", role.name()),
            Authority::Member(..) | Authority::Guest(..) => "a member of an account".to_owned(),
        };
        Err(forbidden(&role, permission))
    }

    /// Checks the caller's role in an account. For a member, other accounts do not exist.
    ///
    /// # Errors
    /// [`OperationError::Forbidden`] or [`OperationError::Missing`].
    pub fn may_in(&self, permission: Permission, account: &AccountId) -> Result<()> {
        let (own, role, is_guest) = match &self.authority {
            Authority::Operator(_) => return self.may(permission),
            Authority::Member(own, role) => (own, role, false),
            Authority::Guest(own, role) => (own, role, true),
        };
        match (
            own == account,
            permission.is_of_member(*role) && !(is_guest && permission == Permission::Team),
        ) {
            (false, _) => Err(account.clone().into()),
            (true, true) => Ok(()),
            (true, false) => Err(forbidden(&format!("the role {}", role.name()), permission)),
        }
    }

    /// Checks the caller's role in the account that an object belongs to, before the object is used. `None`: an object of
    /// the operator. For a member, objects of other accounts do not exist.
    ///
    /// # Errors
    /// [`OperationError::Forbidden`], or `missing` for an object that the caller must not know of.
    pub(super) fn may_touch(
        &self,
        permission: Permission,
        owner: Option<&AccountId>,
        missing: impl FnOnce() -> OperationError,
    ) -> Result<()> {
        match (&self.authority, owner) {
            (Authority::Operator(_), _) => self.may(permission),
            (Authority::Member(own, _) | Authority::Guest(own, _), Some(owner)) if own == owner => {
                self.may_in(permission, owner)
            }
            (Authority::Member(..) | Authority::Guest(..), _) => Err(missing()),
        }
    }

    /// The audit entry of a change.
    pub(in crate::control) fn audit<V>(&self, action: &str, noted: &Noted<V>) -> Note {
        let text = |value: &Option<Value>| value.as_ref().map(Value::to_string);
        let named = |value: &Option<Value>| {
            value.as_ref().and_then(|value| value["account"].as_str()).map(str::to_owned)
        };
        let own = noted.object.strip_prefix("account/").map(str::to_owned);
        let account = own.or_else(|| named(&noted.after)).or_else(|| named(&noted.before));
        Note::Audit(AuditRow {
            account: account.and_then(|id| id.parse().ok()),
            actor: self.actor.clone(),
            origin: self.origin.clone(),
            action: action.to_owned(),
            object: noted.object.clone(),
            before: text(&noted.before),
            after: text(&noted.after),
        })
    }

    /// The answer to keep, if the request may be repeated.
    pub(in crate::control) fn answer(&self, output: &impl Serialize) -> Option<Note> {
        self.repeat.as_ref().and_then(|repeat| repeat.seal(output)).map(Note::Answer)
    }

    /// The notes of a change, made from its result: its audit entry, and its answer if the request may be repeated.
    /// `make` gets the result.
    pub(super) fn noted<T, V: Clone + Serialize + Send + 'static>(
        &self,
        action: &'static str,
        make: impl Fn(&T) -> Noted<V> + Send + Sync + 'static,
    ) -> (Notes<T>, Output<V>) {
        let (caller, slot) = (self.clone(), Arc::new(Mutex::new(None)));
        let output = Output(Arc::clone(&slot));
        let notes = move |result: &T| {
            let noted = make(result);
            let mut notes = vec![caller.audit(action, &noted)];
            notes.extend(caller.answer(&noted.output));
            *slot.lock() = Some(noted.output);
            notes
        };
        (Arc::new(notes), output)
    }
}

fn forbidden(who: &str, permission: Permission) -> OperationError {
    let what = match permission {
        Permission::ReadAccounts | Permission::ReadAll => "may not read this",
        Permission::Credits => "may not book credits",
        Permission::Keys => "may not change keys",
        Permission::Endpoints => "may not change webhooks or read their secrets",
        Permission::Alerts => "may not change alerts",
        Permission::Team => "may not change who has access",
        Permission::Manage => "may not change this",
    };
    OperationError::Forbidden(format!("{who} {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_allow_what_they_say() {
        let table = [
            (Role::Owner, [true, true, true, true, true, true, true, true]),
            (Role::Billing, [true, false, true, false, false, false, false, false]),
            (Role::Support, [true, true, false, false, false, false, false, false]),
        ];
        for (role, allowed) in table {
            assert_eq!(Permission::ALL.map(|permission| permission.is_of(role)), allowed, "{role:?}");
        }
        let table = [
            (MemberRole::Owner, [true, false, false, true, true, true, true, false]),
            (MemberRole::Developer, [true, false, false, true, true, false, false, false]),
            (MemberRole::Billing, [true, false, false, false, false, true, false, false]),
            (MemberRole::Viewer, [true, false, false, false, false, false, false, false]),
        ];
        for (role, allowed) in table {
            assert_eq!(Permission::ALL.map(|permission| permission.is_of_member(role)), allowed, "{role:?}");
        }
    }

    #[test]
    fn other_accounts_do_not_exist_for_a_member() {
        let (own, other): (AccountId, AccountId) = ("acme".parse().unwrap(), "globex".parse().unwrap());
        let authority = Authority::Member(own.clone(), MemberRole::Owner);
        let member = Caller { authority, ..Caller::command() };
        let reason = |result: Result<()>| result.map_or_else(|error| error.reason(), |()| "done");
        let missing = || OperationError::Missing("there is no such key".to_owned());
        assert_eq!(reason(member.may_in(Permission::Keys, &own)), "done");
        assert_eq!(reason(member.may_in(Permission::Credits, &own)), "forbidden");
        assert_eq!(reason(member.may_touch(Permission::Keys, Some(&own), missing)), "done");
        for permission in Permission::ALL {
            assert_eq!(reason(member.may_in(permission, &other)), "not_found");
            assert_eq!(reason(member.may_touch(permission, Some(&other), missing)), "not_found");
            assert_eq!(reason(member.may_touch(permission, None, missing)), "not_found");
            assert_eq!(reason(member.may(permission)), "forbidden");
        }
    }
}
