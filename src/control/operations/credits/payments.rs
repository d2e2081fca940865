//! Credits that customers buy by a payment service: the pages on which they pay, and what they paid.

use serde::Serialize;
use utoipa::ToSchema;

use crate::control::operations::caller::{Caller, Permission};
use crate::control::operations::error::{OperationError, Result};
use crate::control::operations::terms::Time;
use crate::control::payments::stripe::Stripe;
use crate::control::payments::{NoPage, Order, Provider, Unread};
use crate::control::{Control, random};
use crate::ledger::store::{PaymentReader, PaymentRow, Purchase};
use crate::snapshot::payments::Package;
use crate::types::{AccountId, Credits};

/// Most payments in a list.
const MAX_LISTED: usize = 100;

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
    pub(super) async fn provider(&self) -> Result<impl Provider + use<>> {
        let none = || OperationError::Missing("payments are not configured".to_owned());
        let settings = self.snapshot().settings.stripe.clone().ok_or_else(none)?;
        let seller = self.read_payments(|payments| Ok(payments.seller()?)).await?;
        Ok(Stripe { seller, settings, client: self.payment_client.clone() })
    }

    pub(super) async fn read_payments<R: Send + 'static>(
        &self,
        read: impl FnOnce(&mut dyn PaymentReader) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let none = || OperationError::Unavailable("this ledger keeps no payments".to_owned());
        self.read(move |reader| read(reader.payments().ok_or_else(none)?)).await
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
        let provider = self.provider().await?;
        let packages = self.packages();
        let Some(package) = packages.iter().find(|known| known.name == package) else {
            return OperationError::invalid("package", "this is not on sale any more");
        };
        let page = format!("{}/accounts/{account}/credits", self.dashboard_url()?);
        let id = format!("{:032x}", u128::from_be_bytes(random()?));
        let payer = self.read_payer(account.clone()).await?;
        let customer = payer.customer.as_deref();
        let order = Order { account: &account, package, customer, email, saves_card, page, id };
        match provider.checkout(&order).await {
            Err(NoPage::UnknownCustomer) if customer.is_some() => {
                self.forget_customer(&account, customer).await?;
                let order = Order { customer: None, id: format!("{}-again", order.id), ..order };
                provider.checkout(&order).await.map_err(|error| unanswered(&account, &error))
            }
            opened => opened.map_err(|error| unanswered(&account, &error)),
        }
    }

    /// Lists the payments of an account.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn payments(&self, caller: &Caller, account: AccountId) -> Result<PaymentsView> {
        caller.may_in(Permission::ReadAccounts, &account)?;
        if self.directory.account(&account).is_none() {
            return Err(account.into());
        }
        let rows = self.read_payments(move |payments| Ok(payments.payments(&account, MAX_LISTED)?));
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
        match self.provider().await?.read(signature, body, self.clock.wall()).await {
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
}

/// Why a customer cannot pay now. The operator is told more.
pub(super) fn unanswered(account: &AccountId, error: &NoPage) -> OperationError {
    tracing::error!(?error, %account, "the payment service opened no page");
    OperationError::Unavailable("the payment service does not answer; try again later".to_owned())
}
