//! A secret that opens the gate: 80 bytes for a key that nobody used yet and that has no rules of
//! its own. What few keys have stands behind one pointer.

use std::sync::{Arc, OnceLock};

use once_cell::race::OnceBox;

use super::account::Account;
use super::meter::{Meter, Owner};
use crate::ledger::store::Source;
use crate::policy::key::{KeyRules, KeyState};
use crate::policy::limit::Limit;
use crate::types::{KeyHash, KeyId, KeyNum};

/// A secret that opens the gate, and the key that it belongs to.
#[derive(Debug)]
pub struct Key {
    /// SHA-256 of the secret. The map finds a key by it, so that it stands in memory once.
    pub hash: KeyHash,
    /// The key's identity.
    pub id: KeyId,
    /// Whose it is.
    pub account: Arc<Account>,
    /// Made for a key with rules, or when one is first used.
    rest: OnceBox<Rest>,
    /// Its number in the ledger.
    pub num: KeyNum,
    state: KeyState,
    /// Where it was made.
    pub source: Source,
}

#[derive(Debug, Default)]
struct Rest {
    rules: Option<Box<Own>>,
    meter: OnceLock<Arc<Meter>>,
}

/// What a key has beside its state.
#[derive(Debug)]
struct Own {
    rules: KeyRules,
    limits: Option<Arc<[Limit]>>,
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

/// Rules of a key that has none but its state.
const fn plain(state: KeyState) -> KeyRules {
    KeyRules { state, expires: None, scopes: None, allow_from: None }
}
static ACTIVE: KeyRules = plain(KeyState::Active);
static DISABLED: KeyRules = plain(KeyState::Disabled);
static REVOKED: KeyRules = plain(KeyState::Revoked);

impl Key {
    pub(super) fn new(spec: KeySpec, meter: Option<Arc<Meter>>) -> Self {
        let KeySpec { hash, id, num, account, rules, limits, source } = spec;
        let state = rules.state;
        let own = (limits.is_some() || rules != plain(state)).then(|| Box::new(Own { rules, limits }));
        let rest = match (own, meter) {
            (None, None) => OnceBox::new(),
            (rules, meter) => {
                let meter = meter.map_or_else(OnceLock::new, OnceLock::from);
                OnceBox::with_value(Box::new(Rest { rules, meter }))
            }
        };
        Self { hash, id, account, rest, num, state, source }
    }

    fn own(&self) -> Option<&Own> {
        self.rest.get().and_then(|rest| rest.rules.as_deref())
    }

    /// What it may do. A replaced secret expires with its overlap.
    #[must_use]
    pub fn rules(&self) -> &KeyRules {
        match (self.own(), self.state) {
            (Some(own), _) => &own.rules,
            (None, KeyState::Active) => &ACTIVE,
            (None, KeyState::Disabled) => &DISABLED,
            (None, KeyState::Revoked) => &REVOKED,
        }
    }

    /// Limits in place of the plan's.
    #[must_use]
    pub fn limits(&self) -> Option<&Arc<[Limit]>> {
        self.own().and_then(|own| own.limits.as_ref())
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
