//! Jobs of a fleet: what one gateway held is charged at any of them, once (promises 1, 2, 4 and 5).

use std::sync::Barrier;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Fleet;
use crate::api::{Api, TOKEN};
use crate::billing::examples::{play_at, prepare};
use crate::billing::jobs::{BULK, CALLBACKS, KEY, SECRET, done, open, poll, tell};
use crate::support::{Client, Gateway, eventually, get, sha256};

/// A deadline that a test can wait for, and a plan with a limit of open jobs.
const MORE: &str = r#"
[[routes]]
name = "find"
path = "/find"
methods = ["POST"]
upstream = "api"
hold = 4
opens = { id = "header:x-job", deadline = "8s", at_deadline = "charge" }
[plans.small]
jobs = 2
"#;

pub(super) fn with_jobs(text: &str) -> String {
    let token = format!("[admin]\ntoken_sha256 = \"{}\"\n", sha256(TOKEN));
    text.replace("[admin]\n", &token)
        .replace("[accounts.acme]\n", &format!("{BULK}{CALLBACKS}{MORE}[accounts.acme]\n"))
}

fn start() -> Option<Fleet> {
    Fleet::start("shared", |text| with_jobs(&text))
}

fn find(gateway: &Gateway, job: &str) {
    let headers = format!("{KEY}x-response-header: x-job: {job}\r\n");
    let head = format!("POST /find HTTP/1.1\r\nhost: a\r\n{headers}content-length: 0\r\n\r\n");
    assert_eq!(Client::connect(gateway.public).ask(head).unwrap().status, 200);
}

/// Waits until an account has this much at all gateways.
fn have(gateways: &[Gateway], account: &str, credits: &str) {
    let start = Instant::now();
    for gateway in gateways {
        while gateway.available(account) != credits {
            let has = gateway.available(account);
            assert!(start.elapsed() < Duration::from_secs(30), "{has} instead of {credits}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn jobs_of(gateway: &Gateway) -> Vec<Value> {
    Api::of(gateway).get("/v1/jobs?account=acme&limit=100")["data"].as_array().unwrap().clone()
}

#[test]
fn a_job_is_found_and_charged_at_every_gateway() {
    let Some(fleet) = start() else { return };
    let [a, b, c] = [0, 1, 2].map(|at| &fleet.gateways[at]);
    for job in 0..20 {
        let job = format!("job_{job}");
        assert_eq!(open(a, "good-key", &job, 3).status, 201);
        let ongoing = poll(b, "good-key", &job, &json!({ "status": "ongoing" }));
        assert_eq!(ongoing.status, 200, "{}", ongoing.text()); // the response to the first request waited for the fleet
    }
    have(&fleet.gateways, "acme", "940");
    for job in 0..20 {
        let job = format!("job_{job}");
        assert_eq!(poll([b, c][job.len() % 2], "good-key", &job, &done("1.5")).status, 200);
        assert_eq!(poll(a, "good-key", &job, &done("1")).status, 200, "results can be fetched again");
    }
    assert_eq!(poll(c, "good-key", "job_none", &done("1")).status, 404);
    eventually("all are charged", || {
        let jobs = jobs_of(a);
        jobs.len() == 20 && jobs.iter().all(|job| job["charged"] == json!(1.5))
    });
    have(&fleet.gateways, "acme", "970");
    assert_eq!(b.json(&["ledger", "verify"])["found"], 0);
}

/// A job that all gateways are asked about at once is charged once; so is one that the upstream named twice.
#[test]
fn a_job_is_charged_once_whoever_asks() {
    let Some(mut fleet) = start() else { return };
    let start = Barrier::new(2 * 3);
    for round in 0..10 {
        let job = format!("job_{round}");
        assert_eq!(open(&fleet.gateways[round % 3], "good-key", &job, 5).status, 201);
        if round == 9 {
            assert_eq!(open(&fleet.gateways[(round + 1) % 3], "good-key", &job, 5).status, 201);
        }
        std::thread::scope(|scope| {
            for gateway in fleet.gateways.iter().flat_map(|gateway| [gateway, gateway]) {
                let (job, start) = (&job, &start);
                scope.spawn(move || {
                    start.wait();
                    assert_eq!(poll(gateway, "good-key", job, &done("2")).status, 200);
                });
            }
        });
    }
    have(&fleet.gateways, "acme", "980");
    fleet.restart();
    have(&fleet.gateways, "acme", "980");
    assert_eq!(fleet.gateways[0].json(&["ledger", "verify"])["found"], 0);
}

/// A gateway that is lost takes no job with it: it can be settled at once, and at its deadline.
#[test]
fn jobs_outlive_the_gateway_that_opened_them() {
    let Some(mut fleet) = start() else { return };
    for job in ["x", "y"] {
        find(&fleet.gateways[0], job);
    }
    find(&fleet.gateways[1], "x"); // the upstream names it twice: it is charged once
    assert_eq!(open(&fleet.gateways[0], "good-key", "job_1", 5).status, 201);
    let opened = Instant::now();
    drop(fleet.gateways.remove(0).crash());
    assert_eq!(poll(&fleet.gateways[0], "good-key", "job_1", &done("2")).status, 200);
    assert!(opened.elapsed() < Duration::from_secs(4), "{:?}", opened.elapsed());
    // 1000 less 2, and less 8 at the deadline, once what the lost gateway had leased has returned.
    loop {
        let jobs = jobs_of(&fleet.gateways[1]);
        if jobs.len() == 4 && jobs.iter().all(|job| job["state"] == json!("settled")) {
            break;
        }
        assert!(opened.elapsed() < Duration::from_secs(40), "{jobs:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    have(&fleet.gateways, "acme", "990");
    assert_eq!(fleet.gateways[0].json(&["ledger", "verify"])["found"], 0);
}

#[test]
fn upstreams_and_operators_settle_at_every_gateway() {
    let Some(fleet) = start() else { return };
    let [a, b, c] = [0, 1, 2].map(|at| &fleet.gateways[at]);
    let call = |gateway: &Gateway, job: &str| {
        let body = format!(r#"{{"id":"{job}","status":"completed","credits":{{"cost":2}}}}"#);
        tell(gateway, &body, 0, SECRET)
    };
    open(a, "good-key", "one", 3);
    open(a, "good-key", "two", 3);
    assert_eq!(call(b, "one").text(), r#"{"settled":true}"#);
    assert_eq!(call(c, "one").text(), r#"{"settled":false}"#);
    assert_eq!(call(c, "none").status, 404);
    let settle = |gateway: &Gateway, credits: u32| {
        let body = json!({ "credits": credits });
        Api::of(gateway).send("POST", "/v1/jobs/api:two/settle", "", Some(&body)).json()
    };
    let settled = settle(c, 1);
    assert_eq!(settled["charged"], json!(1), "{settled}");
    eventually("it is known everywhere", || settle(b, 3)["repeated"] == json!(true));
    assert_eq!(settle(b, 3)["charged"], json!(1));
    have(&fleet.gateways, "acme", "997");
}

/// A plan's limit of open jobs counts those of all gateways, once they know of each other's.
#[test]
fn open_jobs_count_over_the_fleet() {
    let small =
        |text: String| with_jobs(&text).replace("credits = 1000\n", "plan = \"small\"\ncredits = 1000\n");
    let Some(fleet) = Fleet::start("shared", small) else { return };
    let [a, b, _] = [0, 1, 2].map(|at| &fleet.gateways[at]);
    assert_eq!(get(b.public, "/one", KEY).status, 200); // it has leased credits
    for job in ["a", "b"] {
        assert_eq!(open(a, "good-key", job, 1).status, 201);
    }
    assert_eq!(open(a, "good-key", "c", 1).status, 429);
    let mut opened = vec![];
    eventually("the other one knows", || {
        let name = format!("d{}", opened.len());
        let refused = open(b, "good-key", &name, 1).status == 429;
        opened.extend((!refused).then_some(name));
        refused
    });
    for job in opened.iter().map(String::as_str).chain(["a", "b"]) {
        assert_eq!(poll(b, "good-key", job, &done("1")).status, 200);
    }
    eventually("there is room again", || open(a, "good-key", "e", 1).status == 201);
}

/// Jobs stay when a gateway that was alone becomes one of a fleet, and the reverse.
#[test]
fn jobs_move_between_one_gateway_and_a_fleet() {
    let Some((_server, text)) = super::ledger("journal = \"shared\"\n") else { return };
    let (alone, upstream) = (with_jobs(&text), crate::support::Upstream::start());
    let gateway = Gateway::start(&alone, &upstream);
    for job in ["one", "two", "three"] {
        assert_eq!(open(&gateway, "good-key", job, 5).status, 201);
    }
    let (code, folder) = gateway.stop();
    assert_eq!(code, Some(0));
    let named = std::fs::read_to_string(folder.path().join("config.toml")).unwrap();
    let named = named.replace("journal = \"shared\"\n", "node = \"a\"\njournal = \"shared\"\n");
    let unnamed = std::fs::read_to_string(folder.path().join("config.toml")).unwrap();
    std::fs::write(folder.path().join("config.toml"), named).unwrap();
    let gateway = Gateway::start_in(folder);
    assert_eq!(gateway.available("acme"), "985");
    assert_eq!(poll(&gateway, "good-key", "one", &done("2")).status, 200);
    have(std::slice::from_ref(&gateway), "acme", "988");
    let (code, folder) = gateway.stop();
    assert_eq!(code, Some(0));
    std::fs::write(folder.path().join("config.toml"), unnamed).unwrap();
    let gateway = Gateway::start_in(folder);
    assert_eq!(gateway.available("acme"), "988");
    assert_eq!(poll(&gateway, "good-key", "two", &done("1")).status, 200);
    assert_eq!(gateway.available("acme"), "992");
    assert_eq!(gateway.json(&["ledger", "verify"])["found"], 0);
}

/// Both systems that the examples show cost in a fleet what they cost at one gateway, with jobs asked about at another one.
#[test]
fn examples_are_billed_in_a_fleet_as_their_documents_say() {
    for example in ["enrow", "apione"] {
        let Some((_server, settings)) = super::ledger("node = \"NAME\"\njournal = \"shared\"\n") else {
            return;
        };
        let url = settings.lines().find(|line| line.starts_with("url = ")).unwrap();
        let ledger = format!("{url}\nnode = \"NAME\"\njournal = \"shared\"");
        let (text, upstream) = prepare(example);
        let text = text.replace(&format!("url = \"sqlite:{example}.db\""), &ledger);
        assert!(text.contains("NAME"), "{text}");
        let gateways = ["a", "b"].map(|name| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("config.toml"), text.replace("NAME", name)).unwrap();
            Gateway::start_in(std::sync::Arc::new(folder))
        });
        play_at(example, &gateways[0], &gateways[1]);
        drop(upstream);
    }
}
