//! Compares PostgreSQL with the model in memory, call by call. `TOLLGATE_LONG` selects the long runs.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tollgate::clock::Clock;
use tollgate::ledger::Place;
use tollgate::ledger::memory::MemoryStore;
use tollgate::ledger::postgres::{JournalAt, Server};
use tollgate::ledger::store::{LedgerError, NewAccount, Storage, no_notes};
use tollgate::ledger::verify::verify;
use tollgate::types::{AccountId, Credits, WallTime};

use crate::driver::driver;
use crate::engine::Postgres;
use crate::skips::missing;
use crate::{calls, state};

pub fn server() -> Option<Postgres> {
    let started = Postgres::start();
    if started.is_none() {
        missing("PostgreSQL", "Debian's package postgresql");
    }
    started
}

pub fn place(url: &str, at: JournalAt) -> Place {
    Place::Postgres(Box::new(Server { config: url.parse().unwrap(), tls: None, node: None }), at)
}

pub fn open(url: &str, folder: &tempfile::TempDir) -> Storage {
    place(url, JournalAt::Local(folder.path().join("ledger"))).open().unwrap()
}

/// A fresh database for each case.
pub fn fresh(server: &Postgres) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    server.database(&format!("ledger{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Runs so many random cases, ten times as many in a long run.
fn runner(cases: u32) -> TestRunner {
    let times = if std::env::var_os("TOLLGATE_LONG").is_some() { 10 } else { 1 };
    let failure_persistence = None; // a failing case is printed
    TestRunner::new(ProptestConfig { failure_persistence, ..ProptestConfig::with_cases(cases * times) })
}

#[test]
fn postgres_does_what_the_model_does() {
    let Some(server) = server() else { return };
    let mut runner = runner(30);
    let checked = runner.run(&calls(), |calls| {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(&fresh(&server), &folder);
        let mut memory = MemoryStore::default().storage();
        let (mut real, mut model) = (driver(&mut store), driver(&mut memory));
        for call in &calls {
            prop_assert_eq!(real.run(call), model.run(call), "{:?}", call);
        }
        prop_assert_eq!(state(real.store), state(model.store));
        let mut reader = store.books.reader().unwrap();
        prop_assert_eq!(verify(&mut *reader).unwrap().differences, []);
        Ok(())
    });
    checked.unwrap();
}

/// A call that a crash of the server interrupts fails, and the next one connects again. Nothing that succeeded is lost.
#[test]
fn a_server_that_crashes_loses_nothing() {
    let Some(mut server) = server() else { return };
    let (folder, url) = (tempfile::tempdir().unwrap(), fresh(&server));
    let mut store = open(&url, &folder);
    store.books.load(WallTime(0)).unwrap();
    let new = |id: &str| NewAccount {
        id: id.parse().unwrap(),
        name: String::new(),
        plan: None,
        opening: Some((Credits::from_millionths(5), "test".to_owned())),
    };
    let mut uncertain = 0;
    for round in 0..5 {
        let id = format!("account{round}");
        store.books.create_accounts(&[new(&id)], &no_notes(), WallTime(1)).unwrap();
        server.kill();
        let lost = format!("lost{round}");
        let made = store.books.create_accounts(&[new(&lost)], &no_notes(), WallTime(2));
        server.run();
        // A process of the killed server may have lived on, and have committed, with or without an answer.
        let is_there = store.books.account(&lost.parse().unwrap()).unwrap().is_some();
        match made {
            Ok(_) => assert!(is_there, "what is said to be stored is stored"),
            Err(LedgerError::Failed(_)) => assert!(!is_there),
            Err(LedgerError::Uncertain(_)) => {}
            Err(error) => panic!("{error}"),
        }
        uncertain += usize::from(is_there);
        let found = store.books.account(&id.parse().unwrap()).unwrap();
        assert_eq!(found.map(|row| row.balance.millionths()), Some(5));
    }
    let mut reader = store.books.reader().unwrap();
    assert_eq!(reader.accounts(None, 99).unwrap().len(), 5 + uncertain);
    assert_eq!(verify(&mut *reader).unwrap().differences, []);
}

/// What becomes of the next COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The server gets it, and its answer is lost.
    Answer,
    /// It is lost itself.
    Commit,
}

/// Passes connections on, and ends the next one that commits as it is told.
fn proxy(to: u16) -> (u16, Arc<Mutex<Option<Cut>>>) {
    let (listener, cut) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(Mutex::new(None)));
    let (port, told) = (listener.local_addr().unwrap().port(), Arc::clone(&cut));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
            let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || drop(std::io::copy(&mut from_server, &mut to_client)));
            let cut = Arc::clone(&cut);
            std::thread::spawn(move || pass(client, server, &cut));
        }
    });
    (port, told)
}

fn pass(mut client: TcpStream, mut server: TcpStream, cut: &Mutex<Option<Cut>>) {
    let mut buffer = [0; 64 * 1024];
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        let commits = buffer[..count].windows(6).any(|word| word == b"COMMIT");
        let cut = if commits { cut.lock().unwrap().take() } else { None };
        if cut == Some(Cut::Answer) {
            client.shutdown(Shutdown::Both).unwrap();
        }
        if cut != Some(Cut::Commit) && server.write_all(&buffer[..count]).is_err() || cut.is_some() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Write);
    let _ = client.shutdown(Shutdown::Both);
}

/// A commit whose answer is lost is known to be made, or not, once the server is asked again.
#[test]
fn a_lost_answer_to_a_commit_is_found_out() {
    let Some(server) = server() else { return };
    let (folder, url) = (tempfile::tempdir().unwrap(), fresh(&server));
    let port = url.parse::<tokio_postgres::Config>().unwrap().get_ports()[0];
    let (through, cut) = proxy(port);
    let mut store = open(&url.replace(&port.to_string(), &through.to_string()), &folder);
    store.books.load(WallTime(0)).unwrap();
    for round in 0..6 {
        let how = if round % 2 == 0 { Cut::Answer } else { Cut::Commit };
        *cut.lock().unwrap() = Some(how);
        let id: AccountId = format!("account{round}").parse().unwrap();
        let new = NewAccount { id: id.clone(), name: String::new(), plan: None, opening: None };
        let made = store.books.create_accounts(&[new], &no_notes(), WallTime(1));
        assert_eq!(made.is_ok(), how == Cut::Answer, "{made:?}");
        assert_eq!(store.books.account(&id).unwrap().is_some(), how == Cut::Answer);
    }
}

fn refused(opened: Result<Storage, LedgerError>) -> String {
    opened.map(drop).unwrap_err().to_string()
}

#[test]
fn one_gateway_serves_a_database() {
    let Some(server) = server() else { return };
    let shared = place(&fresh(&server), JournalAt::Shared);
    let serving = shared.open().unwrap();
    let message = refused(shared.open());
    assert!(message.contains("another gateway with the name of this one serves it already"), "{message}");
    drop(serving);
    drop(shared.open().unwrap());
}

/// A gateway on another machine takes over from one that was killed, with all that this one had written.
#[test]
fn a_journal_in_the_database_survives_its_machine() {
    let Some(mut server) = server() else { return };
    let shared = place(&fresh(&server), JournalAt::Shared);
    let mut store = shared.open().unwrap();
    assert_eq!(store.journal.read(0).unwrap(), []);
    store.journal.append(1, WallTime(1), b"one").unwrap();
    store.journal.append(2, WallTime(2), b"two").unwrap();
    server.kill();
    assert!(store.journal.append(3, WallTime(3), b"three").is_err());
    server.run();
    store.journal.append(3, WallTime(4), b"three and more").unwrap();
    store.journal.append(3, WallTime(5), b"three and more").unwrap(); // its answer was lost
    store.journal.reset(1);
    drop(store);
    let mut store = shared.open().unwrap();
    let left = store.journal.read(1).unwrap();
    assert_eq!(left, [(2, WallTime(2), b"two".to_vec()), (3, WallTime(5), b"three and more".to_vec())]);
    let message = store.journal.read(0).unwrap_err().to_string();
    assert!(message.contains("batch 1 is missing"), "{message}");
}

/// No gateway goes on without a journal that has batches which are not folded, wherever it is.
#[test]
fn a_journal_that_is_elsewhere_is_asked_for() {
    let Some(server) = server() else { return };
    let (here, there, url) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), fresh(&server));
    let local = |folder: &tempfile::TempDir| place(&url, JournalAt::Local(folder.path().join("ledger")));
    let shared = place(&url, JournalAt::Shared);
    let mut store = local(&here).open().unwrap();
    store.journal.read(0).unwrap();
    store.journal.append(1, WallTime(1), b"one").unwrap();
    drop(store);
    for other in [local(&there), shared.clone()] {
        let message = refused(other.open());
        assert!(message.contains("--abandon-journal"), "{message}");
    }
    let mut store = local(&here).open().unwrap();
    assert_eq!(store.journal.read(0).unwrap().len(), 1);
    store.journal.reset(1);
    drop(store); // all is folded
    let mut store = local(&there).open().unwrap();
    store.journal.read(0).unwrap();
    drop(store);
    assert_eq!(std::fs::read_dir(there.path()).unwrap().count(), 1, "the lock");
    let mut store = shared.open().unwrap();
    store.journal.append(1, WallTime(1), b"one").unwrap();
    drop(store);
    let message = refused(local(&there).open());
    assert!(message.contains("its journal is in the database"), "{message}");
    shared.migrate(true).unwrap(); // has no local journal to abandon
    drop(shared.open().unwrap());
}

#[test]
fn a_lost_machine_can_be_given_up() {
    let Some(server) = server() else { return };
    let (lost, url) = (tempfile::tempdir().unwrap(), fresh(&server));
    let mut store = open(&url, &lost);
    store.journal.read(0).unwrap();
    store.journal.append(1, WallTime(1), b"one").unwrap();
    let shared = place(&url, JournalAt::Shared);
    let message = shared.migrate(true).unwrap_err().to_string();
    assert!(message.contains("another gateway with the name of this one serves it already"), "{message}");
    drop(store);
    shared.migrate(true).unwrap();
    drop(shared.open().unwrap());
    let message = refused(
        place(&url, JournalAt::Local(lost.path().join("ledger")))
            .open()
            .map(|mut store| {
                let read = store.journal.read(0).map(drop).unwrap_err().to_string();
                assert!(read.contains("it belongs to another ledger"), "{read}");
                store
            })
            .and_then(|_| Err(LedgerError::Closed)),
    );
    assert_eq!(message, LedgerError::Closed.to_string());
}

/// A ledger is copied from SQLite to PostgreSQL and back, and is the same there.
#[test]
fn a_ledger_is_copied_between_engines() {
    let Some(server) = server() else { return };
    let mut runner = runner(8);
    let checked = runner.run(&calls(), |calls| {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["first.db", "second.db"].map(|name| Place::Sqlite(folder.path().join(name)));
        let postgres = place(&fresh(&server), JournalAt::Shared);
        let mut store = first.open().unwrap();
        let mut driver = driver(&mut store);
        calls.iter().for_each(|call| drop(driver.run(call)));
        drop(store);
        let copied = first.copy(&postgres, Clock::system()).unwrap();
        let again = first.copy(&postgres, Clock::system()).unwrap_err().to_string();
        prop_assert!(again.contains("there is a ledger already"), "{}", again);
        let back = postgres.copy(&second, Clock::system()).unwrap();
        prop_assert_eq!(&copied.tables, &back.tables);
        prop_assert_eq!(copied.entries, back.entries);
        let states = [&first, &postgres, &second].map(|place| state(&mut place.open().unwrap()));
        prop_assert_eq!(&states[0], &states[1]);
        prop_assert_eq!(&states[0], &states[2]);
        // Numbers continue.
        for place in [&postgres, &second] {
            let mut store = place.open().unwrap();
            let new = NewAccount {
                id: "another".parse().unwrap(),
                name: String::new(),
                plan: None,
                opening: Some((Credits::from_millionths(5), "test".to_owned())),
            };
            store.books.create_accounts(&[new], &no_notes(), WallTime(1)).unwrap();
            prop_assert_eq!(verify(&mut *store.books.reader().unwrap()).unwrap().differences, []);
        }
        Ok(())
    });
    checked.unwrap();
}

#[test]
fn everything_that_postgres_stored_is_there_after_a_reopening() {
    let Some(server) = server() else { return };
    let mut runner = runner(10);
    let checked = runner.run(&calls(), |calls| {
        let (folder, url) = (tempfile::tempdir().unwrap(), fresh(&server));
        let mut store = open(&url, &folder);
        let before = {
            let mut driver = driver(&mut store);
            calls.iter().for_each(|call| drop(driver.run(call)));
            state(driver.store)
        };
        drop(store);
        let mut store = open(&url, &folder);
        prop_assert_eq!(state(&mut store), before);
        Ok(())
    });
    checked.unwrap();
}
