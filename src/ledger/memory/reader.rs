//! Reads the in-memory store.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::MemoryStore;
use super::data::refused;
use crate::ledger::entry::{Entry, OperatorBalances};
use crate::ledger::record::ExternalId;
use crate::ledger::store::{
    AccountRow, AnswerRow, AuditFilter, Audited, BooksReader, ChargedRequest, Doubt, DueRefill, EachLimit,
    GroupId, GroupRow, JobFilter, JobPlace, JobRow, KeyRow, OwnedKey, Position, RefusalRow, RepeatRow,
    RequestRow, Result, SecretRow, SettledJobRow, StoredSecret, TokenRow, UsageFilter, UsageRow,
};
use crate::ledger::tally::OpenHold;
use crate::policy::credit::Spending;
use crate::policy::key::KeyState;
use crate::types::{AccountId, AccountNum, BucketName, Credits, KeyHash, KeyId, KeyNum, RequestId, WallTime};

impl BooksReader for MemoryStore {
    fn account(&mut self, id: &AccountId) -> Result<Option<AccountRow>> {
        let data = self.0.lock();
        Ok(data.find_account(id).map(|row| data.account_row(row.num)))
    }

    fn accounts(&mut self, after: Option<&AccountId>, most: usize) -> Result<Vec<AccountRow>> {
        let data = self.0.lock();
        let mut rows: Vec<_> = data.accounts.iter().map(|row| data.account_row(row.num)).collect();
        rows.retain(|row| after.is_none_or(|after| row.id > *after));
        rows.sort_by(|one, other| one.id.cmp(&other.id));
        rows.truncate(most);
        Ok(rows)
    }

    fn key(&mut self, id: KeyId) -> Result<Option<OwnedKey>> {
        let data = self.0.lock();
        Ok(data.keys.iter().find(|row| row.id == id).map(|row| data.with_owner(row)))
    }

    fn keys(&mut self, account: Option<&AccountId>, after: KeyNum, most: usize) -> Result<Vec<OwnedKey>> {
        let data = self.0.lock();
        let keys = data.keys.iter().map(|row| data.with_owner(row));
        let wanted =
            |(row, owner): &(KeyRow, AccountId)| row.num > after && account.is_none_or(|id| id == owner);
        Ok(keys.filter(wanted).take(most).collect())
    }

    fn count_keys(&mut self, account: &AccountId) -> Result<u64> {
        let keys = self.keys(Some(account), KeyNum(0), usize::MAX)?;
        Ok(keys.iter().filter(|(row, _)| row.state != KeyState::Revoked).count() as u64)
    }

    fn newest_keys(
        &mut self,
        account: &AccountId,
        before: Option<KeyNum>,
        most: usize,
    ) -> Result<Vec<OwnedKey>> {
        let mut keys = self.keys(Some(account), KeyNum(0), usize::MAX)?;
        keys.retain(|(row, _)| before.is_none_or(|before| row.num < before));
        keys.reverse();
        keys.truncate(most);
        Ok(keys)
    }

    fn idle_keys(
        &mut self,
        account: Option<&AccountId>,
        since: WallTime,
        after: KeyNum,
        most: usize,
    ) -> Result<Vec<OwnedKey>> {
        let mut keys = self.keys(account, after, usize::MAX)?;
        keys.retain(|(row, _)| {
            row.state != KeyState::Revoked && row.last_used.unwrap_or(row.created) < since
        });
        keys.truncate(most);
        Ok(keys)
    }

    fn each_cap(&mut self, each: &mut dyn FnMut(KeyNum, Spending, Option<GroupId>)) -> Result<()> {
        let data = self.0.lock();
        for row in &data.keys {
            if row.spending.limit.is_some() || row.group.is_some() {
                each(row.num, row.spending, data.group_of(row));
            }
        }
        Ok(())
    }

    fn each_group(&mut self, account: Option<AccountNum>, each: &mut dyn FnMut(GroupRow)) -> Result<()> {
        let data = self.0.lock();
        let wanted = data.groups.keys().filter(|(owner, _)| account.is_none_or(|account| account == *owner));
        wanted.filter_map(|id| data.group_row(id)).for_each(each);
        Ok(())
    }

    fn counts(&mut self) -> Result<(usize, usize)> {
        let data = self.0.lock();
        Ok((data.accounts.len(), data.keys.iter().map(|row| row.secrets.len()).sum()))
    }

    fn each_secret(&mut self, each: &mut dyn FnMut(StoredSecret)) -> Result<()> {
        for row in self.0.lock().keys.clone() {
            let KeyRow { id, num, account, state, expires, scopes, allow_from, limits, .. } = row;
            for SecretRow { hash, until } in row.secrets {
                let (scopes, allow_from, limits) = (scopes.clone(), allow_from.clone(), limits.clone());
                each(StoredSecret {
                    hash,
                    until,
                    id,
                    num,
                    account,
                    state,
                    expires,
                    scopes,
                    allow_from,
                    limits,
                });
            }
        }
        Ok(())
    }

    fn each_limit(&mut self, each: &mut EachLimit<'_>) -> Result<()> {
        for (owner, state, saved) in self.0.lock().limits.clone() {
            each(&owner, &state, saved);
        }
        Ok(())
    }

    fn freeze(&mut self) -> Result<()> {
        let now = self.0.lock().clone();
        self.0 = Arc::new(Mutex::new(now));
        Ok(())
    }

    fn entries(
        &mut self,
        account: Option<&AccountId>,
        after: Position,
        most: usize,
    ) -> Result<Vec<(Position, Entry)>> {
        let data = self.0.lock();
        let numbered = (1..).zip(&data.entries).filter(|(position, _)| *position > after);
        let wanted = numbered.filter(|(_, entry)| account.is_none_or(|id| entry.account == *id));
        Ok(wanted.take(most).map(|(position, entry)| (position, entry.clone())).collect())
    }

    fn latest_entries(
        &mut self,
        account: &AccountId,
        before: Option<u64>,
        most: usize,
    ) -> Result<Vec<Entry>> {
        let data = self.0.lock();
        let wanted =
            |entry: &&Entry| entry.account == *account && before.is_none_or(|before| entry.number < before);
        Ok(data.entries.iter().rev().filter(wanted).take(most).cloned().collect())
    }

    fn audit(&mut self, filter: &AuditFilter, most: usize) -> Result<Vec<Audited>> {
        let data = self.0.lock();
        let same = |wanted: &Option<String>, is: &String| wanted.as_ref().is_none_or(|wanted| wanted == is);
        let wanted = |entry: &&Audited| {
            filter.account.as_ref().is_none_or(|account| entry.row.account.as_ref() == Some(account))
                && same(&filter.object, &entry.row.object)
                && same(&filter.actor, &entry.row.actor)
                && filter.before.is_none_or(|before| entry.number < before)
        };
        Ok(data.audit.iter().rev().filter(wanted).take(most).cloned().collect())
    }

    fn usage(&mut self, filter: &UsageFilter, each: &mut dyn FnMut(UsageRow)) -> Result<()> {
        self.0.lock().usage(filter, each);
        Ok(())
    }

    fn refusals(&mut self, account: &AccountId, before: Option<u64>, most: usize) -> Result<Vec<RefusalRow>> {
        Ok(self.0.lock().refusals(account, before, most))
    }

    fn jobs(&mut self, filter: &JobFilter, most: usize) -> Result<Vec<JobRow>> {
        let data = self.0.lock();
        let row = |hold: &OpenHold, external_id: &ExternalId, settled: Option<SettledJobRow>| JobRow {
            id: hold.id,
            account: data.accounts[data.account_at(hold.account)].id.clone(),
            key: data.key(hold.key),
            route: data.route(hold.route),
            external_id: external_id.as_str().to_owned(),
            amount: hold.amount,
            opened: hold.at,
            deadline: hold.kept.as_ref().filter(|_| settled.is_none()).map(|kept| kept.deadline),
            settled,
        };
        let mut open: Vec<&OpenHold> = data.open_holds.iter().collect();
        open.sort_by_key(|hold| std::cmp::Reverse(hold.id));
        let open =
            open.into_iter().filter_map(|hold| Some(row(hold, &hold.kept.as_ref()?.external_id, None)));
        let settled = (1..).zip(&data.jobs).map(|(number, job)| {
            let settled = SettledJobRow { charge: job.charge, at: job.at, number };
            row(&job.hold, &job.external_id, Some(settled))
        });
        let settled: Vec<JobRow> = settled.collect();
        let is_wanted = |row: &JobRow| {
            filter.account.as_ref().is_none_or(|account| row.account == *account)
                && filter.external_id.as_ref().is_none_or(|id| row.external_id == *id)
                && match (filter.after, row.place()) {
                    (None, _) | (Some(JobPlace::Open(_)), JobPlace::Settled(_)) => true,
                    (Some(JobPlace::Open(after)), JobPlace::Open(id)) => id < after,
                    (Some(JobPlace::Settled(after)), JobPlace::Settled(number)) => number < after,
                    (Some(JobPlace::Settled(_)), JobPlace::Open(_)) => false,
                }
        };
        Ok(open.chain(settled.into_iter().rev()).filter(is_wanted).take(most).collect())
    }

    fn buckets(&mut self) -> Result<Vec<(AccountId, BucketName, Credits)>> {
        Ok(self.0.lock().buckets())
    }

    fn due_refills(&mut self, now: WallTime, most: usize) -> Result<Vec<DueRefill>> {
        Ok(self.0.lock().due_refills(now, most))
    }

    fn repeat(&mut self, id: &KeyHash) -> Result<Option<RepeatRow>> {
        Ok(self.0.lock().requests.repeats.get(id).cloned())
    }

    fn unanswered(&mut self, most: usize) -> Result<Vec<RepeatRow>> {
        let mut rows: Vec<RepeatRow> = self.0.lock().requests.repeats.values().cloned().collect();
        rows.retain(|row| row.answer.is_none());
        rows.sort_by_key(|row| (std::cmp::Reverse(row.until), row.id));
        rows.truncate(most);
        Ok(rows)
    }

    fn listed_since(&mut self) -> Result<Option<WallTime>> {
        Ok(self.0.lock().requests.listed_since)
    }

    fn requests(
        &mut self,
        after: (WallTime, RequestId),
        until: WallTime,
        most: usize,
    ) -> Result<Vec<RequestRow>> {
        let data = self.0.lock();
        let given_back = |id| data.in_doubt.iter().any(|doubt| doubt.id == id && doubt.given_back.is_some());
        let row = |request: &ChargedRequest| RequestRow {
            id: request.id,
            account: data.accounts[data.account_at(request.account)].id.clone(),
            key: data.key(request.key),
            route: data.route(request.route),
            charge: if given_back(request.id) { Credits::ZERO } else { request.charge },
            at: request.at,
        };
        let charged = data.requests.charged.values();
        let found = charged.filter(|request| (request.at, request.id) > after && request.at < until);
        Ok(found.take(most).map(row).collect())
    }

    fn answer(&mut self, id: &KeyHash) -> Result<Option<AnswerRow>> {
        Ok(self.0.lock().answers.iter().map(|(row, _)| row).find(|row| row.id == *id).cloned())
    }

    fn tokens(&mut self) -> Result<Vec<TokenRow>> {
        Ok(self.0.lock().tokens.clone())
    }

    fn operator_accounts(&mut self) -> Result<OperatorBalances> {
        let mut balances = OperatorBalances::default();
        self.0.lock().entries.iter().for_each(|entry| balances.book(entry.kind, entry.amount));
        Ok(balances)
    }

    fn in_doubt(&mut self) -> Result<Vec<Doubt>> {
        Ok(self.0.lock().in_doubt.clone())
    }

    fn open_doubts(&mut self) -> Result<(u64, Credits)> {
        let data = self.0.lock();
        let open: Vec<&Doubt> = data.in_doubt.iter().filter(|doubt| doubt.given_back.is_none()).collect();
        let sum = open.iter().map(|doubt| doubt.amount.millionths()).sum();
        Ok((open.len() as u64, Credits::from_millionths(sum)))
    }

    fn backup(&mut self, to: &Path) -> Result<()> {
        refused(format!("a ledger in memory is not copied to {}", to.display()))
    }
}
