//! Limits as operations take and return them: as they stand in the configuration file.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config;
use crate::control::operations::error::{OperationError, Result};
use crate::policy::limit::{Algorithm, Limit, Outage, Scope};
use crate::policy::route::Methods;

/// A limit, as in the configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Limit)]
pub struct LimitTerms {
    /// The name in headers, logs and `explain`.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._-]+$", example = "per-minute")]
    pub name: String,
    /// Requests per window.
    #[schema(minimum = 1)]
    pub requests: u32,
    /// Length of the window, such as `60s` or `24h`.
    #[schema(example = "60s", pattern = "^[0-9]+(ms|s|m|h|d)$")]
    pub window: String,
    /// Requests that are admitted at the same moment; only for `gcra`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub burst: Option<u32>,
    /// The algorithm; `gcra` if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<LimitAlgorithm>,
    /// The requests that are counted together; those of the key if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<LimitScope>,
    /// Name patterns of the routes that the limit applies to; all if it is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 1000)]
    pub routes: Vec<String>,
    /// Name patterns of the routes that the limit does not apply to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 1000)]
    pub except: Vec<String>,
    /// The methods that the limit applies to; all if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 100)]
    pub methods: Option<Vec<String>>,
    /// True if it refuses nothing, but counts what it would refuse.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
    /// True for a limit of a key that applies together with those of the plan, not in their place. All limits of a key add
    /// to the plan's, or none does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adds: bool,
    /// What happens to a request while the store does not answer in which a fleet counts its limits; as configured for all limits
    /// if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outage: Option<LimitOutage>,
}

/// What happens to a request while the store does not answer in which a fleet counts its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LimitOutage {
    /// Each gateway admits its part of the limit.
    LocalShare,
    /// It is admitted.
    Open,
    /// It is refused.
    Closed,
}

/// The algorithm of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LimitAlgorithm {
    /// The generic cell rate algorithm.
    Gcra,
    /// At most `requests` in any span of length `window`.
    SlidingWindow,
}

/// The requests that a limit counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub enum LimitScope {
    /// All requests with one key.
    #[serde(rename = "key")]
    Key,
    /// All requests with one key to one route.
    #[serde(rename = "key+route")]
    KeyRoute,
    /// All requests with any key of one account.
    #[serde(rename = "account")]
    Account,
    /// All requests from one client address.
    #[serde(rename = "address")]
    Address,
}

impl LimitTerms {
    /// A limit of requests with a key in a window, on all routes, which applies together with those of the plan.
    #[must_use]
    pub fn adding(name: &str, requests: u32, window: &str) -> Self {
        Self {
            name: name.to_owned(),
            requests,
            window: window.to_owned(),
            burst: None,
            algorithm: Some(LimitAlgorithm::SlidingWindow),
            scope: None,
            routes: Vec::new(),
            except: Vec::new(),
            methods: None,
            shadow: false,
            adds: true,
            outage: None,
        }
    }

    /// Describes a limit.
    pub(in crate::control) fn of(limit: &Limit) -> Self {
        let is_gcra = limit.algorithm == Algorithm::Gcra;
        Self {
            name: limit.name.to_string(),
            requests: limit.requests,
            window: text(limit.window),
            burst: Some(limit.burst).filter(|_| is_gcra),
            algorithm: Some(if is_gcra { LimitAlgorithm::Gcra } else { LimitAlgorithm::SlidingWindow }),
            scope: Some(match limit.scope {
                Scope::Key => LimitScope::Key,
                Scope::KeyRoute => LimitScope::KeyRoute,
                Scope::Account => LimitScope::Account,
                Scope::Address => LimitScope::Address,
            }),
            routes: limit.routes.clone(),
            except: limit.except.clone(),
            methods: match &limit.methods {
                Methods::All => None,
                Methods::Only(list) => Some(list.iter().map(ToString::to_string).collect()),
            },
            shadow: limit.shadow,
            adds: limit.adds,
            outage: limit.outage.map(|outage| match outage {
                Outage::LocalShare => LimitOutage::LocalShare,
                Outage::Open => LimitOutage::Open,
                Outage::Closed => LimitOutage::Closed,
            }),
        }
    }
}

/// A duration as it stands in the configuration file.
fn text(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}

/// Checks limits, and writes them as JSON for the ledger.
pub(in crate::control) fn stored(terms: &[LimitTerms], routes: &[&str]) -> Result<String> {
    if terms.iter().any(|limit| limit.adds) && !terms.iter().all(|limit| limit.adds) {
        return OperationError::invalid(
            "limits",
            "all limits of a key add to those of the plan, or none does",
        );
    }
    let json = serde_json::to_string(terms).unwrap_or_default(); // plain values always serialise
    match config::parse_limits(&json, routes) {
        Ok(_) => Ok(json),
        Err(problems) => OperationError::invalid("limits", problems.join("; ")),
    }
}

/// Reads limits from the ledger. Patterns of routes that no longer exist match nothing.
pub(in crate::control) fn restored(json: &str) -> Option<Arc<[Limit]>> {
    config::parse_stored_limits(json).map(Arc::from)
}
