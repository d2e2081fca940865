//! Publishes a configuration: registers it in the ledger, and replaces the snapshot and the directory's keys and
//! accounts.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::operations::{OperationError, Result, restored};
use super::spending::own_limits;
use super::{Control, FileKeys, InForce, ListedKey};
use crate::config::{FileAccount, FileKey, LoadedConfig};
use crate::directory::{Account, AccountSpec, KeySpec, Meter, Owner, elapsed};
use crate::ledger::KeyCaps;
use crate::ledger::store::{
    AccountRow, AccountState, BooksReader, EndpointRow, KeyRow, LedgerError, NewFileAccount, Registered,
    Registration, SecretRow, Source, StoredSecret, each_account,
};
use crate::policy::credit::SpendLimit;
use crate::policy::key::{KeyRules, KeyState};
use crate::snapshot::{Plan, Snapshot};
use crate::tls::server::Tls;
use crate::types::{AccountId, AccountNum, KeyHash, KeyId, KeyNum, NameId};

/// A configuration that was published.
pub(super) struct Published {
    pub(super) warnings: Vec<String>,
    /// The spending limits of its accounts in place of their plans'.
    pub(super) own: HashMap<AccountNum, SpendLimit>,
}

impl Control {
    /// Restores saved limit states from the ledger, aged by the time since they were saved. Each is parked in the
    /// directory until its key or account is added.
    pub(super) fn restore_meters(&self, reader: &mut dyn BooksReader) -> Result<(), LedgerError> {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        reader.each_limit(&mut |owner, states, saved| {
            // The gateway restores the limit states of client addresses.
            if let Some(owner @ (Owner::Key(_) | Owner::Account(_))) = Owner::from_bytes(owner) {
                self.directory.park(owner, Meter::read(states, elapsed(saved, wall), now));
            }
        })
    }

    /// Adds the accounts and secrets in the ledger to the directory, one by one as they are read.
    pub(super) fn publish_store(&self, reader: &mut dyn BooksReader) -> Result<(), LedgerError> {
        let mut accounts: Vec<Option<Arc<Account>>> = Vec::new(); // by number
        each_account(reader, |row| {
            let (num, plan) = (row.num.0 as usize, row.plan.as_deref().map(NameId::of));
            if accounts.len() <= num {
                accounts.resize(num + 1, None);
            }
            accounts[num] = self.put_account(row, plan, Vec::new());
            ControlFlow::Continue(())
        })?;
        let mut last: Option<(KeyId, KeyHash)> = None;
        reader.each_secret(&mut |secret| {
            let Some(Some(account)) = accounts.get(secret.account.0 as usize) else { return };
            let (id, hash) = (secret.id, secret.hash);
            let other =
                last.filter(|(other, _)| *other == id).and_then(|(_, hash)| self.directory.find(&hash));
            let meter = other.map(|key| Arc::clone(key.meter()));
            self.directory.put_secret(self.spec(secret, Arc::clone(account)), meter);
            last = Some((id, hash));
        })
    }

    pub(super) fn put_account(
        &self,
        row: AccountRow,
        plan: Option<NameId>,
        webhooks: Vec<String>,
    ) -> Option<Arc<Account>> {
        let purse = self.bookkeeper.purse(row.num)?;
        let suspended = row.state != AccountState::Active;
        let AccountRow { id, num, source, .. } = row;
        Some(self.directory.put_account(AccountSpec { id, num, purse, plan, suspended, webhooks, source }))
    }

    /// Adds the current secrets of a key that was created by command, and removes the former secrets in `before` from
    /// the directory. All secrets of a key share one meter.
    pub(super) fn put_store_key(&self, row: &KeyRow, account: &Arc<Account>, before: &[SecretRow]) {
        let hashes = before.iter().chain(&row.secrets).map(|secret| secret.hash);
        let known = hashes.clone().find_map(|hash| self.directory.find(&hash));
        let mut meter = known.map(|key| Arc::clone(key.meter()));
        for secret in &row.secrets {
            let stored = StoredSecret {
                hash: secret.hash,
                until: secret.until,
                id: row.id,
                num: row.num,
                account: row.account,
                state: row.state,
                expires: row.expires,
                scopes: row.scopes.clone(),
                allow_from: row.allow_from.clone(),
                limits: row.limits.clone(),
            };
            self.directory.put_secret(self.spec(stored, Arc::clone(account)), meter.clone());
            if row.secrets.len() > 1 && meter.is_none() {
                meter = self.directory.find(&secret.hash).map(|key| Arc::clone(key.meter()));
            }
        }
        for gone in before.iter().filter(|old| row.secrets.iter().all(|kept| kept.hash != old.hash)) {
            self.directory.remove(&gone.hash);
        }
    }

    /// Converts a secret in the ledger to an entry of the directory.
    fn spec(&self, secret: StoredSecret, account: Arc<Account>) -> KeySpec {
        let StoredSecret { hash, until, id, num, account: _, state, expires, scopes, allow_from, limits } =
            secret;
        let rules = KeyRules {
            state,
            expires: match (expires, until) {
                (Some(expires), Some(until)) => Some(expires.min(until)),
                (expires, until) => expires.or(until),
            },
            scopes,
            allow_from: allow_from.map(Vec::into_boxed_slice),
        };
        let limits = limits.as_deref().and_then(restored);
        KeySpec {
            hash,
            id,
            num,
            account,
            rules,
            limits,
            caps: self.bookkeeper.key_caps(num),
            source: Source::Store,
        }
    }

    /// Sets the state of a key of the configuration file, which commands may change.
    pub(super) fn set_file_key_state(&self, id: KeyId, state: KeyState) {
        let in_force = self.in_force.load();
        let found = in_force.keys.get(&id).and_then(|listed| self.directory.find(&listed.hash));
        let Some(key) = found else { return };
        let rules = KeyRules { state, ..key.rules().clone() };
        let (account, limits) = (Arc::clone(&key.account), key.limits().cloned());
        let (hash, num, source) = (key.hash, key.num, key.source);
        self.directory.put_key(KeySpec {
            hash,
            id,
            num,
            account,
            rules,
            limits,
            caps: KeyCaps::NONE,
            source,
        });
    }

    /// Publishes a configuration, or changes nothing that requests can observe. Returns warnings.
    ///
    /// The snapshot is replaced first. It determines which accounts are served and on which plan, so that a request
    /// never combines the plan of one configuration with the routes of another. A key that is in both configurations is
    /// accepted without interruption; a new key is accepted a moment later.
    pub(super) async fn publish(&self, loaded: LoadedConfig, before: &InForce) -> Result<Published> {
        self.fits_the_store(&loaded)?;
        let mut warnings = self.needs_a_restart(&loaded.snapshot);
        warnings.extend(loaded.report.problems().map(|problem| problem.message.clone()));
        let registered = self.register(&loaded, &before.keys).await?;
        self.put_file_endpoints(&loaded).await?;
        warnings.extend(opening_grants(&loaded.accounts, &registered));
        let plans = loaded.accounts.iter().map(|account| account.plan.as_deref().map(NameId::of));
        let listed = registered.accounts.iter().map(|row| row.num).zip(plans);
        let snapshot = self.keeping_tls(loaded.snapshot.clone()).numbered(&registered.routes).listing(listed);
        let snapshot = snapshot.adopting_servers(&self.snapshot());
        self.publisher.publish(snapshot);
        let own = own_limits(&loaded.accounts, &registered);
        self.put_file(&loaded, registered);
        let LoadedConfig { keys, watched, hash, text, .. } = loaded;
        let diff = before.text.as_deref().zip(text.as_deref()).and_then(|(old, new)| changed_lines(old, new));
        let listed = |key: &FileKey| (KeyId::of_hash(&key.hash), ListedKey::of(key));
        let keys: FileKeys = keys.iter().map(listed).collect();
        for (id, old) in &before.keys {
            if keys.get(id).is_none_or(|new| new.hash != old.hash) {
                self.directory.remove(&old.hash); // its account stays in the directory, but is in no snapshot
            }
        }
        self.in_force.store(Arc::new(InForce {
            hash,
            watched,
            keys,
            warnings: warnings.clone(),
            published: self.clock.wall(),
            text,
            diff: diff.or_else(|| before.diff.clone()),
        }));
        self.directory.sweep(self.clock.now());
        Ok(Published { warnings, own })
    }

    /// Sets spending limits, refills and whether requests are listed as the published configuration says. Returns a warning if that failed: the
    /// configuration is in force already.
    pub(super) async fn apply_terms(&self, own: &HashMap<AccountNum, SpendLimit>) -> Option<String> {
        let refills = Some(refills_of(&self.snapshot()));
        let lists_requests = Some(self.snapshot().settings.requests_kept.is_some());
        let limited = self.limit_accounts(own).await;
        let terms = Registration { refills, lists_requests, ..Registration::default() };
        let registered = self.bookkeeper.register(terms).await;
        let failed = limited.and(registered.map(drop).map_err(Into::into)).err()?;
        Some(format!(
            "spending limits, refills and the list of requests could not be set ({failed}); reload again"
        ))
    }

    /// Registers the file's accounts, keys and routes in the ledger, and gets their numbers. Unchanged keys keep their
    /// numbers, so that after a reload of a hundred thousand keys only the changed ones are written.
    async fn register(&self, loaded: &LoadedConfig, known: &FileKeys) -> Result<Registered> {
        let numbered = |key: &FileKey| {
            let listed = known.get(&KeyId::of_hash(&key.hash))?;
            let found = self.directory.find(&key.hash).filter(|_| *listed == ListedKey::of(key))?;
            (found.account.id == key.account).then(|| (found.num, found.rules().state))
        };
        let mut keys: Vec<Option<(KeyNum, KeyState)>> = loaded.keys.iter().map(numbered).collect();
        let mut new: Vec<usize> = (0..keys.len()).filter(|&at| keys[at].is_none()).collect();
        // Sorted in the order of the ledger's index of keys, so that each page of the index is written once.
        let id = |at: &usize| KeyId::of_hash(&loaded.keys[*at].hash);
        new.sort_unstable_by_key(id);
        let key = |at: &usize| (id(at), loaded.keys[*at].account.clone(), loaded.keys[*at].label.clone());
        let wanted = Registration {
            accounts: loaded.accounts.iter().map(new_account).collect(),
            buckets: loaded.snapshot.buckets.clone(),
            refills: None,
            lists_requests: None,
            keys: new.iter().map(key).collect(),
            routes: loaded.snapshot.routes.iter().map(|route| route.name.clone()).collect(),
        };
        let mut registered = self.bookkeeper.register(wanted).await?;
        for (at, number) in new.iter().zip(&registered.keys) {
            keys[*at] = Some(*number);
        }
        registered.keys = keys.into_iter().flatten().collect();
        Ok(registered)
    }

    /// Makes the webhooks of the file's accounts endpoints. Those that stay keep their ids and secrets.
    async fn put_file_endpoints(&self, loaded: &LoadedConfig) -> Result<()> {
        let mut wanted = HashSet::new();
        for account in &loaded.accounts {
            wanted.extend(account.webhooks.iter().map(|url| (account.id.clone(), url.clone())));
        }
        let known =
            self.read(|reader| Ok(reader.webhooks().map(|all| all.endpoints(None)).transpose()?)).await?;
        let of_file = known.into_iter().flatten().filter(|row| row.source == Source::File);
        let mut gone = Vec::new();
        for EndpointRow { id, account, url, .. } in of_file {
            if !account.is_some_and(|account| wanted.remove(&(account, url))) {
                gone.push(id);
            }
        }
        let has_some = loaded.accounts.iter().any(|account| !account.webhooks.is_empty());
        let rows =
            wanted.into_iter().map(|(account, url)| self.endpoint_row(Some(account), url, Source::File));
        let new = rows.collect::<Result<Vec<_>>>()?;
        self.bookkeeper.change_file_endpoints(gone, new).await?;
        if has_some {
            self.doorbell.ring();
        }
        Ok(())
    }

    fn put_file(&self, loaded: &LoadedConfig, registered: Registered) {
        for (account, row) in loaded.accounts.iter().zip(registered.accounts) {
            self.put_account(row, None, account.webhooks.clone());
        }
        for (key, (num, state)) in loaded.keys.iter().zip(registered.keys) {
            let Some(account) = self.directory.account(&key.account) else { continue };
            let rules = KeyRules {
                state,
                expires: key.expires,
                scopes: key.scopes.clone(),
                allow_from: key.allow_from.clone().map(Vec::into_boxed_slice),
            };
            let (hash, id, limits) = (key.hash, KeyId::of_hash(&key.hash), key.limits.clone());
            let source = Source::File;
            self.directory.put_key(KeySpec {
                hash,
                id,
                num,
                account,
                rules,
                limits,
                caps: KeyCaps::NONE,
                source,
            });
        }
    }

    /// Refuses a configuration with the hash of a key that was created by command, and one without the plan of an
    /// account that was created by command.
    fn fits_the_store(&self, loaded: &LoadedConfig) -> Result<()> {
        for key in &loaded.keys {
            if self.directory.find(&key.hash).is_some_and(|known| known.source == Source::Store) {
                let message = format!(
                    "the hash of key {}/{} belongs to a key that was created by command",
                    key.account, key.label
                );
                return Err(OperationError::Conflict(message));
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
                let message = format!("account {} has a plan that is not in the configuration", account.id);
                Err(OperationError::Conflict(message))
            }
            None => Ok(()), // the file defines all of these accounts now
        }
    }

    /// Keeps the current TLS configuration if the new configuration has none, because TLS listeners keep serving TLS
    /// until a restart. Also keeps it if the new one is equal, so that clients can resume sessions with their tickets.
    fn keeping_tls(&self, mut next: Snapshot) -> Snapshot {
        let old = self.snapshot().settings.tls.clone();
        let same = |old: &Tls| next.settings.tls.as_ref().is_none_or(|new| new.made_from == old.made_from);
        if let Some(old) = old.filter(same) {
            next.settings.tls = Some(old);
        }
        next
    }

    fn needs_a_restart(&self, next: &Snapshot) -> Vec<String> {
        let view = self.snapshot();
        let (old, new) = (&view.settings, &next.settings);
        let changed = [
            ("[server] listen", old.listen != new.listen),
            ("[server.tls] listen", old.tls_listen != new.tls_listen),
            ("[server] threads", old.threads != new.threads),
            ("[server] max_connections", old.max_connections != new.max_connections),
            ("[admin] listen", old.admin_listen != new.admin_listen),
            ("[ledger] url", old.ledger != new.ledger),
            ("[limits]", old.limit_store != new.limit_store),
            ("[ledger] commit_delay", old.commit_delay != new.commit_delay),
            ("[log] format", old.log.json != new.log.json),
        ];
        let changed = changed.into_iter().filter(|(_, changed)| *changed);
        changed.map(|(setting, _)| format!("{setting} changed; restart the gateway to apply it")).collect()
    }
}

fn new_account(account: &FileAccount) -> NewFileAccount {
    let FileAccount { id, plan, credits, .. } = account.clone();
    NewFileAccount { id, opening: credits, plan }
}

/// The plans with a refill, and when these are due, as text.
fn refills_of(snapshot: &Snapshot) -> Vec<(String, String)> {
    let text = |plan: &Plan| {
        let calendar = &plan.refill.as_ref()?.calendar;
        let zone = calendar.zone.iana_name().unwrap_or("UTC");
        Some((plan.name.clone(), format!("{} {zone}", calendar.every.name())))
    };
    snapshot.plans.values().filter_map(text).collect()
}

/// Warnings about accounts whose opening grant in the file differs from the one that was booked.
fn opening_grants(accounts: &[FileAccount], registered: &Registered) -> Vec<String> {
    let differs = |(account, row): (&FileAccount, &AccountRow)| {
        let asked = account.credits.filter(|credits| row.opening != Some(*credits))?;
        let before = row.opening.map_or("none".to_owned(), |credits| credits.to_string());
        Some(format!(
            "account {}: credits = {asked} grants nothing, since the account already exists in the ledger (opening grant: {before}); use `tollgate account grant`",
            account.id
        ))
    };
    accounts.iter().zip(&registered.accounts).filter_map(differs).collect()
}

/// The lines that changed, with a few around them; `None` if none did.
fn changed_lines(old: &str, new: &str) -> Option<Arc<str>> {
    let diff = similar::TextDiff::from_lines(old, new);
    let text = diff.unified_diff().context_radius(2).to_string();
    (!text.is_empty()).then(|| text.into())
}
