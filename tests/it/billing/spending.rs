//! Tests spending limits of keys and accounts, in all and in each period (promises 1 and 2).

use serde_json::json;

use super::jobs::{BULK, open, poll};
use crate::api::{Api, admin_config};
use crate::clocks::FakeClock;
use crate::support::{Gateway, Upstream, eventually, get, sha256};

const PLANS: &str = r#"
[plans.capped]
spend_limit = { credits = 5, every = "day" }
[accounts.filed]
plan = "capped"
credits = 1000
spend_limit = { credits = 3, every = "month" }
"#;

fn config() -> String {
    let key = format!("[[accounts.filed.keys]]\nlabel = \"k\"\nsha256 = \"{}\"\n", sha256("filed-key"));
    admin_config(&format!("{BULK}{PLANS}{key}"))
}

/// Sends requests of 1 credit until one is refused, at most 20. Returns how many were charged, and the refusal.
pub fn spend(gateway: &Gateway, key: &str) -> (usize, String) {
    for charged in 0..20 {
        let response = get(gateway.public, "/one", &format!("x-api-key: {key}\r\n"));
        if response.status == 402 {
            return (charged, response.text());
        }
        let told = response.text();
        assert_eq!(
            response.charged(),
            Some("1"),
            "{told} {:?}",
            gateway.lines().iter().rev().take(3).collect::<Vec<_>>()
        );
    }
    (20, String::new())
}

#[test]
fn limits_of_keys_and_accounts_hold_in_each_period() {
    let Some(clock) = FakeClock::new("@2027-03-30 10:00:00") else { return };
    let (prefix, upstream) = (clock.prefix(), Upstream::start());
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    let gateway = Gateway::start_by(&prefix, &config(), &upstream);
    let api = Api::of(&gateway);
    api.post("/v1/accounts", json!({ "id": "ada", "plan": "capped", "credits": 1000 }));
    let key = |limit| api.post("/v1/accounts/ada/keys", json!({ "label": "k", "spend_limit": limit }));
    let text = |key: &serde_json::Value| key["key"].as_str().unwrap().to_owned();
    let hourly = key(json!({ "credits": 2, "every": "hour" }));
    let (free, in_all) = (key(json!(null)), key(json!(4)));
    let hourly_key = text(&hourly);
    let (charged, refusal) = spend(&gateway, &hourly_key);
    assert!(charged == 2 && refusal.contains("API key's spending limit"), "{charged} {refusal}");
    let (charged, refusal) = spend(&gateway, &text(&free));
    assert!(charged == 3 && refusal.contains("account's spending limit"), "{charged} {refusal}");
    assert_eq!(spend(&gateway, "filed-key").0, 3, "the file's own limit is in place of the plan's");
    // Neither a crash nor a clock that is set back refills a limit.
    let gateway = Gateway::restart_by(&prefix, gateway.crash());
    clock.set("@2027-03-30 09:30:00");
    std::thread::sleep(std::time::Duration::from_secs(6));
    for key in [&hourly_key, &text(&free), "filed-key"] {
        assert_eq!(spend(&gateway, key).0, 0);
    }
    let api = Api::of(&gateway);
    let account = api.get("/v1/accounts/ada");
    assert_eq!(
        (&account["spend_limit"], &account["spent_in_period"]),
        (&json!({ "credits": 5, "every": "day" }), &json!(5))
    );
    // The next hour: the key may spend again, its account may not. The next day: both.
    clock.set("@2027-03-30 11:00:01");
    let path = format!("/v1/keys/{}", hourly["id"].as_str().unwrap());
    eventually("the next hour", || api.get(&path)["spent_in_period"] == json!(0));
    assert_eq!(api.get(&path)["spent"], 2);
    let (charged, refusal) = spend(&gateway, &hourly_key);
    assert!(charged == 0 && refusal.contains("account's spending limit"), "{charged} {refusal}");
    let (_, folder) = gateway.stop();
    clock.set("@2027-03-31 00:00:01");
    let gateway = Gateway::restart_by(&prefix, folder);
    eventually("the next day", || Api::of(&gateway).get("/v1/accounts/ada")["spent_in_period"] == json!(0));
    assert_eq!(spend(&gateway, &hourly_key).0, 2);
    assert_eq!(spend(&gateway, &text(&in_all)).0, 3);
    assert_eq!(spend(&gateway, "filed-key").0, 0, "the month is not over");
    clock.set("@2027-04-01 00:00:01");
    eventually("the next month", || {
        Api::of(&gateway).get("/v1/accounts/filed")["spent_in_period"] == json!(0)
    });
    assert_eq!(spend(&gateway, "filed-key").0, 3);
    assert_eq!(spend(&gateway, &text(&in_all)).0, 1, "a limit in all is not renewed");
    let told = gateway.cli(&["explain", "--key-id", hourly["id"].as_str().unwrap(), "GET", "/one"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("account_spend_limit"), "{told}");
    assert_eq!(gateway.json(&["ledger", "verify"])["differences"], json!([]));
}

/// A job counts against the limits while it is open, and then with what it cost.
#[test]
fn open_jobs_count_against_limits() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(), &upstream);
    let api = Api::of(&gateway);
    api.post("/v1/accounts", json!({ "id": "ada", "plan": "capped", "credits": 1000 }));
    let key = api.post("/v1/accounts/ada/keys", json!({ "label": "k" }))["key"].as_str().unwrap().to_owned();
    assert_eq!(open(&gateway, &key, "job", 4).status, 201);
    assert_eq!(spend(&gateway, &key).0, 1);
    let gateway = Gateway::start_in(gateway.crash());
    assert_eq!(spend(&gateway, &key).0, 0);
    let done = json!({ "status": "completed", "stats": { "credits_cost": { "final": 1 } } });
    assert_eq!(poll(&gateway, &key, "job", &done).status, 200);
    assert_eq!(spend(&gateway, &key).0, 3);
}

#[test]
fn limits_change_with_the_plan_and_the_file() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(), &upstream);
    let api = Api::of(&gateway);
    api.post("/v1/accounts", json!({ "id": "ada", "credits": 1000 }));
    let key = api.post("/v1/accounts/ada/keys", json!({ "label": "k" }))["key"].as_str().unwrap().to_owned();
    assert_eq!(spend(&gateway, &key).0, 20, "no plan, no limit");
    api.ok("PATCH", "/v1/accounts/ada", Some(&json!({ "plan": "capped" })));
    assert_eq!(spend(&gateway, &key).0, 5, "another period begins with the limit");
    let text = gateway.config();
    let reload = |text: &str| {
        gateway.write_config(text);
        assert!(gateway.cli(&["reload"]).status.success());
    };
    reload(&text.replace("spend_limit = { credits = 5,", "spend_limit = { credits = 7,"));
    assert_eq!(spend(&gateway, &key).0, 2);
    reload(&text.replace("spend_limit = { credits = 5, every = \"day\" }", ""));
    assert_eq!(spend(&gateway, &key).0, 20);
    for (limit, says) in [
        ("{ credits = 5, every = \"fortnight\" }", "there is no period `fortnight`"),
        ("{ credits = -5, every = \"day\" }", "an amount of credits is not negative"),
        ("{ every = \"day\" }", "credits"),
    ] {
        gateway.write_config(&text.replace("{ credits = 5, every = \"day\" }", limit));
        let output = gateway.cli(&["check"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(says), "{limit}: {told}");
    }
    let response = api.send(
        "POST",
        "/v1/accounts/ada/keys",
        "",
        Some(&json!({ "label": "k", "spend_limit": { "credits": 1, "every": "fortnight" } })),
    );
    assert!(
        response.status >= 400 && response.text().contains("hour, day, week, month or year"),
        "{}",
        response.text()
    );
}
