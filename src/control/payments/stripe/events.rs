//! Reads what Stripe's events tell: payments, refunds and disputes of what was bought by Tollgate.

use std::time::Duration;

use serde_json::Value;

use super::super::{Paid, Told};
use crate::ledger::store::Purchase;
use crate::policy::credit::payment::{Dispute, DisputeState};
use crate::types::{AccountId, Currency, Money, WallTime};

/// The metadata that Tollgate gives a payment, and that its charge has too.
pub(super) const SELLER: &str = "tollgate_seller";
pub(super) const ACCOUNT: &str = "tollgate_account";
pub(super) const PACKAGE: &str = "tollgate_package";
pub(super) const CREDITS: &str = "tollgate_credits";
pub(super) const BUCKET: &str = "tollgate_bucket";
pub(super) const EXPIRES: &str = "tollgate_expires_ms";

/// Longest id of a payment or a dispute, in bytes.
const MAX_ID: usize = 255;

/// Which automatic top-up of the account a payment is.
pub(super) const TOP_UP: &str = "tollgate_top_up";

/// Why an invoice of a subscription begins a period. Others are about changes within one.
const REASONS: [&str; 2] = ["subscription_create", "subscription_cycle"];

/// Whose events are read.
pub(super) struct Context<'a> {
    /// The id of this seller.
    pub(super) seller: &'a str,
    /// The currency of its prices.
    pub(super) currency: Option<Currency>,
}

impl Context<'_> {
    /// What an event tells. `None` if it does not matter, or is about a payment that another program made.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn told(&self, event: &Value) -> Result<Option<Told>, String> {
        let (kind, object) = (text(event, "type")?, &event["data"]["object"]);
        let is_own = self.is_own(&object["metadata"]);
        match kind {
            "payment_intent.succeeded" if is_own => Ok(Some(Told::Paid(Box::new(intent(object)?)))),
            "payment_intent.payment_failed" | "payment_intent.canceled" if is_own => failed(object),
            "charge.refunded" if object["payment_intent"].is_string() => {
                let (payment, in_all) = (id(object, "payment_intent")?, number(object, "amount_refunded")?);
                let paid = match is_own {
                    true => Some(Box::new(paid(object, payment.clone(), number(object, "amount")?)?)),
                    false => None,
                };
                Ok(Some(Told::Refunded { payment, paid, in_all }))
            }
            "charge.dispute.created"
            | "charge.dispute.updated"
            | "charge.dispute.closed"
            | "charge.dispute.funds_withdrawn"
            | "charge.dispute.funds_reinstated"
                if object["payment_intent"].is_string() =>
            {
                self.disputed(object)
            }
            "customer.subscription.deleted" if is_own => {
                Ok(Some(Told::Unsubscribed(account(&object["metadata"])?)))
            }
            _ => Ok(None),
        }
    }

    fn is_own(&self, metadata: &Value) -> bool {
        metadata[SELLER] == self.seller && metadata[ACCOUNT].is_string()
    }

    /// The id of the invoice that an event says is paid, if it is of a subscription that Tollgate sold.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn paid_invoice(&self, event: &Value) -> Result<Option<String>, String> {
        let invoice = &event["data"]["object"];
        match event["type"].as_str() {
            Some("invoice.paid") if self.invoice_metadata(invoice).is_some() => id(invoice, "id").map(Some),
            _ => Ok(None),
        }
    }

    /// The metadata of an invoice's subscription, in the places where versions of the API have it.
    fn invoice_metadata<'v>(&self, invoice: &'v Value) -> Option<&'v Value> {
        let places = [
            &invoice["subscription_details"]["metadata"],
            &invoice["parent"]["subscription_details"]["metadata"],
            &invoice["lines"]["data"][0]["metadata"],
        ];
        places.into_iter().find(|metadata| self.is_own(metadata))
    }

    /// What was paid with an invoice, in the version of the API that is spoken. `None` if it begins no period.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn invoice(&self, invoice: &Value) -> Result<Option<Told>, String> {
        if !invoice["billing_reason"].as_str().is_some_and(|reason| REASONS.contains(&reason)) {
            return Ok(None);
        }
        let metadata = self.invoice_metadata(invoice).ok_or("the invoice is of no subscription")?;
        let minor = number(invoice, "amount_paid")?;
        // What costs nothing has no payment.
        let payment = if invoice["payment_intent"].is_null() { "id" } else { "payment_intent" };
        let mut object = invoice.clone();
        object["metadata"] = metadata.clone();
        let lines = invoice["lines"]["data"].as_array().ok_or("the invoice has no lines")?;
        let period = |line: &Value| {
            let second = |name: &str| Some(WallTime(line["period"][name].as_i64()?.saturating_mul(1000)));
            Some((second("start")?, second("end")?))
        };
        let of_period = |line: &&Value| line["proration"] != true && self.is_own(&line["metadata"]);
        let mut periods = lines.iter().filter(of_period).filter_map(period);
        let period = Some(periods.next().ok_or("the invoice has no period")?);
        Ok(Some(Told::Paid(Box::new(Paid { period, ..paid(&object, id(invoice, payment)?, minor)? }))))
    }

    /// What is told of a dispute. An inquiry takes no money, so it does not matter.
    fn disputed(&self, object: &Value) -> Result<Option<Told>, String> {
        let state = match text(object, "status")? {
            status if status.starts_with("warning_") => return Ok(None),
            "won" | "prevented" => DisputeState::Won,
            "lost" => DisputeState::Lost,
            _ => DisputeState::Open,
        };
        let amount = match object["currency"].as_str().and_then(Currency::parse) {
            currency if currency == self.currency => number(object, "amount")?,
            _ => u64::MAX, // an amount that cannot be compared with the price: all of it
        };
        let dispute = Dispute { id: id(object, "id")?, amount, state };
        Ok(Some(Told::Disputed { payment: id(object, "payment_intent")?, dispute }))
    }
}

/// What was paid with a payment intent.
pub(super) fn intent(object: &Value) -> Result<Paid, String> {
    let is_saved = object["setup_future_usage"] == "off_session";
    let top_up = object["metadata"][TOP_UP].as_str().map(str::parse).transpose();
    Ok(Paid {
        method: if is_saved { optional_id(object, "payment_method")? } else { None },
        top_up: top_up.map_err(|_| format!("`{TOP_UP}` is not what Tollgate wrote"))?,
        ..paid(object, id(object, "id")?, number(object, "amount")?)?
    })
}

/// An automatic top-up that failed. What a customer tries on a page fails there.
pub(super) fn failed(object: &Value) -> Result<Option<Told>, String> {
    let Some(number) = object["metadata"][TOP_UP].as_str() else { return Ok(None) };
    let number = number.parse().map_err(|_| format!("`{TOP_UP}` is not what Tollgate wrote"))?;
    let why = match object["status"].as_str() {
        Some("canceled") => "canceled".to_owned(),
        _ => code(&object["last_payment_error"]),
    };
    Ok(Some(Told::Failed { account: account(&object["metadata"])?, number, why }))
}

/// The code of an error of a card, such as `card_declined`.
pub(super) fn code(error: &Value) -> String {
    let known = ["decline_code", "code", "type"].into_iter().find_map(|name| error[name].as_str());
    let letters = known.unwrap_or("unknown").chars();
    letters.filter(|letter| letter.is_ascii_alphanumeric() || *letter == '_').take(64).collect()
}

fn account(metadata: &Value) -> Result<AccountId, String> {
    text(metadata, ACCOUNT)?.parse().map_err(|_| format!("`{ACCOUNT}` is not what Tollgate wrote"))
}

fn optional_id(object: &Value, name: &str) -> Result<Option<String>, String> {
    if object[name].is_null() { Ok(None) } else { id(object, name).map(Some) }
}

fn text<'a>(object: &'a Value, name: &str) -> Result<&'a str, String> {
    object[name].as_str().ok_or_else(|| format!("`{name}` is no text"))
}

fn number(object: &Value, name: &str) -> Result<u64, String> {
    object[name].as_u64().ok_or_else(|| format!("`{name}` is no amount"))
}

fn id(object: &Value, name: &str) -> Result<String, String> {
    let id = text(object, name)?;
    let is_id = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    match !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(is_id) {
        true => Ok(id.to_owned()),
        false => Err(format!("`{name}` is no id")),
    }
}

fn paid(object: &Value, id: String, minor: u64) -> Result<Paid, String> {
    let metadata = &object["metadata"];
    let parsed = |name: &str| format!("`{name}` is not what Tollgate wrote");
    let currency = Currency::parse(text(object, "currency")?).ok_or_else(|| parsed("currency"))?;
    let expires = match &metadata[EXPIRES] {
        Value::Null => None,
        Value::String(millis) => {
            Some(millis.parse().map(Duration::from_millis).map_err(|_| parsed(EXPIRES))?)
        }
        _ => return Err(parsed(EXPIRES)),
    };
    let purchase = Purchase {
        account: account(metadata)?,
        package: text(metadata, PACKAGE)?.to_owned(),
        credits: text(metadata, CREDITS)?.parse().map_err(|_| parsed(CREDITS))?,
        price: Money { minor, currency },
    };
    let bucket = text(metadata, BUCKET)?.parse().map_err(|_| parsed(BUCKET))?;
    let customer = optional_id(object, "customer")?;
    Ok(Paid { id, purchase, bucket, expires, period: None, customer, method: None, top_up: None })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_of_others_and_malformed_ones_are_told_apart() {
        let metadata = json!({
            "tollgate_seller": "me", "tollgate_account": "acme", "tollgate_package": "small", "tollgate_credits": "12.5",
            "tollgate_bucket": "paygo", "tollgate_expires_ms": "1000",
        });
        let context = Context { seller: "me", currency: Currency::parse("eur") };
        let told = |event: &Value| context.told(event);
        let event = |kind: &str, object: Value| json!({ "type": kind, "data": { "object": object } });
        let intent = |metadata: Value| {
            let object = json!({ "id": "pi_1", "amount": 1000, "currency": "eur", "metadata": metadata });
            told(&event("payment_intent.succeeded", object))
        };
        let Ok(Some(Told::Paid(paid))) = intent(metadata.clone()) else { panic!("{:?}", intent(metadata)) };
        assert_eq!((paid.id.as_str(), paid.purchase.price.to_string()), ("pi_1", "10.00 EUR".to_owned()));
        assert_eq!((paid.bucket.as_str(), paid.expires), ("paygo", Some(Duration::from_secs(1))));
        assert_eq!(intent(json!({})), Ok(None), "another program's payment");
        assert_eq!(told(&event("customer.created", json!({ "id": "cus_1" }))), Ok(None));
        let mut others = metadata.clone();
        others["tollgate_seller"] = json!("you");
        assert_eq!(intent(others), Ok(None), "another gateway's payment");
        for (name, value) in [
            ("tollgate_account", json!("a/b")),
            ("tollgate_credits", json!("many")),
            ("tollgate_credits", json!(5)),
            ("tollgate_bucket", Value::Null),
            ("tollgate_expires_ms", json!("-1")),
        ] {
            let mut metadata = metadata.clone();
            metadata[name] = value;
            assert!(intent(metadata).is_err(), "{name}");
        }
        let dispute = |kind: &str, status: &str| {
            let object = json!({ "id": "dp_1", "payment_intent": "pi_1", "amount": 7, "currency": "eur", "status": status });
            match told(&event(&format!("charge.dispute.{kind}"), object)) {
                Ok(Some(Told::Disputed { dispute, .. })) => Some(dispute.state),
                Ok(None) => None,
                other => panic!("{other:?}"),
            }
        };
        for (kind, status, state) in [
            ("created", "needs_response", Some(DisputeState::Open)),
            ("created", "warning_needs_response", None),
            ("updated", "under_review", Some(DisputeState::Open)),
            ("closed", "lost", Some(DisputeState::Lost)),
            ("closed", "won", Some(DisputeState::Won)),
            ("closed", "warning_closed", None),
            ("funds_reinstated", "under_review", Some(DisputeState::Open)),
            ("funds_reinstated", "won", Some(DisputeState::Won)),
        ] {
            assert_eq!(dispute(kind, status), state, "{kind} {status}");
        }
    }
}
