//! An account as requests use it: 80 bytes, besides its id and purse.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;

use super::meter::{Meter, Owner};
use crate::ledger::Purse;
use crate::ledger::store::Source;
use crate::types::{AccountId, AccountNum, NameId};

/// An account as requests use it.
#[derive(Debug)]
pub struct Account {
    /// The operator's name for it.
    pub id: AccountId,
    /// Its number in the ledger.
    pub num: AccountNum,
    /// Its spendable balance.
    pub purse: Arc<Purse>,
    /// Created at first use.
    meter: OnceLock<Arc<Meter>>,
    plan: AtomicU64,
    suspended: AtomicBool,
    /// Made by command, so that no file drops it.
    of_store: AtomicBool,
    /// Empty for most accounts; only a configuration file defines webhooks.
    webhooks: ArcSwapOption<Vec<String>>,
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
    /// The customer's webhooks.
    pub webhooks: Vec<String>,
    /// Where it was made.
    pub source: Source,
}

impl Account {
    pub(super) fn new(spec: &AccountSpec, meter: Option<Arc<Meter>>) -> Self {
        Self {
            id: spec.id.clone(),
            num: spec.num,
            purse: Arc::clone(&spec.purse),
            meter: meter.map_or_else(OnceLock::new, OnceLock::from),
            plan: AtomicU64::new(0),
            suspended: AtomicBool::new(false),
            of_store: AtomicBool::new(false),
            webhooks: ArcSwapOption::empty(),
        }
    }

    pub(super) fn update(&self, spec: AccountSpec) {
        self.plan.store(spec.plan.map_or(0, |plan| plan.0), Ordering::Relaxed);
        self.set_suspended(spec.suspended);
        self.of_store.store(spec.source == Source::Store, Ordering::Relaxed);
        self.webhooks.store(Some(spec.webhooks).filter(|urls| !urls.is_empty()).map(Arc::new));
    }

    /// States of the limits that count all its keys together; made when it is first asked for.
    pub fn meter(&self) -> &Arc<Meter> {
        self.meter.get_or_init(|| Arc::new(Meter::new(Owner::Account(self.num))))
    }

    /// Those states, if it was ever asked for them.
    #[must_use]
    pub fn used_meter(&self) -> Option<&Arc<Meter>> {
        self.meter.get()
    }

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
        self.webhooks.load_full().unwrap_or_default()
    }
}
