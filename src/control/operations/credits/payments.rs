//! Credits that customers buy by a payment service: each payment is granted once, and what is refunded or disputed is taken
//! back.

use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::control::operations::caller::{Caller, Noted, Permission};
use crate::control::operations::error::{OperationError, Result};
use crate::control::operations::terms::Time;
use crate::control::payments::stripe::Stripe;
use crate::control::payments::{Order, Paid, Provider, Told, Unread};
use crate::control::{Control, random};
use crate::ledger::entry::EntryKind;
use crate::ledger::store::{Booked, Booking, EventKind, EventRow, Note, PaymentReader, PaymentRow, Purchase};
use crate::policy::credit::LotTerms;
use crate::snapshot::payments::Package;
use crate::types::{AccountId, Credits, WallTime};

/// Most payments in a list.
const MAX_LISTED: usize = 100;
/// Most attempts to take back what is left, while requests spend it.
const MAX_ATTEMPTS: usize = 16;

/// A payment by which an account bought credits.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Payment)]
pub struct PaymentView {
    /// The payment service's id.
    pub id: String,
    /// The account.
    #[schema(value_type = String)]
    pub account: AccountId,
    /// The name of the package.
    pub package: String,
    /// The credits.
    #[schema(value_type = f64)]
    pub credits: Credits,
    /// The price, such as `10.00 EUR`.
    pub price: String,
    /// When the credits were granted; null if they were not.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub granted: Option<Time>,
    /// The credits that were taken back, because the payment was refunded or disputed.
    #[schema(value_type = f64)]
    pub taken_back: Credits,
    /// The credits that are due back too, but were spent.
    #[schema(value_type = f64)]
    pub missing: Credits,
}

impl PaymentView {
    fn of(row: PaymentRow) -> Option<Self> {
        let (missing, granted, taken_back) = (row.missing(), row.granted.map(Time), row.taken);
        let Purchase { account, package, credits, price } = row.purchase?;
        let price = price.to_string();
        Some(Self { id: row.id, account, package, credits, price, granted, taken_back, missing })
    }
}

/// The payments of an account.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Payments)]
pub struct PaymentsView {
    /// The payments, the last one first, at most 100.
    pub data: Vec<PaymentView>,
}

/// What became of a payment service's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) enum Answer {
    /// It was taken, or does not matter.
    Taken,
    /// It is not signed.
    Unsigned,
    /// It is signed, but cannot be read.
    Malformed,
}

impl Control {
    pub(super) fn provider(&self) -> Result<impl Provider + use<>> {
        let none = || OperationError::Missing("payments are not configured".to_owned());
        let settings = self.snapshot().settings.stripe.clone().ok_or_else(none)?;
        Ok(Stripe { settings, client: self.payment_client.clone() })
    }

    /// What customers can buy, the cheapest first.
    pub(in crate::control) fn packages(&self) -> Vec<Package> {
        self.snapshot().settings.stripe.as_ref().map(|stripe| stripe.packages.clone()).unwrap_or_default()
    }

    /// Opens a page on which a customer pays for a package. Returns its address.
    ///
    /// # Errors
    /// If there is no such account or package, or the payment service does not answer.
    pub(in crate::control) async fn buy(
        &self,
        caller: &Caller,
        account: AccountId,
        (package, saves_card): (&str, bool),
        email: Option<&str>,
    ) -> Result<String> {
        caller.may_in(Permission::Alerts, &account)?;
        if self.directory.account(&account).is_none() {
            return Err(account.into());
        }
        let provider = self.provider()?;
        let packages = self.packages();
        let Some(package) = packages.iter().find(|known| known.name == package) else {
            return OperationError::invalid("package", "this is not on sale any more");
        };
        let page = format!("{}/accounts/{account}/credits", self.dashboard_url()?);
        let id = format!("{:032x}", u128::from_be_bytes(random()?));
        let payer = self.read_payer(account.clone()).await?;
        let customer = payer.customer.as_deref();
        let order = Order { account: &account, package, customer, email, saves_card, page, id };
        provider.checkout(&order).await.map_err(|error| unanswered(&account, &error))
    }

    /// Lists the payments of an account.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn payments(&self, caller: &Caller, account: AccountId) -> Result<PaymentsView> {
        caller.may_in(Permission::ReadAccounts, &account)?;
        let rows = self.read(move |reader| {
            reader.account(&account)?.ok_or_else(|| account.clone())?;
            Ok(match reader.payments() {
                Some(payments) => payments.payments(&account, MAX_LISTED)?,
                None => Vec::new(),
            })
        });
        Ok(PaymentsView { data: rows.await?.into_iter().filter_map(PaymentView::of).collect() })
    }

    /// Takes a message of the payment service. What it tells is on disk when this returns.
    ///
    /// # Errors
    /// If payments are not configured, or the ledger failed: the service then sends the message again.
    pub(in crate::control) async fn take_payment_message(
        &self,
        signature: &str,
        body: &[u8],
    ) -> Result<Answer> {
        match self.provider()?.read(signature, body, self.clock.wall()).await {
            Ok(Some(told)) => self.take_told(told).await.map(|()| Answer::Taken),
            Ok(None) => Ok(Answer::Taken),
            Err(Unread::Unsigned) => Ok(Answer::Unsigned),
            Err(Unread::Unanswered(error)) => Err(OperationError::Unavailable(error)),
            Err(Unread::Malformed(error)) => {
                tracing::error!(%error, "a message of the payment service cannot be read");
                Ok(Answer::Malformed)
            }
        }
    }

    /// Takes what a payment service told. It is on disk when this returns.
    pub(super) async fn take_told(&self, told: Told) -> Result<()> {
        let _alone = self.changes.lock().await;
        let now = self.clock.wall();
        let id = match &told {
            Told::Failed { account, number, why } => {
                return self.top_up_failed(account, *number, why, now).await;
            }
            Told::Unsubscribed(account) => return self.unsubscribed(account).await,
            Told::Paid(paid) => &paid.id,
            Told::Refunded { payment, .. } | Told::Disputed { payment, .. } => payment,
        };
        let known = self.read_payment(id.clone()).await?;
        let mut row = PaymentRow { told: now, ..known.unwrap_or_else(|| PaymentRow::new(id, now)) };
        let (before, mut notes) = (row.missing(), Vec::new());
        match told {
            Told::Paid(paid) => {
                if !self.is_own(&paid) {
                    return Ok(());
                }
                row.purchase.get_or_insert_with(|| paid.purchase.clone());
                notes.extend(self.payer_after(&paid, now).await?);
                if row.granted.is_none() && !self.grant_paid(&mut row, &paid, now).await? {
                    notes.push(Note::Payment(row));
                    return self.bookkeeper.note(notes).await.map_err(Into::into);
                }
            }
            Told::Refunded { paid, in_all, .. } => {
                if paid.as_ref().is_some_and(|paid| !self.is_own(paid)) {
                    return Ok(());
                }
                row.purchase = row.purchase.or(paid.map(|paid| paid.purchase));
                row.reversals.refund(in_all);
            }
            Told::Disputed { dispute, .. } => row.reversals.dispute(dispute),
            Told::Failed { .. } | Told::Unsubscribed(_) => {}
        }
        self.balance_payment(&mut row).await?;
        if row.missing() != before {
            notes.push(Note::Event(missing_event(&row)));
            let (payment, missing) = (&row.id, row.missing());
            tracing::warn!(payment, %missing, "credits of a payment that was asked back were spent");
        }
        notes.push(Note::Payment(row));
        self.bookkeeper.note(notes).await.map_err(Into::into)
    }

    /// True for a payment of an account that is known. Another gateway may sell by the same account of the service.
    fn is_own(&self, paid: &Paid) -> bool {
        let is_known = self.directory.account(&paid.purchase.account).is_some();
        if !is_known {
            let (payment, account) = (&paid.id, &paid.purchase.account);
            tracing::error!(payment, %account, "a payment is for an account that is not known here");
        }
        is_known
    }

    async fn read_payment(&self, id: String) -> Result<Option<PaymentRow>> {
        let none = || OperationError::Unavailable("this ledger keeps no payments".to_owned());
        let read = move |payments: &mut dyn PaymentReader| Ok(payments.payment(&id)?);
        self.read(move |reader| read(reader.payments().ok_or_else(none)?)).await
    }

    /// Grants what was paid for. False if the account cannot get it.
    async fn grant_paid(&self, row: &mut PaymentRow, paid: &Paid, now: WallTime) -> Result<bool> {
        let lot = LotTerms { bucket: paid.bucket.clone(), expires: paid.expiry(now), of_refill: false };
        let lot = Some(lot).filter(|lot| !lot.is_rest());
        let granted = PaymentRow { granted: Some(now), ..row.clone() };
        let reference = format!("payment {}", row.id);
        let amount = paid.purchase.credits;
        match self.book_payment(EntryKind::Grant, amount, reference, lot, &granted).await {
            Ok(()) => {
                *row = granted;
                Ok(true)
            }
            Err(error @ (OperationError::Conflict(_) | OperationError::Missing(_))) => {
                let (payment, account) = (&row.id, &paid.purchase.account);
                tracing::error!(payment, %account, %error, "a payment cannot be granted: refund it");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes back what is due and left, or gives again what was taken and is not due any more.
    async fn balance_payment(&self, row: &mut PaymentRow) -> Result<()> {
        let Some(account) = row.purchase.as_ref().map(|purchase| purchase.account.clone()) else {
            return Ok(());
        };
        for _ in 0..MAX_ATTEMPTS {
            let wanted = row.taken.checked_sub(row.due_back()).unwrap_or_default();
            let available = self.directory.account(&account).map(|account| account.purse.available());
            let least = Credits::ZERO.checked_sub(available.unwrap_or_default().max(Credits::ZERO));
            let amount = wanted.max(least.unwrap_or_default());
            if amount.is_zero() {
                return Ok(());
            }
            let taken = row.taken.checked_sub(amount).unwrap_or_default();
            let after = PaymentRow { taken, steps: row.steps + 1, ..row.clone() };
            let reference = format!("payment {} reversal {}", row.id, after.steps);
            match self.book_payment(EntryKind::Adjustment, amount, reference, None, &after).await {
                Ok(()) => *row = after,
                Err(OperationError::InsufficientCredits(_)) => {} // spent in the meantime
                Err(OperationError::Conflict(error) | OperationError::Missing(error)) => {
                    tracing::error!(payment = row.id, %account, error, "a payment's reversal cannot be booked");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Books credits of a payment, and writes the payment in the same transaction.
    async fn book_payment(
        &self,
        kind: EntryKind,
        amount: Credits,
        reference: String,
        lot: Option<LotTerms>,
        after: &PaymentRow,
    ) -> Result<()> {
        let unknown = || OperationError::Missing("nothing is known of the purchase".to_owned());
        let account = after.purchase.as_ref().ok_or_else(unknown)?.account.clone();
        let (caller, row) = (Caller::payments(), after.clone());
        let actor = caller.actor.clone();
        let action = if kind == EntryKind::Grant { "payment.grant" } else { "payment.reverse" };
        let notes = move |booked: &Booked| {
            let entry = &booked.entry;
            let after = json!({ "payment": row.id, "amount": entry.amount, "reference": entry.reference });
            let object = format!("account/{}", entry.account);
            let noted = Noted { object, before: None, after: Some(after), output: () };
            vec![caller.audit(action, &noted), Note::Payment(row.clone())]
        };
        let booking = Booking { account, kind, amount, reference, actor, key: None, lot };
        self.bookkeeper.book(booking, std::sync::Arc::new(notes)).await?;
        Ok(())
    }
}

/// Why a customer cannot pay now. The operator is told more.
pub(super) fn unanswered(account: &AccountId, error: &str) -> OperationError {
    tracing::error!(error, %account, "the payment service opened no page");
    OperationError::Unavailable("the payment service does not answer; try again later".to_owned())
}

/// Tells the account and the operator that credits that are due back were spent, or are not due any more.
fn missing_event(row: &PaymentRow) -> EventRow {
    let purchase = row.purchase.as_ref();
    let data = json!({
        "account": purchase.map(|purchase| &purchase.account),
        "payment": row.id,
        "credits": purchase.map(|purchase| purchase.credits),
        "taken_back": row.taken,
        "missing": row.missing(),
    });
    let account = purchase.map(|purchase| purchase.account.clone());
    EventRow { account, kind: EventKind::CreditsMissing, data, once: None }
}
