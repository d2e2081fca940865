//! Defines the rows that are written in the same transaction as a change of the control plane: the audit entry, and the
//! answer to a request that may be repeated. So a crash leaves either all of them or none.

use std::sync::Arc;

use super::payments::{Payer, PaymentRow};
use super::users::{Role, UserEdit};
use super::webhooks::EventRow;
use crate::types::{AccountId, KeyHash, WallTime};

/// Who changed what, from where. Audit entries are only appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Who made the change, such as `command` or `token:ci`.
    pub actor: String,
    /// Where the request came from: an IP address, or `control socket`.
    pub origin: String,
    /// What was done, such as `key.rotate`.
    pub action: String,
    /// What was changed, such as `account/acme`.
    pub object: String,
    /// The account that the object belongs to, if it belongs to one.
    pub account: Option<AccountId>,
    /// The object before the change, as JSON without secrets.
    pub before: Option<String>,
    /// The object after the change, as JSON without secrets.
    pub after: Option<String>,
}

/// An audit entry in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    /// The number of the entry, which grows.
    pub number: u64,
    /// When the change was made.
    pub at: WallTime,
    /// The change.
    pub row: AuditRow,
}

/// The answer to a request with an `Idempotency-Key`, which is given again when the request is repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerRow {
    /// Identifies the client's token and its idempotency key.
    pub id: KeyHash,
    /// SHA-256 of the request.
    pub request: KeyHash,
    /// The answer, encrypted with a key that only the client's next request can derive, since it may contain a secret.
    pub answer: Vec<u8>,
}

/// A row that is written in the same transaction as a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Who made the change.
    Audit(AuditRow),
    /// The answer to the request that made the change. The change is refused as [`super::LedgerError::Taken`] if there
    /// is an answer with the same id.
    Answer(AnswerRow),
    /// An event of an account, which is sent to its webhooks. A store without webhooks ignores it.
    Event(EventRow),
    /// A payment. A store without payments ignores it.
    Payment(PaymentRow),
    /// How an account pays. A store without payments ignores it.
    Payer(AccountId, Box<Payer>),
    /// A change of the people who use the dashboard. A store without users ignores it.
    User(UserEdit),
}

/// Makes the notes of a change from its result.
pub type Notes<T> = Arc<dyn Fn(&T) -> Vec<Note> + Send + Sync>;

/// Notes for a change that no operator made.
#[must_use]
pub fn no_notes<T>() -> Notes<T> {
    Arc::new(|_| Vec::new())
}

/// A token of the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// The token's name, by which operators recognise it.
    pub name: String,
    /// SHA-256 of the token.
    pub hash: KeyHash,
    /// What the token may do.
    pub role: Role,
    /// When the token was created.
    pub created: WallTime,
    /// The time from which on the token is refused; `None` if it does not expire.
    pub expires: Option<WallTime>,
    /// When the token was last used, at most a minute ago; `None` if never.
    pub last_used: Option<WallTime>,
    /// When the token was revoked; `None` if it was not.
    pub revoked: Option<WallTime>,
}
