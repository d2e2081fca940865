//! Represents a secret and its key, in 80 bytes for an unused key without rules of its own. Fields that few keys need
//! are behind one pointer.

use std::sync::{Arc, OnceLock};

use dashmap::DashSet;
use once_cell::race::OnceBox;

use super::account::Account;
use super::meter::{Meter, Owner};
use crate::ledger::KeyCaps;
use crate::ledger::store::Source;
use crate::policy::key::{KeyRules, KeyState};
use crate::policy::limit::Limit;
use crate::types::{KeyHash, KeyId, KeyNum};

/// A secret, and the key that it belongs to.
#[derive(Debug)]
pub struct Key {
    /// SHA-256 of the secret. The directory looks keys up by this field, so that the hash is stored only once.
    pub hash: KeyHash,
    /// The key's id.
    pub id: KeyId,
    /// The account that the key belongs to.
    pub account: Arc<Account>,
    /// Created if the key has rules, limits or a meter, or when its meter is first used.
    rest: OnceBox<Rest>,
    /// The key's number in the ledger.
    pub num: KeyNum,
    state: KeyState,
    /// Where the key is defined.
    pub source: Source,
}

#[derive(Debug, Default)]
struct Rest {
    /// The rules, if the key has more than a state. Equal rules share one allocation.
    rules: Option<Arc<KeyRules>>,
    limits: Option<Box<Arc<[Limit]>>>,
    caps: KeyCaps,
    meter: OnceLock<Arc<Meter>>,
}

/// The attributes of a secret to add, and of its key.
#[derive(Clone, Debug)]
pub struct KeySpec {
    /// SHA-256 of the secret.
    pub hash: KeyHash,
    /// The key's id.
    pub id: KeyId,
    /// The key's number in the ledger.
    pub num: KeyNum,
    /// The account that the key belongs to.
    pub account: Arc<Account>,
    /// The key's state, expiry, scopes and allowed networks.
    pub rules: KeyRules,
    /// The limits that replace those of the account's plan.
    pub limits: Option<Arc<[Limit]>>,
    /// What the key, and its group, may still spend.
    pub caps: KeyCaps,
    /// Where the key is defined.
    pub source: Source,
}

/// The distinct rules of keys that do not expire; at most as many as there are keys. A million keys usually share few
/// combinations of scopes, which then stay in the processor's cache.
#[derive(Debug, Default)]
pub(super) struct SharedRules(DashSet<Arc<KeyRules>>);

impl SharedRules {
    fn share(&self, rules: KeyRules) -> Arc<KeyRules> {
        if rules.expires.is_some() {
            return Arc::new(rules); // keys rarely expire at the same millisecond, so their rules cannot be shared
        }
        if let Some(known) = self.0.get(&rules) {
            return Arc::clone(&known);
        }
        let rules = Arc::new(rules);
        self.0.insert(Arc::clone(&rules));
        rules
    }

    /// Removes rules that no key uses any more.
    pub(super) fn sweep(&self) {
        self.0.retain(|rules| Arc::strong_count(rules) > 1);
    }
}

/// The rules of a key that has only a state.
const fn plain(state: KeyState) -> KeyRules {
    KeyRules { state, expires: None, scopes: None, allow_from: None }
}
static ACTIVE: KeyRules = plain(KeyState::Active);
static DISABLED: KeyRules = plain(KeyState::Disabled);
static REVOKED: KeyRules = plain(KeyState::Revoked);

impl Key {
    pub(super) fn new(spec: KeySpec, meter: Option<Arc<Meter>>, shared: &SharedRules) -> Self {
        let KeySpec { hash, id, num, account, rules, limits, caps, source } = spec;
        let state = rules.state;
        let rules = (rules != plain(state)).then(|| shared.share(rules));
        let rest = match (rules, limits, meter) {
            (None, None, None) if caps.is_empty() => OnceBox::new(),
            (rules, limits, meter) => {
                let (limits, meter) =
                    (limits.map(Box::new), meter.map_or_else(OnceLock::new, OnceLock::from));
                OnceBox::with_value(Box::new(Rest { rules, limits, caps, meter }))
            }
        };
        Self { hash, id, account, rest, num, state, source }
    }

    /// The key's state, expiry, scopes and allowed networks. A replaced secret expires when its overlap ends.
    #[must_use]
    pub fn rules(&self) -> &KeyRules {
        match (self.rest.get().and_then(|rest| rest.rules.as_deref()), self.state) {
            (Some(rules), _) => rules,
            (None, KeyState::Active) => &ACTIVE,
            (None, KeyState::Disabled) => &DISABLED,
            (None, KeyState::Revoked) => &REVOKED,
        }
    }

    /// The limits that replace those of the account's plan; `None` if the plan's limits apply.
    #[must_use]
    pub fn limits(&self) -> Option<&Arc<[Limit]>> {
        self.rest.get().and_then(|rest| rest.limits.as_deref())
    }

    /// What the key, and its group, may still spend.
    #[must_use]
    pub fn caps(&self) -> &KeyCaps {
        self.rest.get().map_or(&KeyCaps::NONE, |rest| &rest.caps)
    }

    /// The meter, if it was created.
    #[must_use]
    pub fn used_meter(&self) -> Option<&Arc<Meter>> {
        self.rest.get().and_then(|rest| rest.meter.get())
    }

    /// The meter of the key's limits, which its secrets share. Created at the first call.
    pub fn meter(&self) -> &Arc<Meter> {
        let new = || Arc::new(Meter::new(Owner::Key(self.id)));
        self.rest.get_or_init(Box::default).meter.get_or_init(new)
    }

    pub(super) fn is_as(&self, spec: &KeySpec) -> bool {
        self.id == spec.id
            && self.num == spec.num
            && Arc::ptr_eq(&self.account, &spec.account)
            && *self.rules() == spec.rules
            && self.limits() == spec.limits.as_ref()
            && *self.caps() == spec.caps
            && self.source == spec.source
    }
}
