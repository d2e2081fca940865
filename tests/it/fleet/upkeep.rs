//! Refills, expiries and upgrades in a fleet: each happens once, whichever gateway does it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Gateway, get};

use crate::clocks::FakeClock;

use super::Fleet;

const KEY: &str = "x-api-key: good-key\r\n";
/// Longest time that a change may take that a fold does: folds are 5 s apart.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something holds.
fn wait_until(what: &str, mut holds: impl FnMut() -> Result<(), String>) {
    let start = Instant::now();
    while let Err(seen) = holds() {
        assert!(start.elapsed() < PATIENCE, "{what}: {seen}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn equal(seen: &str, wanted: &str) -> Result<(), String> {
    if seen == wanted { Ok(()) } else { Err(format!("{seen} instead of {wanted}")) }
}

/// The sum of an account's entries of a kind, as text.
fn sum(gateway: &Gateway, account: &str, kind: &str) -> String {
    let rows = gateway.rows(&["account", "statement", account]);
    let amounts = rows.iter().filter(|row| row["kind"] == kind).map(|row| row["amount"].to_string());
    let parsed = amounts.map(|amount| amount.parse::<tollgate::types::Credits>().unwrap().millionths());
    tollgate::types::Credits::from_millionths(parsed.sum()).to_string()
}

const DAILY: &str = r#"
[plans.daily]
refill = { credits = 5, every = "day", mode = "add", cap = 12 }
[accounts.filed]
plan = "daily"
"#;

/// Credits that are leased and held at several gateways expire, except what a request in flight holds of them.
#[test]
fn credits_expire_wherever_they_are_leased() {
    let ten = |text: String| text.replace("credits = 1000\n", "credits = 10\n") + DAILY;
    let Some(mut fleet) = Fleet::start("local", ten) else { return };
    let grant = ["account", "grant", "acme", "20", "--reference", "gift", "--expires", "4s"];
    assert!(fleet.gateways[0].cli(&grant).status.success());
    for gateway in fleet.gateways.iter().cycle().take(6) {
        assert_eq!(get(gateway.public, "/one", KEY).status, 200);
    }
    let slow = "x-response-chunks: {|\"c|ost|\":|3|}\r\nx-response-pause: 3000\r\n"; // until after the next fold
    std::thread::scope(|scope| {
        let held = scope.spawn(|| get(fleet.gateways[1].public, "/json", &format!("{KEY}{slow}")));
        // 20 - 6 spent - 10 held.
        wait_until("what is not held expires", || equal(&sum(&fleet.gateways[2], "acme", "expiry"), "-4"));
        assert_eq!(held.join().unwrap().status, 200);
    });
    wait_until("the rest of what was held expires", || {
        equal(&sum(&fleet.gateways[0], "acme", "expiry"), "-11")
    });
    for gateway in &fleet.gateways {
        wait_until("every gateway knows", || equal(&gateway.available("acme"), "10"));
        wait_until("the account is refilled", || equal(&gateway.available("filed"), "5"));
    }
    fleet.restart();
    assert_eq!(sum(&fleet.gateways[1], "filed", "grant"), "5", "once");
    assert_eq!(fleet.gateways[0].json(&["ledger", "verify"])["found"], 0);
}

/// A refill that resets an allowance gives each credit once, also those that it ends.
#[test]
fn a_reset_gives_no_credit_twice() {
    let Some(clock) = FakeClock::new("@2027-03-01 10:00:00") else { return };
    let prefix = clock.prefix();
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    let monthly = |text: String| {
        let plan = "[plans.monthly]\nrefill = { credits = 20, every = \"month\", mode = \"reset\" }\n";
        let text = text.replacen("[accounts.acme]\n", "[accounts.acme]\nplan = \"monthly\"\n", 1);
        text.replace("credits = 1000\n", "credits = 0\n") + plan
    };
    let Some(mut fleet) = Fleet::start_by(&prefix, "local", monthly) else { return };
    let spend = |fleet: &Fleet, at: usize| get(fleet.gateways[at].public, "/one", KEY).status;
    wait_until("the first refill", || equal(&fleet.gateways[0].available("acme"), "20"));
    for at in [0, 1, 2, 1] {
        assert_eq!(spend(&fleet, at), 200);
    }
    clock.set("@2027-04-02 10:00:00");
    wait_until("the next refill", || {
        let granted = sum(&fleet.gateways[0], "acme", "grant");
        equal(&granted, "40")
    });
    let statuses: Vec<u16> = (0..60).map(|number| spend(&fleet, number % 3)).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 20, "{statuses:?}");
    fleet.stop();
}

/// A gateway of a fleet passes its leases and its journal to a new process, and no request fails.
#[test]
fn a_gateway_is_upgraded_under_load() {
    for journal in ["local", "shared"] {
        spend_while(journal, |fleet| fleet.upgrade(1));
    }
}

/// The first gateway that is upgraded migrates the tables, while the others use them. Gateways of this version use tables of a later
/// one that says so.
#[test]
fn the_tables_are_migrated_under_load() {
    let earlier =
        "DROP INDEX limited_keys; DROP INDEX limited_accounts; UPDATE ledger_version SET version = 3";
    let later = "ALTER TABLE accounts ADD COLUMN later BIGINT NOT NULL DEFAULT 1;
                 ALTER TABLE leases ADD COLUMN later TEXT;
                 ALTER TABLE entries ADD COLUMN later TEXT;
                 UPDATE ledger_version SET version = 1000, usable_by = 2";
    spend_while("shared", |fleet| {
        fleet.server.run_sql_in("ledger", earlier);
        (0..3).for_each(|at| fleet.upgrade(at));
        fleet.server.run_sql_in("ledger", later);
        std::thread::sleep(Duration::from_millis(500));
        (0..3).for_each(|at| fleet.upgrade(at));
    });
}

#[test]
fn tables_that_a_newer_version_alone_can_use_are_refused() {
    let Some(fleet) = Fleet::start("shared", |text| text) else { return };
    fleet.server.run_sql_in("ledger", "UPDATE ledger_version SET version = 1000, usable_by = 999");
    let refused = fleet.gateways[0].cli(&["ledger", "migrate"]);
    assert!(!refused.status.success());
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("a newer Tollgate wrote this ledger"), "{told}");
}

impl Fleet {
    fn upgrade(&mut self, at: usize) {
        let next = Gateway::upgrade(&self.gateways[at]);
        let mut old = std::mem::replace(&mut self.gateways[at], next);
        assert_eq!(old.wait(), Some(0));
    }
}

/// Spends credits at all gateways of a fleet, without a request that fails, while something happens. Then the books are exact.
fn spend_while(journal: &str, happens: impl FnOnce(&mut Fleet)) {
    let plenty = |text: String| text.replace("credits = 1000\n", "credits = 100000\n");
    let Some(mut fleet) = Fleet::start(journal, plenty) else { return };
    let (stop, spent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let addresses: Vec<_> = fleet.gateways.iter().map(|gateway| gateway.public).collect();
    std::thread::scope(|scope| {
        for address in &addresses {
            let (stop, spent) = (&stop, &spent);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(get(*address, "/one", KEY).status, 200);
                    spent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        std::thread::sleep(Duration::from_millis(500));
        happens(&mut fleet);
        std::thread::sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Relaxed);
    });
    fleet.restart();
    let left = 100_000 - spent.load(Ordering::Relaxed);
    for gateway in &fleet.gateways {
        assert_eq!(gateway.available("acme"), left.to_string());
    }
    assert_eq!(fleet.gateways[0].rows(&["ledger", "in-doubt"]).len(), 0);
}
