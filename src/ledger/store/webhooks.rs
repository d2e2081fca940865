//! Defines webhooks: endpoints, events, and their deliveries. Events are written in the transaction of their cause.

use serde_json::Value;

use super::{Notes, Result, Source};
use crate::types::{AccountId, Credits, KeyId, KeyNum, WallTime};

/// What an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// A balance fell below a threshold of its account.
    CreditsLow,
    /// An account has too few credits for a request, or none.
    CreditsExhausted,
    /// Credits were granted.
    CreditsGranted,
    /// A key was created.
    KeyCreated,
    /// A key got a new secret.
    KeyRotated,
    /// A key was revoked.
    KeyRevoked,
    /// A key was found where it should not be, and is disabled.
    KeyLeaked,
    /// A key expires soon.
    KeyExpiring,
    /// A limit refused a request.
    LimitReached,
    /// A crash left holds of an account in doubt.
    AccountInDoubt,
    /// An account asks the operator's billing for credits.
    TopUpRequested,
    /// A saved card could not be charged for an automatic top-up.
    TopUpFailed,
    /// A payment arrived whose credits cannot be granted.
    NotGranted,
    /// Credits of a payment that was refunded or disputed were spent.
    CreditsMissing,
    /// An operator tests an endpoint.
    Test,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 15] = [
        Self::CreditsLow,
        Self::CreditsExhausted,
        Self::CreditsGranted,
        Self::KeyCreated,
        Self::KeyRotated,
        Self::KeyRevoked,
        Self::KeyLeaked,
        Self::KeyExpiring,
        Self::LimitReached,
        Self::AccountInDoubt,
        Self::TopUpRequested,
        Self::TopUpFailed,
        Self::NotGranted,
        Self::CreditsMissing,
        Self::Test,
    ];

    /// The name in messages and endpoints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CreditsLow => "credits.low",
            Self::CreditsExhausted => "credits.exhausted",
            Self::CreditsGranted => "credits.granted",
            Self::KeyCreated => "key.created",
            Self::KeyRotated => "key.rotated",
            Self::KeyRevoked => "key.revoked",
            Self::KeyLeaked => "key.leaked",
            Self::KeyExpiring => "key.expiring",
            Self::LimitReached => "limit.reached",
            Self::AccountInDoubt => "account.in_doubt",
            Self::TopUpRequested => "billing.top_up_requested",
            Self::TopUpFailed => "billing.top_up_failed",
            Self::NotGranted => "billing.not_granted",
            Self::CreditsMissing => "billing.credits_missing",
            Self::Test => "webhook.test",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// An event of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// The account; `None` if it belongs to none.
    pub account: Option<AccountId>,
    /// What the event tells.
    pub kind: EventKind,
    /// Its data, without secrets.
    pub data: Value,
    /// If it is not sent every time.
    pub once: Option<Once>,
}

/// How often an event is sent for an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// The object.
    pub object: String,
    /// At most once in this time, in milliseconds; `None`: only once.
    pub per: Option<i64>,
}

/// Where events are sent.
#[derive(Clone, PartialEq, Eq)]
pub struct EndpointRow {
    /// The endpoint's id.
    pub id: String,
    /// The account whose events are sent; `None` for the operator's endpoints, which get those of all accounts.
    pub account: Option<AccountId>,
    /// Where they are sent.
    pub url: String,
    /// The kinds that are sent; `None` for all.
    pub events: Option<Vec<EventKind>>,
    /// Where the endpoint is defined.
    pub source: Source,
    /// The secret that signs, as `whsec_…`.
    pub secret: String,
    /// The secret before it, which signs too until the time.
    pub old: Option<(String, WallTime)>,
    /// Why nothing is sent any more; `None` if it is.
    pub disabled: Option<String>,
    /// When the endpoint was created.
    pub created: WallTime,
}

impl std::fmt::Debug for EndpointRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointRow").field("id", &self.id).field("url", &self.url).finish_non_exhaustive()
    }
}

/// A message that is due at an endpoint.
#[derive(Clone, Debug)]
pub struct DueDelivery {
    /// The number of the delivery.
    pub num: u64,
    /// The id of the message.
    pub message: String,
    /// The endpoint.
    pub endpoint: EndpointRow,
    /// The message's body.
    pub body: String,
    /// How often it was tried.
    pub attempts: u32,
}

/// What became of an attempt to deliver a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The number of the delivery.
    pub num: u64,
    /// The status of the response, if there was one.
    pub status: Option<u16>,
    /// What failed.
    pub error: Option<String>,
    /// What follows.
    pub then: AfterAttempt,
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterAttempt {
    /// The message was delivered.
    Delivered,
    /// It is tried again at this time.
    Retry(WallTime),
    /// It is not tried again.
    GiveUp,
    /// The endpoint wants no more messages: it is disabled.
    Disable,
}

/// A delivery, for lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRow {
    /// The number of the delivery, which grows.
    pub num: u64,
    /// The id of the message.
    pub message: String,
    /// The endpoint's id.
    pub endpoint: String,
    /// The kind of the event.
    pub kind: String,
    /// When the event happened.
    pub at: WallTime,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next; `None` if it was delivered or given up.
    pub next_at: Option<WallTime>,
    /// The status of the last response.
    pub status: Option<u16>,
    /// What failed last.
    pub error: Option<String>,
    /// When it was delivered.
    pub delivered: Option<WallTime>,
}

/// How an account is renewed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenewalRow {
    /// Below which balance credits are asked for, and how many.
    pub top_up: Option<(Credits, Credits)>,
    /// How many credits are asked for again and again, after how many milliseconds, and when next.
    pub renew: Option<(Credits, i64, WallTime)>,
}

/// Which deliveries are listed or repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveriesOf {
    /// Those to an endpoint.
    Endpoint(String),
    /// Those to the endpoints of an account.
    Account(AccountId),
}

/// The webhooks of a ledger. All calls are made by one thread.
#[expect(clippy::missing_errors_doc, reason = "LedgerError says what each call can meet")]
pub trait Webhooks {
    /// Creates an endpoint, or replaces the one with the same id.
    fn put_endpoint(&mut self, row: &EndpointRow, notes: &Notes<EndpointRow>, at: WallTime) -> Result<()>;
    /// Replaces the balances at which `credits.low` is sent to an account when its balance falls below them.
    fn set_thresholds(
        &mut self,
        account: &AccountId,
        thresholds: &[Credits],
        notes: &Notes<()>,
        at: WallTime,
    ) -> Result<()>;
    /// Replaces how an account is renewed. If its balance is below the one for a top-up, credits are asked for at once.
    fn set_renewal(
        &mut self,
        account: &AccountId,
        renewal: &RenewalRow,
        notes: &Notes<()>,
        at: WallTime,
    ) -> Result<()>;
    /// Asks for the credits of renewals that are due, at most `most`. Returns their number.
    fn renew_due(&mut self, now: WallTime, most: usize) -> Result<usize>;
    /// Deletes an endpoint and its deliveries.
    fn delete_endpoint(&mut self, id: &str, notes: &Notes<EndpointRow>, at: WallTime) -> Result<()>;
    /// Deletes endpoints of the configuration file with these ids, and creates new ones, unless an operator has.
    fn change_file_endpoints(&mut self, gone: &[String], new: &[EndpointRow]) -> Result<()>;
    /// Records what became of attempts.
    fn attempted(&mut self, attempts: &[Attempt], at: WallTime) -> Result<()>;
    /// Sends the message of a delivery again, in a new delivery. Returns its number.
    fn replay(&mut self, num: u64, of: &DeliveriesOf, notes: &Notes<u64>, at: WallTime) -> Result<u64>;
    /// Sends a message to one endpoint, whatever events it wants.
    fn send_to(&mut self, endpoint: &str, event: &EventRow, notes: &Notes<u64>, at: WallTime) -> Result<u64>;
    /// Deletes deliveries of events before a time, and messages without deliveries.
    fn prune_deliveries(&mut self, before: WallTime) -> Result<()>;
}

/// A key that expires soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiringKey {
    /// The key's number.
    pub num: KeyNum,
    /// Its id.
    pub id: KeyId,
    /// The account that it belongs to.
    pub account: AccountId,
    /// When it expires.
    pub expires: WallTime,
}

/// Reads the webhooks of a ledger.
#[expect(clippy::missing_errors_doc, reason = "they fail where the store cannot be read")]
pub trait WebhookReader {
    /// The endpoints of an account (`None` for the operator's), or of all.
    fn endpoints(&mut self, of: Option<Option<&AccountId>>) -> Result<Vec<EndpointRow>>;
    /// An endpoint.
    fn endpoint(&mut self, id: &str) -> Result<Option<EndpointRow>>;
    /// The balances at which `credits.low` is sent to an account.
    fn thresholds(&mut self, account: &AccountId) -> Result<Vec<Credits>>;
    /// How an account is renewed.
    fn renewal(&mut self, account: &AccountId) -> Result<RenewalRow>;
    /// The endpoints of customers that are disabled, or whose last attempt failed, at most `most`.
    fn failing(&mut self, most: usize) -> Result<Vec<EndpointRow>>;
    /// The deliveries that are due, the oldest first, at most `most`.
    fn due(&mut self, now: WallTime, most: usize) -> Result<Vec<DueDelivery>>;
    /// The deliveries to an endpoint, or to all endpoints of an account, before a number, newest first, at most `most`.
    fn deliveries(&mut self, of: &DeliveriesOf, before: Option<u64>, most: usize)
    -> Result<Vec<DeliveryRow>>;
    /// The keys that were created by command, expire in this span, and whose `key.expiring` was not written, in the order
    /// in which they expire, after a key; at most `most`.
    fn expiring(
        &mut self,
        span: (WallTime, WallTime),
        after: Option<(WallTime, KeyNum)>,
        most: usize,
    ) -> Result<Vec<ExpiringKey>>;
}
