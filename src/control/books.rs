//! Implements the ledger commands: statements, exports, verification, holds in doubt, backups.

use std::ops::ControlFlow;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::keys::shown;
use super::{Control, Failure, Rows, refused};
use crate::ledger::entry::Entry;
use crate::ledger::store::{BooksReader, each_entry};
use crate::ledger::verify::verify;
use crate::types::{AccountId, RequestId, StatusClass};

/// Runs a long read on a blocking thread, so that it delays no other command.
pub(super) async fn aside<R: Send + 'static>(
    reader: Box<dyn BooksReader>,
    read: impl FnOnce(Box<dyn BooksReader>) -> Result<R, Failure> + Send + 'static,
) -> Result<R, Failure> {
    match tokio::task::spawn_blocking(move || read(reader)).await {
        Ok(result) => result,
        Err(error) => refused(format!("reading the ledger failed: {error}")),
    }
}

/// Sends a row from a long read; ends the read if the client of the command has disconnected.
pub(super) fn send(rows: &Rows, row: Value) -> ControlFlow<()> {
    rows.blocking_send(row).map_or(ControlFlow::Break(()), ControlFlow::Continue)
}

fn describe(entry: &Entry) -> Value {
    json!({
        "number": entry.number,
        "at": shown(entry.at),
        "account": entry.account,
        "kind": entry.kind,
        "amount": entry.amount,
        "balance_after": entry.balance_after,
        "bucket": entry.bucket,
        "key": entry.key,
        "route": entry.route,
        "outcome": entry.outcome.map(StatusClass::name),
        "requests": entry.requests,
        "reference": entry.reference,
        "by": entry.actor,
        "link": entry.link,
    })
}

/// True if `request` is the id of this request: Tollgate's id, or the id that a trusted proxy sent.
fn is_of(id: RequestId, request: &str) -> bool {
    request.parse() == Ok(id) || id.is_of_proxy(request.as_bytes())
}

impl Control {
    /// Sends every entry of one account, or of all accounts, to `rows`. Returns the number of entries.
    pub(super) async fn entries(&self, account: Option<AccountId>, rows: Rows) -> Result<Value, Failure> {
        let mut reader = self.bookkeeper.reader().await?;
        if let Some(id) = &account
            && reader.account(id)?.is_none()
        {
            return refused(format!("there is no account {id}"));
        }
        let count = aside(reader, move |mut reader| {
            let mut count = 0_u64;
            each_entry(&mut *reader, account.as_ref(), |entry| {
                count += 1;
                send(&rows, describe(&entry))
            })?;
            Ok(count)
        });
        Ok(json!({ "entries": count.await? }))
    }

    pub(super) async fn verify(&self) -> Result<Value, Failure> {
        let reader = self.bookkeeper.reader().await?;
        let verified = aside(reader, |mut reader| Ok(verify(&mut *reader)?)).await?;
        Ok(json!(verified))
    }

    pub(super) async fn in_doubt(&self, request: Option<&str>, rows: &Rows) -> Result<Value, Failure> {
        let mut doubts = self.bookkeeper.reader().await?.in_doubt()?;
        doubts.retain(|doubt| request.is_none_or(|request| is_of(doubt.id, request)));
        let open = doubts.iter().filter(|doubt| doubt.given_back.is_none()).count();
        for doubt in &doubts {
            let row = json!({
                "id": doubt.id,
                "account": doubt.account,
                "key": doubt.key,
                "route": doubt.route,
                "amount": doubt.amount,
                "at": shown(doubt.at),
                "given_back": doubt.given_back.map(shown),
            });
            let _ = rows.send(row).await; // fails if the client of the command has disconnected
        }
        Ok(json!({ "in_doubt": open, "given_back": doubts.len() - open }))
    }

    /// Returns the credits of a hold in doubt. `request` is Tollgate's id of the request, or the id that a trusted
    /// proxy sent, if only one hold in doubt has it.
    pub(super) async fn give_back(&self, request: &str) -> Result<Value, Failure> {
        let id = match request.parse::<RequestId>() {
            Ok(id) => id,
            Err(_) => {
                let mut doubts = self.bookkeeper.reader().await?.in_doubt()?;
                doubts.retain(|doubt| is_of(doubt.id, request));
                match &*doubts {
                    [one] => one.id,
                    [] => return refused(format!("no hold in doubt belongs to a request {request}")),
                    _ => {
                        let ids: Vec<String> = doubts.iter().map(|doubt| doubt.id.to_string()).collect();
                        return refused(format!("several belong to {request}; name one: {}", ids.join(", ")));
                    }
                }
            }
        };
        let booked = self.bookkeeper.give_back(id).await?;
        let entry = booked.entry;
        Ok(json!({ "id": id, "account": entry.account, "amount": entry.amount, "repeated": booked.repeated }))
    }

    pub(super) async fn backup(&self, to: PathBuf) -> Result<Value, Failure> {
        if !to.is_absolute() {
            return refused("the path of a backup must be absolute");
        }
        let (reader, path) = (self.bookkeeper.reader().await?, to.clone());
        aside(reader, move |mut reader| Ok(reader.backup(&path)?)).await?;
        Ok(json!({ "backup": to }))
    }
}
