//! Shows entries of the ledger.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::control::operations::terms::Time;
use crate::ledger::entry::{Entry, EntryKind};
use crate::types::{AccountId, Credits, KeyId, StatusClass};

/// One line of the ledger.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Entry)]
pub struct EntryView {
    /// The number among the account's entries.
    pub number: u64,
    /// When it was written.
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// The account.
    #[schema(value_type = String)]
    pub account: AccountId,
    /// `grant`, `adjustment`, `charge`, `release`, `in_doubt`, `given_back` or `expiry`.
    #[schema(value_type = String)]
    pub kind: EntryKind,
    /// The change of the balance.
    #[schema(value_type = f64)]
    pub amount: Credits,
    /// The balance after the entry.
    #[schema(value_type = f64)]
    pub balance_after: Credits,
    /// The bucket that the amount was added to or taken from, or `NAME:AMOUNT` for each of several; null for the default
    /// bucket.
    pub bucket: Option<String>,
    /// The parts of the amount, if several buckets have one.
    #[schema(value_type = Option<BTreeMap<String, f64>>)]
    pub split: Option<BTreeMap<String, Credits>>,
    /// The key whose requests were charged.
    #[schema(value_type = Option<String>)]
    pub key: Option<KeyId>,
    /// The route whose requests were charged.
    pub route: Option<String>,
    /// The class of the responses' status.
    pub outcome: Option<&'static str>,
    /// The number of requests in this entry.
    pub requests: u64,
    /// The reference of a booking.
    pub reference: Option<String>,
    /// Who booked.
    pub by: String,
    /// SHA-256 of the entry and the link before it.
    pub link: String,
}

impl EntryView {
    pub(in crate::control::operations) fn of(entry: &Entry) -> Self {
        let parts = entry.split.parts().map(|(name, part)| (name.to_string(), part));
        let parts: BTreeMap<String, Credits> = parts.collect();
        let is_split = parts.len() > 1;
        Self {
            number: entry.number,
            at: Time(entry.at),
            account: entry.account.clone(),
            kind: entry.kind,
            amount: entry.amount,
            balance_after: entry.balance_after,
            bucket: entry.split.text(),
            split: is_split.then_some(parts),
            key: entry.key,
            route: entry.route.clone(),
            outcome: entry.outcome.map(StatusClass::name),
            requests: entry.requests,
            reference: entry.reference.clone(),
            by: entry.actor.clone(),
            link: entry.link.to_string(),
        }
    }
}
