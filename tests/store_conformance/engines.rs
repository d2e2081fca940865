//! Compares PostgreSQL with SQLite in what the model does not have: webhooks, people and payments.

use serde_json::json;
use tollgate::ledger::entry::EntryKind;
use tollgate::ledger::sqlite;
use tollgate::ledger::store::{
    AfterAttempt, Attempt, AutoTopUp, Booking, DeliveriesOf, EndpointRow, EventKind, EventRow, KeyRow,
    LedgerError, LinkPurpose, LinkRow, MemberRole, MemberRow, NewAccount, Note, OneTimeCodes, Payer,
    PaymentRow, Purchase, RenewalRow, Role, SessionOf, SessionRow, Source, Storage, UserEdit, UserFilter,
    UserRow, no_notes,
};
use tollgate::policy::credit::{LotTerms, Spending};
use tollgate::policy::key::KeyState;
use tollgate::types::{AccountId, Credits, Currency, KeyHash, KeyId, KeyNum, Money, WallTime};

use crate::postgres::{fresh, open, server};

fn credits(millionths: i64) -> Credits {
    Credits::from_millionths(millionths)
}

fn acme() -> AccountId {
    "acme".parse().unwrap()
}

/// Notes of each result. Ids of messages are drawn at random, so they are left out.
struct Told(Vec<String>);

impl Told {
    fn add<T: std::fmt::Debug>(&mut self, of: &str, result: Result<T, LedgerError>) {
        let text = match result {
            Ok(value) => format!("{value:?}"),
            Err(LedgerError::Failed(why) | LedgerError::Damaged(why)) => panic!("{of}: {why}"),
            Err(_) => "refused".to_owned(),
        };
        let mut parts = text.split("msg_");
        let mut without = parts.next().unwrap_or_default().to_owned();
        parts.for_each(|part| without.push_str(&part[24..]));
        self.0.push(format!("{of}: {without}"));
    }
}

fn endpoint(id: &str, account: Option<AccountId>) -> EndpointRow {
    EndpointRow {
        id: id.to_owned(),
        account,
        url: format!("https://{id}.test/"),
        events: None,
        source: Source::Store,
        secret: "secret".to_owned(),
        old: None,
        disabled: None,
        created: WallTime(1),
    }
}

fn book(store: &mut Storage, reference: &str, amount: i64, at: i64) -> Result<(), LedgerError> {
    let account = store.books.account(&acme())?.unwrap();
    let kind = if amount > 0 { EntryKind::Grant } else { EntryKind::Adjustment };
    let (reference, actor) = (reference.to_owned(), "test".to_owned());
    let booking =
        Booking { account: acme(), kind, amount: credits(amount), reference, actor, key: None, lot: None };
    store.books.book(&account, &booking, &no_notes(), WallTime(at)).map(drop)
}

fn webhooks(store: &mut Storage, told: &mut Told) {
    let at = WallTime(10);
    for row in [endpoint("operator", None), endpoint("own", Some(acme())), endpoint("other", Some(acme()))] {
        told.add("put", store.books.webhooks().unwrap().put_endpoint(&row, &no_notes(), at));
    }
    let books = store.books.webhooks().unwrap();
    told.add("again", books.put_endpoint(&endpoint("own", None), &no_notes(), at));
    told.add("thresholds", books.set_thresholds(&acme(), &[credits(5)], &no_notes(), at));
    let renew = Some((credits(7), 1000, WallTime(20)));
    let renewal = RenewalRow { top_up: Some((credits(4), credits(9))), renew };
    told.add("renewal", books.set_renewal(&acme(), &renewal, &no_notes(), at));
    for (number, amount) in [10, -8, -1, -5, 20, -30, 6].into_iter().enumerate() {
        told.add("book", book(store, &format!("reference {number}"), amount, 100 + number as i64));
    }
    let books = store.books.webhooks().unwrap();
    told.add("renewed", books.renew_due(WallTime(5000), 9));
    let event = EventRow { account: Some(acme()), kind: EventKind::KeyCreated, data: json!({}), once: None };
    told.add("sent", books.send_to("own", &event, &no_notes(), WallTime(200)));
    let of = DeliveriesOf::Endpoint("own".to_owned());
    told.add("replayed", books.replay(2, &of, &no_notes(), WallTime(201)));
    told.add("not replayed", books.replay(99, &of, &no_notes(), WallTime(201)));
    let attempt = |num, then| Attempt { num, status: Some(500), error: Some("no".to_owned()), then };
    let attempts = [
        attempt(1, AfterAttempt::Retry(WallTime(300))),
        attempt(2, AfterAttempt::Delivered),
        attempt(3, AfterAttempt::Disable),
    ];
    told.add("attempted", books.attempted(&attempts, WallTime(250)));
    let mut reader = store.books.reader().unwrap();
    let reads = reader.webhooks().unwrap();
    for of in [None, Some(None), Some(Some(&acme()))] {
        told.add("endpoints", reads.endpoints(of));
    }
    told.add("endpoint", reads.endpoint("own"));
    told.add("thresholds", reads.thresholds(&acme()));
    told.add("renewal", reads.renewal(&acme()));
    told.add("failing", reads.failing(9));
    told.add("due", reads.due(WallTime(1000), 99));
    for of in [of, DeliveriesOf::Account(acme())] {
        told.add("deliveries", reads.deliveries(&of, None, 99));
    }
    told.add("expiring", reads.expiring((WallTime(0), WallTime(10_000)), None, 9));
    drop(reader);
    let books = store.books.webhooks().unwrap();
    told.add("deleted", books.delete_endpoint("other", &no_notes(), at));
    told.add("file", books.change_file_endpoints(&["operator".to_owned()], &[endpoint("file", None)]));
    told.add("pruned", books.prune_deliveries(WallTime(150)));
}

/// Changes of people, who are read afterwards.
fn edits() -> Vec<UserEdit> {
    let user = |id: &str, operator| UserRow {
        id: id.to_owned(),
        email: format!("{id}@example.test"),
        name: id.to_owned(),
        password: None,
        operator,
        verified: None,
        codes: Some(OneTimeCodes { secret: vec![1, 2], last_step: 3, recovery: Vec::new() }),
        is_disabled: false,
        created: WallTime(1),
        last_sign_in: None,
    };
    let session = |number, of| SessionRow {
        hash: KeyHash([number; 32]),
        of,
        created: WallTime(1),
        seen: WallTime(i64::from(number)),
        expires: WallTime(100),
        origin: "here".to_owned(),
        agent: "test".to_owned(),
    };
    let ann = || SessionOf::User("ann".to_owned());
    let guest = SessionOf::Guest { account: acme(), role: MemberRole::Viewer, person: "guest".to_owned() };
    let link = LinkRow {
        hash: KeyHash([9; 32]),
        purpose: LinkPurpose::Invitation,
        email: "new@example.test".to_owned(),
        user: None,
        invited: Some(tollgate::ledger::store::Invited::Member(acme(), MemberRole::Owner)),
        by: "ann".to_owned(),
        created: WallTime(1),
        expires: WallTime(100),
    };
    let member =
        MemberRow { user: "ann".to_owned(), account: acme(), role: MemberRole::Owner, since: WallTime(1) };
    vec![
        UserEdit::Put(Box::new(user("ann", None))),
        UserEdit::Put(Box::new(user("bob", Some(Role::Owner)))),
        UserEdit::SignedIn { user: "ann".to_owned(), at: WallTime(5), verified: true },
        UserEdit::PutMember(member),
        UserEdit::PutSession { row: session(1, ann()), most: 2 },
        UserEdit::PutSession { row: session(2, ann()), most: 2 },
        UserEdit::PutSession { row: session(3, ann()), most: 2 },
        UserEdit::PutSession { row: session(4, guest), most: 2 },
        UserEdit::TouchSession(KeyHash([2; 32]), WallTime(50)),
        UserEdit::PutLink(link),
        UserEdit::DropInvitations { email: "new@example.test".to_owned(), account: None },
        UserEdit::Await(acme()),
        UserEdit::Await(acme()),
    ]
}

fn people(store: &mut Storage, told: &mut Told) {
    for edit in edits() {
        told.add("edit", store.books.note(&[Note::User(edit)], WallTime(1)));
    }
    let mut reader = store.books.reader().unwrap();
    let reads = reader.users().unwrap();
    told.add("user", reads.user("ann"));
    told.add("named", reads.user_named("bob@example.test"));
    for operators in [false, true] {
        told.add("users", reads.users(&UserFilter { operators, after: None }, 9));
    }
    told.add("memberships", reads.memberships("ann", 9));
    told.add("membership", reads.membership("ann", &acme()));
    told.add("members", reads.members(&acme(), 9));
    told.add("session", reads.session(&KeyHash([4; 32])));
    told.add("sessions", reads.sessions("ann", 9));
    told.add("link", reads.link(&KeyHash([9; 32])));
    for account in [None, Some(&acme())] {
        told.add("invitations", reads.invitations(account, 9));
    }
    told.add("awaits", reads.is_awaiting(&acme()));
    told.add("awaiting", reads.awaiting(9));
    drop(reader);
    let edits = [
        UserEdit::EndSessionsOf { user: "ann".to_owned(), except: Some(KeyHash([2; 32])) },
        UserEdit::EndSession(KeyHash([4; 32])),
        UserEdit::UseLink(KeyHash([9; 32])),
        UserEdit::DropLinksOf("ann".to_owned()),
        UserEdit::DropLinksTo("new@example.test".to_owned()),
        UserEdit::Approve(acme()),
        UserEdit::RemoveMember { user: "ann".to_owned(), account: acme() },
        UserEdit::Prune { expired: WallTime(100), idle: WallTime(10) },
        UserEdit::Delete("bob".to_owned()),
    ];
    for edit in edits {
        told.add("edit", store.books.note(&[Note::User(edit)], WallTime(1)));
    }
    told.add("left", store.books.reader().unwrap().users().unwrap().sessions("ann", 9));
}

fn payments(store: &mut Storage, told: &mut Told) {
    let price = Money { minor: 900, currency: Currency::parse("eur").unwrap() };
    let purchase = Purchase { account: acme(), package: "small".to_owned(), credits: credits(9), price };
    let payment = |id: &str, purchase, lot| PaymentRow {
        id: id.to_owned(),
        purchase,
        granted: Some(WallTime(2)),
        lot,
        reversals: Default::default(),
        taken: credits(1),
        steps: 3,
        told: WallTime(4),
    };
    let lot = LotTerms { expires: Some(WallTime(9_000)), ..LotTerms::default() };
    let payer = Payer {
        top_up: Some(AutoTopUp {
            below: credits(1_000),
            package: "small".to_owned(),
            most: 900,
            currency: "eur".to_owned(),
        }),
        ..Payer::default()
    };
    let notes = [
        Note::Payment(payment("one", Some(purchase), Some(lot))),
        Note::Payment(payment("unknown", None, None)),
        Note::Payer(acme(), Box::new(payer)),
    ];
    for _ in 0..2 {
        told.add("notes", store.books.note(&notes, WallTime(5)));
    }
    let mut reader = store.books.reader().unwrap();
    let reads = reader.payments().unwrap();
    told.add("payment", reads.payment("one"));
    told.add("payment", reads.payment("unknown"));
    told.add("payments", reads.payments(&acme(), 9));
    told.add("payer", reads.payer(&acme()));
    told.add("missing", reads.missing(WallTime(0), WallTime(1), 9));
    told.add("due", reads.due_top_ups(WallTime(100), 9));
    assert_eq!(reads.seller().unwrap().len(), 16);
}

/// What a store says of all that.
fn tour(store: &mut Storage) -> Vec<String> {
    let mut told = Told(Vec::new());
    store.books.load(WallTime(0)).unwrap();
    let new = NewAccount { id: acme(), name: String::new(), plan: None, opening: None };
    told.add("account", store.books.create_accounts(&[new], &no_notes(), WallTime(1)));
    let key = KeyRow {
        id: KeyId(u64::MAX - 7),
        num: KeyNum(0),
        account: store.books.account(&acme()).unwrap().unwrap().num,
        source: Source::Store,
        state: KeyState::Active,
        label: "key".to_owned(),
        environment: "live".to_owned(),
        hint: "hint".to_owned(),
        scopes: None,
        allow_from: None,
        expires: Some(WallTime(5_000)),
        limits: None,
        created: WallTime(1),
        version: 1,
        last_used: None,
        spending: Spending::default(),
        group: None,
        secrets: Vec::new(),
    };
    told.add("key", store.books.create_keys(&[key], &no_notes(), WallTime(1)));
    webhooks(store, &mut told);
    people(store, &mut told);
    payments(store, &mut told);
    told.0
}

#[test]
fn postgres_says_what_sqlite_says() {
    let Some(server) = server() else { return };
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut sqlite = sqlite::open(&first.path().join("ledger.db")).unwrap();
    let mut postgres = open(&fresh(&server), &second);
    let (expected, found) = (tour(&mut sqlite), tour(&mut postgres));
    for (expected, found) in expected.iter().zip(&found) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}
