//! Compares PostgreSQL with the model in memory, call by call. `TOLLGATE_LONG` selects the long runs.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tollgate::ledger::memory::MemoryStore;
use tollgate::ledger::postgres::{self, Server};
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

pub fn open(url: &str, folder: &tempfile::TempDir) -> Storage {
    let server = Server { config: url.parse().unwrap(), tls: None };
    postgres::open(&server, &folder.path().join("ledger")).unwrap()
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
    for round in 0..5 {
        let id = format!("account{round}");
        store.books.create_accounts(&[new(&id)], &no_notes(), WallTime(1)).unwrap();
        server.kill();
        let lost = store.books.create_accounts(&[new("lost")], &no_notes(), WallTime(2));
        assert!(matches!(lost, Err(LedgerError::Failed(_))), "{lost:?}");
        server.run();
        let found = store.books.account(&id.parse().unwrap()).unwrap();
        assert_eq!(found.map(|row| row.balance.millionths()), Some(5));
    }
    let mut reader = store.books.reader().unwrap();
    assert_eq!(reader.accounts(None, 9).unwrap().len(), 5);
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

#[test]
fn one_gateway_serves_a_database() {
    let Some(server) = server() else { return };
    let (first, second, url) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), fresh(&server));
    let serving = open(&url, &first);
    let settings = Server { config: url.parse().unwrap(), tls: None };
    let refused = postgres::open(&settings, &second.path().join("ledger")).map(drop).unwrap_err().to_string();
    assert!(refused.contains("another gateway serves it already"), "{refused}");
    drop(serving);
    drop(open(&url, &second));
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
