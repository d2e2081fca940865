//! Stripe: customers pay on a Checkout page, and messages tell what became of their payments.

mod events;
mod signature;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use form_urlencoded::Serializer;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, Uri};
use http_body_util::Full;
use serde_json::Value;

use super::{Order, Provider, Told, Unread};
use crate::control::http_client::{HttpClient, destination};
use crate::snapshot::payments;
use crate::types::WallTime;

/// The version of Stripe's API that is spoken.
const VERSION: &str = "2024-06-20";
/// Longest time of a request, from the resolution of the name to the end of the response.
const MAX_TIME: Duration = Duration::from_secs(20);
/// Longest response that is read, in bytes.
const MAX_RESPONSE: usize = 256 * 1024;

/// Stripe, with an account there.
pub(in crate::control) struct Stripe {
    pub(in crate::control) settings: Arc<payments::Stripe>,
    pub(in crate::control) client: HttpClient,
}

impl Stripe {
    /// Sends a form. Returns the response's object.
    async fn post(&self, path: &str, form: String, once: &str) -> Result<Value, String> {
        let uri: Uri = format!("{}{path}", self.settings.url).parse().map_err(|_| "a wrong URL")?;
        let (host, port, _) = destination(&uri);
        let (host, key) = (host.to_owned(), format!("Bearer {}", self.settings.secret_key.reveal()));
        let mut key = HeaderValue::try_from(key).map_err(|_| "the secret key is no header value")?;
        key.set_sensitive(true);
        let request = Request::post(uri)
            .header(AUTHORIZATION, key)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header("stripe-version", VERSION)
            .header("idempotency-key", once)
            .body(Full::new(Bytes::from(form)))
            .map_err(|error| error.to_string())?;
        let exchange = async {
            let mut found = tokio::net::lookup_host((host.as_str(), port)).await;
            let found = found.as_mut().map_err(|error| format!("the name is not resolved: {error}"))?;
            let address = found.next().ok_or("the name has no address")?;
            self.client.send_whole(address, request, MAX_RESPONSE).await
        };
        let answered = tokio::time::timeout(MAX_TIME, exchange).await;
        let answered = answered.map_err(|_| format!("no response within {} s", MAX_TIME.as_secs()))??;
        let status = answered.head.status;
        let object: Value = serde_json::from_slice(&answered.start)
            .map_err(|_| format!("the response with status {status} is no JSON of at most 256 KiB"))?;
        match status.is_success() {
            true => Ok(object),
            false => Err(refusal(status.as_u16(), &object["error"])),
        }
    }
}

/// What an error of Stripe says: its type and code. Its message may quote what was sent.
fn refusal(status: u16, error: &Value) -> String {
    let plain = |name: &str| {
        let text = error[name].as_str().unwrap_or("-");
        text.chars()
            .filter(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
            .take(64)
            .collect::<String>()
    };
    format!("status {status}, type {}, code {}, param {}", plain("type"), plain("code"), plain("param"))
}

impl Provider for Stripe {
    async fn checkout(&self, order: &Order<'_>) -> Result<String, String> {
        let object = self.post("/v1/checkout/sessions", checkout_form(order), &order.id).await?;
        let url = object["url"].as_str().filter(|url| url.parse::<Uri>().is_ok_and(|url| is_page(&url)));
        url.map(str::to_owned).ok_or_else(|| "the response names no page".to_owned())
    }

    fn read(&self, signature: &str, body: &[u8], now: WallTime) -> Result<Option<Told>, Unread> {
        if !signature::is_signed(self.settings.webhook_secret.reveal(), signature, body, now) {
            return Err(Unread::Unsigned);
        }
        let event = serde_json::from_slice(body).map_err(|error| Unread::Malformed(error.to_string()))?;
        events::told(&event).map_err(Unread::Malformed)
    }
}

/// True for an address that a browser may be sent to.
fn is_page(url: &Uri) -> bool {
    matches!(url.scheme_str(), Some("https" | "http")) && url.host().is_some()
}

/// A Checkout session for one payment. Its metadata comes back with everything that is told of the payment.
fn checkout_form(order: &Order<'_>) -> String {
    let (package, mut form) = (order.package, Serializer::new(String::new()));
    form.append_pair("mode", "payment")
        .append_pair("line_items[0][quantity]", "1")
        .append_pair("line_items[0][price_data][currency]", package.price.currency.code())
        .append_pair("line_items[0][price_data][unit_amount]", &package.price.minor.to_string())
        .append_pair("line_items[0][price_data][product_data][name]", &package.title)
        .append_pair("client_reference_id", order.account.as_str())
        .append_pair("success_url", &format!("{}?done=paid", order.page))
        .append_pair("cancel_url", &order.page);
    if let Some(email) = order.email {
        form.append_pair("customer_email", email);
    }
    let mut metadata = vec![
        (events::ACCOUNT, order.account.as_str().to_owned()),
        (events::PACKAGE, package.name.clone()),
        (events::CREDITS, package.credits.to_string()),
        (events::BUCKET, package.bucket.as_str().to_owned()),
    ];
    metadata.extend(package.expires.map(|expires| (events::EXPIRES, expires.as_millis().to_string())));
    for (name, value) in metadata {
        form.append_pair(&format!("payment_intent_data[metadata][{name}]"), &value);
    }
    form.finish()
}
