//! Describes accounts and keys from their rows in the ledger and what is in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::accounts::{AccountView, ExpiringView, RefillView};
use super::keys::{KeyView, ShownKey};
use super::terms::{LimitTerms, SpendTerms, Time, restored};
use crate::control::{Control, InForce};
use crate::directory::{Directory, Key};
use crate::ledger::Bookkeeper;
use crate::ledger::store::{AccountRow, AccountState, KeyRow, Source};
use crate::policy::credit::Lot;
use crate::policy::key::KeyState;
use crate::policy::limit::Limit;
use crate::snapshot::{AccountStatus, Snapshot};
use crate::types::{AccountId, BucketName, Credits, KeyHash, NameId, WallTime};

/// What is in force at one moment. It may be used on any thread.
#[derive(Clone)]
pub(in crate::control) struct Describer {
    directory: Arc<Directory>,
    bookkeeper: Bookkeeper,
    view: Arc<Snapshot>,
    in_force: Arc<InForce>,
    now: WallTime,
}

impl Control {
    /// What is in force now.
    pub(in crate::control) fn describer(&self) -> Describer {
        Describer {
            directory: Arc::clone(&self.directory),
            bookkeeper: self.bookkeeper.clone(),
            view: self.snapshot(),
            in_force: self.in_force.load_full(),
            now: self.clock.wall(),
        }
    }
}

/// The balance by bucket.
fn buckets(row: &AccountRow) -> BTreeMap<String, Credits> {
    let default = BucketName::default();
    let Some(wallet) = &row.wallet else { return BTreeMap::from([(default.to_string(), row.balance)]) };
    let mut buckets = BTreeMap::from([(default.to_string(), wallet.rest)]);
    for lot in &wallet.lots {
        let sum = buckets.entry(lot.bucket.to_string()).or_default();
        *sum = sum.checked_add(lot.left).unwrap_or(*sum);
    }
    buckets
}

/// The credits that expire, the soonest first.
fn expiring(row: &AccountRow) -> Vec<ExpiringView> {
    let lots = row.wallet.iter().flat_map(|wallet| &wallet.lots);
    let view = |lot: &Lot| {
        let (bucket, credits) = (lot.bucket.to_string(), lot.left);
        Some(ExpiringView { bucket, credits, expires: Time(lot.ended.or(lot.expires)?) })
    };
    let mut expiring: Vec<_> = lots.filter_map(view).collect();
    expiring.sort_by_key(|view| view.expires.0);
    expiring
}

fn terms(limits: &[Limit]) -> Vec<LimitTerms> {
    limits.iter().map(LimitTerms::of).collect()
}

impl Describer {
    /// Describes an account.
    pub(in crate::control) fn account(&self, row: &AccountRow) -> AccountView {
        let known = self.directory.account(&row.id);
        // A new account is not in the directory yet.
        let stored = || (row.source == Source::Store).then(|| row.plan.as_deref().map(NameId::of));
        let stored = known.as_ref().map_or_else(stored, |account| account.stored_plan());
        let stored = stored.map(|_| row.plan.as_deref().map(NameId::of));
        let status = self.view.account_status(row.num, stored);
        let plan = match status {
            AccountStatus::Served(plan) => plan,
            AccountStatus::Unknown => None,
        };
        let state = match (row.state, status) {
            (AccountState::Closed, _) => "closed",
            (_, AccountStatus::Unknown) => "dropped by the file",
            (AccountState::Active, _) => "active",
            (AccountState::Suspended, _) => "suspended",
        };
        let unheld = row.balance.checked_sub(row.held).unwrap_or_default();
        let available = self.bookkeeper.purse(row.num).map_or(unheld, |purse| {
            purse.saw(unheld);
            purse.available()
        });
        let held = row.balance.checked_sub(available).unwrap_or(Credits::ZERO).max(Credits::ZERO);
        AccountView {
            id: row.id.clone(),
            name: row.name.clone(),
            plan: plan.map(|plan| plan.name.clone()),
            state,
            balance: row.balance,
            buckets: buckets(row),
            expiring: expiring(row),
            spend_limit: row.spending.limit.map(SpendTerms),
            spent_in_period: row.spending.counted(),
            refill: plan.and_then(|plan| RefillView::of(plan.refill.as_ref()?, row.created, self.now)),
            available,
            held,
            limits: plan.map_or_else(Vec::new, |plan| terms(&plan.limits)),
            webhooks: known.map_or_else(Vec::new, |account| account.webhooks().to_vec()),
            created: Time(row.created),
            source: row.source,
            version: row.version,
        }
    }

    /// The hash of a key that the current configuration file defines.
    pub(super) fn file_hash(&self, row: &KeyRow) -> Option<KeyHash> {
        self.in_file(row).map(|key| key.hash)
    }

    /// Finds a key in the directory, if the current configuration file defines it.
    fn in_file(&self, row: &KeyRow) -> Option<Arc<Key>> {
        let listed = self.in_force.keys.get(&row.id).filter(|_| row.source == Source::File)?;
        self.directory.find(&listed.hash)
    }

    /// Describes a key. `owner`: the account that it belongs to.
    pub(in crate::control) fn key(&self, row: &KeyRow, owner: &AccountId) -> KeyView {
        let (of_file, in_file) = (row.source == Source::File, self.in_file(row));
        let dropped = of_file && in_file.is_none();
        let (scopes, allow_from, expires, limits) = match &in_file {
            Some(key) => {
                let rules = key.rules();
                let networks = rules.allow_from.as_deref().map(<[_]>::to_vec);
                (rules.scopes.clone(), networks, rules.expires, key.limits().cloned())
            }
            None => {
                let limits = row.limits.as_deref().and_then(restored);
                (row.scopes.clone(), row.allow_from.clone(), row.expires, limits)
            }
        };
        KeyView {
            id: row.id,
            key: ShownKey::Hint(if of_file { "(in the file)".to_owned() } else { row.hint.clone() }),
            account: owner.clone(),
            label: row.label.clone(),
            environment: row.environment.clone(),
            state: if dropped { "dropped by the file" } else { state_name(row.state) },
            scopes,
            allow_from,
            limits: limits.map(|limits| terms(&limits)),
            spend_limit: row.spending.limit.map(SpendTerms),
            group: row.group.clone(),
            spent: row.spending.spent,
            spent_in_period: row.spending.counted(),
            expires: expires.map(Time),
            created: Time(row.created),
            old_secret_until: row.secrets.iter().find_map(|secret| secret.until).map(Time),
            last_used: row.last_used.map(Time),
            source: row.source,
            version: row.version,
        }
    }
}

/// The name of a key state in commands, responses and lists.
pub(in crate::control) fn state_name(state: KeyState) -> &'static str {
    match state {
        KeyState::Active => "active",
        KeyState::Disabled => "disabled",
        KeyState::Revoked => "revoked",
    }
}
