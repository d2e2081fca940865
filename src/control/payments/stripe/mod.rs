//! Stripe: customers pay on a Checkout page, and messages tell what became of their payments.

mod events;
mod forms;
mod signature;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use serde_json::Value;

use super::{NoPage, Order, Provider, Told, Uncharged, Unread};
use crate::control::http_client::{HttpClient, destination};
use crate::control::random;
use crate::snapshot::payments::{self, Package};
use crate::types::{AccountId, WallTime};

/// The version of Stripe's API that is spoken.
const VERSION: &str = "2024-06-20";
/// Longest time of a request, from the resolution of the name to the end of the response.
const MAX_TIME: Duration = Duration::from_secs(20);
/// Longest response that is read, in bytes.
const MAX_RESPONSE: usize = 256 * 1024;

/// Stripe, with an account there.
pub(in crate::control) struct Stripe {
    /// The id of this seller, in the metadata of everything that is sold.
    pub(in crate::control) seller: String,
    pub(in crate::control) settings: Arc<payments::Stripe>,
    pub(in crate::control) client: HttpClient,
}

/// A response: its status, and its object.
type Responded = (StatusCode, Value);

impl Stripe {
    /// Sends a request. `once`: the key that makes a repeated POST one.
    async fn send(&self, method: Method, path: &str, form: String, once: &str) -> Result<Responded, String> {
        let uri: Uri = format!("{}{path}", self.settings.url).parse().map_err(|_| "a wrong URL")?;
        let (host, port, _) = destination(&uri);
        let (host, key) = (host.to_owned(), format!("Bearer {}", self.settings.secret_key.reveal()));
        let mut key = HeaderValue::try_from(key).map_err(|_| "the secret key is no header value")?;
        key.set_sensitive(true);
        let mut request = Request::builder().method(method).uri(uri);
        if !once.is_empty() {
            request = request
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header("idempotency-key", once);
        }
        let request = request
            .header(AUTHORIZATION, key)
            .header("stripe-version", VERSION)
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
        let object = serde_json::from_slice(&answered.start)
            .map_err(|_| format!("the response with status {status} is no JSON of at most 256 KiB"))?;
        Ok((status, object))
    }

    /// Sends a request that must succeed. Returns its object.
    async fn ask(&self, method: Method, path: &str, form: String, once: &str) -> Result<Value, String> {
        match self.send(method, path, form, once).await? {
            (status, object) if status.is_success() => Ok(object),
            (status, object) => Err(refusal(status, &object["error"])),
        }
    }

    /// Opens a page. Returns its address.
    async fn page(&self, path: &str, form: String, once: &str) -> Result<String, NoPage> {
        let (status, object) = self.send(Method::POST, path, form, once).await.map_err(NoPage::Failed)?;
        let error = &object["error"];
        if error["code"] == "resource_missing" && error["param"] == "customer" {
            return Err(NoPage::UnknownCustomer);
        }
        if !status.is_success() {
            return Err(NoPage::Failed(refusal(status, error)));
        }
        let is_page = |url: &&str| {
            let url = url.parse::<Uri>().unwrap_or_default();
            matches!(url.scheme_str(), Some("https" | "http")) && url.host().is_some()
        };
        let url = object["url"].as_str().filter(is_page);
        url.map(str::to_owned).ok_or_else(|| NoPage::Failed("the response names no page".to_owned()))
    }
}

/// What an error of Stripe says: its type and code. Its message may quote what was sent.
fn refusal(status: StatusCode, error: &Value) -> String {
    let plain = |name: &str| {
        let letters = error[name].as_str().unwrap_or("-").chars();
        letters.filter(|letter| letter.is_ascii_alphanumeric() || *letter == '_').take(64).collect::<String>()
    };
    format!("status {status}, type {}, code {}, param {}", plain("type"), plain("code"), plain("param"))
}

impl Provider for Stripe {
    async fn checkout(&self, order: &Order<'_>) -> Result<String, NoPage> {
        self.page("/v1/checkout/sessions", forms::checkout(order, &self.seller), &order.id).await
    }

    async fn portal(&self, customer: &str, page: &str) -> Result<String, NoPage> {
        let form = forms::portal(customer, page);
        // A new page each time: the key only has to differ.
        let once = random::<16>().map_err(|error| NoPage::Failed(error.to_string()))?;
        let once = format!("{:032x}", u128::from_be_bytes(once));
        self.page("/v1/billing_portal/sessions", form, &once).await
    }

    fn charge_form(&self, account: &AccountId, package: &Package, card: (&str, &str), number: u64) -> String {
        forms::charge(account, package, card, (number, &self.seller))
    }

    async fn charge(&self, form: &str, once: &str) -> Result<Option<Told>, Uncharged> {
        let sent = self.send(Method::POST, "/v1/payment_intents", form.to_owned(), once).await;
        let (status, object) = sent.map_err(Uncharged::Unknown)?;
        // A conflict is another request with the same key, which is under way.
        let is_unknown = status.is_server_error() || matches!(status.as_u16(), 401 | 403 | 409 | 429);
        match (status.is_success(), object["status"].as_str()) {
            (true, Some("succeeded")) => {
                let paid = events::intent(&object).map_err(Uncharged::Unknown)?;
                Ok(Some(Told::Paid(Box::new(paid))))
            }
            (true, Some("processing")) => Ok(None),
            (true, Some("requires_action" | "requires_payment_method")) => {
                Err(Uncharged::Refused("authentication_required".to_owned()))
            }
            (true, _) => Err(Uncharged::Unknown("the response is no payment".to_owned())),
            (false, _) if is_unknown => Err(Uncharged::Unknown(refusal(status, &object["error"]))),
            (false, _) => Err(Uncharged::Refused(events::code(&object["error"]))),
        }
    }

    async fn read(&self, signature: &str, body: &[u8], now: WallTime) -> Result<Option<Told>, Unread> {
        if !signature::is_signed(self.settings.webhook_secret.reveal(), signature, body, now) {
            return Err(Unread::Unsigned);
        }
        let event = serde_json::from_slice(body).map_err(|error| Unread::Malformed(error.to_string()))?;
        let context = events::Context {
            seller: &self.seller,
            currency: self.settings.packages.first().map(|package| package.price.currency),
        };
        let Some(invoice) = context.paid_invoice(&event).map_err(Unread::Malformed)? else {
            return context.told(&event).map_err(Unread::Malformed);
        };
        // The event has the form of the version that the seller's endpoint has, which may not name the payment.
        let path = format!("/v1/invoices/{invoice}");
        let invoice = self.ask(Method::GET, &path, String::new(), "").await.map_err(Unread::Unanswered)?;
        if invoice["status"] != "paid" {
            return Ok(None);
        }
        context.invoice(&invoice).map_err(Unread::Malformed)
    }
}
