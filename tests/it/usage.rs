//! Tests usage: its credits are those of the ledger's entries, its requests those that clients sent and the upstream
//! received; keys know when they were last used, and accounts why requests were refused.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::api::{Api, admin_config};
use crate::support::{Gateway, Upstream, eventually, get, post};

fn millionths(value: &Value) -> i64 {
    value.to_string().parse::<tollgate::types::Credits>().unwrap().millionths()
}

/// Requests and credits by minute, route and outcome.
type Sums = BTreeMap<(String, String, String), i64>;

/// Requests by minute, route and outcome, and credits by minute and route, according to the entries of an account.
fn of_entries(gateway: &Gateway, account: &str) -> (Sums, i64) {
    let (mut sums, mut total) = (Sums::new(), 0);
    for entry in gateway.rows(&["account", "statement", account]) {
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let kind = text("kind");
        let (at, route) = (text("at")[..16].to_owned(), text("route"));
        let outcome = match &*kind {
            "charge" | "release" => text("outcome"),
            "in_doubt" | "given_back" => kind.clone(),
            _ => continue,
        };
        let requests = if kind == "given_back" { 0 } else { entry["requests"].as_i64().unwrap() };
        *sums.entry((at.clone(), route.clone(), outcome)).or_default() += requests;
        *sums.entry((at, route, "credits".to_owned())).or_default() -= millionths(&entry["amount"]);
        total -= millionths(&entry["amount"]);
    }
    sums.retain(|_, sum| *sum != 0);
    (sums, total)
}

/// Checks that the usage of an account is what its entries say, in every minute, for all routes on which requests hold
/// credits. Returns the credits.
pub fn equals_the_entries(gateway: &Gateway, account: &str) -> i64 {
    let rows =
        gateway.rows(&["usage", "--account", account, "--step", "minute", "--by", "route", "--from", "12h"]);
    let (entries, total) = of_entries(gateway, account);
    let mut sums = Sums::new();
    for row in &rows {
        let at = row["at"].as_str().unwrap()[..16].to_owned();
        let route = row["of"].as_str().unwrap_or_default().to_owned();
        for (outcome, requests) in row["outcomes"].as_object().unwrap() {
            if matches!(&**outcome, "2xx" | "3xx" | "4xx" | "5xx" | "none" | "in_doubt") {
                let id = (at.clone(), route.clone(), outcome.clone());
                *sums.entry(id).or_default() += requests.as_i64().unwrap();
            }
        }
        let id = (at, route, "credits".to_owned());
        *sums.entry(id).or_default() += millionths(&row["credits"]);
    }
    sums.retain(|(_, route, _), sum| *sum != 0 && !matches!(&**route, "free" | "open"));
    assert_eq!(sums, entries);
    let whole = gateway.rows(&["usage", "--account", account, "--step", "all", "--from", "12h"]);
    assert_eq!(whole.iter().map(|row| millionths(&row["credits"])).sum::<i64>(), total);
    total
}

const KEY: &str = "x-api-key: good-key\r\n";

/// Every request is counted once, with its account, key, route and outcome; bytes and durations too.
#[test]
fn every_request_is_counted_once() {
    let upstream = Upstream::start();
    let limits = "[accounts.few]\nplan = \"few\"\ncredits = 10\n[plans.few]\n\
                  limits = [{ name = \"m\", requests = 2, window = \"1h\" }]\n";
    let gateway = Gateway::start(&admin_config(limits), &upstream);
    let api = Api::of(&gateway);
    let few = api.post("/v1/accounts/few/keys", json!({ "label": "few" }));
    let few_header = format!("x-api-key: {}\r\n", few["key"].as_str().unwrap());
    for _ in 0..3 {
        assert_eq!(get(gateway.public, "/one", KEY).status, 200);
        assert_eq!(get(gateway.public, "/free/a", KEY).status, 200);
        get(gateway.public, "/one", &few_header);
    }
    assert_eq!(post(gateway.public, "/free/b", KEY, &"x".repeat(1000)).status, 200);
    let cost = format!("{KEY}x-response-header: x-cost: 2.5\r\n");
    get(gateway.public, "/header", &cost);
    assert_eq!(get(gateway.public, "/one", "").status, 401);
    assert_eq!(get(gateway.public, "/nowhere", KEY).status, 404);
    assert_eq!(get(gateway.public, "/open/a", "").status, 200);
    let outcomes = |path: &str| {
        let report = api.get(&format!("/v1/usage?step=all&from=2h{path}"));
        report["data"][0].clone()
    };
    eventually("all are counted", || outcomes("")["requests"] == 14);
    let acme = outcomes("&account=acme");
    assert_eq!(acme["outcomes"], json!({ "2xx": 8 }), "{acme}");
    assert!(acme["bytes_in"] == 1000 && acme["bytes_out"].as_u64().unwrap() > 0, "{acme}");
    assert!(acme["durations"]["p50"].as_f64().unwrap() <= acme["durations"]["p99"].as_f64().unwrap());
    let of_few = outcomes("&account=few");
    assert_eq!(of_few["outcomes"], json!({ "2xx": 2, "rate_limited": 1 }));
    assert_eq!(of_few["credits"], 2);
    let nobody = api.get("/v1/usage?step=all&by=account");
    let nobody = nobody["data"].as_array().unwrap().iter().find(|row| row["of"].is_null()).unwrap().clone();
    assert_eq!(nobody["outcomes"], json!({ "2xx": 1, "missing_key": 1, "no_route": 1 }), "{nobody}");
    let path = format!("&key={}&route=one", few["id"].as_str().unwrap());
    assert_eq!(outcomes(&path)["requests"], 3);
    assert_eq!(upstream.seen().len(), 11, "as many as the upstream received");
    equals_the_entries(&gateway, "acme");
    equals_the_entries(&gateway, "few");
    // The refused request is listed, and the key knows when it was used.
    let refusals = api.get("/v1/accounts/few/refusals");
    let refused = &refusals["data"][0];
    assert_eq!((&refused["reason"], &refused["route"]), (&json!("rate_limited"), &json!("one")));
    assert!(refused["request_id"].as_str().unwrap().starts_with("req_"));
    let used = api.get(&format!("/v1/keys/{}", few["id"].as_str().unwrap()));
    assert!(used["last_used"].is_string());
    let csv = api.send("GET", "/v1/usage?account=acme&by=route&format=csv", "", None);
    assert!(csv.header("content-type").unwrap().starts_with("text/csv"));
    assert!(csv.text().starts_with("at,of,requests,outcomes,credits,"), "{}", csv.text());
    assert_eq!(csv.text().lines().count(), 4, "{}", csv.text());
}

/// Usage survives a clean stop completely, and a crash as far as credits were charged.
#[test]
fn usage_survives_stops_and_crashes() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&admin_config(""), &upstream);
    for _ in 0..5 {
        get(gateway.public, "/free/a", KEY);
        get(gateway.public, "/one", KEY);
    }
    let (code, folder) = gateway.stop();
    assert_eq!(code, Some(0));
    let gateway = Gateway::start_in(folder);
    let row = |gateway: &Gateway| Api::of(gateway).get("/v1/usage?account=acme&step=all")["data"][0].clone();
    assert_eq!(row(&gateway)["outcomes"], json!({ "2xx": 10 }));
    for _ in 0..5 {
        get(gateway.public, "/one", KEY);
    }
    let gateway = Gateway::start_in(gateway.crash());
    let after = row(&gateway);
    assert_eq!((&after["requests"], &after["credits"]), (&json!(15), &json!(10)), "{after}");
    equals_the_entries(&gateway, "acme");
}

/// Old usage is added up in longer intervals, and deleted at last, but its sums stay as long as it is kept.
#[test]
fn old_usage_is_added_up() {
    let Some(library) = crate::clocks::library() else { return };
    let upstream = Upstream::start();
    let keep = "[usage]\nminutes = \"1m\"\nhours = \"1h\"\ndays = \"2d\"\n";
    let folder = {
        let gateway = Gateway::start(&admin_config(keep), &upstream);
        for _ in 0..4 {
            get(gateway.public, "/one", KEY);
            get(gateway.public, "/free/a", KEY);
        }
        gateway.stop().1
    };
    let days_later = |days: &str| {
        let gateway = Gateway::start_command(std::sync::Arc::clone(&folder), |_| {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"));
            command
                .arg("serve")
                .env("LD_PRELOAD", &library)
                .env("FAKETIME", days)
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            command
        });
        let rows = || Api::of(&gateway).get("/v1/usage?account=acme&step=minute&from=30d")["data"].clone();
        get(gateway.public, "/free/a", KEY);
        std::thread::sleep(std::time::Duration::from_secs(6)); // a fold, after which old usage is added up
        let rows = rows();
        gateway.stop();
        rows
    };
    let rows = days_later("+1d");
    let first = &rows[0];
    assert!(first["at"].as_str().unwrap().ends_with("T00:00:00Z"), "{rows}");
    assert_eq!((&first["outcomes"], &first["credits"]), (&json!({ "2xx": 8 }), &json!(4)), "{rows}");
    let rows = days_later("+5d");
    assert!(rows.as_array().unwrap().iter().all(|row| row["credits"] == 0), "{rows}");
}

/// Mistakes in a query are named.
#[test]
fn mistakes_in_queries_are_named() {
    let gateway = Gateway::start(&admin_config(""), &Upstream::start());
    let api = Api::of(&gateway);
    for (query, status, field) in [
        ("from=yesterday", 422, "from"),
        ("from=1h&to=2h", 422, "from"),
        ("step=week", 400, ""),
        ("by=colour", 400, ""),
        ("account=nobody", 404, ""),
    ] {
        let response = api.send("GET", &format!("/v1/usage?{query}"), "", None);
        let problem = response.json();
        assert_eq!(response.status, status, "{query}: {problem}");
        if !field.is_empty() {
            assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        }
    }
}
