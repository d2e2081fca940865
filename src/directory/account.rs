//! Represents an account as requests use it, in 80 bytes besides its id and purse.

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
    /// The account's id, chosen by the operator.
    pub id: AccountId,
    /// The account's number in the ledger.
    pub num: AccountNum,
    /// The credits available to the account.
    pub purse: Arc<Purse>,
    /// Created when it is first used.
    meter: OnceLock<Arc<Meter>>,
    plan: AtomicU64,
    suspended: AtomicBool,
    /// True if the account was created by command and no configuration file has defined it since.
    of_store: AtomicBool,
    /// The customer's webhook URLs. Empty for most accounts; only the configuration file can define them.
    webhooks: ArcSwapOption<Vec<String>>,
}

/// The attributes of an account to add or update.
#[derive(Debug)]
pub struct AccountSpec {
    /// The account's id, chosen by the operator.
    pub id: AccountId,
    /// The account's number in the ledger.
    pub num: AccountNum,
    /// The credits available to the account.
    pub purse: Arc<Purse>,
    /// The plan, if the account was created by command.
    pub plan: Option<NameId>,
    /// True if the operator suspended the account.
    pub suspended: bool,
    /// The customer's webhook URLs.
    pub webhooks: Vec<String>,
    /// Where the account is defined.
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

    /// The meter of the limits that all keys of the account share. Created at the first call.
    pub fn meter(&self) -> &Arc<Meter> {
        self.meter.get_or_init(|| Arc::new(Meter::new(Owner::Account(self.num))))
    }

    /// The meter, if it was created.
    #[must_use]
    pub fn used_meter(&self) -> Option<&Arc<Meter>> {
        self.meter.get()
    }

    /// The plan of an account that was created by command; `Some(None)` if it has no plan. `None` for an account of the
    /// file, whose plan is in the snapshot.
    #[must_use]
    pub fn stored_plan(&self) -> Option<Option<NameId>> {
        let plan = self.plan.load(Ordering::Relaxed);
        self.is_of_store().then(|| Some(NameId(plan)).filter(|plan| plan.0 != 0))
    }

    /// True if the operator suspended the account.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::Relaxed)
    }

    /// Suspends or resumes the account.
    pub fn set_suspended(&self, suspended: bool) {
        self.suspended.store(suspended, Ordering::Relaxed);
    }

    /// True if the account was created by command and no configuration file has defined it since.
    #[must_use]
    pub fn is_of_store(&self) -> bool {
        self.of_store.load(Ordering::Relaxed)
    }

    /// The customer's webhook URLs.
    #[must_use]
    pub fn webhooks(&self) -> Arc<Vec<String>> {
        self.webhooks.load_full().unwrap_or_default()
    }
}
