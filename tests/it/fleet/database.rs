//! Promises 1 to 5 with a ledger in PostgreSQL.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use crate::crash::{crash_and_judge, load_and_judge};
use crate::engine::Postgres;
use crate::support::{Gateway, Upstream};

use super::{another_machine, ledger};

/// Longest time until a gateway serves again once its database is back, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Number of crashes: a few; `TOLLGATE_LONG=1` makes many.
fn rounds() -> usize {
    if std::env::var_os("TOLLGATE_LONG").is_some() { 300 } else { 10 }
}

#[test]
fn a_gateway_that_crashes_finds_its_journal_in_its_folder() {
    let Some((_server, text)) = ledger("") else { return };
    crash_and_judge(&text, rounds(), |folder| folder);
}

/// Each start after a crash is on another machine, which has nothing of the one before.
#[test]
fn a_gateway_that_crashes_is_replaced_on_another_machine() {
    let Some((_server, text)) = ledger("journal = \"shared\"\n") else { return };
    crash_and_judge(&text, rounds(), |folder| another_machine(&folder));
}

/// Kills the server under load and starts it again. Returns the number of requests that were refused meanwhile.
fn lose_the_server(server: &mut Postgres, text: &str) -> usize {
    let upstream = Upstream::start();
    let text = text.replace("credits = 1000\n", "credits = 1000000000\n");
    let (gateway, next) = (Gateway::start(&text, &upstream), AtomicU64::new(1));
    let wait = || std::thread::sleep(Duration::from_millis(100));
    let lines = load_and_judge(&gateway, &upstream, &next, || {
        std::thread::sleep(Duration::from_millis(500));
        server.kill();
        std::thread::sleep(Duration::from_millis(500));
        server.run();
        let (start, before) = (Instant::now(), upstream.seen().len());
        while upstream.seen().len() <= before + 20 {
            assert!(start.elapsed() < PATIENCE, "it does not serve again");
            wait();
        }
        println!("it serves again after {:?}", start.elapsed());
        wait();
    });
    let refused = lines.iter().filter(|line| line.price == 0 && line.received.is_empty()).count();
    println!("{} requests, {refused} refused", lines.len());
    let (code, _) = gateway.stop();
    assert_eq!(code, Some(0));
    refused
}

/// What is committed to a journal on this machine waits until the server is back.
#[test]
fn a_server_that_is_gone_for_a_moment_is_not_missed() {
    let Some((mut server, text)) = ledger("") else { return };
    assert_eq!(lose_the_server(&mut server, &text), 0);
}

/// Nothing is charged while a journal in the database cannot be written.
#[test]
fn charged_requests_are_refused_while_their_journal_is_gone() {
    let Some((mut server, text)) = ledger("journal = \"shared\"\n") else { return };
    assert!(lose_the_server(&mut server, &text) > 0);
}
