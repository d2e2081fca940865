//! Leases credits before they are held, where the gateways of a fleet share them.

use std::rc::Rc;
use std::sync::Arc;

use http::Method;

use super::{Payment, refused};
use crate::directory::Key;
use crate::gateway::request::access_log::AccessRecord;
use crate::gateway::request::repeats::claimed::Claimed;
use crate::gateway::request::services::Services;
use crate::ledger::{HoldError, Lease};
use crate::policy::price::Price;
use crate::policy::reject::{Reason, Refusal};

/// Most times that a request leases credits which others are faster to hold.
const MAX_TRIES: u32 = 8;

/// Holds a price, once credits for it are leased. `index`: the route's in the snapshot.
///
/// # Errors
/// [`Reason::InsufficientCredits`], only if the account has too few, or gets them from other gateways too late; or
/// [`Reason::LedgerUnavailable`].
pub(in crate::gateway::request) async fn lease_and_hold(
    services: &Rc<Services>,
    record: &AccessRecord,
    key: &Arc<Key>,
    (index, method): (usize, &Method),
    price: &Arc<Price>,
    mut claimed: Option<Claimed>,
) -> Result<Payment, Refusal> {
    let route = &record.view().routes[index];
    for _ in 0..MAX_TRIES {
        let lease = match price.shadow {
            true => Lease::TooLittle,
            false => services
                .spender
                .lease(&key.account.purse, key.caps(), price.hold)
                .await
                .map_err(|_| Reason::LedgerUnavailable)?,
        };
        match Payment::hold(services, record, Some(key), route, method, price, &mut claimed) {
            Err(HoldError::Insufficient | HoldError::Capped(_)) if lease == Lease::Enough => {} // others were faster
            held => return held.map_err(|error| refused(record, price, error)),
        }
    }
    Err(Reason::LedgerUnavailable.into())
}
