//! Identifies who performs an operation, what they may do, and what is written about it.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;

use super::error::{OperationError, Result};
use super::repeat::Repeat;
use crate::ledger::store::{AuditRow, Note, Notes, Role};

/// Who performs an operation, from where.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The name in entries and in the audit log: `command`, or `token:` and the token's name.
    pub actor: String,
    /// Where the request came from: an IP address, or `control socket`.
    pub origin: String,
    /// What the caller may do.
    pub role: Role,
    /// Present if the request has an idempotency key, so that its answer is kept.
    pub repeat: Option<Arc<Repeat>>,
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
    /// Change everything else.
    Manage,
}

impl Permission {
    /// All permissions.
    pub const ALL: [Self; 4] = [Self::ReadAccounts, Self::ReadAll, Self::Credits, Self::Manage];

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
        Self { actor, origin, role: Role::Owner, repeat: None }
    }

    /// The gateway itself, because the configuration files changed.
    #[must_use]
    pub fn file() -> Self {
        Self { actor: "file".to_owned(), origin: "configuration file".to_owned(), ..Self::command() }
    }

    /// An operator who sent SIGHUP to the gateway.
    #[must_use]
    pub fn signal() -> Self {
        Self { origin: "signal".to_owned(), ..Self::command() }
    }

    /// Checks the caller's role.
    ///
    /// # Errors
    /// [`OperationError::Forbidden`].
    pub fn may(&self, permission: Permission) -> Result<()> {
        if permission.is_of(self.role) {
            return Ok(());
        }
        let message = match permission {
            Permission::ReadAccounts | Permission::ReadAll => "may not read this",
            Permission::Credits => "may not book credits",
            Permission::Manage => "may not change this",
        };
        Err(OperationError::Forbidden(format!("a token with the role {} {message}", self.role.name())))
    }

    /// The audit entry of a change.
    pub(in crate::control) fn audit<V>(&self, action: &str, noted: &Noted<V>) -> Note {
        let text = |value: &Option<Value>| value.as_ref().map(Value::to_string);
        Note::Audit(AuditRow {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_allow_what_they_say() {
        let table = [
            (Role::Owner, [true, true, true, true]),
            (Role::Billing, [true, false, true, false]),
            (Role::Support, [true, true, false, false]),
        ];
        for (role, allowed) in table {
            assert_eq!(Permission::ALL.map(|permission| permission.is_of(role)), allowed, "{role:?}");
        }
    }
}
