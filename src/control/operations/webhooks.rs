//! Creates, lists, changes and tests endpoints of webhooks, and lists and repeats their deliveries.

mod alerts;
mod mail;
mod renewal;
mod types;

use serde_json::json;

pub(in crate::control) use mail::MAILTO;
pub use renewal::{AutoRenew, Renewal, TopUp};
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
/// Most failing endpoints in a list.
const MAX_FAILING: usize = 100;

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
fn sent(
    caller: &Caller,
    action: &'static str,
    object: String,
    account: Option<AccountId>,
) -> (Notes<u64>, Output<Sent>) {
    caller.noted(action, move |number: &u64| {
        let output = Sent { number: *number };
        let after = Some(json!({ "account": account, "delivery": number }));
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
        self.may_in_account(caller, Permission::Endpoints, account.as_ref())?;
        let allowed = self.snapshot().settings.webhooks_allow_private.clone();
        if let Some(address) = input.url.strip_prefix(MAILTO) {
            self.check_mail(account.as_ref(), address).await?;
        } else if let Err(message) = check_url(&input.url, &allowed) {
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

    /// Lists endpoints of customers that are disabled, or whose last attempt failed.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn failing_endpoints(&self, caller: &Caller) -> Result<Vec<EndpointView>> {
        caller.may(Permission::ReadAccounts)?;
        let now = self.clock.wall();
        let rows = self.read_webhooks(|webhooks| Ok(webhooks.failing(MAX_FAILING)?)).await?;
        Ok(rows.iter().map(|row| EndpointView::of(row, now)).collect())
    }

    /// Lists the endpoints of an account, or of the operator.
    ///
    /// # Errors
    /// If there is no such account, or the ledger cannot be read.
    pub async fn endpoints(&self, caller: &Caller, account: Option<AccountId>) -> Result<Vec<EndpointView>> {
        self.may_in_account(caller, Permission::ReadAccounts, account.as_ref())?;
        let now = self.clock.wall();
        let rows =
            self.read_webhooks(move |webhooks| Ok(webhooks.endpoints(Some(account.as_ref()))?)).await?;
        Ok(rows.iter().map(|row| EndpointView::of(row, now)).collect())
    }

    fn may_in_account(
        &self,
        caller: &Caller,
        permission: Permission,
        account: Option<&AccountId>,
    ) -> Result<()> {
        account.map_or_else(|| caller.may(permission), |account| caller.may_in(permission, account))
    }

    /// Reads an endpoint that the caller wants to use so.
    async fn endpoint_of(&self, caller: &Caller, permission: Permission, id: &str) -> Result<EndpointRow> {
        let wanted = id.to_owned();
        let found = self.read_webhooks(move |webhooks| Ok(webhooks.endpoint(&wanted)?)).await?;
        let owner = found.as_ref().and_then(|row| row.account.as_ref());
        caller.may_touch(permission, owner, || unknown(id))?;
        found.ok_or_else(|| unknown(id))
    }

    /// Reads an endpoint.
    ///
    /// # Errors
    /// If there is no such endpoint.
    pub async fn endpoint(&self, caller: &Caller, id: &str) -> Result<EndpointView> {
        let row = self.endpoint_of(caller, Permission::ReadAccounts, id).await?;
        Ok(EndpointView::of(&row, self.clock.wall()))
    }

    /// Reads the secret of an endpoint: that of one in the configuration file is shown nowhere else.
    ///
    /// # Errors
    /// If there is no such endpoint.
    pub async fn endpoint_secret(&self, caller: &Caller, id: &str) -> Result<EndpointView> {
        let row = self.endpoint_of(caller, Permission::Endpoints, id).await?;
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
        let _alone = self.changes.lock().await;
        let before = self.endpoint_of(caller, Permission::Endpoints, id).await?;
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
        let until = overlap.as_deref().map(|text| moment("overlap", text, self.clock.wall())).transpose()?;
        let _alone = self.changes.lock().await;
        let before = self.endpoint_of(caller, Permission::Endpoints, id).await?;
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
        let _alone = self.changes.lock().await;
        let row = self.endpoint_of(caller, Permission::Endpoints, id).await?;
        if of.is_some() && of != row.account.as_ref() {
            return Err(unknown(id));
        }
        if let (Source::File, Some(account)) = (row.source, &row.account) {
            self.refuse_file_account(account).await?;
        }
        self.drop_endpoint(caller, id.to_owned()).await
    }

    async fn drop_endpoint(&self, caller: &Caller, id: String) -> Result<EndpointView> {
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
        self.bookkeeper.webhooks(move |webhooks, at| webhooks.delete_endpoint(&id, &notes, at)).await?;
        output.take()
    }

    /// Sends the event `webhook.test` to an endpoint. Returns the number of the delivery.
    ///
    /// # Errors
    /// If there is no such endpoint.
    pub async fn test_endpoint(&self, caller: &Caller, id: &str) -> Result<Sent> {
        let row = self.endpoint_of(caller, Permission::Endpoints, id).await?;
        let data = json!({ "endpoint": row.id, "account": row.account });
        let account = row.account.clone();
        let event = EventRow { account: row.account, kind: EventKind::Test, data, once: None };
        let (notes, output) = sent(caller, "webhook.test", format!("webhook/{}", row.id), account);
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
        self.may_use_deliveries(caller, Permission::ReadAccounts, &of).await?;
        let rows =
            self.read_webhooks(move |webhooks| Ok(webhooks.deliveries(&of, before, most + 1)?)).await?;
        Ok(Page::of(rows, most, |row| row.num.to_string()).map(DeliveryView::from))
    }

    /// Sends the message of a delivery again. Returns the number of the new delivery.
    ///
    /// # Errors
    /// If there is no such endpoint, account or delivery.
    pub async fn replay(&self, caller: &Caller, of: DeliveriesOf, num: u64) -> Result<Sent> {
        let account = self.may_use_deliveries(caller, Permission::Endpoints, &of).await?;
        let (notes, output) = sent(caller, "webhook.replay", format!("delivery/{num}"), account);
        self.bookkeeper.webhooks(move |webhooks, at| webhooks.replay(num, &of, &notes, at)).await?;
        self.doorbell.ring();
        output.take()
    }

    /// The account whose deliveries the caller wants to use so; `None` for the operator's.
    async fn may_use_deliveries(
        &self,
        caller: &Caller,
        permission: Permission,
        of: &DeliveriesOf,
    ) -> Result<Option<AccountId>> {
        match of {
            DeliveriesOf::Endpoint(id) => Ok(self.endpoint_of(caller, permission, id).await?.account),
            DeliveriesOf::Account(id) => {
                caller.may_in(permission, id)?;
                self.directory.account(id).map(|_| Some(id.clone())).ok_or_else(|| id.clone().into())
            }
        }
    }
}
