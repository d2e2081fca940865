//! Executes commands: calls the operation of each, and sends the rows of a long result.

use std::ops::ControlFlow;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::command::Command;
use super::operations::{AccountPatch, Caller, ChargesQuery, ExplainInput, OperationError, Page, Result};
use super::{Control, Rows};
use crate::ledger::store::AuditFilter;
use crate::types::{AccountId, KeyNum};

/// Rows that are read at a time.
const PAGE: usize = 200;

fn value(output: impl Serialize) -> Result<Value> {
    serde_json::to_value(output).map_err(|error| OperationError::Unavailable(error.to_string()))
}

async fn send_all<T: Serialize>(data: Vec<T>, name: &str, rows: &Rows) -> Result<Value> {
    let mut count = 0;
    send(Page { data, next_cursor: None }, &mut count, rows).await?;
    Ok(json!({ name: count }))
}

/// Sends the rows of a page. `None` after the last page, or if the client of the command has disconnected; otherwise
/// the cursor of the next page.
async fn send<T: Serialize>(page: Page<T>, count: &mut u64, rows: &Rows) -> Result<Option<String>> {
    for row in page.data {
        *count += 1;
        if rows.send(value(row)?).await.is_err() {
            return Ok(None);
        }
    }
    Ok(page.next_cursor)
}

impl Control {
    /// Executes a command. The rows of a long result are sent to `rows` before the final result is returned.
    ///
    /// # Errors
    /// A message for the operator. The command has changed nothing.
    pub async fn execute(self: &Arc<Self>, caller: &Caller, command: Command, rows: Rows) -> Result<Value> {
        match command {
            Command::Reload => value(self.reload(caller).await?),
            Command::Status => self.status(caller),
            Command::Nodes => send_all(self.nodes(caller).await?, "nodes", &rows).await,
            Command::TakeOver => {
                let message = "no gateway runs that could be taken over".to_owned();
                Err(OperationError::Conflict(message))
            }
            Command::KeyCreate { account, key } => value(self.create_key(caller, account, key).await?),
            Command::KeyImport { lines } => value(self.import_keys(caller, lines).await?),
            Command::KeyList { account, idle } => self.list_keys(caller, account, idle, &rows).await,
            Command::KeyShow { id } => value(self.key(caller, id).await?),
            Command::KeyRotate { id, overlap } => value(self.rotate_key(caller, id, overlap).await?),
            Command::KeyState { id, state } => value(self.set_key_state(caller, id, state).await?),
            Command::KeyPattern => value(self.key_pattern()),
            Command::AccountCreate(account) => value(self.create_account(caller, account).await?),
            Command::AccountImport { lines } => value(self.import_accounts(caller, lines).await?),
            Command::AccountList => self.list_accounts(caller, &rows).await,
            Command::AccountShow { id } => value(self.account(caller, id).await?),
            Command::GroupList { account } => {
                send_all(self.groups(caller, account).await?.data, "groups", &rows).await
            }
            Command::GroupPut { account, name, group } => {
                value(self.put_group(caller, account, name, group).await?)
            }
            Command::GroupDelete { account, name } => value(self.delete_group(caller, account, name).await?),
            Command::AccountSuspend { id, suspended } => {
                let patch = AccountPatch { suspended: Some(suspended), ..AccountPatch::default() };
                value(self.change_account(caller, id, patch, None).await?)
            }
            Command::Book { account, adjustment, booking } => value(match adjustment {
                true => self.adjust(caller, account, booking).await?,
                false => self.grant(caller, account, booking).await?,
            }),
            Command::Statement { account } => self.list_entries(caller, Some(account), rows).await,
            Command::Export => self.list_entries(caller, None, rows).await,
            Command::ExportAll => self.export_all(caller, rows).await,
            Command::Charges(query) => self.list_charges(caller, query, rows).await,
            Command::Verify => value(self.verify_ledger(caller).await?),
            Command::InDoubt { request } => self.list_doubts(caller, request, &rows).await,
            Command::GiveBack { id } => value(self.give_back(caller, &id).await?),
            Command::Backup { to } => value(self.backup(caller, to).await?),
            Command::Explain { key, method, url } => {
                value(self.explain(caller, ExplainInput { key, method, url }).await?)
            }
            Command::Request { id } => value(self.request(caller, &id).await?),
            Command::Rehearse(input) => value(self.rehearse(caller, input).await?),
            Command::TokenCreate(token) => value(self.create_token(caller, token).await?),
            Command::TokenList => send_all(self.tokens(caller).await?, "tokens", &rows).await,
            Command::TokenRevoke { name } => value(self.revoke_token(caller, &name).await?),
            Command::UserCreate(input) => value(self.create_user(caller, input).await?),
            Command::UserInvite(input) => value(self.invite(caller, input).await?),
            Command::UserList { operators } => self.list_users(caller, operators, &rows).await,
            Command::UserLink { user } => value(self.sign_in_link(caller, &user).await?),
            Command::UserChange { user, patch } => value(self.change_user(caller, &user, patch).await?),
            Command::UserDelete { user } => value(self.delete_user(caller, &user).await?),
            Command::Usage(query) => send_all(self.usage(caller, query).await?.data, "rows", &rows).await,
            Command::UsageCsv(query) => {
                let csv = self.usage(caller, query).await?.to_csv();
                let csv = csv.map_err(|error| OperationError::Unavailable(error.to_string()))?;
                Ok(json!({ "csv": csv }))
            }
            Command::Audit { object, most } => {
                let filter = AuditFilter { object, ..AuditFilter::default() };
                send_all(self.audit(caller, filter, most).await?.data, "entries", &rows).await
            }
        }
    }

    async fn list_keys(
        &self,
        caller: &Caller,
        account: Option<AccountId>,
        idle: Option<String>,
        rows: &Rows,
    ) -> Result<Value> {
        let (mut count, mut after) = (0, KeyNum(0));
        loop {
            let page = self.keys(caller, account.clone(), idle.as_deref(), after, PAGE).await?;
            match send(page, &mut count, rows).await?.and_then(|cursor| cursor.parse().ok()) {
                Some(num) => after = KeyNum(num),
                None => return Ok(json!({ "keys": count })),
            }
        }
    }

    async fn list_accounts(&self, caller: &Caller, rows: &Rows) -> Result<Value> {
        let (mut count, mut after) = (0, None);
        loop {
            let page = self.accounts(caller, after, PAGE).await?;
            match send(page, &mut count, rows).await?.and_then(|cursor| cursor.parse().ok()) {
                Some(id) => after = Some(id),
                None => return Ok(json!({ "accounts": count })),
            }
        }
    }

    async fn list_users(&self, caller: &Caller, operators: bool, rows: &Rows) -> Result<Value> {
        let (mut count, mut after) = (0, None);
        loop {
            let page = self.users(caller, operators, after, PAGE).await?;
            match send(page, &mut count, rows).await? {
                Some(email) => after = Some(email),
                None => return Ok(json!({ "users": count })),
            }
        }
    }

    async fn list_entries(&self, caller: &Caller, account: Option<AccountId>, rows: Rows) -> Result<Value> {
        let send = move |entry| match serde_json::to_value(entry).map(|row| rows.blocking_send(row)) {
            Ok(Ok(())) => ControlFlow::Continue(()),
            Ok(Err(_)) | Err(_) => ControlFlow::Break(()), // the client of the command has disconnected
        };
        Ok(json!({ "entries": self.each_entry(caller, account, send).await? }))
    }

    async fn list_charges(&self, caller: &Caller, query: ChargesQuery, rows: Rows) -> Result<Value> {
        let send = move |charge| match serde_json::to_value(charge).map(|row| rows.blocking_send(row)) {
            Ok(Ok(())) => ControlFlow::Continue(()),
            Ok(Err(_)) | Err(_) => ControlFlow::Break(()), // the client of the command has disconnected
        };
        Ok(json!({ "since": self.each_charge(caller, query, send).await? }))
    }

    async fn export_all(&self, caller: &Caller, rows: Rows) -> Result<Value> {
        let send = move |exported| match serde_json::to_value(exported).map(|row| rows.blocking_send(row)) {
            Ok(Ok(())) => ControlFlow::Continue(()),
            Ok(Err(_)) | Err(_) => ControlFlow::Break(()), // the client of the command has disconnected
        };
        let [accounts, keys] = self.export(caller, send).await?;
        Ok(json!({ "accounts": accounts, "keys": keys }))
    }

    async fn list_doubts(&self, caller: &Caller, request: Option<String>, rows: &Rows) -> Result<Value> {
        let doubts = self.in_doubt(caller, request).await?;
        let open = doubts.iter().filter(|doubt| doubt.given_back.is_none()).count();
        let done = json!({ "in_doubt": open, "given_back": doubts.len() - open });
        send(Page { data: doubts, next_cursor: None }, &mut 0, rows).await?;
        Ok(done)
    }
}
