//! Puts a configuration in force.

use std::collections::{HashMap, HashSet};

use super::{Control, Failure, InForce, refused};
use crate::clock::Clock;
use crate::config::{FileAccount, Loaded};
use crate::directory::{Account, AccountSpec, Directory, KeySpec, Meter, Owner, elapsed};
use crate::ledger::store::{AccountRow, AccountState, Books, KeyRow, Registered, Registration, Source};
use crate::policy::key::{KeyRules, KeyState};
use crate::snapshot::Snapshot;
use crate::types::{AccountId, AccountNum, KeyId, NameId};

/// Keeps saved limit states until their owners come, aged by the time that passed.
pub(super) fn restore_meters(directory: &Directory, books: &Books, clock: &Clock) {
    let (now, wall) = (clock.now(), clock.wall());
    for (owner, states, saved) in &books.limits {
        // Those of client addresses are the gateway's.
        if let Some(owner @ (Owner::Key(_) | Owner::Account(_))) = Owner::from_bytes(owner) {
            directory.park(owner, Meter::read(states, elapsed(*saved, wall), now));
        }
    }
}

impl Control {
    /// Brings in accounts and keys that commands made.
    pub(super) fn publish_store(&self, books: &Books) {
        let mut names: HashMap<AccountNum, AccountId> = HashMap::new();
        for row in &books.accounts {
            names.insert(row.num, row.id.clone());
            let plan = row.plan.as_deref().map(NameId::of);
            self.put_account(row, plan, Vec::new());
        }
        for row in books.keys.iter().filter(|row| row.source == Source::Store) {
            if let Some(account) = names.get(&row.account) {
                self.put_store_key(row, account);
            }
        }
    }

    pub(super) fn put_account(&self, row: &AccountRow, plan: Option<NameId>, webhooks: Vec<String>) {
        let Some(purse) = self.bookkeeper.purse(row.num) else { return };
        let suspended = row.state == AccountState::Suspended;
        let (id, num) = (row.id.clone(), row.num);
        self.directory.put_account(AccountSpec {
            id,
            num,
            purse,
            plan,
            suspended,
            webhooks,
            source: row.source,
        });
    }

    /// Puts every secret of a key of the store in force; they share one meter.
    pub(super) fn put_store_key(&self, row: &KeyRow, account: &AccountId) {
        let mut meter =
            self.directory.secrets_of(row.id).first().map(|(_, key)| std::sync::Arc::clone(key.meter()));
        for secret in &row.secrets {
            let expires = match (row.expires, secret.until) {
                (Some(expires), Some(until)) => Some(expires.min(until)),
                (expires, until) => expires.or(until),
            };
            let rules = KeyRules {
                state: row.state,
                expires,
                scopes: row.scopes.clone().map(Vec::into_boxed_slice),
                allow_from: row.allow_from.clone().map(Vec::into_boxed_slice),
            };
            let (hash, id, num) = (secret.hash, row.id, row.num);
            let spec = KeySpec {
                hash,
                id,
                num,
                account: account.clone(),
                rules,
                limits: None,
                source: Source::Store,
            };
            self.directory.put_secret(spec, meter.clone());
            meter = self.directory.find(&hash).map(|key| std::sync::Arc::clone(key.meter()));
        }
    }

    /// Puts a configuration in force, or changes nothing. Answers what the operator should know.
    ///
    /// The swap comes first: it says which accounts are served and on which plan, so that no request
    /// meets the plan of one configuration and the routes of the other. A key that stands in both
    /// configurations works without a gap; a new one works a moment later.
    pub(super) async fn publish(&self, loaded: Loaded, state: &mut InForce) -> Result<Vec<String>, Failure> {
        self.fits_the_store(&loaded)?;
        let mut warnings = self.needs_a_restart(&loaded.snapshot);
        warnings.extend(loaded.report.problems().map(|problem| problem.message.clone()));
        let wanted = Registration {
            accounts: loaded.accounts.iter().map(|account| (account.id.clone(), account.credits)).collect(),
            keys: loaded
                .keys
                .iter()
                .map(|key| (KeyId::of_hash(&key.hash), key.account.clone(), key.label.clone()))
                .collect(),
            routes: loaded.snapshot.routes.iter().map(|route| route.name.clone()).collect(),
        };
        let registered = self.bookkeeper.register(wanted).await?;
        warnings.extend(opening_grants(&loaded.accounts, &registered));
        let plans = loaded.accounts.iter().map(|account| account.plan.as_deref().map(NameId::of));
        let listed = registered.accounts.iter().map(|row| row.num).zip(plans);
        let snapshot = loaded.snapshot.clone().numbered(&registered.routes).listing(listed);
        self.publisher.publish(snapshot);
        self.put_file(&loaded, &registered);
        let Loaded { keys, watched, hash, .. } = loaded;
        let before = std::mem::take(&mut state.labels);
        state.labels = keys.into_iter().map(|key| (KeyId::of_hash(&key.hash), key)).collect();
        for gone in before.values().filter(|key| !state.labels.contains_key(&KeyId::of_hash(&key.hash))) {
            self.directory.remove(&gone.hash); // its account stays, but no snapshot lists it
        }
        self.directory.sweep(self.clock.now());
        (state.watched, state.hash) = (watched, hash);
        Ok(warnings)
    }

    fn put_file(&self, loaded: &Loaded, registered: &Registered) {
        for (account, row) in loaded.accounts.iter().zip(&registered.accounts) {
            self.put_account(row, None, account.webhooks.clone());
        }
        for (key, (num, state)) in loaded.keys.iter().zip(&registered.keys) {
            let rules = KeyRules {
                state: *state,
                expires: key.expires,
                scopes: key.scopes.clone().map(Vec::into_boxed_slice),
                allow_from: key.allow_from.clone().map(Vec::into_boxed_slice),
            };
            let (hash, id, num) = (key.hash, KeyId::of_hash(&key.hash), *num);
            let (account, limits) = (key.account.clone(), key.limits.clone());
            self.directory.put_key(KeySpec { hash, id, num, account, rules, limits, source: Source::File });
        }
    }

    /// A hash stands in the file or in the store; a plan that an account of the store is on stays.
    fn fits_the_store(&self, loaded: &Loaded) -> Result<(), Failure> {
        for key in &loaded.keys {
            if self.directory.find(&key.hash).is_some_and(|known| known.source == Source::Store) {
                let message = format!(
                    "the hash of key {}/{} belongs to a key that was made by command",
                    key.account, key.label
                );
                return refused(message);
            }
        }
        let has = |plan: &NameId| loaded.snapshot.plans.contains_key(plan);
        if self.directory.stored_plans().iter().all(has) {
            return Ok(());
        }
        let in_file: HashSet<&AccountId> = loaded.accounts.iter().map(|account| &account.id).collect();
        let on_none = |account: &Account| account.stored_plan().flatten().is_some_and(|plan| !has(&plan));
        match self.directory.find_account(|account| on_none(account) && !in_file.contains(&account.id)) {
            Some(account) => {
                refused(format!("account {} is on a plan that the configuration does not have", account.id))
            }
            None => Ok(()), // the file takes them all over
        }
    }

    fn needs_a_restart(&self, next: &Snapshot) -> Vec<String> {
        let view = self.snapshot();
        let (old, new) = (&view.settings, &next.settings);
        let changed = [
            ("[server] listen", old.listen != new.listen),
            ("[server] threads", old.threads != new.threads),
            ("[server] max_connections", old.max_connections != new.max_connections),
            ("[admin] listen", old.admin_listen != new.admin_listen),
            ("[ledger] url", old.ledger != new.ledger),
            ("[log] format", old.log.json != new.log.json),
        ];
        let changed = changed.into_iter().filter(|(_, changed)| *changed);
        changed.map(|(setting, _)| format!("{setting} changed; that takes effect at a restart")).collect()
    }
}

/// What the file says of opening grants that were made already.
fn opening_grants(accounts: &[FileAccount], registered: &Registered) -> Vec<String> {
    let differs = |(account, row): (&FileAccount, &AccountRow)| {
        let asked = account.credits.filter(|credits| row.opening != Some(*credits))?;
        let before = row.opening.map_or("none".to_owned(), |credits| credits.to_string());
        Some(format!(
            "account {}: credits = {asked} grants nothing, since the ledger knows the account (opening grant: {before}); use `tollgate account grant`",
            account.id
        ))
    };
    accounts.iter().zip(&registered.accounts).filter_map(differs).collect()
}

/// Whether a state in the books lets the key work.
pub(super) fn state_name(state: KeyState) -> &'static str {
    match state {
        KeyState::Active => "active",
        KeyState::Disabled => "disabled",
        KeyState::Revoked => "revoked",
    }
}
