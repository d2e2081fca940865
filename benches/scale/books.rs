//! Writes ledgers and configuration files of any size, through the library.

use std::fmt::Write;
use std::path::Path;

use tollgate::ledger::sqlite;
use tollgate::ledger::store::{KeyRow, NewAccount, Registration, SecretRow, Source, no_notes};
use tollgate::ledger::tally::{ChargeKey, ChargeSum, Fold};
use tollgate::policy::key::KeyState;
use tollgate::types::{AccountNum, Credits, KeyHash, KeyId, KeyNum, RouteNum, StatusClass, WallTime};

/// Rows per transaction.
const AT_ONCE: usize = 10_000;
const NOW: WallTime = WallTime(1_800_000_000_000);
/// A file system in memory, if there is one. A ledger is built there, without a thousand syncs to disk, and then copied
/// to its folder.
const MEMORY: &str = "/dev/shm";

/// The text of a key.
pub fn key_text(number: usize) -> String {
    format!("scale-key-{number}")
}

pub fn hash(number: usize) -> KeyHash {
    KeyHash::of(key_text(number).as_bytes())
}

/// A configuration with one route to the upstream, and one plan with a GCRA limit that all accounts are on.
pub fn config(upstream: &str, more: &str) -> String {
    format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
max_connections = 65536
[admin]
listen = "127.0.0.1:0"
[ledger]
url = "sqlite:ledger.db"
[log]
requests = false
[upstreams.api]
servers = ["http://{upstream}"]
[[routes]]
name = "one"
path = "/one"
upstream = "api"
credits = 1
[plans.growth]
limits = [{{ name = "per-second", requests = 1000000, window = "1s" }}]
{more}"#
    )
}

/// Accounts and keys of a configuration file, ten keys per account. A different `salt` makes different keys.
pub fn file_keys(keys: usize, salt: usize) -> String {
    let mut text = String::new();
    for account in 0..keys.div_ceil(10) {
        let _ = writeln!(text, "[accounts.a{account}]\nplan = \"growth\"\ncredits = 1000000");
        for number in account * 10..(account * 10 + 10).min(keys) {
            let hash = hash(number + salt).to_hex();
            let _ = writeln!(
                text,
                "[[accounts.a{account}.keys]]\nlabel = \"production-{number}\"\nsha256 = \"{hash}\""
            );
        }
    }
    text
}

fn key(number: usize, accounts: usize) -> KeyRow {
    let account = AccountNum(u32::try_from(number % accounts).expect("few accounts") + 1);
    let hash = hash(number);
    KeyRow {
        spending: Default::default(),
        group: None,
        id: KeyId(KeyId::of_hash(&hash).0.rotate_left(32)), // no key of the file has this id
        num: KeyNum(0),
        account,
        source: Source::Store,
        state: KeyState::Active,
        label: format!("production-crm-{number}"),
        environment: "live".to_owned(),
        hint: "ak_live_0123…4567".to_owned(),
        scopes: None,
        allow_from: None,
        expires: None,
        limits: None,
        created: NOW,
        version: 1,
        last_used: None,
        secrets: vec![SecretRow { hash, until: None }],
    }
}

/// Creates `ledger.db` in a folder, with keys and accounts as commands create them, and with entries.
pub fn write(folder: &Path, keys: usize, accounts: usize, entries: usize) {
    let place = if Path::new(MEMORY).is_dir() { Path::new(MEMORY) } else { folder };
    let building = tempfile::tempdir_in(place).expect("a temporary folder");
    let path = building.path().join("ledger.db");
    let storage = sqlite::open(&path).expect("a ledger");
    let mut books = storage.books;
    for number in 0..accounts {
        let id = format!("account-{number}").parse().expect("an id");
        let new = NewAccount { id, name: String::new(), plan: Some("growth".to_owned()), opening: None };
        books.create_accounts(&[new], &no_notes(), NOW).expect("an account");
        if number % AT_ONCE == AT_ONCE - 1 {
            books.checkpoint(); // restarts the write-ahead log
        }
    }
    let rows: Vec<usize> = (0..keys).collect();
    for part in rows.chunks(AT_ONCE) {
        let rows: Vec<KeyRow> = part.iter().map(|&number| key(number, accounts)).collect();
        books.create_keys(&rows, &no_notes(), NOW).expect("keys");
        books.checkpoint();
    }
    if entries > 0 {
        let wanted = Registration { routes: vec!["one".parse().expect("a name")], ..Registration::default() };
        books.register(&wanted, NOW).expect("a route");
        let (mut left, mut upto) = (entries, 0);
        while left > 0 {
            let part = left.min(AT_ONCE).min(accounts);
            let sum = ChargeSum { amount: Credits::from_millionths(1), requests: 1, released: 0 };
            let charge = |number| {
                let account = AccountNum(u32::try_from(number).expect("few") + 1);
                let (key, route) = (KeyNum(1), RouteNum(1));
                (ChargeKey { account, key, route, outcome: StatusClass::Success, held: None }, sum)
            };
            upto += 1;
            let fold = Fold { upto, charges: (0..part).map(charge).collect(), ..Fold::default() };
            books.fold(&fold, NOW).expect("a fold");
            books.checkpoint();
            left -= part;
        }
    }
    drop((books, storage.journal)); // the last connection to close copies the write-ahead log into the file
    std::fs::copy(&path, folder.join("ledger.db")).expect("a copied ledger");
}
