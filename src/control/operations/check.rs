//! Checks keys and charges credits for services that do not receive their requests through the gateway.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::caller::{Caller, Permission};
use super::credits::{BookingInput, BookingView};
use super::error::{OperationError, Result};
use super::explain::{Asked, Explanation};
use crate::control::Control;
use crate::directory::Key;
use crate::ledger::entry::EntryKind;
use crate::policy::key::MAX_KEY;
use crate::types::{AccountId, Credits, KeyHash, KeyId, Secret};

/// A raw key in an input. It is never logged or stored.
#[derive(Clone, Debug)]
pub struct RawKey(Secret<String>);

impl<'de> Deserialize<'de> for RawKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer).map(|key| Self(Secret::new(key)))
    }
}

impl RawKey {
    pub(super) fn hash(&self) -> Result<KeyHash> {
        let key = self.0.reveal();
        if key.is_empty() || key.len() > MAX_KEY {
            return OperationError::invalid("key", format!("a key is 1 to {MAX_KEY} bytes"));
        }
        Ok(KeyHash::of(key.as_bytes()))
    }
}

/// A request to decide about, with the key that a client sent.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = VerifyRequest)]
pub struct CheckInput {
    /// The key, as the client sent it.
    #[schema(value_type = String, min_length = 1, max_length = 512)]
    pub key: RawKey,
    /// The request's method.
    #[schema(example = "GET", pattern = "^[A-Z]{1,20}$")]
    pub method: String,
    /// The request's path, which selects the route; or a URL with a host.
    #[schema(example = "/api/v1/people")]
    pub path: String,
}

/// What the gateway would decide about a request, without forwarding, counting or charging it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Verdict {
    /// True if the request would be admitted.
    pub valid: bool,
    /// The reason of the refusal.
    pub reason: Option<&'static str>,
    /// The HTTP status of the refusal.
    pub status: Option<u16>,
    /// The key's id, if the key is known.
    #[schema(value_type = Option<String>)]
    pub key: Option<KeyId>,
    /// The key's account, if the key is known.
    #[schema(value_type = Option<String>)]
    pub account: Option<AccountId>,
    /// The route, if there is one.
    pub route: Option<String>,
    /// The credits that the account can spend now.
    #[schema(value_type = Option<f64>)]
    pub available: Option<Credits>,
}

/// A charge without a request.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewCharge)]
pub struct ChargeInput {
    /// The key, as the client sent it: its account pays.
    #[schema(value_type = String, min_length = 1, max_length = 512)]
    pub key: RawKey,
    /// The credits, more than 0, with at most six decimals: a number or a string.
    #[schema(value_type = f64, example = 0.25)]
    pub credits: Credits,
    /// A reference that is unique among the account's charges. Repeating it charges nothing and returns the first
    /// charge.
    #[schema(min_length = 1, max_length = 200, example = "job-77")]
    pub reference: String,
}

impl Control {
    /// Decides about a request with a raw key.
    ///
    /// # Errors
    /// If the method, the path or the key cannot be read.
    pub fn check_key(&self, caller: &Caller, input: &CheckInput) -> Result<Verdict> {
        caller.may(Permission::ReadAccounts)?;
        let asked = Asked::read(&input.method, &input.path)?;
        let key = self.directory.find(&input.key.hash()?);
        let (Explanation { admitted, reason, status, .. }, route) = self.decide(&asked, key.as_deref());
        Ok(Verdict {
            valid: admitted,
            reason,
            status,
            key: key.as_ref().map(|key| key.id),
            account: key.as_ref().map(|key| key.account.id.clone()),
            route: route.map(|route| route.name.to_string()),
            available: key.as_ref().map(|key| key.account.purse.available()),
        })
    }

    /// Charges the account of a raw key, at most once for each reference. Limits are not counted.
    ///
    /// # Errors
    /// If the key does not work, the amount is not positive or more than is available, or the reference was used for
    /// another amount.
    pub async fn charge(&self, caller: &Caller, input: ChargeInput) -> Result<BookingView> {
        caller.may(Permission::Credits)?;
        if input.credits <= Credits::ZERO {
            return OperationError::invalid("credits", "a charge is more than 0 credits");
        }
        let key = self.directory.find(&input.key.hash()?);
        let Some(key) = key.filter(|key| self.works(key)) else {
            return Err(OperationError::Conflict(
                "the key is unknown, disabled, expired or revoked".to_owned(),
            ));
        };
        if key.account.is_suspended() {
            return Err(OperationError::Conflict(format!("account {} is suspended", key.account.id)));
        }
        let Some(credits) = Credits::ZERO.checked_sub(input.credits) else {
            return OperationError::invalid("credits", "the amount is too large");
        };
        let input = BookingInput { credits, reference: input.reference, ..BookingInput::default() };
        self.book(caller, "credits.charge", EntryKind::Charge, (key.account.id.clone(), Some(key.num)), input)
            .await
    }

    /// True if requests with the key are authenticated.
    fn works(&self, key: &Key) -> bool {
        key.rules().is_usable(self.clock.wall()) && self.serves(&key.account)
    }
}
