//! Lists the refused requests of an account.

use serde::Serialize;
use utoipa::ToSchema;

use crate::control::Control;
use crate::control::operations::caller::{Caller, Permission};
use crate::control::operations::error::Result;
use crate::control::operations::terms::{Page, Time};
use crate::ledger::store::RefusalRow;
use crate::types::{AccountId, KeyId, RequestId};

/// A refused request of an account.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Refusal)]
pub struct RefusalView {
    /// When it was refused.
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// The request's id.
    #[schema(value_type = String)]
    pub request_id: RequestId,
    /// The key.
    #[schema(value_type = Option<String>)]
    pub key: Option<KeyId>,
    /// The route; null if there was none.
    pub route: Option<String>,
    /// Why it was refused.
    pub reason: String,
    /// The name of the limit that refused it.
    pub limit: Option<String>,
}

impl Control {
    /// Lists the refused requests of an account, newest first.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn refusals(
        &self,
        caller: &Caller,
        account: AccountId,
        before: Option<u64>,
        most: usize,
    ) -> Result<Page<RefusalView>> {
        caller.may_in(Permission::ReadAccounts, &account)?;
        if self.directory.account(&account).is_none() {
            return Err(account.into());
        }
        let reader = self.bookkeeper.usage_reader().await?;
        let rows = crate::control::operations::aside(reader, move |reader| {
            Ok(reader.refusals(&account, before, most + 1)?)
        });
        let page = Page::of(rows.await?, most, |row: &RefusalRow| row.number.to_string());
        Ok(page.map(|row| {
            let RefusalRow { at, id, key, route, reason, limit, .. } = row;
            RefusalView { at: Time(at), request_id: id, key, route, reason, limit }
        }))
    }
}
