//! Writes the forms of Stripe's API.

use form_urlencoded::Serializer;

use super::super::Order;
use super::events;
use crate::policy::credit::refill::Every;
use crate::snapshot::payments::Package;
use crate::types::AccountId;

/// The metadata of a payment. Each message about the payment repeats it.
fn metadata(account: &AccountId, package: &Package, seller: &str) -> Vec<(&'static str, String)> {
    let mut metadata = vec![
        (events::SELLER, seller.to_owned()),
        (events::ACCOUNT, account.as_str().to_owned()),
        (events::PACKAGE, package.name.clone()),
        (events::CREDITS, package.credits.to_string()),
        (events::BUCKET, package.bucket.as_str().to_owned()),
    ];
    metadata.extend(package.expires.map(|expires| (events::EXPIRES, expires.as_millis().to_string())));
    metadata
}

/// A Checkout session for one payment, or for a subscription.
pub(super) fn checkout(order: &Order<'_>, seller: &str) -> String {
    let (package, mut form) = (order.package, Serializer::new(String::new()));
    form.append_pair("mode", if package.every.is_some() { "subscription" } else { "payment" })
        .append_pair("line_items[0][quantity]", "1")
        .append_pair("line_items[0][price_data][currency]", package.price.currency.code())
        .append_pair("line_items[0][price_data][unit_amount]", &package.price.minor.to_string())
        .append_pair("line_items[0][price_data][product_data][name]", &package.title)
        .append_pair("client_reference_id", order.account.as_str())
        .append_pair("success_url", &format!("{}?done=paid", order.page))
        .append_pair("cancel_url", &order.page);
    match (order.customer, order.email) {
        (Some(customer), _) => drop(form.append_pair("customer", customer)),
        (None, Some(email)) => drop(form.append_pair("customer_email", email)),
        (None, None) => {}
    }
    let carrier = match package.every {
        Some(every) => {
            form.append_pair("line_items[0][price_data][recurring][interval]", Every::name(every));
            "subscription_data"
        }
        None => {
            if order.saves_card {
                form.append_pair("payment_intent_data[setup_future_usage]", "off_session");
                // Other methods cannot all be used again.
                form.append_pair("payment_method_types[0]", "card");
                if order.customer.is_none() {
                    form.append_pair("customer_creation", "always");
                }
            }
            "payment_intent_data"
        }
    };
    for (name, value) in metadata(order.account, package, seller) {
        form.append_pair(&format!("{carrier}[metadata][{name}]"), &value);
    }
    form.finish()
}

/// A payment by a saved card, without the customer. `card`: the ids of the customer and of the card.
pub(super) fn charge(
    account: &AccountId,
    package: &Package,
    card: (&str, &str),
    (number, seller): (u64, &str),
) -> String {
    let mut form = Serializer::new(String::new());
    form.append_pair("amount", &package.price.minor.to_string())
        .append_pair("currency", package.price.currency.code())
        .append_pair("customer", card.0)
        .append_pair("payment_method", card.1)
        .append_pair("off_session", "true")
        .append_pair("confirm", "true")
        .append_pair("description", &package.title);
    for (name, value) in metadata(account, package, seller) {
        form.append_pair(&format!("metadata[{name}]"), &value);
    }
    form.append_pair(&format!("metadata[{}]", events::TOP_UP), &number.to_string());
    form.finish()
}

/// A page on which a customer changes cards and ends subscriptions.
pub(super) fn portal(customer: &str, page: &str) -> String {
    Serializer::new(String::new()).append_pair("customer", customer).append_pair("return_url", page).finish()
}
