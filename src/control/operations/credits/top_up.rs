//! Saved cards: automatic top-ups, and what customers see of how they pay.

use serde_json::json;

use crate::control::Control;
use crate::control::operations::caller::{Caller, Noted, Permission};
use crate::control::operations::error::{OperationError, Result};
use crate::control::payments::{NoPage, Paid, Provider, Told, Uncharged};
use crate::ledger::store::{AccountState, AutoTopUp, BegunTopUp, EventKind, EventRow, Note, Payer};
use crate::policy::credit::top_up::{
    MAX_REFUSALS, after_full_month, after_refusal, ask_again, latest_message,
};
use crate::snapshot::payments::Package;
use crate::types::{AccountId, Credits, Money, WallTime};

/// Most accounts that are looked at in one round.
const AT_ONCE: usize = 32;

/// What is to be asked of the payment service.
struct Charge {
    form: String,
    number: u64,
    since: WallTime,
}

impl Control {
    /// How an account pays.
    ///
    /// # Errors
    /// If the caller may not know.
    pub(in crate::control) async fn payer(&self, caller: &Caller, account: AccountId) -> Result<Payer> {
        caller.may_in(Permission::ReadAccounts, &account)?;
        self.read_payer(account).await
    }

    pub(super) async fn read_payer(&self, account: AccountId) -> Result<Payer> {
        let payer = self.read_payments(move |payments| Ok(payments.payer(&account)?));
        Ok(payer.await?.unwrap_or_default())
    }

    async fn write_payer(&self, account: &AccountId, payer: Payer) -> Result<()> {
        self.bookkeeper.note(vec![Note::Payer(account.clone(), Box::new(payer))]).await.map_err(Into::into)
    }

    /// Forgets a customer that the payment service does not know any more, and its card.
    pub(super) async fn forget_customer(&self, account: &AccountId, customer: Option<&str>) -> Result<()> {
        let _alone = self.changes.lock().await;
        let mut payer = self.read_payer(account.clone()).await?;
        if payer.customer.as_deref() == customer {
            payer.customer = None;
        }
        payer.card.take_if(|(owner, _)| Some(owner.as_str()) == customer);
        self.write_payer(account, payer).await
    }

    /// Opens a page on which the customer changes cards and ends subscriptions. Returns its address.
    ///
    /// # Errors
    /// If nothing was bought yet, or the payment service does not answer.
    pub(in crate::control) async fn manage_payments(
        &self,
        caller: &Caller,
        account: AccountId,
    ) -> Result<String> {
        caller.may_in(Permission::Alerts, &account)?;
        let page = format!("{}/accounts/{account}/credits", self.dashboard_url()?);
        let nothing = || OperationError::Missing("nothing was bought yet".to_owned());
        let customer = self.read_payer(account.clone()).await?.customer.ok_or_else(nothing)?;
        let opened = self.provider().await?.portal(&customer, &page).await;
        if opened == Err(NoPage::UnknownCustomer) {
            self.forget_customer(&account, Some(&customer)).await?;
        }
        opened.map_err(|error| super::payments::unanswered(&account, &error))
    }

    /// Sets when an account is topped up automatically; `None` for never. `top_up`: below which balance, the package, and
    /// the most money in a month.
    ///
    /// # Errors
    /// If there is no saved card or no such package, or the month has no room for one.
    pub(in crate::control) async fn set_top_up(
        &self,
        caller: &Caller,
        account: AccountId,
        top_up: Option<AutoTopUp>,
    ) -> Result<()> {
        caller.may_in(Permission::Alerts, &account)?;
        let _alone = self.changes.lock().await;
        let mut payer = self.read_payer(account.clone()).await?;
        if let Some(top_up) = &top_up {
            if payer.card.is_none() {
                let message = "buy credits once, and save the card";
                return OperationError::invalid("top_up", message);
            }
            let packages = self.packages();
            let Some(package) = packages.iter().find(|it| it.name == top_up.package && it.every.is_none())
            else {
                return OperationError::invalid("package", "this is not on sale any more");
            };
            if top_up.below <= Credits::ZERO {
                return OperationError::invalid("below", "this is more than 0 credits");
            }
            if top_up.most < package.price.minor {
                let message = format!("this is at least the price, {}", package.price);
                return OperationError::invalid("most", message);
            }
        }
        let terms = |top_up: &Option<AutoTopUp>| Some(json!({ "account": account, "top_up": top_up }));
        let (before, after) = (terms(&payer.top_up), terms(&top_up));
        (payer.top_up, payer.refusals, payer.problem) = (top_up, 0, None);
        payer.wait_until = payer.begun.as_ref().map_or(WallTime(0), |_| payer.wait_until);
        let noted = Noted { object: format!("account/{account}"), before, after, output: () };
        let notes = vec![caller.audit("account.top_up", &noted), Note::Payer(account, Box::new(payer))];
        self.bookkeeper.note(notes).await.map_err(Into::into)
    }

    /// Tops up the accounts whose balance is low, by their saved cards.
    ///
    /// # Errors
    /// If the ledger failed.
    pub(in crate::control) async fn top_up_due(&self) -> Result<()> {
        let now = self.clock.wall();
        let due = self.read_payments(move |payments| Ok(payments.due_top_ups(now, AT_ONCE)?));
        for account in due.await? {
            if let Some(charge) = self.begin_top_up(&account).await? {
                self.charge_card(&account, charge).await?;
            }
        }
        Ok(())
    }

    /// Begins a top-up, or asks again for the outcome of one. `None` if there is nothing to do.
    async fn begin_top_up(&self, account: &AccountId) -> Result<Option<Charge>> {
        let _alone = self.changes.lock().await;
        let (now, mut payer) = (self.clock.wall(), self.read_payer(account.clone()).await?);
        if payer.wait_until > now {
            return Ok(None);
        }
        let is_active = self.is_active(account.clone()).await?;
        let form = match &mut payer.begun {
            // It may have been charged: then a message tells, and the credits are granted.
            Some(_) if payer.top_up.is_none() || !is_active => {
                payer.begun = None;
                None
            }
            Some(begun) => match ask_again(begun.since, begun.tries, now) {
                Some(next) => {
                    begun.tries += 1;
                    payer.wait_until = next;
                    Some(begun.form.clone())
                }
                None => {
                    self.refuse_top_up(account, &mut payer, "no answer", now).await?;
                    return Ok(None);
                }
            },
            None if is_active => self.new_charge(account, &mut payer, now).await?,
            None => return Ok(None),
        };
        let charge = form.zip(payer.begun.as_ref());
        let charge = charge.map(|(form, begun)| Charge { form, number: payer.number, since: begun.since });
        self.write_payer(account, payer).await?;
        Ok(charge)
    }

    async fn is_active(&self, account: AccountId) -> Result<bool> {
        let row = self.read(move |reader| Ok(reader.account(&account)?)).await?;
        Ok(row.is_some_and(|row| row.state == AccountState::Active))
    }

    /// The form of a new top-up, if the account can have one.
    async fn new_charge(
        &self,
        account: &AccountId,
        payer: &mut Payer,
        now: WallTime,
    ) -> Result<Option<String>> {
        let (Some(top_up), Some((customer, method))) = (&payer.top_up, &payer.card) else {
            payer.top_up = None; // the card is gone
            return Ok(None);
        };
        let packages = self.packages();
        let package = packages.iter().find(|it| it.name == top_up.package && it.every.is_none());
        let problem = match package {
            Some(package) if package.price.currency.code() != top_up.currency => {
                Some("the currency has changed: set the most of a month again")
            }
            Some(package) if !payer.sum.has_room(package.price.minor, top_up.most, now) => {
                Some("the most of a month is reached")
            }
            Some(_) => None,
            None => Some("the package is not on sale any more"),
        };
        let (Some(package), None) = (package, problem) else {
            (payer.problem, payer.wait_until) = (problem.map(str::to_owned), after_full_month(now));
            return Ok(None);
        };
        let available = self.directory.account(account).map(|account| account.purse.available());
        if available.is_none_or(|available| available >= top_up.below) {
            return Ok(None); // it was granted something in the meantime
        }
        payer.number += 1;
        let card = (customer.as_str(), method.as_str());
        let form = self.provider().await?.charge_form(account, package, card, payer.number);
        payer.begun = Some(BegunTopUp { form: form.clone(), since: now, tries: 0 });
        payer.wait_until = ask_again(now, 0, now).unwrap_or(now);
        Ok(Some(form))
    }

    async fn charge_card(&self, account: &AccountId, charge: Charge) -> Result<()> {
        // Its time makes it another one also for a ledger that was restored from a copy.
        let once = format!("tollgate-top-up-{account}-{}-{}", charge.number, charge.since.0);
        match self.provider().await?.charge(&charge.form, &once).await {
            Ok(None) => self.await_message(account, charge.number).await,
            Ok(Some(told)) => self.take_told(told).await,
            Err(Uncharged::Refused(why)) => {
                self.take_told(Told::Failed { account: account.clone(), number: charge.number, why }).await
            }
            Err(Uncharged::Unknown(error)) => {
                tracing::warn!(%account, error, "it is not known if a card was charged; asking again");
                Ok(())
            }
        }
    }

    /// A payment is under way, such as a direct debit: a message tells its outcome, within some days.
    async fn await_message(&self, account: &AccountId, number: u64) -> Result<()> {
        let _alone = self.changes.lock().await;
        let mut payer = self.read_payer(account.clone()).await?;
        if payer.begun.is_none() || payer.number != number {
            return Ok(()); // the message was faster
        }
        payer.wait_until = latest_message(self.clock.wall());
        self.write_payer(account, payer).await
    }

    /// What a payment that is told for the first time says of how the account pays. `problem`: why it is not granted.
    pub(super) async fn payer_after(
        &self,
        paid: &Paid,
        now: WallTime,
        problem: Option<&str>,
    ) -> Result<Option<Note>> {
        let account = paid.purchase.account.clone();
        let before = self.read_payer(account.clone()).await?;
        let mut payer = before.clone();
        if let Some(customer) = &paid.customer {
            payer.customer = Some(customer.clone());
            if let Some(method) = &paid.method {
                (payer.card, payer.refusals) = (Some((customer.clone(), method.clone())), 0);
            }
        }
        if let Some((_, end)) = paid.period {
            let known = payer.subscription.take().filter(|(_, known)| *known > end);
            payer.subscription = known.or_else(|| Some((paid.purchase.package.clone(), end)));
        }
        if let Some(number) = paid.top_up {
            payer.sum = payer.sum.plus(paid.purchase.price.minor, now);
            if number == payer.number {
                (payer.begun, payer.refusals, payer.problem, payer.wait_until) = (None, 0, None, now);
            }
        }
        if let (Some(problem), Some(_)) = (problem, paid.top_up) {
            (payer.top_up, payer.problem) = (None, Some(problem.to_owned())); // it would be charged again
        }
        Ok((payer != before).then(|| Note::Payer(account, Box::new(payer))))
    }

    /// Takes that a top-up failed.
    pub(super) async fn top_up_failed(
        &self,
        account: &AccountId,
        number: u64,
        why: &str,
        now: WallTime,
    ) -> Result<()> {
        let mut payer = self.read_payer(account.clone()).await?;
        match payer.begun.is_some() && payer.number == number {
            true => self.refuse_top_up(account, &mut payer, why, now).await,
            false => Ok(()),
        }
    }

    /// Ends a top-up that failed, and tells the account.
    async fn refuse_top_up(
        &self,
        account: &AccountId,
        payer: &mut Payer,
        why: &str,
        now: WallTime,
    ) -> Result<()> {
        payer.begun = None;
        payer.refusals += 1;
        (payer.problem, payer.wait_until) = (Some(why.to_owned()), after_refusal(now));
        let package = payer.top_up.as_ref().map(|top_up| top_up.package.clone());
        let ends = payer.refusals >= MAX_REFUSALS;
        if ends {
            payer.top_up = None;
        }
        tracing::warn!(%account, why, ends, "a card could not be charged");
        let data = json!({ "account": account, "package": package, "reason": why, "ends": ends });
        let event =
            EventRow { account: Some(account.clone()), kind: EventKind::TopUpFailed, data, once: None };
        let notes = vec![Note::Payer(account.clone(), Box::new(payer.clone())), Note::Event(event)];
        self.bookkeeper.note(notes).await.map_err(Into::into)
    }

    /// Ends the automatic top-ups of an account, if it has some.
    pub(super) async fn end_top_ups(&self, account: &AccountId, why: &str) -> Result<()> {
        let mut payer = self.read_payer(account.clone()).await?;
        if payer.top_up.take().is_none() {
            return Ok(());
        }
        payer.problem = Some(why.to_owned());
        self.write_payer(account, payer).await
    }

    /// Notes that a subscription ended.
    pub(super) async fn unsubscribed(&self, account: &AccountId) -> Result<()> {
        let mut payer = self.read_payer(account.clone()).await?;
        if payer.subscription.take().is_none() {
            return Ok(());
        }
        self.write_payer(account, payer).await
    }
}

/// An amount in the currency of the packages.
pub(in crate::control) fn money(packages: &[Package], minor: u64) -> Option<Money> {
    packages.first().map(|package| Money { minor, currency: package.price.currency })
}
