//! Computes from journal records what a fold writes to the ledger. Pure: the same records give the same fold.

mod fold;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use super::claims::ClaimChanges;
use super::record::{Kept, Record};
use super::store::ChargedRequest;
use crate::policy::credit::returned;
use crate::types::{AccountNum, Credits, KeyNum, RequestId, RouteNum, StatusClass, WallTime};

pub use fold::{ChargeKey, ChargeSum, Fold, SettledJob};

/// A hold that is not settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenHold {
    /// The request's id.
    pub id: RequestId,
    /// The account that pays.
    pub account: AccountNum,
    /// The key of the request.
    pub key: KeyNum,
    /// The route of the request.
    pub route: RouteNum,
    /// The credits held.
    pub amount: Credits,
    /// When the batch with the hold's record was written.
    pub at: WallTime,
    /// The terms of the hold if it outlives its request.
    pub kept: Option<Box<Kept>>,
}

/// A record that contradicts the records before it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// The journal contains bytes that are not a record.
    #[error("the journal contains an invalid record")]
    NotARecord,
    /// A hold has the same id as an open hold.
    #[error("hold {0} was made twice")]
    Twice(RequestId),
    /// A hold is settled or kept that is not open.
    #[error("{0} was settled but not held")]
    NotHeld(RequestId),
    /// The sum of an account's charges overflows.
    #[error("the charges of account {} overflow", .0.0)]
    Overflow(AccountNum),
}

/// Hashes request ids and numbers of accounts, keys and routes. The gateway creates all of them, so clients cannot
/// choose values that collide, and a multiplication distributes them well.
#[derive(Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u128(byte.into());
        }
    }
    fn write_u32(&mut self, number: u32) {
        self.write_u128(number.into());
    }
    fn write_isize(&mut self, number: isize) {
        self.write(&number.to_le_bytes()[..1]); // the discriminant of an enum
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

type Build = BuildHasherDefault<IdHasher>;

/// The state that follows from the last fold and the journal records after it.
#[derive(Debug, Default)]
pub struct Tally {
    open: HashMap<RequestId, OpenHold, Build>,
    /// Kept holds by deadline.
    kept: BTreeSet<(WallTime, RequestId)>,
    /// Open holds that a fold stored.
    stored: HashSet<RequestId, Build>,
    /// Stored holds that have been kept since they were stored.
    kept_since: Vec<RequestId>,
    closed: Vec<RequestId>,
    shared: Vec<OpenHold>,
    jobs: Vec<SettledJob>,
    claims: ClaimChanges,
    /// What requests were charged; `None` if they are not listed.
    requests: Option<Vec<ChargedRequest>>,
    charges: HashMap<ChargeKey, ChargeSum, Build>,
    /// Accounts with ended lots that are not spent, and when the last one ended.
    ended: HashMap<AccountNum, WallTime, Build>,
    /// Those of them of which a hold was settled since the last look: less may be needed of their ended lots.
    less_needed: BTreeSet<AccountNum>,
    upto: u64,
    records: u64,
}

impl Tally {
    /// Lists each request with its charge from now on, or no longer.
    pub fn list_requests(&mut self, lists: bool) {
        self.requests = lists.then(|| self.requests.take().unwrap_or_default());
    }

    /// True if each request is listed with its charge.
    #[must_use]
    pub fn lists_requests(&self) -> bool {
        self.requests.is_some()
    }

    /// Sets the accounts with ended lots, and when the last one ended.
    pub fn set_ended(&mut self, ended: Vec<(AccountNum, WallTime)>) {
        self.ended = ended.into_iter().collect();
    }

    /// A lot of this account is about to end.
    pub fn end(&mut self, account: AccountNum, at: WallTime) {
        self.ended.insert(account, at);
    }

    /// The accounts of whose ended lots less may be needed than at the last call.
    pub fn take_less_needed(&mut self) -> BTreeSet<AccountNum> {
        std::mem::take(&mut self.less_needed)
    }

    /// Less may be needed of the ended lots of these accounts.
    pub fn note_less_needed(&mut self, accounts: impl IntoIterator<Item = AccountNum>) {
        self.less_needed.extend(accounts);
    }

    /// Starts with the holds that were open at the last fold. `folded`: the last batch of that fold.
    #[must_use]
    pub fn new(open: Vec<OpenHold>, folded: u64) -> Self {
        let stored = open.iter().map(|hold| hold.id).collect();
        let mut tally = Self { stored, upto: folded, ..Self::default() };
        for hold in open {
            if let Some(kept) = hold.kept.clone() {
                tally.index(&hold, &kept);
            }
            tally.open.insert(hold.id, hold);
        }
        tally
    }

    fn index(&mut self, hold: &OpenHold, kept: &Kept) {
        self.kept.insert((kept.deadline, hold.id));
    }

    /// Applies one batch.
    ///
    /// # Errors
    /// If a record contradicts the records before it. The records before it are applied.
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
                let hold = OpenHold { id, account, key, route, amount, at, kept: None };
                match self.open.insert(id, hold) {
                    None => Ok(()),
                    Some(_) => Err(Contradiction::Twice(id)),
                }
            }
            Record::Keep { id, kept } => {
                let hold = self.open.get_mut(&id).ok_or(Contradiction::NotHeld(id))?;
                hold.kept = Some(Box::new(kept.clone()));
                let hold = hold.clone();
                self.index(&hold, &kept);
                if self.stored.contains(&id) {
                    self.kept_since.push(id);
                }
                Ok(())
            }
            Record::Settle { id, charge, outcome } => self.settle(id, charge, outcome, at),
            Record::Claim { id, repeat, request, until } => {
                self.claims.claim(id, repeat, request, until);
                Ok(())
            }
            Record::Answer { id, repeat, is_last, part } => {
                self.claims.answer(id, repeat, part, is_last);
                Ok(())
            }
            Record::Unclaim { id, repeat } => {
                self.claims.unclaim(id, repeat);
                Ok(())
            }
        }
    }

    fn settle(
        &mut self,
        id: RequestId,
        charge: Credits,
        outcome: StatusClass,
        at: WallTime,
    ) -> Result<(), Contradiction> {
        let hold = self.open.remove(&id).ok_or(Contradiction::NotHeld(id))?;
        if self.stored.remove(&id) {
            self.closed.push(id);
        }
        let back = returned(hold.amount, charge);
        let charge = hold.amount.checked_sub(back).unwrap_or(hold.amount);
        if let Some(kept) = &hold.kept {
            self.kept.remove(&(kept.deadline, id));
            let external_id = kept.external_id.clone();
            self.jobs.push(SettledJob { hold: hold.clone(), external_id, charge, at });
        }
        let OpenHold { account, key, route, .. } = hold;
        if let Some(requests) = &mut self.requests {
            requests.push(ChargedRequest { id, account, key, route, charge, at: hold.at });
        }
        if !self.ended.is_empty() && self.ended.contains_key(&account) {
            self.less_needed.insert(account);
        }
        let is_older = |ended: &WallTime| hold.at < *ended && !charge.is_zero();
        let held =
            (!self.ended.is_empty() && self.ended.get(&account).is_some_and(is_older)).then_some(hold.at);
        let key = ChargeKey { account, key, route, outcome, held };
        let sum = self.charges.entry(key).or_default();
        if charge.is_zero() {
            sum.released += 1;
            return Ok(());
        }
        sum.amount = sum.amount.checked_add(charge).ok_or(Contradiction::Overflow(hold.account))?;
        sum.requests += 1;
        Ok(())
    }

    /// The number of the last batch that was applied or folded.
    #[must_use]
    pub fn upto(&self) -> u64 {
        self.upto
    }

    /// Number of records applied since the last fold.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The holds that are not settled.
    pub fn open_holds(&self) -> impl Iterator<Item = &OpenHold> {
        self.open.values()
    }

    /// The hold of a request, if it is not settled.
    #[must_use]
    pub fn open_hold(&self, id: RequestId) -> Option<&OpenHold> {
        self.open.get(&id)
    }

    /// True if the hold is not settled.
    #[must_use]
    pub fn is_open(&self, id: RequestId) -> bool {
        self.open.contains_key(&id)
    }

    /// The kept holds whose deadline is at or before `now`, the first ones, at most `most`.
    #[must_use]
    pub fn kept_until(&self, now: WallTime, most: usize) -> Vec<OpenHold> {
        let due = self.kept.iter().take_while(|(deadline, _)| *deadline <= now).take(most);
        due.filter_map(|(_, id)| self.open.get(id).cloned()).collect()
    }

    /// The charges since the last fold.
    pub fn charged(&self, is_wanted: impl Fn(&ChargeKey) -> bool) -> Credits {
        let wanted = self.charges.iter().filter(|(of, _)| is_wanted(of));
        wanted.fold(Credits::ZERO, |all, (_, sum)| all.checked_add(sum.amount).unwrap_or(all))
    }

    /// The holds that are kept.
    #[must_use]
    pub fn kept_holds(&self) -> Vec<RequestId> {
        self.kept.iter().map(|(_, id)| *id).collect()
    }

    /// Gives a kept hold to the fleet, with the next fold.
    pub fn share(&mut self, id: RequestId) {
        let Some(hold) = self.open.remove(&id) else { return };
        self.stored.remove(&id);
        self.kept_since.retain(|since| *since != id);
        if let Some(kept) = &hold.kept {
            self.kept.remove(&(kept.deadline, id));
        }
        self.shared.push(hold);
    }

    /// Takes over a kept hold, which was stored as the fleet's, and is stored as this gateway's now.
    pub fn take(&mut self, hold: OpenHold) {
        if let Some(kept) = hold.kept.clone() {
            self.index(&hold, &kept);
        }
        self.stored.insert(hold.id);
        self.open.insert(hold.id, hold);
    }

    /// True if there is something to fold.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.records > 0 || !self.shared.is_empty()
    }

    /// Takes the changes since the last fold. The caller must write them, since they are not stored anywhere else.
    #[must_use]
    pub fn fold(&mut self) -> Fold {
        let is_new = |hold: &&OpenHold| !self.stored.contains(&hold.id);
        let mut opened: Vec<OpenHold> = self.open.values().filter(is_new).cloned().collect();
        let kept_since = self.kept_since.drain(..);
        opened.extend(kept_since.filter_map(|id| self.open.get(&id).cloned()));
        opened.sort_by_key(|hold| hold.id);
        self.stored.extend(opened.iter().map(|hold| hold.id));
        self.records = 0;
        let mut charges: Vec<_> = self.charges.drain().collect();
        charges.sort_unstable_by_key(|(key, _)| *key);
        let (closed, jobs) = (std::mem::take(&mut self.closed), std::mem::take(&mut self.jobs));
        let (claims, requests) = (self.claims.take(), self.requests.as_mut().map(std::mem::take));
        let requests = requests.unwrap_or_default();
        let (mut shared, doubts) = (std::mem::take(&mut self.shared), Vec::new());
        shared.sort_by_key(|hold| (hold.account, hold.id)); // so that gateways lock accounts in the same order
        Fold { upto: self.upto, charges, opened, closed, doubts, shared, jobs, claims, requests }
    }

    /// The fold at start-up. Every hold that is open and not kept was left by a crash, and becomes a hold in doubt.
    #[must_use]
    pub fn recover(&mut self) -> Fold {
        let left = self.open.values().filter(|hold| hold.kept.is_none());
        let ids: Vec<RequestId> = left.map(|hold| hold.id).collect();
        self.doubt(&ids)
    }

    /// A fold in which these open holds, which are not kept, become holds in doubt.
    #[must_use]
    pub fn doubt(&mut self, ids: &[RequestId]) -> Fold {
        let mut doubts: Vec<OpenHold> = ids.iter().filter_map(|id| self.open.remove(id)).collect();
        doubts.sort_by_key(|hold| (hold.at, hold.id));
        if let Some(requests) = &mut self.requests {
            requests.extend(doubts.iter().map(|hold| {
                let OpenHold { id, account, key, route, amount: charge, at, .. } = *hold;
                ChargedRequest { id, account, key, route, charge, at }
            }));
        }
        let accounts = doubts.iter().map(|hold| hold.account);
        self.less_needed.extend(accounts.filter(|account| self.ended.contains_key(account)));
        let lost = self.stored.extract_if(|id| !self.open.contains_key(id)).collect::<Vec<_>>();
        let fold = self.fold();
        let closed = fold.closed.into_iter().chain(lost).collect();
        Fold { closed, doubts, ..fold }
    }
}
