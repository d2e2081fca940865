//! Journal records → what the books say. Pure: the same records give the same fold.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use super::journal::Record;
use crate::policy::credit::returned;
use crate::types::{AccountNum, Credits, KeyNum, RequestId, RouteNum, WallTime};

/// A hold that is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenHold {
    /// The request's id.
    pub id: RequestId,
    /// Whose credits.
    pub account: AccountNum,
    /// Which key asked.
    pub key: KeyNum,
    /// For which route.
    pub route: RouteNum,
    /// How much is set aside.
    pub amount: Credits,
    /// When its batch was written.
    pub at: WallTime,
}

/// Charges of one account for one route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChargeSum {
    /// Their sum.
    pub amount: Credits,
    /// Their number.
    pub requests: u64,
}

/// What one fold writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fold {
    /// Journal rows up to this one are in it.
    pub upto: u64,
    /// Charges since the last fold, in order.
    pub charges: BTreeMap<(AccountNum, RouteNum), ChargeSum>,
    /// Holds to remember as open.
    pub opened: Vec<OpenHold>,
    /// Holds remembered as open that no longer are.
    pub closed: Vec<RequestId>,
    /// Open holds to charge in full and list as in doubt.
    pub doubts: Vec<OpenHold>,
}

/// A record that contradicts the ones before it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// The journal's bytes are not records.
    #[error("the journal holds something that is not a record")]
    NotARecord,
    /// A hold with the id of an open one.
    #[error("hold {0} was made twice")]
    Twice(RequestId),
    /// A settlement of something that is not open.
    #[error("{0} was settled but not held")]
    NotHeld(RequestId),
    /// More than can be counted.
    #[error("the charges of account {} overflow", .0.0)]
    Overflow(AccountNum),
}

/// Request ids are a random start and a counter, made here and by nobody else: a multiplication
/// spreads them, and nobody can choose ones that collide.
#[derive(Debug, Default)]
pub struct Mixed(u64);

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u128(byte.into());
        }
    }
    fn write_u128(&mut self, id: u128) {
        const ODD: u128 = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835;
        let mixed = (id ^ u128::from(self.0)).wrapping_mul(ODD) >> 64;
        self.0 = u64::try_from(mixed).unwrap_or_default(); // 64 bits are left
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// What the journal says beyond the last fold.
#[derive(Debug, Default)]
pub struct Tally {
    open: HashMap<RequestId, OpenHold, BuildHasherDefault<Mixed>>,
    /// Open holds that the store knows of.
    stored: HashSet<RequestId, BuildHasherDefault<Mixed>>,
    closed: Vec<RequestId>,
    charges: BTreeMap<(AccountNum, RouteNum), ChargeSum>,
    upto: u64,
    records: u64,
}

impl Tally {
    /// Continues from the holds that were open at the last fold.
    #[must_use]
    pub fn new(open: Vec<OpenHold>) -> Self {
        let stored = open.iter().map(|hold| hold.id).collect();
        Self { open: open.into_iter().map(|hold| (hold.id, hold)).collect(), stored, ..Self::default() }
    }

    /// Applies one journal row.
    ///
    /// # Errors
    /// Stops at the first contradiction; what came before it is applied.
    pub fn apply(&mut self, seq: u64, at: WallTime, mut bytes: &[u8]) -> Result<(), Contradiction> {
        self.upto = self.upto.max(seq);
        while !bytes.is_empty() {
            let record = Record::read(&mut bytes).ok_or(Contradiction::NotARecord)?;
            self.apply_one(record, at)?;
            self.records += 1;
        }
        Ok(())
    }

    fn apply_one(&mut self, record: Record, at: WallTime) -> Result<(), Contradiction> {
        match record {
            Record::Hold { id, account, key, route, amount } => {
                let hold = OpenHold { id, account, key, route, amount, at };
                match self.open.insert(id, hold) {
                    None => Ok(()),
                    Some(_) => Err(Contradiction::Twice(id)),
                }
            }
            Record::Settle { id, charge } => {
                let hold = self.open.remove(&id).ok_or(Contradiction::NotHeld(id))?;
                if self.stored.remove(&id) {
                    self.closed.push(id);
                }
                let back = returned(hold.amount, charge);
                let charge = hold.amount.checked_sub(back).unwrap_or(hold.amount);
                if charge.is_zero() {
                    return Ok(());
                }
                let sum = self.charges.entry((hold.account, hold.route)).or_default();
                sum.amount = sum.amount.checked_add(charge).ok_or(Contradiction::Overflow(hold.account))?;
                sum.requests += 1;
                Ok(())
            }
        }
    }

    /// Records applied since the last fold.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Holds that are not settled, as far as the journal says.
    #[must_use]
    pub fn open_holds(&self) -> usize {
        self.open.len()
    }

    /// What a fold would write now; [`Tally::folded`] says that it was.
    #[must_use]
    pub fn fold(&self) -> Fold {
        let new = self.open.values().filter(|hold| !self.stored.contains(&hold.id));
        let mut opened: Vec<OpenHold> = new.copied().collect();
        opened.sort_by_key(|hold| hold.id);
        Fold {
            upto: self.upto,
            charges: self.charges.clone(),
            opened,
            closed: self.closed.clone(),
            doubts: Vec::new(),
        }
    }

    /// The fold at start-up: whatever is still open was left by a crash.
    #[must_use]
    pub fn recover(&self) -> Fold {
        let mut doubts: Vec<OpenHold> = self.open.values().copied().collect();
        doubts.sort_by_key(|hold| (hold.at, hold.id));
        let stored = self.stored.iter().copied();
        let closed = self.closed.iter().copied().chain(stored).collect();
        Fold { opened: Vec::new(), closed, doubts, ..self.fold() }
    }

    /// The fold was written.
    pub fn folded(&mut self, fold: &Fold) {
        self.charges.clear();
        self.closed.clear();
        self.records = 0;
        self.stored.extend(fold.opened.iter().map(|hold| hold.id));
        for hold in &fold.doubts {
            self.open.remove(&hold.id);
            self.stored.remove(&hold.id);
        }
    }
}
