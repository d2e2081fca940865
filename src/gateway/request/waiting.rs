//! Makes payments wait, in tests. Outside tests every payment is ready immediately.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::access_log::AccessRecord;
use super::permit::waiting_payment::{PaymentFuture, Unpaid, WaitingPayment};
use super::permit::{Payment, refused};
use super::request_body::MAX_BUFFERED;
use super::services::Services;
use crate::directory::Key;
use crate::policy::price::Price;
use crate::policy::reject::Reason;
use crate::snapshot::Route;
use crate::types::Credits;

/// How the payments on a route wait.
#[derive(Clone, Debug)]
pub(crate) struct Wait {
    /// Each payment waits for one of these permits, and uses it up.
    pub(crate) permits: Arc<Semaphore>,
    /// The price is per line of the request body.
    pub(crate) per_line: bool,
}

static WAITS: Mutex<BTreeMap<String, Wait>> = Mutex::new(BTreeMap::new());

/// Makes payments on the route with this name wait, in all gateways of the process.
pub(crate) fn set(route: &str, wait: Wait) {
    WAITS.lock().insert(route.to_owned(), wait);
}

pub(super) fn start(
    services: &Rc<Services>,
    record: &Rc<AccessRecord>,
    key: Option<&Arc<Key>>,
    route: &Route,
    price: &Arc<Price>,
) -> Option<WaitingPayment> {
    let wait = WAITS.lock().get(route.name.as_str()).cloned()?;
    let (services, record, key) = (Rc::clone(services), Rc::clone(record), key.map(Arc::clone));
    let (price, index) = (Arc::clone(price), route.index);
    let per_line = wait.per_line;
    let pay = async move |body: &[u8]| -> Result<Payment, Unpaid> {
        let permit = wait.permits.acquire().await.map_err(|_| Reason::LedgerUnavailable)?;
        permit.forget();
        let lines = body.iter().filter(|byte| **byte == b'\n').count();
        let mut price = Price::clone(&price);
        if wait.per_line {
            let millionths = price.hold.millionths() * i64::try_from(lines).unwrap_or(i64::MAX);
            price.hold = Credits::from_millionths(millionths);
        }
        let route = &record.view().routes[index];
        let price = Arc::new(price);
        let held = Payment::hold(&services, &record, key.as_ref(), route, &Method::POST, &price, &mut None);
        Ok(held.map_err(|error| refused(&record, &price, error))?)
    };
    let pay = move |body: Bytes, _| Box::pin(async move { pay(&body).await }) as PaymentFuture;
    Some(match per_line {
        true => WaitingPayment::of_body(false, (MAX_BUFFERED, "A request in a test"), pay),
        false => WaitingPayment::new(false, pay),
    })
}
