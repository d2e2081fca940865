//! Lists the audit log.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::caller::{Caller, Permission};
use super::error::Result;
use super::terms::{Page, Time};
use crate::control::Control;
use crate::ledger::store::{AuditFilter, Audited};
use crate::types::AccountId;

/// An audit entry: who changed what.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct AuditView {
    /// The number of the entry, which grows.
    pub number: u64,
    /// When the change was made.
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// Who made the change: `command`, `file`, `token:` and the token's name, `operator:` or `user:` and their e-mail
    /// address, or `portal:` and the name of a person whom the operator's own site handed over.
    pub by: String,
    /// Where the request came from: an IP address, `control socket` or `configuration file`.
    pub from: String,
    /// What was done, such as `key.rotate`.
    pub action: String,
    /// What was changed, such as `account/acme`.
    pub object: String,
    /// The account that it belongs to; null if it belongs to none.
    #[schema(value_type = Option<String>)]
    pub account: Option<AccountId>,
    /// The object before the change, without secrets.
    #[schema(value_type = Option<Object>)]
    pub before: Option<Value>,
    /// The object after the change, without secrets.
    #[schema(value_type = Option<Object>)]
    pub after: Option<Value>,
}

impl AuditView {
    fn of(entry: Audited) -> Self {
        let json = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok());
        let Audited { number, at, row } = entry;
        Self {
            number,
            at: Time(at),
            by: row.actor,
            from: row.origin,
            action: row.action,
            object: row.object,
            account: row.account,
            before: json(row.before),
            after: json(row.after),
        }
    }
}

impl AuditView {
    /// The entry as members of an account see it: not which operator made a change, and from where.
    fn for_members(mut self) -> Self {
        if let Some(after) = self.after.as_mut().and_then(Value::as_object_mut) {
            after.remove("note"); // is for the operator
        }
        if self.by.starts_with("user:") || self.by.starts_with("portal:") {
            return self;
        }
        Self { by: "operator".to_owned(), from: String::new(), ..self }
    }
}

impl Control {
    /// Lists audit entries, newest first. A member sees those of their account.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn audit(&self, caller: &Caller, filter: AuditFilter, most: usize) -> Result<Page<AuditView>> {
        match &filter.account {
            Some(account) => caller.may_in(Permission::ReadAccounts, account)?,
            None => caller.may(Permission::ReadAll)?,
        }
        let rows = self.read(move |reader| Ok(reader.audit(&filter, most + 1)?)).await?;
        let page = Page::of(rows, most, |entry: &Audited| entry.number.to_string());
        let is_member = caller.is_customer();
        Ok(page
            .map(|entry| if is_member { AuditView::of(entry).for_members() } else { AuditView::of(entry) }))
    }
}
