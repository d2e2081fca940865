//! Creates, lists, changes and tests endpoints of webhooks, and lists and repeats their deliveries.

mod alerts;
mod types;

use serde_json::json;

pub use types::{Alerts, DeliveryView, EndpointInput, EndpointPatch, EndpointView, Sent};

use super::caller::{Caller, Noted, Output, Permission};
use super::error::{OperationError, Result};
use super::terms::{Page, moment};
use crate::control::webhooks::{SECRET, check_url, secret};
use crate::control::{Control, random};
use crate::ledger::store::{DeliveriesOf, EndpointRow, EventKind, EventRow, Notes, Source};
use crate::types::AccountId;

/// Most endpoints of one account, and of the operator.
const MAX_ENDPOINTS: usize = 20;

fn events_of(names: Option<Vec<String>>) -> Result<Option<Vec<EventKind>>> {
    let Some(names) = names.filter(|names| !names.is_empty()) else { return Ok(None) };
    let kinds = names.iter().map(|name| {
        let known = EventKind::named(name);
        known.ok_or_else(|| OperationError::Invalid {
            field: "events",
            message: format!(
                "there is no event {name}; there are {}",
                EventKind::ALL.map(EventKind::name).join(", ")
            ),
        })
    });
    kinds.collect::<Result<_>>().map(Some)
}

/// The notes of a message that is sent now.
fn sent(caller: &Caller, action: &'static str, object: String) -> (Notes<u64>, Output<Sent>) {
    caller.noted(action, move |number: &u64| {
        let output = Sent { number: *number };
        let after = Some(json!({ "delivery": number }));
        Noted { object: object.clone(), before: None, after, output }
    })
}

fn unknown(id: &str) -> OperationError {
    OperationError::Missing(format!("there is no endpoint {id}"))
}

impl Control {
    /// A row for a new endpoint.
    pub(in crate::control) fn endpoint_row(
        &self,
        account: Option<AccountId>,
        url: String,
        source: Source,
    ) -> Result<EndpointRow> {
        Ok(EndpointRow {
            id: format!("wh_{:016x}", u64::from_be_bytes(random()?)),
            account,
            url,
            events: None,
            source,
            secret: secret(&random::<SECRET>()?),
            old: None,
            disabled: None,
            created: self.clock.wall(),
        })
    }

    /// Creates an endpoint of an account, or of the operator. Its secret is shown only now.
    ///
    /// # Errors
    /// If there is no such account, it has an endpoint with this URL or too many, or the URL cannot be one.
    pub async fn create_endpoint(
        &self,
        caller: &Caller,
        account: Option<AccountId>,
        input: EndpointInput,
    ) -> Result<EndpointView> {
        caller.may(Permission::Manage)?;
        let allowed = self.snapshot().settings.webhooks_allow_private.clone();
        if let Err(message) = check_url(&input.url, &allowed) {
            return OperationError::invalid("url", message);
        }
        let events = events_of(input.events)?;
        let _alone = self.changes.lock().await;
        if self.endpoints(caller, account.clone()).await?.len() >= MAX_ENDPOINTS {
            return Err(OperationError::Conflict(format!(
                "there are {MAX_ENDPOINTS} endpoints, which is the most"
            )));
        }
        let row = EndpointRow { events, ..self.endpoint_row(account, input.url, Source::Store)? };
        let view = self.put_endpoint(caller, "webhook.create", None, row, true).await?;
        self.doorbell.ring();
        Ok(view)
    }

    async fn put_endpoint(
        &self,
        caller: &Caller,
        action: &'static str,
        before: Option<&EndpointRow>,
        row: EndpointRow,
        shows_secret: bool,
    ) -> Result<EndpointView> {
        let now = self.clock.wall();
        let before = before.map(|row| EndpointView::of(row, now).terms());
        let (notes, output) = caller.noted(action, move |row: &EndpointRow| {
            let view = EndpointView::of(row, now);
            let (object, after) = (format!("webhook/{}", view.id), Some(view.terms()));
            let output = if shows_secret { view.with_secret(&row.secret) } else { view };
            Noted { object, before: before.clone(), after, output }
        });
        self.bookkeeper.webhooks(move |webhooks, at| webhooks.put_endpoint(&row, &notes, at)).await?;
        output.take()
    }

    /// Lists the endpoints of an account, or of the operator.
    ///
    /// # Errors
    /// If there is no such account, or the ledger cannot be read.
    pub async fn endpoints(&self, caller: &Caller, account: Option<AccountId>) -> Result<Vec<EndpointView>> {
        caller.may(Permission::ReadAccounts)?;
        let now = self.clock.wall();
        let rows =
            self.read_webhooks(move |webhooks| Ok(webhooks.endpoints(Some(account.as_ref()))?)).await?;
        Ok(rows.iter().map(|row| EndpointView::of(row, now)).collect())
    }

    async fn endpoint_row_of(&self, id: &str) -> Result<EndpointRow> {
        let wanted = id.to_owned();
        let found = self.read_webhooks(move |webhooks| Ok(webhooks.endpoint(&wanted)?)).await?;
        found.ok_or_else(|| unknown(id))
    }

    /// Reads an endpoint.
    ///
    /// # Errors
    /// If there is no such endpoint.
    pub async fn endpoint(&self, caller: &Caller, id: &str) -> Result<EndpointView> {
        caller.may(Permission::ReadAccounts)?;
        Ok(EndpointView::of(&self.endpoint_row_of(id).await?, self.clock.wall()))
    }

    /// Reads the secret of an endpoint: that of one in the configuration file is shown nowhere else.
    ///
    /// # Errors
    /// If there is no such endpoint.
    pub async fn endpoint_secret(&self, caller: &Caller, id: &str) -> Result<EndpointView> {
        caller.may(Permission::Manage)?;
        let row = self.endpoint_row_of(id).await?;
        Ok(EndpointView::of(&row, self.clock.wall()).with_secret(&row.secret))
    }

    /// Changes the events of an endpoint, or disables or enables it.
    ///
    /// # Errors
    /// If there is no such endpoint or event.
    pub async fn change_endpoint(
        &self,
        caller: &Caller,
        id: &str,
        patch: EndpointPatch,
    ) -> Result<EndpointView> {
        caller.may(Permission::Manage)?;
        let _alone = self.changes.lock().await;
        let before = self.endpoint_row_of(id).await?;
        let events = match patch.events {
            None => before.events.clone(),
            names => events_of(names)?,
        };
        let disabled = match patch.enabled {
            None => before.disabled.clone(),
            Some(true) => None,
            Some(false) => Some("an operator disabled it".to_owned()),
        };
        let row = EndpointRow { events, disabled, ..before.clone() };
        self.put_endpoint(caller, "webhook.change", Some(&before), row, false).await
    }

    /// Gives an endpoint a new secret. Messages are signed by the old one too for `overlap`: a duration or a time.
    ///
    /// # Errors
    /// If there is no such endpoint.
    pub async fn rotate_endpoint(
        &self,
        caller: &Caller,
        id: &str,
        overlap: Option<String>,
    ) -> Result<EndpointView> {
        caller.may(Permission::Manage)?;
        let until = overlap.as_deref().map(|text| moment("overlap", text, self.clock.wall())).transpose()?;
        let _alone = self.changes.lock().await;
        let before = self.endpoint_row_of(id).await?;
        let old = until.map(|until| (before.secret.clone(), until));
        let row = EndpointRow { secret: secret(&random::<SECRET>()?), old, ..before.clone() };
        self.put_endpoint(caller, "webhook.rotate", Some(&before), row, true).await
    }

    /// Deletes an endpoint and its deliveries. `of`: the account that it must belong to, if that matters.
    ///
    /// # Errors
    /// If there is no such endpoint, or the configuration file defines it.
    pub async fn delete_endpoint(
        &self,
        caller: &Caller,
        id: &str,
        of: Option<&AccountId>,
    ) -> Result<EndpointView> {
        caller.may(Permission::Manage)?;
        let _alone = self.changes.lock().await;
        let row = self.endpoint_row_of(id).await?;
        if of.is_some() && of != row.account.as_ref() {
            return Err(unknown(id));
        }
        if let (Source::File, Some(account)) = (row.source, &row.account) {
            self.refuse_file_account(account).await?;
        }
        let now = self.clock.wall();
        let (notes, output) = caller.noted("webhook.delete", move |row: &EndpointRow| {
            let view = EndpointView::of(row, now);
            Noted {
                object: format!("webhook/{}", view.id),
                before: Some(view.terms()),
                after: None,
                output: view,
            }
        });
        let id = id.to_owned();
        self.bookkeeper.webhooks(move |webhooks, at| webhooks.delete_endpoint(&id, &notes, at)).await?;
        output.take()
    }

    /// Sends the event `webhook.test` to an endpoint. Returns the number of the delivery.
    ///
    /// # Errors
    /// If there is no such endpoint.
    pub async fn test_endpoint(&self, caller: &Caller, id: &str) -> Result<Sent> {
        caller.may(Permission::Manage)?;
        let row = self.endpoint_row_of(id).await?;
        let data = json!({ "endpoint": row.id, "account": row.account });
        let event = EventRow { account: row.account, kind: EventKind::Test, data, once: None };
        let (notes, output) = sent(caller, "webhook.test", format!("webhook/{}", row.id));
        self.bookkeeper.webhooks(move |webhooks, at| webhooks.send_to(&row.id, &event, &notes, at)).await?;
        self.doorbell.ring();
        output.take()
    }

    /// Lists deliveries, the newest first.
    ///
    /// # Errors
    /// If there is no such endpoint or account.
    pub async fn deliveries(
        &self,
        caller: &Caller,
        of: DeliveriesOf,
        before: Option<u64>,
        most: usize,
    ) -> Result<Page<DeliveryView>> {
        caller.may(Permission::ReadAccounts)?;
        self.refuse_unknown(&of).await?;
        let rows =
            self.read_webhooks(move |webhooks| Ok(webhooks.deliveries(&of, before, most + 1)?)).await?;
        Ok(Page::of(rows, most, |row| row.num.to_string()).map(DeliveryView::from))
    }

    /// Sends the message of a delivery again. Returns the number of the new delivery.
    ///
    /// # Errors
    /// If there is no such endpoint, account or delivery.
    pub async fn replay(&self, caller: &Caller, of: DeliveriesOf, num: u64) -> Result<Sent> {
        caller.may(Permission::Manage)?;
        self.refuse_unknown(&of).await?;
        let (notes, output) = sent(caller, "webhook.replay", format!("delivery/{num}"));
        self.bookkeeper.webhooks(move |webhooks, at| webhooks.replay(num, &of, &notes, at)).await?;
        self.doorbell.ring();
        output.take()
    }

    async fn refuse_unknown(&self, of: &DeliveriesOf) -> Result<()> {
        match of {
            DeliveriesOf::Endpoint(id) => self.endpoint_row_of(id).await.map(drop),
            DeliveriesOf::Account(id) if self.directory.account(id).is_none() => Err(id.clone().into()),
            DeliveriesOf::Account(_) => Ok(()),
        }
    }
}
