//! Promises 1 to 5 over a fleet of which gateways and the database are lost under load.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::crash::{StopAtEnd, client};
use crate::support::audit::{Books, Line, Round};
use crate::support::{Gateway, eventually};

use super::Fleet;

const CLIENTS: usize = 2;

/// Number of rounds: a few; `TOLLGATE_LONG=1` makes many.
fn rounds() -> usize {
    if std::env::var_os("TOLLGATE_LONG").is_some() { 100 } else { 4 }
}

/// What is lost in a round.
#[derive(Clone, Copy, Debug)]
enum Lost {
    Gateway(usize),
    Database,
    /// Suspended for a second (SIGSTOP).
    Paused(usize),
}

fn lost_in(round: usize) -> Lost {
    match round % 4 {
        0 => Lost::Gateway(round / 4 % 3),
        1 => Lost::Database,
        2 => Lost::Paused(round / 4 % 3),
        _ => Lost::Gateway((round / 4 + 1) % 3),
    }
}

impl Fleet {
    fn lose(&mut self, lost: Lost) {
        match lost {
            Lost::Gateway(at) => {
                let folder = self.gateways.remove(at).crash();
                std::thread::sleep(Duration::from_millis(200));
                self.gateways.insert(at, Gateway::start_in(folder));
            }
            Lost::Database => {
                self.server.kill();
                std::thread::sleep(Duration::from_millis(300));
                self.server.run();
            }
            Lost::Paused(at) => {
                self.gateways[at].signal("STOP");
                std::thread::sleep(Duration::from_secs(1));
                self.gateways[at].signal("CONT");
            }
        }
    }
}

fn lose_and_judge(journal: &str) {
    let plenty = |text: String| text.replace("credits = 1000\n", "credits = 1000000000\n");
    let Some(mut fleet) = Fleet::start(journal, plenty) else { return };
    let next = AtomicU64::new(1);
    let (mut requests, mut before) = (0, Books::read(&fleet.gateways[0], "acme"));
    for round in 0..rounds() {
        fleet.upstream.clear();
        let (stop, lines) = (AtomicBool::new(false), Mutex::new(Vec::<Line>::new()));
        let addresses: Vec<_> = fleet.gateways.iter().map(|gateway| gateway.public).collect();
        std::thread::scope(|scope| {
            for address in addresses.iter().flat_map(|address| [*address; CLIENTS]) {
                let (next, lines, stop) = (&next, &lines, &stop);
                scope.spawn(move || client(address, next, lines, stop));
            }
            let _stop = StopAtEnd(&stop);
            std::thread::sleep(Duration::from_millis(300));
            fleet.lose(lost_in(round));
            std::thread::sleep(Duration::from_millis(700));
        });
        fleet.restart();
        let after = Books::read(&fleet.gateways[0], "acme");
        let (seen, lines) = (fleet.upstream.seen(), lines.into_inner().unwrap());
        Round { seen: &seen, lines: &lines, before: &before, after: &after, whole: false }.judge();
        requests += lines.len();
        before = after;
    }
    println!("{} rounds, {requests} requests, {} holds in doubt", rounds(), before.doubts.len());
    assert!(requests > rounds() * CLIENTS * 3, "there was load");
    assert_eq!(fleet.gateways[1].json(&["ledger", "verify"])["found"], 0);
}

#[test]
fn nothing_is_lost_or_doubled_with_journals_of_the_gateways() {
    lose_and_judge("local");
}

#[test]
fn nothing_is_lost_or_doubled_with_journals_in_the_database() {
    lose_and_judge("shared");
}

/// What a gateway that does not come back has leased and held is settled by another one.
#[test]
fn the_leases_of_a_lost_gateway_return() {
    let Some(mut fleet) = Fleet::start("shared", |text| text) else { return };
    for gateway in &fleet.gateways {
        let spent = crate::support::get(gateway.public, "/one", "x-api-key: good-key\r\n");
        assert_eq!(spent.status, 200);
    }
    drop(fleet.gateways.remove(1).crash());
    let left = &fleet.gateways[1];
    let state = |name: &str| {
        let nodes = left.rows(&["nodes"]);
        let node = nodes.iter().find(|node| node["name"] == name).unwrap();
        (node["state"].as_str().unwrap().to_owned(), node["leased"].to_string())
    };
    let start = std::time::Instant::now();
    while state("b") != ("stopped".to_owned(), "0".to_owned()) {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", state("b"));
        std::thread::sleep(Duration::from_millis(200));
    }
    eventually("all is free again", || left.available("acme") == "997");
    assert_eq!(state("c").0, "serving");
}

/// A gateway that was cut off for so long that another one settled what it left writes nothing when it is back.
#[test]
fn a_gateway_that_was_given_up_is_fenced() {
    let Some(fleet) = Fleet::start("shared", |text| text.replace("credits = 1000\n", "credits = 30\n"))
    else {
        return;
    };
    let one =
        |gateway: &Gateway| crate::support::get(gateway.public, "/one", "x-api-key: good-key\r\n").status;
    assert_eq!(one(&fleet.gateways[1]), 200);
    fleet.gateways[1].signal("STOP");
    fleet.server.run_sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'tollgate b %'",
    );
    let start = std::time::Instant::now();
    loop {
        let nodes = fleet.gateways[0].rows(&["nodes"]);
        if nodes.iter().any(|node| node["name"] == "b" && node["state"] == "stopped") {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{nodes:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    fleet.gateways[1].signal("CONT");
    // Its lease is another's now.
    for _ in 0..29 {
        assert_eq!(one(&fleet.gateways[0]), 200);
    }
    assert_eq!(one(&fleet.gateways[1]), 503);
    assert_eq!(one(&fleet.gateways[2]), 402);
    assert_eq!(fleet.gateways[2].json(&["ledger", "verify"])["found"], 0);
    let told = fleet.gateways[1].lines().iter().any(|line| line.contains("served as this gateway"));
    assert!(told, "{:?}", fleet.gateways[1].lines());
}

/// Folds that fail for a while are made up for, in their order.
#[test]
fn a_database_that_is_gone_for_longer_than_between_folds() {
    lose_the_database_for_long("local");
}

/// After an outage in which all gateways look lost to each other, none is settled by another.
#[test]
fn a_database_that_is_gone_for_so_long_that_gateways_look_lost() {
    lose_the_database_for_long("shared");
}

fn lose_the_database_for_long(journal: &str) {
    let plenty = |text: String| text.replace("credits = 1000\n", "credits = 1000000\n");
    let Some(mut fleet) = Fleet::start(journal, plenty) else { return };
    let spent = std::sync::atomic::AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let addresses: Vec<_> = fleet.gateways.iter().map(|gateway| gateway.public).collect();
    std::thread::scope(|scope| {
        for address in &addresses {
            let (spent, stop) = (&spent, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match crate::support::get(*address, "/one", "x-api-key: good-key\r\n").status {
                        200 => spent.fetch_add(1, Ordering::Relaxed),
                        503 => 0, // what it has leased is spent
                        status => panic!("{status}"),
                    };
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
        let _stop = StopAtEnd(&stop);
        std::thread::sleep(Duration::from_secs(1)); // all have leased credits
        fleet.server.kill();
        std::thread::sleep(Duration::from_secs(14));
        fleet.server.run();
        std::thread::sleep(Duration::from_secs(6));
    });
    for gateway in &fleet.gateways {
        eventually("each serves again without a restart", || {
            let status = crate::support::get(gateway.public, "/one", "x-api-key: good-key\r\n").status;
            spent.fetch_add(usize::from(status == 200), Ordering::Relaxed);
            status == 200
        });
    }
    fleet.restart();
    let left = 1_000_000 - spent.load(Ordering::Relaxed);
    assert_eq!(fleet.gateways[0].available("acme"), left.to_string());
    assert!(fleet.gateways[0].rows(&["ledger", "in-doubt"]).is_empty());
    assert_eq!(fleet.gateways[1].json(&["ledger", "verify"])["found"], 0);
}
