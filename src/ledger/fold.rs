//! Journal records → what the books say. Pure: the same records give the same fold.

use std::collections::{HashMap, HashSet, VecDeque};
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

/// What requests of one account on one route came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChargeSum {
    /// The sum of their charges.
    pub amount: Credits,
    /// How many were charged.
    pub requests: u64,
    /// How many cost nothing: their holds were released.
    pub released: u64,
}

/// Charges by account and route, in order, each once.
pub type Charges = VecDeque<((AccountNum, RouteNum), ChargeSum)>;

/// What one fold writes, or a part of it: a fold over many accounts is written in parts, so that
/// nobody waits for all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fold {
    /// Journal rows up to this one are in it.
    pub upto: u64,
    /// What requests came to since the last fold.
    pub charges: Charges,
    /// Parts follow, whose charges come after this one. `None` for the last part, or the whole.
    pub through: Option<(AccountNum, RouteNum)>,
    /// Holds to remember as open.
    pub opened: Vec<OpenHold>,
    /// Holds remembered as open that no longer are.
    pub closed: Vec<RequestId>,
    /// Open holds to charge in full and list as in doubt.
    pub doubts: Vec<OpenHold>,
}

impl Fold {
    /// The next part to write, of at most so many charges; [`Fold::written`] says that it was.
    #[must_use]
    pub fn part(&self, most: usize) -> Self {
        if self.charges.len() <= most {
            return self.clone();
        }
        let charges: Charges = self.charges.iter().take(most).copied().collect();
        let through = charges.back().map(|(whose, _)| *whose);
        Self { upto: self.upto, charges, through, ..Self::default() }
    }

    /// What is left once this part is written.
    #[must_use]
    pub fn written(mut self, part: &Self) -> Option<Self> {
        part.through?;
        self.charges.drain(..part.charges.len().min(self.charges.len()));
        Some(self)
    }
}

/// What of the journal stands in the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// All rows up to this one.
    pub upto: u64,
    /// And a part of some rows behind it.
    pub part: Option<Part>,
}

/// A fold that is written in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Journal rows up to this one are in the fold.
    pub upto: u64,
    /// The last account and route whose charges are written.
    pub through: (AccountNum, RouteNum),
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

/// Request ids are a random start and a counter, and accounts and routes are numbered: made here and
/// by nobody else. A multiplication spreads them, and nobody can choose ones that collide.
#[derive(Debug, Default)]
pub struct Mixed(u64);

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u128(byte.into());
        }
    }
    fn write_u32(&mut self, number: u32) {
        self.write_u128(number.into());
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
    /// Open holds that a fold remembered.
    stored: HashSet<RequestId, BuildHasherDefault<Mixed>>,
    closed: Vec<RequestId>,
    charges: HashMap<(AccountNum, RouteNum), ChargeSum, BuildHasherDefault<Mixed>>,
    folded: Folded,
    upto: u64,
    records: u64,
    rows: u64,
}

impl Tally {
    /// Continues from the holds that were open at the last fold.
    #[must_use]
    pub fn new(open: Vec<OpenHold>, folded: Folded) -> Self {
        let stored = open.iter().map(|hold| hold.id).collect();
        let open = open.into_iter().map(|hold| (hold.id, hold)).collect();
        // Behind the rows of a fold that was cut, also where they are gone: their numbers are used.
        let upto = folded.part.map_or(folded.upto, |part| part.upto);
        Self { open, stored, folded, upto, ..Self::default() }
    }

    /// Applies one journal row.
    ///
    /// # Errors
    /// Stops at the first contradiction; what came before it is applied.
    pub fn apply(&mut self, seq: u64, at: WallTime, mut bytes: &[u8]) -> Result<(), Contradiction> {
        self.upto = self.upto.max(seq);
        self.rows += 1;
        let written = self.folded.part.filter(|part| seq <= part.upto).map(|part| part.through);
        while !bytes.is_empty() {
            let record = Record::read(&mut bytes).ok_or(Contradiction::NotARecord)?;
            self.apply_one(record, at, written)?;
            self.records += 1;
        }
        Ok(())
    }

    /// Charges up to `written` stand in the entries already.
    fn apply_one(
        &mut self,
        record: Record,
        at: WallTime,
        written: Option<(AccountNum, RouteNum)>,
    ) -> Result<(), Contradiction> {
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
                let whose = (hold.account, hold.route);
                if written.is_some_and(|written| whose <= written) {
                    return Ok(());
                }
                let sum = self.charges.entry(whose).or_default();
                if charge.is_zero() {
                    sum.released += 1;
                    return Ok(());
                }
                sum.amount = sum.amount.checked_add(charge).ok_or(Contradiction::Overflow(hold.account))?;
                sum.requests += 1;
                Ok(())
            }
        }
    }

    /// The number of the last row that was applied or folded.
    #[must_use]
    pub fn upto(&self) -> u64 {
        self.upto
    }

    /// Records applied since the last fold.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Rows applied since the last fold.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Holds that are not settled, as far as the journal says.
    #[must_use]
    pub fn open_holds(&self) -> usize {
        self.open.len()
    }

    /// Takes what is to be folded. It has to be written: nothing but it knows these charges now.
    #[must_use]
    pub fn fold(&mut self) -> Fold {
        let new = self.open.values().filter(|hold| !self.stored.contains(&hold.id));
        let mut opened: Vec<OpenHold> = new.copied().collect();
        opened.sort_by_key(|hold| hold.id);
        self.stored.extend(opened.iter().map(|hold| hold.id));
        (self.records, self.rows) = (0, 0);
        let mut charges: Vec<_> = self.charges.drain().collect();
        charges.sort_unstable_by_key(|(whose, _)| *whose);
        let charges = charges.into();
        let closed = std::mem::take(&mut self.closed);
        Fold { upto: self.upto, charges, opened, closed, ..Fold::default() }
    }

    /// The fold at start-up: whatever is still open was left by a crash.
    #[must_use]
    pub fn recover(&mut self) -> Fold {
        let mut doubts: Vec<OpenHold> = self.open.drain().map(|(_, hold)| hold).collect();
        doubts.sort_by_key(|hold| (hold.at, hold.id));
        let stored: Vec<RequestId> = self.stored.drain().collect();
        let fold = self.fold();
        let closed = fold.closed.into_iter().chain(stored).collect();
        Fold { closed, doubts, ..fold }
    }
}
