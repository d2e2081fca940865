//! A secret and the key it belongs to: 80 bytes for an unused key without rules of its own. Fields that few keys need are
//! behind one pointer.

use std::sync::{Arc, OnceLock};

use dashmap::DashSet;
use once_cell::race::OnceBox;

use super::account::Account;
use super::meter::{Meter, Owner};
use crate::ledger::store::Source;
use crate::policy::key::{KeyRules, KeyState};
use crate::policy::limit::Limit;
use crate::types::{KeyHash, KeyId, KeyNum};

/// A secret, and the key that it belongs to.
#[derive(Debug)]
pub struct Key {
    /// SHA-256 of the secret. The map looks keys up by this field, so the hash is stored once.
    pub hash: KeyHash,
    /// The key's identity.
    pub id: KeyId,
    /// Whose it is.
    pub account: Arc<Account>,
    /// Created for a key with rules, or at first use.
    rest: OnceBox<Rest>,
    /// Its number in the ledger.
    pub num: KeyNum,
    state: KeyState,
    /// Where it was made.
    pub source: Source,
}

#[derive(Debug, Default)]
struct Rest {
    /// Rules beyond the state; equal rules share one allocation.
    rules: Option<Arc<KeyRules>>,
    limits: Option<Box<Arc<[Limit]>>>,
    meter: OnceLock<Arc<Meter>>,
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
    /// Whose it is.
    pub account: Arc<Account>,
    /// What it may do.
    pub rules: KeyRules,
    /// In place of the plan's.
    pub limits: Option<Arc<[Limit]>>,
    /// Where it was made.
    pub source: Source,
}

/// Distinct rules of keys that do not expire. A million keys usually share few scopes, which then stay in the
/// processor's cache. At most as many as there are keys.
#[derive(Debug, Default)]
pub(super) struct SharedRules(DashSet<Arc<KeyRules>>);

impl SharedRules {
    fn share(&self, rules: KeyRules) -> Arc<KeyRules> {
        if rules.expires.is_some() {
            return Arc::new(rules); // two keys hardly ever expire at the same moment, so there is nothing to share
        }
        if let Some(known) = self.0.get(&rules) {
            return Arc::clone(&known);
        }
        let rules = Arc::new(rules);
        self.0.insert(Arc::clone(&rules));
        rules
    }

    /// Drops rules that no key has any more.
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
        let KeySpec { hash, id, num, account, rules, limits, source } = spec;
        let state = rules.state;
        let rules = (rules != plain(state)).then(|| shared.share(rules));
        let rest = match (rules, limits, meter) {
            (None, None, None) => OnceBox::new(),
            (rules, limits, meter) => {
                let (limits, meter) =
                    (limits.map(Box::new), meter.map_or_else(OnceLock::new, OnceLock::from));
                OnceBox::with_value(Box::new(Rest { rules, limits, meter }))
            }
        };
        Self { hash, id, account, rest, num, state, source }
    }

    /// What it may do. A replaced secret expires with its overlap.
    #[must_use]
    pub fn rules(&self) -> &KeyRules {
        match (self.rest.get().and_then(|rest| rest.rules.as_deref()), self.state) {
            (Some(rules), _) => rules,
            (None, KeyState::Active) => &ACTIVE,
            (None, KeyState::Disabled) => &DISABLED,
            (None, KeyState::Revoked) => &REVOKED,
        }
    }

    /// Limits in place of the plan's.
    #[must_use]
    pub fn limits(&self) -> Option<&Arc<[Limit]>> {
        self.rest.get().and_then(|rest| rest.limits.as_deref())
    }

    /// Those states, if it was ever asked for them.
    #[must_use]
    pub fn used_meter(&self) -> Option<&Arc<Meter>> {
        self.rest.get().and_then(|rest| rest.meter.get())
    }

    /// States of its limits; shared by its secrets, made when it is first asked for.
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
            && self.source == spec.source
    }
}
