//! Cancels requests in flight whose key stopped working: it was revoked, disabled, replaced by rotation or
//! removed from the file, it expired, or its account was suspended. Such requests end, and are settled, as if
//! their client had disconnected.

use std::rc::Rc;
use std::time::Duration;

use super::services::Services;
use crate::snapshot::AccountStatus;
use crate::types::KeyHash;

/// How often all requests in flight are checked: they continue for less than a second after their key stops working.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// Checks the keys of all requests in flight periodically. Ends with its worker.
pub(in crate::gateway) async fn end_revoked_requests(services: Rc<Services>) {
    loop {
        tokio::time::sleep(CHECK_EVERY).await;
        services.connections.check_keys(|key| works(&services, key)).await;
    }
}

/// True if a request with this key would pass authentication now.
fn works(services: &Services, key: &KeyHash) -> bool {
    let Some(key) = services.directory.find_usable(key, services.connections.clock.wall()) else {
        return false;
    };
    let view = services.connections.views.load();
    let account_status = view.account_status(key.account.num, key.account.stored_plan());
    matches!(account_status, AccountStatus::Served(_)) && !key.account.is_suspended()
}
