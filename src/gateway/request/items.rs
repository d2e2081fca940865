//! Pays for requests whose price is per item of a JSON array in their body: the body is read completely, and its items are
//! counted, before anything is held or forwarded.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::request::Parts;

use super::access_log::AccessRecord;
use super::permit::Payment;
use super::permit::lease::lease_and_hold;
use super::permit::waiting_payment::{PaymentFuture, Unpaid, WaitingPayment};
use super::request_body::MAX_BUFFERED;
use super::services::Services;
use crate::directory::Key;
use crate::policy::price::{ItemHold, ItemsFault, Price, count_items};
use crate::policy::reject::{Reason, Refusal};
use crate::snapshot::Route;

/// Largest body whose items are counted on the worker itself, in bytes; larger ones would delay other requests.
const MAX_COUNTED_HERE: usize = 64 * 1024;

/// Most requests of a worker whose bodies are read before they are paid for. Each has at most
/// [`super::request_body::MAX_BUFFERED`] bytes.
pub(super) const MAX_READING: usize = 128;

/// The payment of a request that is priced per item.
///
/// # Errors
/// [`Reason::BadRequest`] if the request's body is compressed; [`Reason::Overloaded`] if the bodies of [`MAX_READING`]
/// requests are being read.
pub(super) fn payment(
    services: &Rc<Services>,
    record: &Rc<AccessRecord>,
    key: &Arc<Key>,
    route: &Route,
    parts: &Parts,
    (price, per_item): (&Arc<Price>, &ItemHold),
) -> Result<WaitingPayment, Refusal> {
    if parts
        .headers
        .get(CONTENT_ENCODING)
        .is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        let detail = "This route counts the items in the request's body, which must not be compressed.";
        return Err(Refusal::because(Reason::BadRequest, detail));
    }
    let reading = Rc::clone(&services.reading);
    if Rc::strong_count(&reading) > MAX_READING + 1 {
        return Err(Reason::Overloaded.into());
    }
    let (services, record, key) = (Rc::clone(services), Rc::clone(record), Arc::clone(key));
    let (price, per_item) = (Arc::clone(price), per_item.clone());
    let (index, method) = (route.index, parts.method.clone());
    let reads_body = price.reads_body();
    let pay = async move |body: Bytes, claimed| -> Result<Payment, Unpaid> {
        let _reading = reading; // until the items are counted
        let items = count(body, &per_item).await?;
        if items == 0 && price.opens.is_some() {
            let detail = format!("The array at {} has no items.", per_item.of);
            return Err(Refusal::because(Reason::BadRequest, detail).into());
        }
        let price = Arc::new(price.for_items(items));
        Ok(lease_and_hold(&services, &record, &key, (index, &method), &price, claimed).await?)
    };
    let pay = move |body, claimed| Box::pin(async move { pay(body, claimed).await }) as PaymentFuture;
    Ok(WaitingPayment::of_body(reads_body, (MAX_BUFFERED, "A request that is charged per item"), pay))
}

/// Counts the items of a body.
async fn count(body: Bytes, per_item: &ItemHold) -> Result<u32, Refusal> {
    let counted = if body.len() <= MAX_COUNTED_HERE {
        count_items(&body, &per_item.of, per_item.max_items)
    } else {
        let (of, max) = (per_item.of.clone(), per_item.max_items);
        let counted = tokio::task::spawn_blocking(move || count_items(&body, &of, max)).await;
        counted.map_err(|_| Reason::Overloaded)?
    };
    counted.map_err(|fault| {
        let detail = match fault {
            ItemsFault::NoArray => {
                format!("The request's body must be JSON with one array at {}.", per_item.of)
            }
            ItemsFault::TooMany => {
                format!("The array at {} has more than {} items.", per_item.of, per_item.max_items)
            }
        };
        Refusal::because(Reason::BadRequest, detail)
    })
}
