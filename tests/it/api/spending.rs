//! Tests what keys may spend, and which of them nobody uses.

use serde_json::{Value, json};

use super::{Api, admin_config};
use crate::support::{Gateway, Upstream, eventually, get};

fn with_key(key: &str) -> String {
    format!("x-api-key: {key}\r\n")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// A key spends at most its limit, exactly, whatever its account has: across crashes, changes and rotations too.
#[test]
fn a_key_spends_at_most_its_limit() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&admin_config(""), &upstream);
    let api = Api::of(&gateway);
    api.post("/v1/accounts", json!({ "id": "beta", "credits": 1000 }));
    let made = api.post("/v1/accounts/beta/keys", json!({ "label": "capped", "spend_limit": "3.5" }));
    let (path, key) = (format!("/v1/keys/{}", text(&made["id"])), text(&made["key"]));
    let other = text(&api.post("/v1/accounts/beta/keys", json!({ "label": "free" }))["key"]);
    let spend = |gateway: &Gateway, key: &str, times: usize| -> usize {
        let ok = |_: &usize| match get(gateway.public, "/one", &with_key(key)).status {
            200 => true,
            402 => false,
            other => panic!("{other}"),
        };
        (0..times).filter(ok).count()
    };
    let refused = || get(gateway.public, "/header", &with_key(&key)).text();
    assert!(refused().contains("spending limit is reached"), "a hold of 10 is above it: {}", refused());
    assert_eq!((spend(&gateway, &key, 5), spend(&gateway, &other, 5)), (3, 5));
    let explained = api.post("/v1/explain", json!({ "key": made["id"], "method": "GET", "url": "/one" }));
    assert_eq!(explained["reason"], "insufficient_credits");
    assert!(explained["steps"].to_string().contains("spend_limit"), "{explained}");
    api.ok("PATCH", &path, Some(&json!({ "spend_limit": "5.5" })));
    let charge =
        |credits: &str, reference: &str| json!({ "key": key, "credits": credits, "reference": reference });
    assert_eq!(api.ok("POST", "/v1/charge", Some(&charge("0.5", "a")))["repeated"], false);
    assert_eq!(api.ok("POST", "/v1/charge", Some(&charge("0.5", "a")))["repeated"], true);
    assert!(api.fails("POST", "/v1/charge", Some(&charge("2.5", "b"))).1.contains("insufficient"));
    let rotated = text(&api.ok("POST", &format!("{path}/rotate"), None)["key"]);
    assert_eq!(spend(&gateway, &rotated, 1), 1);
    let gateway = Gateway::start_in(gateway.crash());
    let api = Api::of(&gateway);
    assert_eq!(spend(&gateway, &rotated, 5), 1, "what was spent before the crash counts");
    eventually("what it has spent", || api.get(&path)["spent"] == json!(5.5));
    assert_eq!(api.ok("PATCH", &path, Some(&json!({ "spend_limit": null })))["spend_limit"], Value::Null);
    assert_eq!(spend(&gateway, &rotated, 3), 3);
    api.ok("PATCH", &path, Some(&json!({ "spend_limit": "10.5" })));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (public, key) = (gateway.public, with_key(&rotated));
            std::thread::spawn(move || (0..5).filter(|_| get(public, "/one", &key).status == 200).count())
        })
        .collect();
    let spent: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(spent, 2, "under concurrency");
    let refused = api.fails("PATCH", &path, Some(&json!({ "spend_limit": -1 })));
    assert_eq!(refused.0, 422);
}

/// Keys that nobody uses are listed.
#[test]
fn idle_keys_are_listed() {
    let gateway = Gateway::start(&admin_config(""), &Upstream::start());
    let api = Api::of(&gateway);
    let made = api.post("/v1/accounts/acme/keys", json!({ "label": "idle" }));
    let idle = |time: &str| {
        let list = api.get(&format!("/v1/accounts/acme/keys?idle={time}"));
        list["data"].as_array().unwrap().iter().map(|key| text(&key["label"])).collect::<Vec<_>>()
    };
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!((idle("100ms"), idle("1d")), (vec!["good".to_owned(), "idle".to_owned()], vec![]));
    get(gateway.public, "/one", &with_key(&text(&made["key"])));
    eventually("it was used", || !api.get(&format!("/v1/keys/{}", text(&made["id"])))["last_used"].is_null());
    assert!(idle("100ms").contains(&"good".to_owned()) && !idle("1m").contains(&"idle".to_owned()));
    assert_eq!(api.send("GET", "/v1/keys?idle=soon", "", None).status, 422);
    let table = String::from_utf8(gateway.cli(&["key", "list", "--idle", "100ms"]).stdout).unwrap();
    assert!(table.contains("LAST_USED") && table.contains("good"), "{table}");
}
