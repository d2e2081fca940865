//! Maps key hashes to keys and ids to accounts. Each request looks its key up here. Each key and each account has a
//! meter: its limit states and requests in flight.
//!
//! A reload applies only the difference to the former configuration: a new key is one insertion. Meters of dropped keys
//! and accounts are kept, so that adding them again does not refill their limits.
//!
//! Designed for a million keys (`cargo bench --bench scale`): an unused key takes one allocation of 80 bytes and 9
//! bytes of the table, which is at least 7/16 full.

mod account;
mod key;
mod meter;

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use dashmap::{DashMap, Entry};
use parking_lot::Mutex;

pub use account::{Account, AccountSpec};
use key::SharedRules;
pub use key::{Key, KeySpec};
pub use meter::{Dirty, LimitSlot, Meter, Owner, Slots};

use crate::ledger::store::Source;
use crate::types::{AccountId, KeyHash, Moment, NameId, WallTime};

/// Uses the first 8 bytes of a SHA-256 as its hash. They are uniformly distributed, and clients cannot insert keys.
#[derive(Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }
    fn write_usize(&mut self, _: usize) {} // the length of an array is constant
    fn finish(&self) -> u64 {
        self.0
    }
}

/// A table entry that contains its own key, so that the table does not store the key twice.
macro_rules! found_by {
    ($name:ident, $what:ty, $part:ty, $field:ident) => {
        #[derive(Debug)]
        struct $name(Arc<$what>);

        impl Borrow<$part> for $name {
            fn borrow(&self) -> &$part {
                &self.0.$field
            }
        }
        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.0.$field.hash(state);
            }
        }
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.$field == other.0.$field
            }
        }
        impl Eq for $name {}
    };
}
found_by!(ByHash, Key, KeyHash, hash);
found_by!(ByName, Account, AccountId, id);

/// Keys by the SHA-256 of their secrets, and accounts by their ids.
#[derive(Debug, Default)]
pub struct Directory {
    keys: DashMap<ByHash, (), BuildHasherDefault<FirstBytes>>,
    accounts: DashMap<ByName, ()>,
    /// Number of accounts on each plan, among accounts that were created by command. Has at most as many entries as
    /// operators have ever named plans.
    plans: Mutex<HashMap<NameId, usize>>,
    /// Meters without a key or account: restored at start before the keys are added, or left by removed keys.
    parked: DashMap<Owner, Arc<Meter>>,
    rules: SharedRules,
}

impl Directory {
    /// Allocates tables for this many accounts and keys, so that they do not grow while keys are loaded.
    #[must_use]
    pub fn with_capacity(accounts: usize, keys: usize) -> Self {
        let keys = DashMap::with_capacity_and_hasher(keys, BuildHasherDefault::default());
        Self { keys, accounts: DashMap::with_capacity(accounts), ..Self::default() }
    }

    /// Keeps a restored meter until its key or account is added.
    pub fn park(&self, owner: Owner, slots: Slots) {
        self.parked.insert(owner, Arc::new(Meter::with(owner, slots)));
    }

    /// Removes parked meters whose limits are fully available again, and shared rules that no key uses.
    pub fn sweep(&self, now: Moment) {
        self.rules.sweep();
        self.parked.retain(|_, meter| !meter.is_fresh(now));
    }

    /// Calls `each` for every meter that was created: those of keys, of accounts, and parked ones.
    pub fn each_meter(&self, mut each: impl FnMut(&Arc<Meter>)) {
        self.keys
            .iter()
            .filter_map(|entry| entry.key().0.used_meter().cloned())
            .for_each(|meter| each(&meter));
        self.accounts
            .iter()
            .filter_map(|entry| entry.key().0.used_meter().cloned())
            .for_each(|meter| each(&meter));
        self.parked.iter().for_each(|entry| each(entry.value()));
    }

    fn parked(&self, owner: Owner) -> Option<Arc<Meter>> {
        self.parked.remove(&owner).map(|(_, meter)| meter)
    }

    /// The key with this hash. Increments only a reference count.
    #[must_use]
    pub fn find(&self, hash: &KeyHash) -> Option<Arc<Key>> {
        self.keys.get(hash).map(|key| Arc::clone(&key.key().0))
    }

    /// The key with this hash, if it is active and not expired.
    #[must_use]
    pub fn find_usable(&self, hash: &KeyHash, now: WallTime) -> Option<Arc<Key>> {
        let key = self.keys.get(hash)?;
        let key = &key.key().0;
        key.rules().is_usable(now).then(|| Arc::clone(key))
    }

    /// The account with this id.
    #[must_use]
    pub fn account(&self, id: &AccountId) -> Option<Arc<Account>> {
        self.accounts.get(id).map(|account| Arc::clone(&account.key().0))
    }

    /// Number of secrets in the directory. A key has two while a rotation overlaps.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Number of accounts.
    #[must_use]
    pub fn accounts(&self) -> usize {
        self.accounts.len()
    }

    /// Adds an account, or updates it if it exists.
    pub fn put_account(&self, spec: AccountSpec) -> Arc<Account> {
        let account = self.account(&spec.id).unwrap_or_else(|| {
            let account = Arc::new(Account::new(&spec, self.parked(Owner::Account(spec.num))));
            self.accounts.insert(ByName(Arc::clone(&account)), ());
            account
        });
        let before = account.stored_plan().flatten();
        account.update(spec);
        let after = account.stored_plan().flatten();
        if before != after {
            self.count_plans(before, after);
        }
        account
    }

    fn count_plans(&self, before: Option<NameId>, after: Option<NameId>) {
        let mut plans = self.plans.lock();
        if let Some(plan) = after {
            *plans.entry(plan).or_default() += 1;
        }
        if let Some(plan) = before
            && let Some(count) = plans.get_mut(&plan)
        {
            *count -= 1;
            if *count == 0 {
                plans.remove(&plan);
            }
        }
    }

    /// The plans of accounts that were created by command.
    #[must_use]
    pub fn stored_plans(&self) -> Vec<NameId> {
        self.plans.lock().keys().copied().collect()
    }

    /// Adds a key, or replaces an existing one, which keeps its meter.
    pub fn put_key(&self, spec: KeySpec) {
        let known = self.find(&spec.hash);
        if known.as_ref().is_some_and(|key| key.is_as(&spec)) {
            return;
        }
        let meter = known.filter(|key| key.id == spec.id).map(|key| Arc::clone(key.meter()));
        self.put_secret(spec, meter);
    }

    /// Adds a secret. `meter`: the meter of the key's other secrets; if `None`, the parked meter of the key is used, or
    /// a new one at first use.
    pub fn put_secret(&self, spec: KeySpec, meter: Option<Arc<Meter>>) {
        let meter = meter.or_else(|| self.parked(Owner::Key(spec.id)));
        match self.keys.entry(ByHash(Arc::new(Key::new(spec, meter, &self.rules)))) {
            Entry::Occupied(known) => drop(known.replace_entry(())), // the table's key is the Key itself
            Entry::Vacant(place) => drop(place.insert(())),
        }
    }

    /// Removes a secret and parks the key's meter. The meter is created if the key has none, because a request that
    /// found the key a moment ago may be about to use it.
    pub fn remove(&self, hash: &KeyHash) {
        if let Some((ByHash(key), ())) = self.keys.remove(hash) {
            self.parked.insert(Owner::Key(key.id), Arc::clone(key.meter()));
        }
    }

    /// Removes the secrets of stored keys that are not in a list.
    pub fn keep_stored(&self, hashes: &HashSet<KeyHash>) {
        let is_gone = |key: &Key| key.source == Source::Store && !hashes.contains(&key.hash);
        let gone = self.keys.iter().filter(|entry| is_gone(&entry.key().0)).map(|entry| entry.key().0.hash);
        gone.collect::<Vec<_>>().iter().for_each(|hash| self.remove(hash));
    }

    /// Calls `each` for every account, in no order.
    pub fn each_account(&self, each: &mut dyn FnMut(&Account)) {
        self.accounts.iter().for_each(|entry| each(&entry.key().0));
    }

    /// Finds the first account that satisfies a predicate. Takes time linear in the number of accounts; used only for
    /// error messages.
    pub fn find_account(&self, wanted: impl Fn(&Account) -> bool) -> Option<Arc<Account>> {
        let mut accounts = self.accounts.iter();
        accounts.find(|entry| wanted(&entry.key().0)).map(|entry| Arc::clone(&entry.key().0))
    }
}

/// Wall time since a state was saved. Zero if the clock was set back, so that this does not refill limits.
#[must_use]
pub fn elapsed(saved: WallTime, now: WallTime) -> Duration {
    Duration::from_millis(u64::try_from(now.0.saturating_sub(saved.0)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the 16 bytes of the reference counts of its `Arc`, each takes an allocation of 80 bytes.
    #[test]
    fn a_key_and_an_account_are_small() {
        assert_eq!((size_of::<Key>(), size_of::<Account>()), (64, 64));
    }
}
