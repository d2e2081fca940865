//! The one map of keys and accounts, found once per request, each with its meter.
//!
//! A reload applies the difference; a new key is one insertion. Keys and accounts that the file
//! drops leave their meters behind, so that bringing them back refills nothing.

mod meter;

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use http::HeaderValue;

pub use meter::{Dirty, Meter, Owner, Slot};

use crate::ledger::Purse;
use crate::ledger::store::Source;
use crate::policy::key::KeyRules;
use crate::policy::limit::Limit;
use crate::types::{AccountId, AccountNum, KeyHash, KeyId, KeyNum, Moment, NameId, WallTime};

/// A customer, as requests see them.
#[derive(Debug)]
pub struct Account {
    /// The operator's name for it.
    pub id: AccountId,
    /// The same as a header value.
    pub header: HeaderValue,
    /// Its number in the ledger.
    pub num: AccountNum,
    /// What it can spend.
    pub purse: Arc<Purse>,
    /// States of the limits that count all its keys together.
    pub meter: Arc<Meter>,
    plan: AtomicU64,
    suspended: AtomicBool,
    /// Made by command, so that no file drops it.
    of_store: AtomicBool,
    webhooks: ArcSwap<Vec<String>>,
}

impl Account {
    /// The plan of an account that was made by command; `None` for one of the file, whose plan
    /// stands in the snapshot.
    #[must_use]
    pub fn stored_plan(&self) -> Option<Option<NameId>> {
        let plan = self.plan.load(Ordering::Relaxed);
        self.is_of_store().then(|| Some(NameId(plan)).filter(|plan| plan.0 != 0))
    }

    /// Whether the operator suspended it.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::Relaxed)
    }

    /// Suspends or resumes it.
    pub fn set_suspended(&self, suspended: bool) {
        self.suspended.store(suspended, Ordering::Relaxed);
    }

    /// Whether it was made by command and no file claims it.
    #[must_use]
    pub fn is_of_store(&self) -> bool {
        self.of_store.load(Ordering::Relaxed)
    }

    /// Where the customer wants to be told.
    #[must_use]
    pub fn webhooks(&self) -> Arc<Vec<String>> {
        self.webhooks.load_full()
    }
}

/// A secret that opens the gate, and the key that it belongs to.
#[derive(Debug)]
pub struct Key {
    /// The key's identity.
    pub id: KeyId,
    /// Its number in the ledger.
    pub num: KeyNum,
    /// Whose it is.
    pub account: Arc<Account>,
    /// What it may do. A replaced secret expires with its overlap.
    pub rules: KeyRules,
    /// In place of the plan's.
    pub limits: Option<Arc<[Limit]>>,
    /// States of its limits; shared by its secrets.
    pub meter: Arc<Meter>,
    /// Where it was made.
    pub source: Source,
}

/// A key as the control plane wants it to be.
#[derive(Clone, Debug)]
pub struct KeySpec {
    /// SHA-256 of the secret.
    pub hash: KeyHash,
    /// The key's identity.
    pub id: KeyId,
    /// Its number in the ledger.
    pub num: KeyNum,
    /// Whose it is; must be known.
    pub account: AccountId,
    /// What it may do.
    pub rules: KeyRules,
    /// In place of the plan's.
    pub limits: Option<Arc<[Limit]>>,
    /// Where it was made.
    pub source: Source,
}

/// An account as the control plane wants it to be.
#[derive(Debug)]
pub struct AccountSpec {
    /// The operator's name for it.
    pub id: AccountId,
    /// Its number in the ledger.
    pub num: AccountNum,
    /// What it can spend.
    pub purse: Arc<Purse>,
    /// The plan of an account that was made by command.
    pub plan: Option<NameId>,
    /// Whether the operator suspended it.
    pub suspended: bool,
    /// Where the customer wants to be told.
    pub webhooks: Vec<String>,
    /// Where it was made.
    pub source: Source,
}

/// A SHA-256 is as good as random, and only issued ones are inserted: its first bytes are a hash.
#[derive(Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }
    fn write_usize(&mut self, _: usize) {} // an array's length says nothing
    fn finish(&self) -> u64 {
        self.0
    }
}

/// Keys by the SHA-256 of their secrets, and accounts by their ids.
#[derive(Debug, Default)]
pub struct Directory {
    keys: DashMap<KeyHash, Arc<Key>, BuildHasherDefault<FirstBytes>>,
    accounts: DashMap<AccountId, Arc<Account>>,
    /// Meters whose owner is not here: saved ones at start, and those of dropped keys.
    parked: DashMap<Owner, Arc<Meter>>,
}

impl Directory {
    /// Keeps a saved meter until its owner comes.
    pub fn park(&self, owner: Owner, slots: Vec<Slot>) {
        self.parked.insert(owner, Arc::new(Meter::with(owner, slots)));
    }

    /// Forgets parked meters that say nothing any more.
    pub fn sweep(&self, now: Moment) {
        self.parked.retain(|_, meter| !meter.is_fresh(now));
    }

    fn meter(&self, owner: Owner) -> Arc<Meter> {
        let parked = self.parked.remove(&owner).map(|(_, meter)| meter);
        parked.unwrap_or_else(|| Arc::new(Meter::with(owner, Vec::new())))
    }

    /// The key with this hash. Clone-free but for the answer's reference count.
    #[must_use]
    pub fn find(&self, hash: &KeyHash) -> Option<Arc<Key>> {
        self.keys.get(hash).map(|key| Arc::clone(&key))
    }

    /// The account with this id.
    #[must_use]
    pub fn account(&self, id: &AccountId) -> Option<Arc<Account>> {
        self.accounts.get(id).map(|account| Arc::clone(&account))
    }

    /// How many secrets open the gate.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// How many accounts there are.
    #[must_use]
    pub fn accounts(&self) -> usize {
        self.accounts.len()
    }

    /// All secrets of a key. Looks at every key: for commands, not for requests.
    #[must_use]
    pub fn secrets_of(&self, id: KeyId) -> Vec<(KeyHash, Arc<Key>)> {
        let of_id = self.keys.iter().filter(|entry| entry.value().id == id);
        of_id.map(|entry| (*entry.key(), Arc::clone(entry.value()))).collect()
    }

    /// Adds an account, or brings a known one up to date.
    pub fn put_account(&self, spec: AccountSpec) -> Arc<Account> {
        let account = self.accounts.entry(spec.id.clone()).or_insert_with(|| {
            // An account id has only characters that a header value may have.
            let header = HeaderValue::try_from(spec.id.as_str());
            Arc::new(Account {
                header: header.unwrap_or(HeaderValue::from_static("")),
                num: spec.num,
                purse: Arc::clone(&spec.purse),
                meter: self.meter(Owner::Account(spec.num)),
                plan: AtomicU64::new(0),
                suspended: AtomicBool::new(false),
                of_store: AtomicBool::new(false),
                webhooks: ArcSwap::default(),
                id: spec.id,
            })
        });
        account.plan.store(spec.plan.map_or(0, |plan| plan.0), Ordering::Relaxed);
        account.set_suspended(spec.suspended);
        account.of_store.store(spec.source == Source::Store, Ordering::Relaxed);
        account.webhooks.store(Arc::new(spec.webhooks));
        Arc::clone(&account)
    }

    /// Adds a key, or replaces a known one; its meter stays.
    pub fn put_key(&self, spec: KeySpec) {
        let Some(account) = self.account(&spec.account) else { return };
        let known = self.find(&spec.hash);
        if known.as_ref().is_some_and(|key| same(key, &spec)) {
            return;
        }
        let meter = known.filter(|key| key.id == spec.id).map(|key| Arc::clone(&key.meter));
        self.insert(spec, account, meter);
    }

    /// Adds a secret to a key whose other secrets are here already, sharing their meter.
    pub fn put_secret(&self, spec: KeySpec, meter: Option<Arc<Meter>>) {
        if let Some(account) = self.account(&spec.account) {
            self.insert(spec, account, meter);
        }
    }

    fn insert(&self, spec: KeySpec, account: Arc<Account>, meter: Option<Arc<Meter>>) {
        let KeySpec { hash, id, num, rules, limits, source, .. } = spec;
        let meter = meter.unwrap_or_else(|| self.meter(Owner::Key(id)));
        self.keys.insert(hash, Arc::new(Key { id, num, account, rules, limits, meter, source }));
    }

    /// Takes a secret away; the key's meter is parked.
    pub fn remove(&self, hash: &KeyHash) {
        if let Some((_, key)) = self.keys.remove(hash) {
            self.parked.insert(Owner::Key(key.id), Arc::clone(&key.meter));
        }
    }

    /// Drops the file's other keys. Its other accounts stay, but no snapshot lists them.
    pub fn retain_file(&self, keys: &HashSet<KeyHash>) {
        let gone: Vec<KeyHash> = self
            .keys
            .iter()
            .filter(|entry| entry.value().source == Source::File && !keys.contains(entry.key()))
            .map(|entry| *entry.key())
            .collect();
        for hash in gone {
            self.remove(&hash);
        }
    }

    /// Every account.
    #[must_use]
    pub fn all_accounts(&self) -> Vec<Arc<Account>> {
        self.accounts.iter().map(|entry| Arc::clone(entry.value())).collect()
    }
}

fn same(key: &Key, spec: &KeySpec) -> bool {
    key.id == spec.id
        && key.num == spec.num
        && key.account.id == spec.account
        && key.rules == spec.rules
        && key.limits == spec.limits
        && key.source == spec.source
}

/// How long ago something was saved, by wall time: never negative, so that a clock set back
/// refills nothing.
#[must_use]
pub fn elapsed(saved: WallTime, now: WallTime) -> Duration {
    Duration::from_millis(u64::try_from(now.0.saturating_sub(saved.0)).unwrap_or(0))
}
