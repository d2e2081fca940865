//! Inputs and outputs of operations on webhooks.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::control::operations::ShownKey;
use crate::control::operations::terms::Time;
use crate::ledger::store::{DeliveryRow, EndpointRow, Source};
use crate::types::{AccountId, Credits, Secret, WallTime};

/// An endpoint to create.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewEndpoint)]
pub struct EndpointInput {
    /// Where events are sent: a URL with `https://`, or `mailto:` and the address of somebody with access.
    #[schema(max_length = 2048, example = "https://your-app.example/hooks")]
    pub url: String,
    /// The events that are sent; all of them if it is left out.
    #[serde(default)]
    #[schema(max_items = 32, example = json!(["credits.low", "credits.exhausted"]))]
    pub events: Option<Vec<String>>,
}

/// Changes of an endpoint. What is left out stays as it is.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointPatch {
    /// The events that are sent; an empty list for all of them.
    #[serde(default)]
    #[schema(max_items = 32)]
    pub events: Option<Vec<String>>,
    /// False: nothing is sent until it is true again. An endpoint that answers 410 becomes false by itself.
    #[serde(default)]
    pub enabled: Option<bool>,
}

/// Where events are sent.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Endpoint)]
pub struct EndpointView {
    /// The endpoint's id.
    pub id: String,
    /// The account whose events are sent; null: those of all accounts, to the operator.
    #[schema(value_type = Option<String>)]
    pub account: Option<AccountId>,
    /// Where they are sent.
    pub url: String,
    /// The events that are sent; null for all of them.
    pub events: Option<Vec<&'static str>>,
    /// True if events are sent.
    pub enabled: bool,
    /// Why nothing is sent; null if events are sent.
    pub disabled_because: Option<String>,
    /// The secret that signs, only in the response to the request that generated it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub secret: Option<ShownKey>,
    /// Until when messages are signed by the former secret too; null if they are not.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub old_secret_until: Option<Time>,
    /// `file` if the configuration file defines the endpoint, otherwise `store`.
    #[schema(value_type = String)]
    pub source: Source,
    /// When the endpoint was created.
    #[schema(value_type = String, format = DateTime)]
    pub created: Time,
}

impl EndpointView {
    pub(super) fn of(row: &EndpointRow, now: WallTime) -> Self {
        let until = row.old.as_ref().map(|(_, until)| *until).filter(|until| *until > now);
        Self {
            id: row.id.clone(),
            account: row.account.clone(),
            url: row.url.clone(),
            events: row.events.as_ref().map(|events| events.iter().map(|kind| kind.name()).collect()),
            enabled: row.disabled.is_none(),
            disabled_because: row.disabled.clone(),
            secret: None,
            old_secret_until: until.map(Time),
            source: row.source,
            created: Time(row.created),
        }
    }

    /// What the audit log keeps.
    pub(super) fn terms(&self) -> Value {
        json!({ "account": self.account, "url": self.url, "events": self.events, "enabled": self.enabled })
    }

    pub(super) fn with_secret(self, secret: &str) -> Self {
        Self { secret: Some(ShownKey::Whole(Secret::new(secret.to_owned()))), ..self }
    }
}

/// A message on its way to an endpoint.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub struct DeliveryView {
    /// The delivery's number, which grows.
    pub number: u64,
    /// The message's id, which is the same in all of its deliveries.
    pub message: String,
    /// The event.
    pub event: String,
    /// When the event happened.
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// How often it was tried.
    pub attempts: u32,
    /// `waiting`, `delivered` or `given up`.
    pub state: &'static str,
    /// When it is tried next.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_at: Option<Time>,
    /// When it was delivered.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub delivered: Option<Time>,
    /// The status of the last response.
    pub status: Option<u16>,
    /// Why there was no response, or the start of what the endpoint said when it did not accept the message.
    pub error: Option<String>,
}

/// A message that is sent now.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = SentMessage)]
pub struct Sent {
    /// The number of its delivery.
    pub number: u64,
}

impl From<DeliveryRow> for DeliveryView {
    fn from(row: DeliveryRow) -> Self {
        let state = match (row.delivered, row.next_at) {
            (Some(_), _) => "delivered",
            (None, Some(_)) => "waiting",
            (None, None) => "given up",
        };
        let DeliveryRow { num, message, kind, at, attempts, next_at, status, error, delivered, .. } = row;
        let (next_at, delivered) = (next_at.map(Time), delivered.map(Time));
        Self {
            number: num,
            message,
            event: kind,
            at: Time(at),
            attempts,
            state,
            next_at,
            delivered,
            status,
            error,
        }
    }
}

/// When an account is told about its balance.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Alerts {
    /// Balances, more than 0: `credits.low` is sent when the balance falls below one of them.
    #[schema(value_type = Vec<f64>, max_items = 10, example = json!([1000, 100]))]
    pub credits_low: Vec<Credits>,
}
