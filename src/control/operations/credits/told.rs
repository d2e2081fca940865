//! What a payment service tells: each payment is granted once, and what is refunded or disputed is taken back.

use std::sync::Arc;

use serde_json::json;

use crate::control::Control;
use crate::control::operations::caller::{Caller, Noted};
use crate::control::operations::error::{OperationError, Result};
use crate::control::payments::{Paid, Told};
use crate::ledger::entry::EntryKind;
use crate::ledger::store::{AccountState, Booked, Booking, EventKind, EventRow, Note, Once, PaymentRow};
use crate::policy::credit::LotTerms;
use crate::types::{Credits, WallTime};

/// Most attempts to take back what is left, while requests spend it.
const MAX_ATTEMPTS: usize = 16;
/// How long what could not be taken back is looked for, in milliseconds: requests in flight and open jobs may still return it.
const LOOKED_FOR: i64 = 24 * 3600 * 1000;
/// Most payments that are looked at in one round.
const AT_ONCE: usize = 32;
/// Least time that credits last which are given again, in milliseconds.
const LASTS: i64 = 7 * 24 * 3600 * 1000;

/// A payment that is being dealt with, and the missing credits that were told of last.
struct Settling {
    row: PaymentRow,
    announced: Credits,
}

impl Settling {
    fn of(row: PaymentRow) -> Self {
        Self { announced: row.missing(), row }
    }

    /// The row after a booking, and the notes of that.
    fn after(&self, row: PaymentRow) -> (PaymentRow, Vec<Note>) {
        let mut notes = vec![Note::Payment(row.clone())];
        notes.extend((row.missing() != self.announced).then(|| Note::Event(missing_event(&row))));
        (row, notes)
    }

    fn set(&mut self, row: PaymentRow) {
        self.announced = row.missing();
        self.row = row;
    }
}

impl Control {
    /// Takes what a payment service told. It is on disk when this returns.
    pub(super) async fn take_told(&self, told: Told) -> Result<()> {
        let _alone = self.changes.lock().await;
        let now = self.clock.wall();
        let id = match &told {
            Told::Failed { account, number, why } => {
                return self.top_up_failed(account, *number, why, now).await;
            }
            Told::Unsubscribed(account) => return self.unsubscribed(account).await,
            Told::Paid(paid) => paid.id.clone(),
            Told::Refunded { payment, .. } | Told::Disputed { payment, .. } => payment.clone(),
        };
        let known = self.read_payment(id.clone()).await?;
        let before = known.clone();
        let mut settling = Settling::of(known.unwrap_or_else(|| PaymentRow::new(&id, now)));
        let is_reversal = !matches!(told, Told::Paid(_));
        let row = &mut settling.row;
        match told {
            Told::Paid(paid) => {
                if !self.is_known(&paid) {
                    return Ok(());
                }
                row.purchase.get_or_insert_with(|| paid.purchase.clone());
                if row.granted.is_none() && !self.grant_paid(&mut settling, &paid, now).await? {
                    return Ok(());
                }
            }
            Told::Refunded { paid, in_all, .. } => {
                if paid.as_ref().is_some_and(|paid| !self.is_known(paid)) {
                    return Ok(());
                }
                row.purchase = row.purchase.take().or(paid.map(|paid| paid.purchase));
                row.reversals.refund(in_all);
            }
            Told::Disputed { dispute, .. } => row.reversals.dispute(dispute),
            Told::Failed { .. } | Told::Unsubscribed(_) => {}
        }
        if before.as_ref() != Some(&settling.row) {
            settling.row.told = now;
        }
        if is_reversal {
            self.stop_top_ups(&settling.row).await?;
        }
        self.balance_payment(&mut settling, now).await?;
        let (_, notes) = settling.after(settling.row.clone());
        self.bookkeeper.note(notes).await.map_err(Into::into)
    }

    /// Ends the automatic top-ups of an account whose payment is asked back: the card would be charged for it again.
    async fn stop_top_ups(&self, row: &PaymentRow) -> Result<()> {
        match &row.purchase {
            Some(purchase) if !row.due_back().is_zero() => {
                self.end_top_ups(&purchase.account, "a payment was refunded or disputed").await
            }
            _ => Ok(()),
        }
    }

    /// Looks again for what could not be taken back.
    ///
    /// # Errors
    /// If the ledger failed.
    pub(in crate::control) async fn take_missing(&self) -> Result<()> {
        let now = self.clock.wall();
        let since = WallTime(now.0.saturating_sub(LOOKED_FOR));
        for id in self.read_payments(move |payments| Ok(payments.missing(since, now, AT_ONCE)?)).await? {
            let _alone = self.changes.lock().await;
            if let Some(row) = self.read_payment(id).await? {
                self.balance_payment(&mut Settling::of(row), self.clock.wall()).await?;
            }
        }
        Ok(())
    }

    fn is_known(&self, paid: &Paid) -> bool {
        let is_known = self.directory.account(&paid.purchase.account).is_some();
        if !is_known {
            let (payment, account) = (&paid.id, &paid.purchase.account);
            tracing::error!(payment, %account, "a payment is for an account that does not exist");
        }
        is_known
    }

    async fn read_payment(&self, id: String) -> Result<Option<PaymentRow>> {
        self.read_payments(move |payments| Ok(payments.payment(&id)?)).await
    }

    /// Grants what was paid for, and notes how it was paid in the same transaction. False if the account cannot get it.
    async fn grant_paid(&self, settling: &mut Settling, paid: &Paid, now: WallTime) -> Result<bool> {
        let lot = LotTerms { bucket: paid.bucket.clone(), expires: paid.expiry(now), of_refill: false };
        let after = PaymentRow { granted: Some(now), lot: Some(lot), ..settling.row.clone() };
        // What is missing is told of once it is known.
        let mut notes = vec![Note::Payment(after.clone())];
        notes.extend(self.payer_after(paid, now, None).await?);
        let reference = format!("payment {}", after.id);
        match self.book_payment(EntryKind::Grant, paid.purchase.credits, reference, (&after, notes)).await {
            Ok(()) => {
                settling.row = after;
                Ok(true)
            }
            Err(error @ (OperationError::Conflict(_) | OperationError::Missing(_))) => {
                self.not_granted(settling, paid, now, error).await.map(|()| false)
            }
            Err(error) => Err(error),
        }
    }

    /// Tells, once, that credits cannot be granted. Fails unless that is final: then the service tells of the payment again.
    async fn not_granted(
        &self,
        settling: &Settling,
        paid: &Paid,
        now: WallTime,
        why: OperationError,
    ) -> Result<()> {
        let (payment, account) = (&paid.id, &paid.purchase.account);
        tracing::error!(payment, %account, %why, "a payment cannot be granted");
        let credits = paid.purchase.credits;
        let data =
            json!({ "account": account, "payment": payment, "credits": credits, "reason": why.to_string() });
        let once = Some(Once { object: format!("payment {payment}"), per: None });
        let event = EventRow { account: Some(account.clone()), kind: EventKind::NotGranted, data, once };
        let id = account.clone();
        let row = self.read(move |reader| Ok(reader.account(&id)?)).await?;
        let is_final = row.is_none_or(|row| row.state == AccountState::Closed);
        let mut notes = vec![Note::Event(event)];
        if is_final {
            notes.push(Note::Payment(settling.row.clone()));
            notes.extend(self.payer_after(paid, now, Some("the account was deleted")).await?);
        }
        self.bookkeeper.note(notes).await?;
        if is_final { Ok(()) } else { Err(OperationError::Unavailable(why.to_string())) }
    }

    /// Takes back what is due and left, or gives again what was taken and is not due any more.
    async fn balance_payment(&self, settling: &mut Settling, now: WallTime) -> Result<()> {
        let Some(account) = settling.row.purchase.as_ref().map(|purchase| purchase.account.clone()) else {
            return Ok(());
        };
        for _ in 0..MAX_ATTEMPTS {
            let row = &settling.row;
            let wanted = row.taken.checked_sub(row.due_back()).unwrap_or_default();
            let available = self.directory.account(&account).map(|account| account.purse.available());
            let is_over = row.lot.as_ref().and_then(|lot| lot.expires).is_some_and(|expires| expires <= now);
            let available = available.filter(|_| !is_over).unwrap_or_default().max(Credits::ZERO);
            let amount = wanted.max(Credits::ZERO.checked_sub(available).unwrap_or_default());
            if amount.is_zero() {
                return Ok(());
            }
            let taken = row.taken.checked_sub(amount).unwrap_or_default();
            let lot = if amount.is_negative() { row.lot.clone() } else { lasting(row.lot.clone(), now) };
            let (after, notes) =
                settling.after(PaymentRow { taken, steps: row.steps + 1, lot, ..row.clone() });
            let reference = format!("payment {} reversal {}", row.id, after.steps);
            match self.book_payment(EntryKind::Adjustment, amount, reference, (&after, notes)).await {
                Ok(()) => settling.set(after),
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

    /// Books credits of a payment, with notes in the same transaction.
    async fn book_payment(
        &self,
        kind: EntryKind,
        amount: Credits,
        reference: String,
        (row, notes): (&PaymentRow, Vec<Note>),
    ) -> Result<()> {
        let unknown = || OperationError::Missing("nothing is known of the purchase".to_owned());
        let account = row.purchase.as_ref().ok_or_else(unknown)?.account.clone();
        let (caller, payment) = (Caller::payments(), row.id.clone());
        let actor = caller.actor.clone();
        let action = if kind == EntryKind::Grant { "payment.grant" } else { "payment.reverse" };
        let notes = move |booked: &Booked| {
            let entry = &booked.entry;
            let after = json!({ "payment": payment, "amount": entry.amount, "reference": entry.reference });
            let object = format!("account/{}", entry.account);
            let noted = Noted { object, before: None, after: Some(after), output: () };
            [vec![caller.audit(action, &noted)], notes.clone()].concat()
        };
        let lot = row.lot.clone().filter(|lot| !amount.is_negative() && !lot.is_rest());
        let booking = Booking { account, kind, amount, reference, actor, key: None, lot };
        self.bookkeeper.book(booking, Arc::new(notes)).await?;
        Ok(())
    }
}

/// Where credits go that are given again: they last a while.
fn lasting(lot: Option<LotTerms>, now: WallTime) -> Option<LotTerms> {
    let least = WallTime(now.0.saturating_add(LASTS));
    lot.map(|lot| LotTerms { expires: lot.expires.map(|expires| expires.max(least)), ..lot })
}

/// Tells the account and the operator that credits that are due back were spent, or are not due any more.
fn missing_event(row: &PaymentRow) -> EventRow {
    let purchase = row.purchase.as_ref();
    let (payment, missing) = (&row.id, row.missing());
    tracing::warn!(payment, %missing, "credits of a payment that was asked back are missing");
    let data = json!({
        "account": purchase.map(|purchase| &purchase.account),
        "payment": row.id,
        "credits": purchase.map(|purchase| purchase.credits),
        "taken_back": row.taken,
        "missing": missing,
    });
    let account = purchase.map(|purchase| purchase.account.clone());
    EventRow { account, kind: EventKind::CreditsMissing, data, once: None }
}
