//! Keeps lots and refills in memory.

use std::collections::BTreeMap;

use super::credits::PlanOf;
use super::data::{Data, NewEntry};
use crate::ledger::entry::EntryKind;
use crate::ledger::store::{
    Begun, Booking, DueRefill, LotEnd, Place, RefillBooking, RefillState, Registration, Result,
};
use crate::policy::credit::{DEFAULT_PRIORITY, Lot, LotId, LotTerms, SpendLimit, Spending, Split, Wallet};
use crate::types::{AccountId, AccountNum, BucketName, Credits, WallTime};

impl Data {
    fn priority(&self, bucket: &BucketName) -> u32 {
        self.credits.buckets.get(bucket).copied().unwrap_or(DEFAULT_PRIORITY)
    }

    pub(super) fn has_lots(&self, account: AccountNum) -> bool {
        self.credits.known.contains(&account)
    }

    pub(super) fn wallet(&self, account: AccountNum) -> Wallet {
        let own = self.credits.lots.iter().filter(|(owner, _)| *owner == account).map(|(_, lot)| lot.clone());
        let mut lots: Vec<Lot> = own.collect();
        for lot in &mut lots {
            lot.priority = self.priority(&lot.bucket);
        }
        let balance = self.accounts[self.account_at(account)].balance;
        let rest = lots.iter().fold(balance.millionths(), |rest, lot| rest - lot.left.millionths());
        let rest_priority = self.priority(&BucketName::default());
        Wallet { lots, rest: Credits::from_millionths(rest), rest_priority }
    }

    /// Changes the lots of an account as an entry says.
    pub(super) fn place(&mut self, account: AccountNum, amount: Credits, place: Place<'_>) -> Split {
        let mut wallet = self.wallet(account);
        let split = match place {
            Place::Any(held) if amount.is_negative() => {
                wallet.draw(Credits::from_millionths(-amount.millionths()), held)
            }
            Place::Lot(id) => wallet.add_to(id, amount),
            Place::NewLot(terms) if !terms.is_rest() => {
                return self.add(account, &mut wallet, terms, amount);
            }
            Place::Back(parts) => {
                let mut split = wallet.add_to_rest(parts.part(&BucketName::default()));
                for (bucket, part) in parts.parts().filter(|(bucket, _)| !bucket.is_default()) {
                    let terms = LotTerms { bucket: bucket.clone(), ..LotTerms::default() };
                    let added = self.add(account, &mut wallet, &terms, part);
                    added.parts().for_each(|(bucket, part)| split.add(bucket, part));
                }
                return split;
            }
            Place::Any(_) | Place::NewLot(_) => return Split::whole(BucketName::default(), amount),
        };
        for (_, lot) in &mut self.credits.lots {
            if let Some(changed) = wallet.lots.iter().find(|changed| changed.id == lot.id) {
                lot.left = changed.left;
            }
        }
        self.credits.lots.retain(|(_, lot)| !lot.left.is_zero());
        split
    }

    /// Adds credits to the lot with these terms, or to a new one, after the wallet's debt is paid. Returns the split.
    fn add(&mut self, account: AccountNum, wallet: &mut Wallet, terms: &LotTerms, amount: Credits) -> Split {
        let left = wallet.pay_debt(amount);
        let mut split = Split::whole(BucketName::default(), amount.checked_sub(left).unwrap_or_default());
        split.add(&terms.bucket, left);
        if left.is_zero() {
            return split;
        }
        self.credits.known.insert(account);
        if let Some(id) = wallet.lot_of(terms) {
            for (_, lot) in self.credits.lots.iter_mut().filter(|(_, lot)| lot.id == id) {
                lot.left = lot.left.checked_add(left).unwrap_or(lot.left);
            }
            return split;
        }
        let LotTerms { bucket, expires, of_refill } = terms.clone();
        let id = LotId(self.credits.lots.iter().map(|(_, lot)| lot.id.0).max().unwrap_or_default() + 1);
        let lot = Lot { id, bucket, priority: 0, left, expires, ended: None, of_refill };
        self.credits.lots.push((account, lot));
        split
    }

    pub(super) fn due_lots(&self, now: WallTime, most: usize) -> Vec<(AccountNum, LotId)> {
        let is_due = |(account, lot): &&(AccountNum, Lot)| {
            let has_refill =
                |plan: &&PlanOf| self.credits.plan_refills.iter().any(|(name, _)| *name == plan.plan);
            let plan = self.credits.refills.get(account).filter(has_refill);
            let waits =
                lot.of_refill && plan.is_some_and(|plan| plan.state.due.is_some_and(|due| due <= now));
            lot.ended.is_none() && lot.expires.is_some_and(|expires| expires <= now) && !waits
        };
        let mut due: Vec<&(AccountNum, Lot)> = self.credits.lots.iter().filter(is_due).collect();
        due.sort_unstable_by_key(|(_, lot)| (lot.expires, lot.id));
        due.into_iter().take(most).map(|(account, lot)| (*account, lot.id)).collect()
    }

    pub(super) fn ended_lots(&self) -> Vec<(AccountNum, WallTime)> {
        let mut last: BTreeMap<AccountNum, WallTime> = BTreeMap::new();
        for (account, lot) in &self.credits.lots {
            if let Some(ended) = lot.ended {
                let at = last.entry(*account).or_insert(ended);
                *at = ended.max(*at);
            }
        }
        last.into_iter().collect()
    }

    pub(super) fn end_lots(&mut self, ends: &[LotEnd], at: WallTime) -> Result<()> {
        for LotEnd { account, lot, amount } in ends {
            for (_, ended) in self.credits.lots.iter_mut().filter(|(_, known)| known.id == *lot) {
                ended.ended.get_or_insert(at);
            }
            if !amount.is_zero() {
                let (kind, place, actor) = (EntryKind::Expiry, Place::Lot(*lot), "expiry");
                let amount = Credits::from_millionths(-amount.millionths());
                let (key, route, outcome, reference) = (None, None, None, None);
                let new =
                    NewEntry { kind, amount, key, route, outcome, requests: 0, reference, actor, place };
                self.add_entry(*account, at, new)?;
            }
        }
        Ok(())
    }

    pub(super) fn refill(&mut self, refill: &RefillBooking, at: WallTime) -> Result<()> {
        let RefillBooking { num, plan, ends, grant, state } = refill;
        self.end_lots(ends, at)?;
        if let Some(grant) = grant {
            self.book(*num, grant, at)?;
        }
        if let Some(row) = self.credits.refills.get_mut(num).filter(|row| row.plan == *plan) {
            row.state = *state;
        }
        Ok(())
    }

    pub(super) fn book(
        &mut self,
        account: AccountNum,
        booking: &Booking,
        at: WallTime,
    ) -> Result<crate::ledger::entry::Entry> {
        let new = NewEntry {
            kind: booking.kind,
            amount: booking.amount,
            key: booking.key.and_then(|key| self.key(key)),
            route: None,
            outcome: None,
            requests: 0,
            reference: Some(booking.reference.clone()),
            actor: &booking.actor,
            place: booking.place(),
        };
        self.add_entry(account, at, new)
    }

    /// Puts an account on a plan.
    pub(super) fn put_on(&mut self, account: AccountNum, plan: Option<&str>) {
        let refills = &mut self.credits.refills;
        match plan {
            None => drop(refills.remove(&account)),
            Some(plan)
                if refills.get(&account).is_some_and(|row| row.plan == plan && !row.state.is_absent) => {}
            Some(plan) => {
                let state = RefillState { due: Some(WallTime(0)), ..RefillState::default() };
                let row = PlanOf { plan: plan.to_owned(), state };
                refills.insert(account, row);
            }
        }
    }

    /// Stores the buckets and the plans' refills of a configuration.
    pub(super) fn register_credits(&mut self, wanted: &Registration, now: WallTime) {
        self.credits.buckets.extend(wanted.buckets.iter().cloned());
        let Some(plans) = &wanted.refills else { return };
        for changed in plans.iter().filter(|plan| !self.credits.plan_refills.contains(plan)) {
            for row in self.credits.refills.values_mut().filter(|row| row.plan == changed.0) {
                (row.state.due, row.state.refilled) = (Some(WallTime(0)), None);
            }
        }
        for row in self.credits.refills.values_mut() {
            let has_refill = |plans: &[(String, String)]| plans.iter().any(|(plan, _)| *plan == row.plan);
            let state = &mut row.state;
            if has_refill(&self.credits.plan_refills) && !has_refill(plans) {
                (state.due, state.refilled) = (None, None);
            }
            if has_refill(plans) && (state.due.is_none() || state.refilled.is_some_and(|at| at > now)) {
                state.due = Some(WallTime(0));
            }
        }
        self.credits.plan_refills.clone_from(plans);
    }

    pub(super) fn due_refills(&self, now: WallTime, most: usize) -> Vec<DueRefill> {
        let due = self
            .credits
            .refills
            .iter()
            .filter_map(|(num, row)| Some((row.state.due.filter(|due| *due <= now)?, num, row)));
        let mut due: Vec<_> = due.collect();
        due.sort_by_key(|(due, num, _)| (*due, **num));
        let row = |(_, num, row): (WallTime, &AccountNum, &PlanOf)| {
            let account = &self.accounts[self.account_at(*num)];
            let (account, created) = (account.id.clone(), account.created);
            DueRefill { num: *num, account, created, plan: row.plan.clone(), refilled: row.state.refilled }
        };
        due.into_iter().take(most).map(row).collect()
    }

    pub(super) fn limit_accounts(
        &mut self,
        limits: &[(AccountNum, Option<SpendLimit>)],
        at: WallTime,
    ) -> Vec<(AccountNum, Spending, Spending)> {
        let mut changed = Vec::new();
        for (num, limit) in limits {
            let Some(row) = self.accounts.iter_mut().find(|row| row.num == *num) else { continue };
            let before = row.spending;
            row.spending.set_limit(*limit, at);
            changed.push((*num, before, row.spending));
        }
        changed
    }

    pub(super) fn begin_periods(&mut self, now: WallTime, most: usize) -> Begun {
        let keys = self.keys.iter_mut().filter(|row| row.spending.is_over(now)).take(most);
        let keys = keys.map(|row| (row.num, row.spending.begin(now))).collect();
        let groups = self.groups.iter_mut().filter(|(_, spending)| spending.is_over(now)).take(most);
        let groups = groups.map(|(id, spending)| (id.clone(), spending.begin(now))).collect();
        let accounts = self.accounts.iter_mut().filter(|row| row.spending.is_over(now)).take(most);
        Begun { keys, groups, accounts: accounts.map(|row| (row.num, row.spending.begin(now))).collect() }
    }

    pub(super) fn buckets(&self) -> Vec<(AccountId, BucketName, Credits)> {
        let mut sums: BTreeMap<(AccountId, BucketName), i64> = BTreeMap::new();
        for (account, lot) in &self.credits.lots {
            let id = self.accounts[self.account_at(*account)].id.clone();
            *sums.entry((id, lot.bucket.clone())).or_default() += lot.left.millionths();
        }
        sums.into_iter().map(|((id, bucket), sum)| (id, bucket, Credits::from_millionths(sum))).collect()
    }
}
