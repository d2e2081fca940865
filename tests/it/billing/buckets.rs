//! Tests buckets: which one pays, what responses and entries show of it, and how credits expire (promises 1, 2 and 4).

use serde_json::{Value, json};

use super::jobs::{BULK, open, poll};
use crate::api::{Api, admin_config};
use crate::clocks::FakeClock;
use crate::support::{Gateway, Upstream, eventually, get, sha256};

const KEY: &str = "x-api-key: good-key\r\n";

const BUCKETS: &str = r#"
[buckets.sub]
priority = 1
[buckets.paygo]
priority = 2
[accounts.plain]
credits = 10
[accounts.empty]
"#;

fn config() -> String {
    let key = |account: &str| {
        format!(
            "[[accounts.{account}.keys]]\nlabel = \"k\"\nsha256 = \"{}\"\n",
            sha256(&format!("{account}-key"))
        )
    };
    admin_config(&format!("{BULK}{BUCKETS}{}{}", key("plain"), key("empty")))
}

fn grant(api: &Api, account: &str, credits: Value, reference: &str, more: Value) -> Value {
    let mut body = json!({ "credits": credits, "reference": reference });
    let terms = more.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(terms);
    api.post(&format!("/v1/accounts/{account}/grants"), body)
}

fn split(gateway: &Gateway, key: &str) -> Value {
    let response = get(gateway.public, "/one", &format!("x-api-key: {key}\r\n"));
    assert_eq!(response.charged(), Some("1"));
    response.header("x-credits-split").map_or(Value::Null, |text| serde_json::from_str(text).unwrap())
}

fn is_verified(gateway: &Gateway) {
    assert_eq!(gateway.json(&["ledger", "verify"])["differences"], json!([]));
}

#[test]
fn charges_take_from_the_buckets_in_their_order_and_say_so() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(), &upstream);
    let api = Api::of(&gateway);
    assert_eq!(split(&gateway, "plain-key"), Value::Null, "one bucket is not worth a word");
    grant(&api, "empty", json!(10), "p", json!({ "bucket": "paygo" }));
    grant(&api, "empty", json!(1.5), "s", json!({ "bucket": "sub" }));
    grant(&api, "empty", json!(5), "d", json!({}));
    let account = api.get("/v1/accounts/empty");
    assert_eq!(account["buckets"], json!({ "default": 5, "paygo": 10, "sub": 1.5 }));
    assert_eq!(split(&gateway, "empty-key"), json!({ "amount": 1, "source": "sub", "split": { "sub": 1 } }));
    let both = json!({ "amount": 1, "source": "sub", "split": { "sub": 0.5, "paygo": 0.5 } });
    assert_eq!(split(&gateway, "empty-key"), both);
    let entries = api.get("/v1/accounts/empty/entries");
    let charge = &entries["data"][0];
    assert_eq!(charge["kind"], "charge");
    assert_eq!((&charge["amount"], &charge["bucket"]), (&json!(-2), &json!("sub:-1.5 paygo:-0.5")));
    assert_eq!(charge["split"], json!({ "sub": -1.5, "paygo": -0.5 }));
    assert_eq!(entries["data"][2]["bucket"], "sub");
    is_verified(&gateway);
    // The buckets are those of the ledger, also after a crash.
    let gateway = Gateway::start_in(gateway.crash());
    let api = Api::of(&gateway);
    assert_eq!(api.get("/v1/accounts/empty")["buckets"], json!({ "default": 5, "paygo": 9.5 }));
    assert_eq!(split(&gateway, "empty-key")["source"], "paygo");
    // A correction takes from the buckets as a charge does; no bucket is named for it.
    api.post("/v1/accounts/empty/adjustments", json!({ "credits": -10, "reference": "c" }));
    assert_eq!(api.get("/v1/accounts/empty")["buckets"], json!({ "default": 3.5 }));
    is_verified(&gateway);
}

#[test]
fn what_is_wrong_with_a_grant_is_told() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(), &upstream);
    let api = Api::of(&gateway);
    let grants = "/v1/accounts/empty/grants";
    let of = |more: Value| {
        let mut body = json!({ "credits": 1, "reference": "r" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (body, says) in [
        (of(json!({ "bucket": "gold" })), "there is no bucket `gold` in the configuration (known:"),
        (of(json!({ "expires": "soon" })), "soon is neither a duration"),
        (of(json!({ "expires": "2020-01-01T00:00:00Z" })), "this time is in the past"),
        (of(json!({ "note": "two\nlines" })), "a note is at most 200 characters on one line"),
    ] {
        let response = api.send("POST", grants, "", Some(&body));
        assert!(response.status == 422 && response.text().contains(says), "{}", response.text());
    }
    let adjust = json!({ "credits": -1, "reference": "r", "bucket": "sub" });
    let response = api.send("POST", "/v1/accounts/plain/adjustments", "", Some(&adjust));
    assert!(response.status == 422 && response.text().contains("from the buckets in their order"));
    let told = gateway.cli(&[
        "account",
        "grant",
        "empty",
        "5",
        "--reference",
        "x",
        "--bucket",
        "sub",
        "--expires",
        "30d",
        "--note",
        "a gift",
    ]);
    assert!(told.status.success());
    assert_eq!(api.get("/v1/accounts/empty")["expiring"][0]["credits"], 5);
    let audit = api.get("/v1/audit?object=account/empty");
    assert_eq!(audit["data"][0]["after"]["note"], "a gift", "{audit}");
}

/// Credits expire at their time; what an open job holds of them stays for the job, and nothing else may spend it.
#[test]
fn credits_expire_except_what_is_held() {
    let Some(clock) = FakeClock::new("@2027-03-01 10:00:00") else { return };
    let (prefix, upstream) = (clock.prefix(), Upstream::start());
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    let gateway = Gateway::start_by(&prefix, &config(), &upstream);
    let api = Api::of(&gateway);
    grant(&api, "empty", json!(20), "day", json!({ "bucket": "sub", "expires": "24h" }));
    grant(&api, "empty", json!(10), "ever", json!({ "bucket": "paygo" }));
    let expiring = &api.get("/v1/accounts/empty")["expiring"][0];
    assert_eq!((&expiring["bucket"], &expiring["credits"]), (&json!("sub"), &json!(20)));
    assert_eq!(get(gateway.public, "/one", "x-api-key: empty-key\r\n").charged(), Some("1"));
    let opened = open(&gateway, "empty-key", "job-1", 4);
    assert_eq!(opened.status, 201);
    clock.set("@2027-03-02 11:00:00");
    // 20 - 1 - 4 held.
    eventually("the rest expires", || gateway.available("empty") == "10");
    let account = api.get("/v1/accounts/empty");
    assert_eq!((&account["balance"], &account["held"]), (&json!(14), &json!(4)));
    // A new charge does not touch what is left for the job.
    assert_eq!(get(gateway.public, "/one", "x-api-key: empty-key\r\n").charged(), Some("1"));
    assert_eq!(api.get("/v1/accounts/empty/entries")["data"][0]["bucket"], "paygo");
    // Neither a stop nor a crash changes that.
    let (_, folder) = gateway.stop();
    let gateway = Gateway::restart_by(&prefix, Gateway::restart_by(&prefix, folder).crash());
    let api = Api::of(&gateway);
    let done = json!({ "status": "completed", "stats": { "credits_cost": { "final": 3 } } });
    assert_eq!(poll(&gateway, "empty-key", "job-1", &done).status, 200);
    eventually("the rest of the hold expires", || gateway.available("empty") == "9");
    eventually("all is booked", || api.get("/v1/accounts/empty")["balance"] == json!(9));
    let entries = api.get("/v1/accounts/empty/entries");
    let rows: Vec<_> = entries["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["kind"].clone(), row["amount"].clone(), row["bucket"].clone()))
        .collect();
    let row = |kind: &str, amount: i64, bucket: &str| (json!(kind), json!(amount), json!(bucket));
    assert_eq!(
        rows,
        [
            row("expiry", -1, "sub"),
            row("charge", -3, "sub"),
            row("charge", -1, "paygo"),
            row("expiry", -15, "sub"),
            row("charge", -1, "sub"),
            row("grant", 10, "paygo"),
            row("grant", 20, "sub"),
        ]
    );
    is_verified(&gateway);
    assert!(get(gateway.public, "/one", KEY).charged() == Some("1"), "others are not concerned");
}
