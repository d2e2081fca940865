//! Leases credits before they are held, where the gateways of a fleet share them.

use crate::directory::Key;
use crate::gateway::request::services::Services;
use crate::ledger::Lease;
use crate::policy::price::Price;
use crate::policy::reject::{Reason, Refusal};

/// Most times that a request waits for a lease, of which others may be faster to hold credits.
const MAX_TRIES: u32 = 3;

/// True if credits must be leased before a price can be held.
pub(super) fn is_short(services: &Services, key: &Key, price: &Price) -> bool {
    !price.is_free() && !price.shadow && services.spender.must_lease(&key.account.purse, price.hold)
}

/// Leases the credits of a price, if the account has them.
///
/// # Errors
/// [`Reason::LedgerUnavailable`].
pub(in crate::gateway::request) async fn lease(
    services: &Services,
    key: &Key,
    price: &Price,
) -> Result<(), Refusal> {
    if price.is_free() || price.shadow {
        return Ok(());
    }
    let purse = &key.account.purse;
    for _ in 0..MAX_TRIES {
        if !services.spender.must_lease(purse, price.hold) {
            break;
        }
        let leased = services.spender.lease(purse, price.hold).await;
        if leased.map_err(|_| Refusal::from(Reason::LedgerUnavailable))? == Lease::TooLittle {
            break;
        }
    }
    Ok(())
}
