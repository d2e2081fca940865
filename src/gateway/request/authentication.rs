//! Authenticates requests by their keys, and checks what a key may do.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;

use super::services::Services;
use crate::directory::Key;
use crate::policy::reject::{Reason, Refusal};
use crate::snapshot::{AccountStatus, Plan, Route, Snapshot};
use crate::types::{KeyHash, Moment};

/// Minimum time spent on a rejected key, so that response time does not reveal why it was rejected: more than any
/// rejection of a key of usual length takes with warm caches. Without it, a disabled key took 30 ns longer than
/// an unknown one.
const MIN_REJECTION_TIME: Duration = Duration::from_micros(1);

/// The key of a request, and the plan of its account.
pub(super) struct Caller<'a> {
    pub(super) key: Arc<Key>,
    pub(super) plan: Option<&'a Plan>,
}

/// Authenticates a request (steps 3 and 4). Unknown, disabled, expired and revoked keys, and keys of an account
/// that the file removed, are rejected in the same way; an address with many rejected keys is limited.
///
/// # Errors
/// [`Reason::MissingKey`], [`Reason::KeyInQuery`], [`Reason::InvalidKey`], [`Reason::RateLimited`].
pub(super) fn authenticate<'a>(
    services: &Services,
    view: &'a Snapshot,
    parts: &Parts,
    address: IpAddr,
    now: Moment,
) -> Result<Caller<'a>, Refusal> {
    let secret = view.keys.read(&parts.headers, parts.uri.query())?;
    let (failed_keys, per_minute) = (&services.limits.failed_keys, view.settings.failed_keys_per_minute);
    let clock = &services.connections.clock;
    let started = clock.now();
    let limited = |seconds| Refusal { retry_after: Some(seconds), ..Reason::RateLimited.into() };
    failed_keys.may_try(address, per_minute, now).map_err(limited)?;
    let reject = || {
        failed_keys.record(address, per_minute, now);
        clock.busy_until(started.plus(MIN_REJECTION_TIME));
        Reason::InvalidKey
    };
    let wall = services.connections.time.wall();
    let key = services.directory.find_usable(&KeyHash::of(secret), wall).ok_or_else(reject)?;
    match view.account_status(key.account.num, key.account.stored_plan()) {
        AccountStatus::Served(plan) => Ok(Caller { key, plan }),
        _ => Err(reject().into()),
    }
}

/// Checks that a key may use a route from an address (step 5). False if only shadow scopes forbid it.
///
/// # Errors
/// [`Reason::AccountSuspended`], [`Reason::RouteForbidden`], [`Reason::AddressForbidden`].
pub(super) fn authorize(key: &Key, route: &Route, address: IpAddr) -> Result<bool, Refusal> {
    if key.account.is_suspended() {
        return Err(Reason::AccountSuspended.into());
    }
    Ok(key.rules().permit(route.name.as_str(), address)?)
}

/// Checks that a key may read its account info: from its allowed addresses, whatever its routes are.
///
/// # Errors
/// [`Reason::AccountSuspended`], [`Reason::AddressForbidden`].
pub(super) fn authorize_account_info(key: &Key, address: IpAddr) -> Result<(), Refusal> {
    if key.account.is_suspended() {
        return Err(Reason::AccountSuspended.into());
    }
    if !key.rules().admits(address) {
        return Err(Reason::AddressForbidden.into());
    }
    Ok(())
}
