//! Books credits: grants, adjustments, charges without a request, and returned holds; lists entries.

mod entries;
mod jobs;
mod payments;
mod requests;
mod told;
mod top_up;

pub use entries::EntryView;
pub use jobs::{JobView, SettledView, SettlementInput};
pub(in crate::control) use payments::Answer;
pub use payments::{PaymentView, PaymentsView};
pub use requests::{ChargedView, ChargesQuery};
use serde::{Deserialize, Serialize};
use serde_json::json;
pub(in crate::control) use top_up::money;
use utoipa::ToSchema;

use super::caller::{Caller, Noted, Permission};
use super::error::{OperationError, Result};
use super::terms::{Page, Time, moment};
use crate::control::Control;
use crate::ledger::entry::{Entry, EntryKind};
use crate::ledger::store::{Booked, Booking, Doubt};
use crate::policy::credit::LotTerms;
use crate::policy::credit::refill::REFERENCE;
use crate::types::{AccountId, Credits, KeyId, KeyNum, RequestId};

/// Longest reference of a booking, in characters.
pub const MAX_REFERENCE: usize = 200;
/// Longest note of a booking, in characters.
const MAX_NOTE: usize = 200;

/// A grant or an adjustment.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewBooking)]
pub struct BookingInput {
    /// The credits, with at most six decimals: a number or a string. More than 0 for a grant, not 0 for an adjustment.
    #[schema(value_type = f64, example = 1000)]
    pub credits: Credits,
    /// A reference that is unique among the account's bookings of this kind. Repeating it books nothing and returns the
    /// first booking.
    #[schema(min_length = 1, max_length = 200, example = "invoice-2041")]
    pub reference: String,
    /// Of a grant: the name of a `[buckets.NAME]` that gets the credits; null for the default bucket.
    #[serde(default)]
    #[schema(example = "promo")]
    pub bucket: Option<String>,
    /// Of a grant: when what is left expires, as a time or a duration from now such as `30d`; null for never.
    #[serde(default)]
    #[schema(example = "30d")]
    pub expires: Option<String>,
    /// A note for the operator, in the audit log. The account's people do not see it.
    #[serde(default)]
    #[schema(max_length = 200)]
    pub note: Option<String>,
}

/// A booking, or the first one with the same reference.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Booking)]
pub struct BookingView {
    /// The account.
    #[schema(value_type = String)]
    pub account: AccountId,
    /// The number of the entry among the account's entries.
    pub entry: u64,
    /// The change of the balance.
    #[schema(value_type = f64)]
    pub amount: Credits,
    /// The booking's reference.
    pub reference: String,
    /// True if the reference was booked before, so that nothing changed.
    pub repeated: bool,
    /// The credits that the account can spend now.
    #[schema(value_type = f64)]
    pub available: Credits,
}

/// A hold in doubt.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = HoldInDoubt)]
pub struct DoubtView {
    /// The request's id.
    #[schema(value_type = String)]
    pub id: RequestId,
    /// The account that was charged.
    #[schema(value_type = String)]
    pub account: AccountId,
    /// The key of the request.
    #[schema(value_type = String)]
    pub key: KeyId,
    /// The route of the request.
    pub route: String,
    /// The credits that were held, and charged.
    #[schema(value_type = f64)]
    pub amount: Credits,
    /// When the hold was committed.
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// When the credits were given back; null if they were not.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub given_back: Option<Time>,
}

impl DoubtView {
    fn of(doubt: &Doubt) -> Self {
        let Doubt { id, account, key, route, amount, at, given_back } = doubt.clone();
        Self { id, account, key, route, amount, at: Time(at), given_back: given_back.map(Time) }
    }
}

/// The return of a hold in doubt.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct GivenBack {
    /// The request's id.
    #[schema(value_type = String)]
    pub id: RequestId,
    /// The account that got the credits.
    #[schema(value_type = String)]
    pub account: AccountId,
    /// The credits.
    #[schema(value_type = f64)]
    pub amount: Credits,
    /// True if they had been given back before, so that nothing changed.
    pub repeated: bool,
}

/// True if `request` is the id of this request: Tollgate's id, or the id that a trusted proxy sent.
fn is_of(id: RequestId, request: &str) -> bool {
    request.parse() == Ok(id) || id.is_of_proxy(request.as_bytes())
}

pub(super) fn check_reference(reference: &str) -> Result<()> {
    let length = reference.chars().count();
    if length == 0 || length > MAX_REFERENCE || reference.chars().any(char::is_control) {
        let message = format!("a reference is 1 to {MAX_REFERENCE} characters on one line");
        return OperationError::invalid("reference", message);
    }
    Ok(())
}

impl Control {
    /// Grants credits.
    ///
    /// # Errors
    /// If there is no such account, the amount is not positive, or the reference was used for another amount.
    pub async fn grant(
        &self,
        caller: &Caller,
        account: AccountId,
        input: BookingInput,
    ) -> Result<BookingView> {
        if input.credits <= Credits::ZERO {
            let message = "a grant is more than 0 credits; to take some away, adjust";
            return OperationError::invalid("credits", message);
        }
        if input.reference == "opening" {
            let message = "the reference `opening` is that of the file's opening grant";
            return OperationError::invalid("reference", message);
        }
        if input.reference.starts_with(REFERENCE) {
            let message = "references that begin with `refill ` are those of plans' refills";
            return OperationError::invalid("reference", message);
        }
        self.book(caller, "credits.grant", EntryKind::Grant, (account, None), input).await
    }

    /// Adjusts a balance, never below zero available.
    ///
    /// # Errors
    /// If there is no such account, the amount is zero or more than is available, or the reference was used for another
    /// amount.
    pub async fn adjust(
        &self,
        caller: &Caller,
        account: AccountId,
        input: BookingInput,
    ) -> Result<BookingView> {
        if input.credits.is_zero() {
            return OperationError::invalid("credits", "an adjustment by 0 credits changes nothing");
        }
        if input.bucket.is_some() || input.expires.is_some() {
            let field = if input.bucket.is_some() { "bucket" } else { "expires" };
            let message = "an adjustment adds to the default bucket, or takes from the buckets in their order; grant instead";
            return OperationError::invalid(field, message);
        }
        self.book(caller, "credits.adjust", EntryKind::Adjustment, (account, None), input).await
    }

    pub(super) async fn book(
        &self,
        caller: &Caller,
        action: &'static str,
        kind: EntryKind,
        (account, key): (AccountId, Option<KeyNum>),
        input: BookingInput,
    ) -> Result<BookingView> {
        caller.may(Permission::Credits)?;
        check_reference(&input.reference)?;
        let lot = self.lot_terms(&input)?;
        let BookingInput { credits: amount, reference, note, .. } = input;
        if note
            .as_ref()
            .is_some_and(|note| note.chars().count() > MAX_NOTE || note.chars().any(char::is_control))
        {
            let message = format!("a note is at most {MAX_NOTE} characters on one line");
            return OperationError::invalid("note", message);
        }
        let booking = Booking { account, kind, amount, reference, actor: caller.actor.clone(), key, lot };
        let directory = self.directory();
        let (notes, output) = caller.noted(action, move |booked: &Booked| {
            let Booked { entry, repeated } = booked;
            let now = directory.account(&entry.account).map(|account| account.purse.available());
            // What a grant adds can be spent as soon as its transaction is written.
            let added = if *repeated { Credits::ZERO } else { entry.amount.max(Credits::ZERO) };
            let output = BookingView {
                account: entry.account.clone(),
                entry: entry.number,
                amount: entry.amount,
                reference: entry.reference.clone().unwrap_or_default(),
                repeated: *repeated,
                available: now.and_then(|now| now.checked_add(added)).unwrap_or(entry.balance_after),
            };
            let mut after =
                json!({ "amount": entry.amount, "reference": entry.reference, "repeated": repeated });
            if let (Some(note), Some(terms)) = (&note, after.as_object_mut()) {
                terms.insert("note".to_owned(), note.as_str().into());
            }
            Noted { object: format!("account/{}", entry.account), before: None, after: Some(after), output }
        });
        self.bookkeeper.book(booking, notes).await?;
        output.take()
    }

    /// The bucket and the expiry of a grant.
    fn lot_terms(&self, input: &BookingInput) -> Result<Option<LotTerms>> {
        let expires = input.expires.as_deref().map(|text| moment("expires", text, self.clock.wall()));
        let expires = expires.transpose()?;
        if expires.is_some_and(|expires| expires <= self.clock.wall()) {
            return OperationError::invalid("expires", "this time is in the past");
        }
        let view = self.snapshot();
        let named = |name: &String| {
            let found = view.buckets.iter().map(|(bucket, _)| bucket).find(|bucket| bucket.as_str() == name);
            let known =
                || view.buckets.iter().map(|(bucket, _)| bucket.as_str()).collect::<Vec<_>>().join(", ");
            found.cloned().ok_or_else(|| OperationError::Invalid {
                field: "bucket",
                message: format!("there is no bucket `{name}` in the configuration (known: {})", known()),
            })
        };
        let bucket = input.bucket.as_ref().map(named).transpose()?.unwrap_or_default();
        Ok(Some(LotTerms { bucket, expires, of_refill: false }).filter(|terms| !terms.is_rest()))
    }

    /// Lists the entries of an account, newest first. `before`: the number of an entry.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn entries(
        &self,
        caller: &Caller,
        account: AccountId,
        before: Option<u64>,
        most: usize,
    ) -> Result<Page<EntryView>> {
        caller.may_in(Permission::ReadAccounts, &account)?;
        let rows = self.read_folded(move |reader| {
            reader.account(&account)?.ok_or_else(|| account.clone())?;
            Ok(reader.latest_entries(&account, before, most + 1)?)
        });
        let page = Page::of(rows.await?, most, |entry: &Entry| entry.number.to_string());
        let is_customer = caller.is_customer();
        Ok(page.map(|entry| match EntryView::of(&entry) {
            // Customers do not see who works for the operator.
            view if is_customer && !matches!(&*view.by, "requests" | "plan" | "expiry" | "stripe") => {
                EntryView { by: "operator".to_owned(), ..view }
            }
            view => view,
        }))
    }

    /// Lists holds in doubt, or only those of one request.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn in_doubt(&self, caller: &Caller, request: Option<String>) -> Result<Vec<DoubtView>> {
        caller.may(Permission::ReadAccounts)?;
        let mut doubts = self.read_folded(|reader| Ok(reader.in_doubt()?)).await?;
        doubts.retain(|doubt| request.as_ref().is_none_or(|request| is_of(doubt.id, request)));
        Ok(doubts.iter().map(DoubtView::of).collect())
    }

    /// The number of holds in doubt that were not given back.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn open_doubts(&self, caller: &Caller) -> Result<u64> {
        caller.may(Permission::ReadAccounts)?;
        self.read(|reader| Ok(reader.open_doubts()?.0)).await
    }

    /// Returns the credits of a hold in doubt, once. `request` is Tollgate's id of the request, or the id that a
    /// trusted proxy sent, if only one hold in doubt has it.
    ///
    /// # Errors
    /// If no hold in doubt, or more than one, belongs to the request.
    pub async fn give_back(&self, caller: &Caller, request: &str) -> Result<GivenBack> {
        caller.may(Permission::Credits)?;
        let id = match request.parse::<RequestId>() {
            Ok(id) => id,
            Err(_) => self.doubt_of(request).await?,
        };
        let (notes, output) = caller.noted("credits.give_back", move |booked: &Booked| {
            let Booked { entry, repeated } = booked;
            let (account, amount, repeated) = (entry.account.clone(), entry.amount, *repeated);
            let after = json!({ "request": id, "amount": amount, "repeated": repeated });
            let object = format!("account/{account}");
            let output = GivenBack { id, account, amount, repeated };
            Noted { object, before: None, after: Some(after), output }
        });
        self.bookkeeper.give_back(id, caller.actor.clone(), notes).await?;
        output.take()
    }

    /// The only hold in doubt that belongs to a proxy's request id.
    async fn doubt_of(&self, request: &str) -> Result<RequestId> {
        let mut doubts = self.read_folded(|reader| Ok(reader.in_doubt()?)).await?;
        doubts.retain(|doubt| is_of(doubt.id, request));
        match &*doubts {
            [one] => Ok(one.id),
            [] => {
                let message = format!("no hold in doubt belongs to a request {request}");
                Err(OperationError::Missing(message))
            }
            _ => {
                let ids: Vec<String> = doubts.iter().map(|doubt| doubt.id.to_string()).collect();
                let message = format!("several belong to {request}; name one: {}", ids.join(", "));
                Err(OperationError::Conflict(message))
            }
        }
    }
}
