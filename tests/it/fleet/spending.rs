//! Spending limits over a fleet: its gateways together spend no more than a key, a group or an account may (promises 1 and 2).

use std::sync::Barrier;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Fleet;
use super::jobs::with_jobs;
use crate::api::Api;
use crate::billing::jobs::{done, open, poll};
use crate::billing::spending::spend;
use crate::clocks::FakeClock;
use crate::support::{Gateway, eventually, get};

const PLANS: &str = "[plans.capped]\nspend_limit = { credits = 9, every = \"day\" }\n";

fn change(text: &str) -> String {
    with_jobs(text).replace("[plans.small]\n", &format!("{PLANS}[plans.small]\n"))
}

/// Creates a key of `acme` at the first gateway. Returns it, and its id, once all gateways know it.
fn key(fleet: &Fleet, more: &Value) -> (String, String) {
    let mut body = json!({ "label": "k" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let made = Api::of(&fleet.gateways[0]).post("/v1/accounts/acme/keys", body);
    let (key, id) = (made["key"].as_str().unwrap().to_owned(), made["id"].as_str().unwrap().to_owned());
    for gateway in &fleet.gateways {
        eventually("the key is known", || {
            get(gateway.public, "/free/x", &format!("x-api-key: {key}\r\n")).status == 200
        });
    }
    (key, id)
}

/// Asks all gateways at once, each so many times. Returns how many requests were charged.
fn spend_at_all(gateways: &[Gateway], key: &str, each: usize) -> usize {
    let start = Barrier::new(gateways.len());
    std::thread::scope(|scope| {
        let asked = gateways.iter().map(|gateway| {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                let one = || get(gateway.public, "/one", &format!("x-api-key: {key}\r\n")).status;
                (0..each).filter(|_| one() == 200).count()
            })
        });
        let asked: Vec<_> = asked.collect();
        asked.into_iter().map(|gateway| gateway.join().unwrap()).sum()
    })
}

/// Spends what there is to spend: what one gateway has leased may be called in by another meanwhile.
fn spend_all(gateways: &[Gateway], key: &str) -> usize {
    let mut charged = 0;
    for gateway in gateways {
        charged += spend(gateway, key).0;
    }
    charged
}

#[test]
fn limits_of_keys_groups_and_accounts_hold_over_the_fleet() {
    let Some(mut fleet) = Fleet::start("shared", |text| change(&text)) else { return };
    let api = Api::of(&fleet.gateways[0]);
    let group = json!({ "spend_limit": 12 });
    api.ok("PUT", "/v1/accounts/acme/groups/team", Some(&group));
    let (capped, id) = key(&fleet, &json!({ "spend_limit": 10 }));
    let (one, _) = key(&fleet, &json!({ "group": "team" }));
    let (two, _) = key(&fleet, &json!({ "group": "team", "spend_limit": 4 }));
    assert_eq!(spend_at_all(&fleet.gateways, &capped, 12), 10);
    let (charged, refusal) = spend(&fleet.gateways[1], &capped);
    assert!(charged == 0 && refusal.contains("API key's spending limit"), "{refusal}");
    assert_eq!(spend_at_all(&fleet.gateways, &two, 5), 4);
    assert_eq!(spend_at_all(&fleet.gateways, &one, 10), 8);
    // A higher limit is in force everywhere; a restart renews none, neither does a crash.
    let limit = json!({ "spend_limit": 13 });
    api.ok("PATCH", &format!("/v1/keys/{id}"), Some(&limit));
    assert_eq!(spend_all(&fleet.gateways, &capped), 3);
    fleet.restart();
    let folder = fleet.gateways.remove(1).crash();
    fleet.gateways.insert(1, Gateway::start_in(folder));
    for key in [&capped, &one, &two] {
        assert_eq!(spend_all(&fleet.gateways, key), 0);
    }
    // A lower one, too, although gateways had leased more.
    let (free, id) = key(&fleet, &json!({ "spend_limit": 1000 }));
    for gateway in &fleet.gateways {
        assert_eq!(spend(gateway, &free).0, 20);
    }
    let api = Api::of(&fleet.gateways[2]);
    api.ok("PATCH", &format!("/v1/keys/{id}"), Some(&json!({ "spend_limit": 50 })));
    eventually("the lower limit is in force", || spend_all(&fleet.gateways, &free) == 0);
    // So far, each request cost a credit.
    let key = Api::of(&fleet.gateways[0]).get(&format!("/v1/keys/{id}"));
    assert!(key["spent"].as_u64().unwrap() <= 80, "{key}");
    assert_eq!(fleet.gateways[0].json(&["ledger", "verify"])["found"], 0);
}

/// A limit that is set on a key, or on a group that it is put in, counts what was charged elsewhere before, once.
#[test]
fn a_limit_that_is_set_later_counts_what_all_gateways_charged() {
    let Some(fleet) = Fleet::start("shared", |text| change(&text)) else { return };
    let api = Api::of(&fleet.gateways[0]);
    let (free, id) = key(&fleet, &json!({}));
    for gateway in &fleet.gateways[1..] {
        assert_eq!(spend(gateway, &free).0, 20);
    }
    let path = format!("/v1/keys/{id}");
    api.ok("PATCH", &path, Some(&json!({ "spend_limit": 45 })));
    std::thread::sleep(Duration::from_secs(1)); // until all gateways know
    let start = Instant::now();
    let mut charged = 40;
    while charged < 45 {
        charged += spend_all(&fleet.gateways, &free);
        assert!(start.elapsed() < Duration::from_secs(20), "{charged} of 45");
    }
    assert_eq!((charged, spend_all(&fleet.gateways, &free)), (45, 0));
    // Without a limit, and with one again.
    api.ok("PATCH", &path, Some(&json!({ "spend_limit": null })));
    eventually("no limit", || fleet.gateways.iter().all(|gateway| spend(gateway, &free).0 == 20));
    let spent = || api.get(&path)["spent"].as_u64().unwrap();
    eventually("all is folded", || spent() >= 105);
    std::thread::sleep(Duration::from_secs(6));
    let limit = spent() + 4;
    api.ok("PATCH", &path, Some(&json!({ "spend_limit": limit })));
    std::thread::sleep(Duration::from_secs(1));
    let mut charged = 0;
    let start = Instant::now();
    while charged < 4 {
        charged += spend_all(&fleet.gateways, &free);
        assert!(start.elapsed() < Duration::from_secs(20), "{charged} of 4");
    }
    assert_eq!((charged, spend_all(&fleet.gateways, &free)), (4, 0));
}

/// What open jobs hold counts against the limits at every gateway, and then what they cost.
#[test]
fn jobs_count_against_limits_over_the_fleet() {
    let Some(fleet) = Fleet::start("shared", |text| change(&text)) else { return };
    let [a, b, c] = [0, 1, 2].map(|at| &fleet.gateways[at]);
    let (capped, _) = key(&fleet, &json!({ "spend_limit": 10 }));
    assert_eq!(open(a, &capped, "job", 7).status, 201);
    assert_eq!(spend(b, &capped).0, 3);
    assert_eq!(poll(c, &capped, "job", &done("2")).status, 200);
    let start = Instant::now();
    let mut charged = 0;
    while charged < 5 {
        charged += spend_all(&fleet.gateways[..2], &capped);
        assert!(start.elapsed() < Duration::from_secs(15), "{charged} of 5");
    }
    assert_eq!((charged, spend_all(&fleet.gateways, &capped)), (5, 0));
}

/// A plan's limit in each day is renewed once for all, by the gateway that leads.
#[test]
fn periods_begin_for_the_whole_fleet() {
    let Some(clock) = FakeClock::new("@2027-03-30 10:00:00") else { return };
    let prefix = clock.prefix();
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    let plan =
        |text: String| change(&text).replace("credits = 1000\n", "plan = \"capped\"\ncredits = 1000\n");
    let Some(fleet) = Fleet::start_by(&prefix, "shared", plan) else { return };
    assert_eq!(spend_at_all(&fleet.gateways, "good-key", 6), 9);
    clock.set("@2027-03-31 00:00:01");
    let start = Instant::now();
    let mut charged = 0;
    while charged < 9 {
        charged += spend_at_all(&fleet.gateways, "good-key", 4);
        assert!(start.elapsed() < Duration::from_secs(30), "{charged} of 9");
    }
    assert_eq!((charged, spend_all(&fleet.gateways, "good-key")), (9, 0));
    assert_eq!(Api::of(&fleet.gateways[0]).get("/v1/accounts/acme")["spend_limit"]["credits"], json!(9));
}
