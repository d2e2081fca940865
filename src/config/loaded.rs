//! The result of loading a configuration that has no errors.

use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

use super::report::Report;
use crate::policy::credit::SpendLimit;
use crate::policy::key::Scopes;
use crate::policy::limit::Limit;
use crate::policy::price::Price;
use crate::snapshot::Snapshot;
use crate::types::{AccountId, Credits, KeyHash, WallTime};

/// A configuration that passed every check.
#[derive(Clone, Debug)]
pub struct LoadedConfig {
    /// The snapshot, still without the file's accounts and without the routes' numbers in the ledger.
    pub snapshot: Snapshot,
    /// Accounts of the files.
    pub accounts: Vec<FileAccount>,
    /// Keys of the files.
    pub keys: Vec<FileKey>,
    /// Files and patterns to watch for changes.
    pub watched: Watched,
    /// SHA-256 over all files, to detect changes.
    pub hash: KeyHash,
    /// The text of all configuration files, without secrets; `None` if it is long.
    pub text: Option<Arc<str>>,
    /// The problems that were found: only warnings.
    pub report: Report,
}

impl LoadedConfig {
    /// Lines about the most that a request to each route with a price can cost, also on plans with another price.
    #[must_use]
    pub fn most_costs(&self) -> String {
        let snapshot = &self.snapshot;
        let mut lines = String::new();
        for route in snapshot.routes.iter().filter(|route| !route.public) {
            let mut costs = Vec::new();
            if !route.price.is_free() {
                costs.push(most_cost(&route.price));
            }
            let own = snapshot.plans.values().filter_map(|plan| Some((plan, plan.prices.get(&route.index)?)));
            let mut own: Vec<String> =
                own.map(|(plan, price)| format!("{} on plan {}", most_cost(price), plan.name)).collect();
            own.sort();
            costs.extend(own);
            if !costs.is_empty() {
                lines += &format!("  {} costs at most {}\n", route.name, costs.join(", "));
            }
        }
        lines
    }
}

fn most_cost(price: &Price) -> String {
    let shadow = if price.shadow { " (shadow: nothing is charged)" } else { "" };
    match &price.per_item {
        Some(per_item) => {
            format!("{} ({} for each of {} items){shadow}", price.hold, per_item.each, per_item.max_items)
        }
        None => format!("{}{shadow}", price.hold),
    }
}

/// The files that a configuration was read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Files that secrets were read from.
    pub secrets: Vec<PathBuf>,
    /// All files: the configuration files, and the files that secrets were read from.
    pub files: Vec<PathBuf>,
    /// Patterns of `include`.
    pub patterns: Vec<String>,
}

/// An account of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileAccount {
    /// The operator's name for it.
    pub id: AccountId,
    /// The name of its plan.
    pub plan: Option<String>,
    /// The opening grant.
    pub credits: Option<Credits>,
    /// The most that it may spend, in place of its plan's.
    pub spend_limit: Option<SpendLimit>,
    /// The customer's webhooks.
    pub webhooks: Vec<String>,
}

/// A key of a file.
#[derive(Clone, Debug)]
pub struct FileKey {
    /// SHA-256 of the key.
    pub hash: KeyHash,
    /// The account that it belongs to.
    pub account: AccountId,
    /// A label for operators.
    pub label: String,
    /// Patterns of the routes that it may use; `None` for every route.
    pub scopes: Option<Scopes>,
    /// When it expires.
    pub expires: Option<WallTime>,
    /// Networks that its requests may come from.
    pub allow_from: Option<Vec<IpNet>>,
    /// Limits that replace the plan's.
    pub limits: Option<Arc<[Limit]>>,
}
