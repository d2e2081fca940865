//! Tests that jobs survive kills, stops, reloads and upgrades: each is settled exactly once (promises 2 and 4).
//! `TOLLGATE_LONG` selects the long runs.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::jobs::{KEY, config, done, open, poll};
use crate::api::Api;
use crate::support::{Client, Gateway, Upstream};

/// Jobs that are opened, polled and settled while the gateway is killed, stopped and replaced: each is settled once.
#[test]
fn jobs_survive_kills_stops_and_upgrades() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(&config(), &upstream);
    let rounds = if std::env::var_os("TOLLGATE_LONG").is_some() { 100 } else { 6 };
    let (mut opened, mut spent) = (0_u64, 0_u64);
    for round in 0..rounds {
        for _ in 0..20 {
            opened += 1;
            assert_eq!(open(&gateway, "good-key", &format!("job_{opened}"), 2).status, 201);
        }
        let slow = std::thread::scope(|scope| {
            // A request whose response comes while the gateway is replaced.
            let address = gateway.public;
            let slow = (round % 3 == 2).then(|| {
                scope.spawn(move || {
                    let head = format!(
                        "POST /bulk HTTP/1.1\r\nhost: a\r\n{KEY}x-response-delay: 700\r\ncontent-length: 15\r\n\
                         x-response-body: {{\"id\":\"slow_{round}\"}}\r\n\r\n{{\"records\":[1]}}"
                    );
                    assert_eq!(Client::connect(address).ask(head).unwrap().status, 200);
                })
            });
            // Half of the open jobs end, some of them twice.
            for job in (opened - 19..=opened).filter(|job| job % 2 == 0) {
                spent += 1;
                poll(&gateway, "good-key", &format!("job_{job}"), &done("1"));
                poll(&gateway, "good-key", &format!("job_{job}"), &done("2"));
            }
            if slow.is_some() {
                std::thread::sleep(Duration::from_millis(200));
                let mut next = Gateway::upgrade(&gateway);
                std::mem::swap(&mut gateway, &mut next);
                assert_eq!(next.wait(), Some(0));
            }
            slow.is_some()
        });
        if slow {
            assert_eq!(poll(&gateway, "good-key", &format!("slow_{round}"), &done("1")).status, 200);
            spent += 1;
            continue;
        }
        let folder: Arc<tempfile::TempDir> = if round % 3 == 0 { gateway.crash() } else { gateway.stop().1 };
        gateway = Gateway::start_in(folder);
    }
    assert_eq!(gateway.rows(&["ledger", "in-doubt"]).len(), 0);
    for job in (1..=opened).filter(|job| job % 2 == 1) {
        spent += 1;
        poll(&gateway, "good-key", &format!("job_{job}"), &done("1"));
    }
    assert_eq!(gateway.available("acme"), (1000 - spent).to_string());
    assert_eq!(gateway.json(&["ledger", "verify"])["differences"], json!([]));
    let page = Api::of(&gateway).get("/v1/jobs?limit=1000");
    assert!(
        page["data"].as_array().unwrap().iter().all(|job| job["state"] == "settled" && job["charged"] == 1)
    );
}

/// Many jobs that are open at the same time, through kills and reloads: each is settled once, by a poll, by an operator, by
/// the upstream's callback, or at its deadline. `TOLLGATE_LONG` opens 10,000 and kills the gateway 100 times.
#[test]
fn many_open_jobs_are_each_settled_once() {
    let is_long = std::env::var_os("TOLLGATE_LONG").is_some();
    let (count, kills) = if is_long { (10_000_usize, 100_usize) } else { (400, 4) };
    let upstream = Upstream::start();
    let text = config().replacen("credits = 1000\n", "credits = 1000000\n", 1);
    let mut gateway = Gateway::start(&text, &upstream);
    std::thread::scope(|scope| {
        for part in 0..8 {
            let address = gateway.public;
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for job in (part..count).step_by(8) {
                    let head = format!(
                        "POST /bulk HTTP/1.1\r\nhost: a\r\n{KEY}x-response-body: {{\"id\":\"many_{job}\"}}\r\n\
                         content-length: 17\r\n\r\n{{\"records\":[1,1]}}"
                    );
                    assert_eq!(client.ask(head).unwrap().status, 200);
                }
            });
        }
    });
    assert_eq!(gateway.available("acme"), (1_000_000 - 2 * count).to_string());
    let (mut settled, mut spent) = (0, 0);
    for kill in 0..kills {
        if kill % 2 == 0 {
            gateway.write_config(&format!("{}\n# {kill}\n", gateway.config()));
            gateway.cli(&["reload"]);
        }
        let upto = count * (kill + 1) / (kills + 1);
        let api = Api::of(&gateway);
        for job in settled..upto {
            let name = format!("many_{job}");
            let by = if job % 7 == 0 { 2 } else { 1 };
            spent += by;
            match by {
                2 => {
                    let body = json!({ "credits": 2, "account": "acme" });
                    assert_eq!(
                        api.send("POST", &format!("/v1/jobs/api:{name}/settle"), "", Some(&body)).status,
                        200
                    );
                    poll(&gateway, "good-key", &name, &done("1"));
                }
                _ => {
                    poll(&gateway, "good-key", &name, &done("1"));
                    poll(&gateway, "good-key", &name, &done("0"));
                }
            }
        }
        settled = upto;
        gateway = Gateway::start_in(gateway.crash());
        assert_eq!(gateway.available("acme"), (1_000_000 - spent - 2 * (count - settled)).to_string());
    }
    assert_eq!(gateway.rows(&["ledger", "in-doubt"]).len(), 0);
    assert_eq!(gateway.json(&["ledger", "verify"])["differences"], json!([]));
    let (mut open, mut listed, mut cursor) = (0, 0, String::new());
    loop {
        let page = Api::of(&gateway).get(&format!("/v1/jobs?account=acme&limit=1000{cursor}"));
        let rows = page["data"].as_array().unwrap();
        open += rows.iter().filter(|job| job["state"] == "open").count();
        listed += rows.iter().filter(|job| job["state"] == "settled").count();
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!((open, listed), (count - settled, settled));
}
