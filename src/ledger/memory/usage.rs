//! Counts usage in the in-memory store.

use std::collections::BTreeMap;

use super::data::Data;
use crate::ledger::entry::{Entry, EntryKind};
use crate::ledger::store::{
    MAX_REFUSALS, MINUTE, RefusalRow, UsageFilter, UsageRange, UsageRetention, UsageRow, UsageStep,
};
use crate::policy::outcome::usage::{UsageCount, UsagePart};
use crate::types::{AccountId, AccountNum, Credits, KeyId, KeyNum, RouteNum, StatusClass};

/// Interval in minutes, its start, account, key, route, outcome.
type UsageId = (i64, i64, Option<AccountId>, Option<KeyId>, Option<String>, String);
/// Account, key, route, outcome.
type UsageOf = (Option<AccountId>, Option<KeyId>, Option<String>, String);

/// The usage and the refusals of a store.
#[derive(Clone, Debug, Default)]
pub(super) struct UsageData {
    rows: BTreeMap<UsageId, (UsageCount, i64)>,
    refusals: Vec<(Option<AccountId>, RefusalRow)>,
    /// Number of refusals that were ever added.
    added: u64,
    /// Number of entries that are counted.
    counted: usize,
    /// From when on there are intervals of each length.
    kept: UsageRetention,
}

impl UsageData {
    /// Adds to the intervals of each length.
    fn add(&mut self, at: i64, of: UsageOf, count: &UsageCount, credits: i64) {
        for step in UsageStep::ALL {
            let (account, key, route, outcome) = of.clone();
            let id = (step.minutes(), step.floor(at), account, key, route, outcome);
            let row = self.rows.entry(id).or_default();
            row.0.merge(count);
            row.1 += credits;
        }
    }
}

fn outcome(entry: &Entry) -> Option<String> {
    match entry.kind {
        EntryKind::Charge | EntryKind::Release => {
            Some(entry.outcome.map_or(entry.kind.name(), StatusClass::name).to_owned())
        }
        EntryKind::InDoubt | EntryKind::GivenBack => Some(entry.kind.name().to_owned()),
        EntryKind::Grant | EntryKind::Adjustment | EntryKind::Expiry => None,
    }
}

impl Data {
    fn ids(
        &self,
        account: AccountNum,
        key: KeyNum,
        route: RouteNum,
    ) -> (Option<AccountId>, Option<KeyId>, Option<String>) {
        let account = self.accounts.iter().find(|row| row.num == account).map(|row| row.id.clone());
        let route = (route.0 > 0).then(|| self.route(route)).filter(|name| !name.is_empty());
        (account, self.key(key), route)
    }

    pub(super) fn count_usage(&mut self, parts: &[UsagePart]) {
        for at in self.usage.counted..self.entries.len() {
            let entry = self.entries[at].clone();
            let Some(outcome) = outcome(&entry) else { continue };
            let is_request = entry.kind != EntryKind::GivenBack;
            let requests = if is_request { entry.requests } else { 0 };
            let count = UsageCount { requests, ..UsageCount::default() };
            let minute = entry.at.0.div_euclid(MINUTE);
            let of = (Some(entry.account), entry.key, entry.route, outcome);
            self.usage.add(minute, of, &count, -entry.amount.millionths());
        }
        self.usage.counted = self.entries.len();
        for part in parts {
            for (key, count) in &part.counts {
                let (account, id, route) = self.ids(key.account, key.key, key.route);
                let minute = part.at.0.div_euclid(MINUTE);
                self.usage.add(minute, (account, id, route, key.outcome.name().to_owned()), count, 0);
                let is_old = |last: i64| last <= part.at.0 - MINUTE;
                if let Some(row) = self.keys.iter_mut().find(|row| row.num == key.key)
                    && is_old(row.last_used.map_or(0, |last| last.0))
                {
                    row.last_used = Some(part.at);
                }
            }
            for refused in &part.refusals {
                self.usage.added += 1;
                let (account, key, route) = self.ids(refused.account, refused.key, refused.route);
                let (number, at, id) = (self.usage.added, refused.at, refused.id);
                let limit = refused.limit.as_ref().map(|limit| limit.name.to_string());
                let reason = refused.reason.code().to_owned();
                let row = RefusalRow { number, at, id, key, route, reason, limit };
                let own = |(other, _): &&(Option<AccountId>, RefusalRow)| *other == account;
                if self.usage.refusals.iter().filter(own).count() >= MAX_REFUSALS as usize {
                    let oldest = self.usage.refusals.iter().position(|(other, _)| *other == account);
                    oldest.map(|at| self.usage.refusals.remove(at));
                }
                self.usage.refusals.push((account, row));
            }
        }
    }

    /// Deletes every row that is older than its retention.
    pub(super) fn prune_usage(&mut self, keep: &UsageRetention) {
        let is_old = |id: &UsageId| match id.0 {
            1 => id.1 < keep.minutes,
            60 => id.1 < keep.hours,
            _ => id.1 < keep.days,
        };
        if self.usage.rows.keys().any(is_old) {
            let kept = &mut self.usage.kept;
            kept.hours = kept.hours.max(keep.hours);
            kept.minutes = kept.minutes.max(keep.minutes).max(kept.hours);
            self.usage.rows.retain(|id, _| !is_old(id));
        }
    }

    /// Calls `each` for the rows that a filter selects. Tells everything apart, whatever the filter needs.
    pub(super) fn usage(&self, filter: &UsageFilter, each: &mut dyn FnMut(UsageRow)) {
        let ranges = filter.ranges(&self.usage.kept);
        for ((step, at, account, key, route, outcome), (count, credits)) in &self.usage.rows {
            let is_wanted = filter.account.is_none() || filter.account == *account;
            let is_wanted = is_wanted && (filter.key.is_none() || filter.key == *key);
            let is_wanted = is_wanted && (filter.route.is_none() || filter.route == *route);
            let is_within =
                |range: &UsageRange| range.step.minutes() == *step && (range.from..range.to).contains(at);
            if !is_wanted || !ranges.iter().any(is_within) {
                continue;
            }
            each(UsageRow {
                at: *at,
                account: account.clone(),
                key: *key,
                route: route.clone(),
                outcome: outcome.clone(),
                requests: count.requests,
                credits: Credits::from_millionths(*credits),
                bytes_in: count.bytes_in,
                bytes_out: count.bytes_out,
                durations: count.durations.clone(),
            });
        }
    }

    pub(super) fn refusals(&self, account: &AccountId, before: Option<u64>, most: usize) -> Vec<RefusalRow> {
        let own = self.usage.refusals.iter().rev().filter(|(other, _)| other.as_ref() == Some(account));
        let wanted = own.filter(|(_, row)| before.is_none_or(|before| row.number < before));
        wanted.take(most).map(|(_, row)| row.clone()).collect()
    }
}
