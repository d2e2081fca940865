//! Calls a storage as the ledger's threads do.

use std::sync::Arc;
use std::time::Duration;

use tollgate::ledger::entry::EntryKind;
use tollgate::ledger::record::{ExternalId, Kept, Record};
use tollgate::ledger::store::{
    AccountChange, AccountState, AnswerRow, AuditRow, Booking, KeyChange, KeyEdit, KeyRow, KeyTerms,
    LedgerError, MINUTE, NewAccount, NewFileAccount, Note, Notes, Registration, Role, SecretRow, Source,
    Storage, TokenRow, UsageRetention,
};
use tollgate::ledger::tally::{Fold, Tally};
use tollgate::policy::credit::{LotTerms, Spending};
use tollgate::policy::key::{KeyState, Scopes};
use tollgate::policy::limit::ReachedLimit;
use tollgate::policy::outcome::Outcome;
use tollgate::policy::outcome::usage::{RefusedRequest, UsageCount, UsageKey, UsageOutcome, UsagePart};
use tollgate::policy::reject::Reason;
use tollgate::types::{
    AccountNum, Credits, KeyHash, KeyId, KeyNum, RequestId, RouteNum, StatusClass, WallTime,
};

use crate::credits::{group, limit};
use crate::{ALL, Call};

/// A storage under test, used as the ledger's threads use it.
pub struct Driver<'a> {
    pub store: &'a mut Storage,
    pub tally: Tally,
    /// The hold that was kept last.
    pub kept: Option<RequestId>,
    /// The claim that was made last.
    pub claimed: Option<(u8, RequestId)>,
    pub seq: u64,
    pub ids: u64,
    pub at: i64,
}

/// The result of a call, comparable between stores: the texts of errors may differ.
pub fn outcome<T: std::fmt::Debug>(result: Result<T, LedgerError>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(LedgerError::Refused(_)) => "refused".to_owned(),
        Err(LedgerError::Taken(_)) => "taken".to_owned(),
        Err(LedgerError::Unknown(_)) => "unknown".to_owned(),
        Err(LedgerError::Stale(_)) => "stale".to_owned(),
        Err(other) => panic!("{other}"),
    }
}

fn name(prefix: &str, number: u8) -> String {
    format!("{prefix}{number}")
}

impl Driver<'_> {
    pub fn run(&mut self, call: &Call) -> String {
        self.at += 1;
        let at = WallTime(self.at);
        match call {
            Call::Register { accounts, keys, routes } => self.register(accounts, keys, routes, at),
            Call::CreateAccount(number) => self.create_account(*number, at),
            Call::ChangeAccount(number, change) => self.change_account(*number, *change, at),
            Call::Note(number) => {
                let notes = self.notes("note")(&number);
                outcome(self.store.books.note(&notes, at))
            }
            Call::CountUsage(counts) => {
                let parts: Vec<UsagePart> = counts.iter().map(|count| self.usage(*count, at)).collect();
                outcome(self.store.books.count_usage(&parts))
            }
            Call::PruneUsage(age) => self.prune_usage(*age),
            Call::PruneAnswers => outcome(self.store.books.prune_answers(WallTime(self.at - 10))),
            Call::Token(number) => self.put_token(*number, at),
            Call::Book { account, adjustment, amount, reference } => {
                self.book(*account, *adjustment, *amount, *reference, at)
            }
            Call::EndLots => self.end_lots(at),
            Call::Refill => self.refill(at),
            Call::Limit(account, every) => self.limit(*account, *every, at),
            Call::Group(account, number, every) => self.group(*account, *number, *every, at),
            Call::BeginPeriods(hours) => self.begin_periods(*hours),
            Call::Holds(holds) => self.hold(holds, at),
            Call::Checkpoint => {
                self.store.books.checkpoint();
                String::new()
            }
            Call::Keep(account) => self.keep(*account, at),
            Call::Claim(key, what) => self.claim(*key, *what, at),
            Call::PruneRepeats => self.prune_requests(at),
            Call::Fold => {
                let fold = self.tally.fold();
                self.fold(fold, at)
            }
            Call::Recover => {
                let fold = self.tally.recover();
                self.fold(fold, at)
            }
            Call::GiveBack(number) => {
                let (id, notes) = (RequestId(u128::from(*number)), self.notes("give_back"));
                outcome(self.store.books.give_back(id, "test", &notes, at))
            }
            Call::CreateKey(account, key) => self.create_key(*account, *key, at),
            Call::ChangeKey(key, change) => self.change_key(*key, *change, at),
            Call::Limits(states) => {
                let states: Vec<_> = states.iter().map(|(of, state)| (vec![*of], state.clone())).collect();
                outcome(self.store.books.save_limits(&states, at))
            }
        }
    }

    fn register(
        &mut self,
        accounts: &[(u8, Option<i64>)],
        keys: &[(u8, u8)],
        routes: &[u8],
        at: WallTime,
    ) -> String {
        let id = |number: u8| name("a", number).parse().unwrap();
        let credits = |amount: &Option<i64>| amount.map(Credits::from_millionths);
        let wanted = Registration {
            accounts: accounts
                .iter()
                .map(|(number, amount)| NewFileAccount {
                    plan: (number % 2 == 1).then(|| "p".to_owned()),
                    ..NewFileAccount::new(id(*number), credits(amount))
                })
                .collect(),
            keys: keys
                .iter()
                .map(|(key, account)| (KeyId(u64::from(*key)), id(*account), name("label", *account)))
                .collect(),
            routes: routes.iter().map(|number| name("r", *number).parse().unwrap()).collect(),
            buckets: vec![("sub".parse().unwrap(), 90 + 10 * u32::from(routes[0]))],
            lists_requests: (keys.len() == 1).then_some(routes[0] > 0),
            refills: Some(vec![("p".to_owned(), name("text", routes[0]))]).filter(|_| keys.len() < 2),
        };
        // A key of an account that does not exist is the caller's mistake.
        let known = |account: u8| accounts.iter().any(|(number, _)| *number == account);
        if !keys.iter().all(|(_, account)| known(*account)) {
            return String::new();
        }
        self.register_at(&wanted, at)
    }

    fn book(&mut self, account: u8, adjustment: bool, amount: i64, reference: u8, at: WallTime) -> String {
        let kind = if adjustment { EntryKind::Adjustment } else { EntryKind::Grant };
        let (amount, reference) = (Credits::from_millionths(amount), name("ref", reference));
        let lot = LotTerms {
            bucket: if matches!(&*reference, "ref1" | "ref2") { "sub" } else { "default" }.parse().unwrap(),
            expires: (reference != "ref1").then_some(WallTime(at.0 + 5)),
            of_refill: false,
        };
        let has_lot = kind == EntryKind::Grant && reference != "ref0" && amount > Credits::ZERO;
        let booking = Booking {
            key: None,
            lot: has_lot.then_some(lot),
            account: name("a", account).parse().unwrap(),
            kind,
            amount,
            reference,
            actor: "test".to_owned(),
        };
        let Some(row) = self.store.books.account(&booking.account).unwrap() else {
            return "unknown".to_owned();
        };
        match self.store.books.find_booking(row.num, &booking).unwrap() {
            Some(entry) => format!("{entry:?}"),
            None => {
                let notes = self.notes("book");
                outcome(self.store.books.book(&row, &booking, &notes, at))
            }
        }
    }

    /// Records holds, each settled immediately or left open, in one journal row.
    pub fn hold(&mut self, holds: &[(u8, i64, Option<i64>)], at: WallTime) -> String {
        let accounts = self.accounts();
        let keys = self.store.books.reader().unwrap().keys(None, KeyNum(0), ALL).unwrap().len() as u64;
        let mut records = Vec::new();
        for (account, amount, charge) in holds {
            let id = RequestId(u128::from(self.ids));
            self.ids += 1;
            let account = AccountNum(u32::from(*account) % accounts + 1);
            let key = KeyNum((self.ids % keys.max(1)) as u32 + 1);
            let amount = Credits::from_millionths(*amount);
            Record::Hold { id, account, key, route: RouteNum(1), amount }.write(&mut records);
            if let Some(charge) = charge {
                let (charge, outcome) = (Credits::from_millionths(*charge), StatusClass::Success);
                Record::Settle { id, charge, outcome }.write(&mut records);
            }
        }
        self.append(at, &records)
    }

    pub fn append(&mut self, at: WallTime, records: &[u8]) -> String {
        self.seq += 1;
        self.tally.apply(self.seq, at, records).unwrap();
        outcome(self.store.journal.append(self.seq, at, records))
    }

    fn keep(&mut self, account: u8, at: WallTime) -> String {
        let (mut records, id) = (Vec::new(), RequestId(u128::from(self.ids)));
        self.ids += 1;
        let (account, amount) =
            (AccountNum(u32::from(account) % self.accounts() + 1), Credits::from_millionths(20));
        Record::Hold { id, account, key: KeyNum(1), route: RouteNum(1), amount }.write(&mut records);
        let external_id = ExternalId::new(&format!("job{}", self.ids)).unwrap();
        let kept = Kept { external_id, deadline: WallTime(9_000), charge_at_deadline: Credits::ZERO };
        Record::Keep { id, kept }.write(&mut records);
        if let Some(id) = self.kept.replace(id) {
            Record::Settle { id, charge: amount, outcome: StatusClass::None }.write(&mut records);
        }
        self.append(at, &records)
    }

    pub fn fold(&mut self, fold: Fold, at: WallTime) -> String {
        let outcome = outcome(self.store.books.fold(&fold, at));
        self.store.journal.reset(fold.upto);
        outcome
    }

    fn create_key(&mut self, account: u8, key: u8, at: WallTime) -> String {
        let accounts = self.accounts();
        if self.store.books.reader().unwrap().key(KeyId(100 + u64::from(key))).unwrap().is_some() {
            return String::new();
        }
        let row = KeyRow {
            id: KeyId(100 + u64::from(key)),
            num: KeyNum(0),
            account: AccountNum(u32::from(account) % accounts + 1),
            source: Source::Store,
            state: KeyState::Active,
            label: name("k", key),
            environment: "live".to_owned(),
            hint: "ak_live_0123…4567".to_owned(),
            scopes: (key > 1).then(|| Scopes { routes: ["r*".to_owned()].into(), shadow: key > 2 }),
            allow_from: (key > 2).then(|| vec!["10.0.0.0/8".parse().unwrap()]),
            expires: (key > 0).then_some(WallTime(9)),
            limits: (key > 1).then(|| "[]".to_owned()),
            created: at,
            version: 1,
            last_used: None,
            spending: {
                let mut spending = Spending::default();
                spending.set_limit((key > 0).then(|| limit(i64::from(key) * 50, key)), at);
                spending
            },
            group: (key > 1).then(|| group(key)),
            secrets: vec![SecretRow { hash: KeyHash::of(&[key]), until: None }],
        };
        let notes = self.notes("key.create");
        outcome(self.store.books.create_keys(&[row], &notes, at))
    }

    fn accounts(&mut self) -> u32 {
        self.store.books.reader().unwrap().accounts(None, ALL).unwrap().len() as u32
    }

    /// Notes of a change: an audit entry, and for every other change an answer, whose id may be used already.
    pub fn notes<T>(&mut self, action: &str) -> Notes<T> {
        self.ids += 1;
        let (number, action) = (self.ids, action.to_owned());
        Arc::new(move |_| {
            let audit = AuditRow {
                account: None,
                actor: "test".to_owned(),
                origin: "here".to_owned(),
                action: action.clone(),
                object: format!("object/{}", number % 3),
                before: None,
                after: Some(number.to_string()),
            };
            let id = KeyHash::of(&(number % 31).to_le_bytes());
            let answer = AnswerRow { id, request: KeyHash::of(b"r"), answer: number.to_le_bytes().to_vec() };
            let answer = number.is_multiple_of(2).then_some(Note::Answer(answer));
            [Some(Note::Audit(audit)), answer].into_iter().flatten().collect()
        })
    }

    fn create_account(&mut self, number: u8, at: WallTime) -> String {
        let (id, notes) = (name("a", number).parse().unwrap(), self.notes("account.create"));
        let (name, plan) = (name("Account ", number), Some("plan".to_owned()));
        let grant = || (Credits::from_millionths(i64::from(number) - 2), "a".to_owned());
        let new = [NewAccount { id, name, plan, opening: (number > 1).then(grant) }];
        outcome(self.store.books.create_accounts(&new, &notes, at))
    }

    /// What a worker counted at a time some minutes after the calls'.
    fn usage(&mut self, (account, key, route, number): (u8, u8, u8, u8), at: WallTime) -> UsagePart {
        let at = WallTime(at.0 + i64::from(number) * 45 * MINUTE);
        let id = RequestId(u128::from(number));
        // Number 0 is none. Workers count only for keys that exist.
        let keys = self.store.books.reader().unwrap().keys(None, KeyNum(0), ALL).unwrap().len();
        let (account, key, route) = (
            AccountNum(u32::from(account) % (self.accounts() + 1)),
            KeyNum(u32::from(key) % (keys as u32 + 1)),
            RouteNum(route.min(1).into()),
        );
        let reason = Reason::ALL[usize::from(number)];
        let outcome = UsageOutcome::of(Outcome::Refused(reason), 429);
        let mut count = UsageCount::default();
        count.add(number == 2, 3, 4, Duration::from_micros(u64::from(number) * 1000));
        let name = || "minute".into();
        let limit = (number > 1).then(|| ReachedLimit { name: name(), window: Duration::from_secs(60) });
        let refusals =
            (account.0 > 0).then_some(RefusedRequest { at, id, account, key, route, reason, limit });
        let counts = vec![(UsageKey { account, key, route, outcome }, count)];
        UsagePart { at, counts, refusals: refusals.into_iter().collect() }
    }

    fn prune_usage(&mut self, age: u8) -> String {
        let hours = i64::from(age) * 60;
        let keep = UsageRetention { minutes: hours, hours: hours / 1440 * 1440, days: 0 };
        let more = self.store.books.prune_usage(&keep, ALL);
        more.map_or_else(|error| panic!("{error}"), |_| String::new())
    }

    fn put_token(&mut self, number: u8, at: WallTime) -> String {
        let hash = KeyHash::of(&[number, u8::from(self.ids.is_multiple_of(2))]);
        let revoked = (number > 2).then_some(at);
        let (role, last_used) = (Role::ALL[usize::from(number) % 3], (number > 1).then_some(at));
        let name = name("t", number);
        let token = TokenRow { name, hash, role, created: at, expires: None, last_used, revoked };
        let notes = self.notes("token");
        outcome(self.store.books.put_token(&token, &notes, at))
    }

    fn change_account(&mut self, number: u8, change: u8, at: WallTime) -> String {
        let change = match change {
            0 => AccountChange { state: Some(AccountState::Active), ..AccountChange::default() },
            1 => AccountChange { state: Some(AccountState::Suspended), ..AccountChange::default() },
            2 => {
                AccountChange { name: Some(name("n", number)), version: Some(1), ..AccountChange::default() }
            }
            3 => AccountChange { plan: Some(None), version: Some(2), ..AccountChange::default() },
            _ if number > 1 => {
                AccountChange { state: Some(AccountState::Closed), ..AccountChange::default() }
            }
            _ => AccountChange { plan: Some(Some("other".to_owned())), ..AccountChange::default() },
        };
        let notes = self.notes("account.change");
        outcome(self.store.books.change_account(&name("a", number).parse().unwrap(), &change, &notes, at))
    }

    fn change_key(&mut self, key: u8, change: u8, at: WallTime) -> String {
        let change = match change {
            0 => KeyChange::State(KeyState::Disabled),
            1 => KeyChange::State(KeyState::Active),
            2 => KeyChange::State(KeyState::Revoked),
            5 => KeyChange::Terms(KeyTerms {
                label: name("l", key),
                scopes: (key > 1).then(|| Scopes { routes: ["r*".to_owned()].into(), shadow: key > 2 }),
                limits: (key > 0).then(|| "[1]".to_owned()),
                spend_limit: (key > 1).then(|| limit(7, key + 1)),
                group: (key > 0).then(|| group(key + (self.at % 2) as u8)),
                ..KeyTerms::default()
            }),
            other => {
                self.ids += 1;
                let hash = KeyHash::of(&self.ids.to_le_bytes());
                KeyChange::Rotate {
                    hash,
                    hint: name("h", other),
                    overlap_until: (other == 4).then_some(WallTime(self.at)),
                }
            }
        };
        let version = self.ids.is_multiple_of(3).then_some(1);
        let (edit, notes) = (KeyEdit { version, change }, self.notes("key.change"));
        outcome(self.store.books.change_key(KeyId(100 + u64::from(key)), &edit, &notes, at))
    }
}

/// Does what a start does: folds the rest of the journal, and charges holds that a crash left open as holds in doubt.
pub fn start(store: &mut Storage, at: WallTime) -> Tally {
    let loaded = store.books.load(at).unwrap();
    let mut tally = Tally::new(loaded.open_holds, loaded.folded);
    tally.list_requests(loaded.lists_requests);
    for (seq, at, records) in store.journal.read(loaded.folded).unwrap() {
        tally.apply(seq, at, &records).unwrap();
    }
    let fold = tally.recover();
    store.books.fold(&fold, at).unwrap();
    store.journal.reset(fold.upto);
    tally
}

/// A driver for a store that is used again after a crash.
pub fn recovered(store: &mut Storage) -> Driver<'_> {
    let tally = start(store, WallTime(5_000));
    Driver { store, seq: tally.upto(), tally, kept: None, claimed: None, ids: 1_000_000, at: 6_000 }
}

pub fn driver(store: &mut Storage) -> Driver<'_> {
    let loaded = store.books.load(WallTime(0)).unwrap(); // as every user does before the first batch
    store.journal.read(loaded.folded).unwrap();
    Driver { store, tally: Tally::default(), kept: None, claimed: None, seq: 0, ids: 0, at: 1_000 }
}
