//! Tests `Idempotency-Key`: a repeated write changes nothing and gets the same answer, also if the gateway was killed
//! before it could answer.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Api, admin_config};
use crate::support::{Gateway, Upstream, get};

fn keyed(key: &str) -> String {
    format!("idempotency-key: {key}\r\n")
}

#[test]
fn a_repeated_write_gets_the_same_answer() {
    let gateway = Gateway::start(&admin_config(""), &Upstream::start());
    let api = Api::of(&gateway);
    let other = gateway.json(&["token", "create", "other", "--role", "owner"])["token"].clone();
    let other = api.with_token(other.as_str().unwrap());
    let writes = [
        ("POST", "/v1/accounts", json!({ "id": "beta", "plan": "growth" })),
        ("PATCH", "/v1/accounts/beta", json!({ "name": "Beta" })),
        ("POST", "/v1/accounts/beta/grants", json!({ "credits": 3, "reference": "r" })),
        ("POST", "/v1/accounts/beta/keys", json!({ "label": "l" })),
        ("POST", "/v1/tokens", json!({ "name": "ci", "role": "billing" })),
        ("DELETE", "/v1/tokens/ci", Value::Null),
        ("POST", "/v1/reload", Value::Null),
    ];
    for (number, (method, path, body)) in writes.iter().enumerate() {
        let (body, headers) = (Some(body).filter(|body| !body.is_null()), keyed(&format!("write-{number}")));
        let first = api.send(method, path, &headers, body);
        let audited = || api.get("/v1/audit?limit=1")["data"][0]["number"].clone();
        let before = audited();
        let again = api.send(method, path, &headers, body);
        assert_eq!(
            (first.status, &first.body),
            (again.status, &again.body),
            "{method} {path}: {}",
            again.text()
        );
        assert!((200..300).contains(&first.status), "{method} {path}: {}", first.text());
        assert_eq!(
            (first.header("idempotency-replayed"), again.header("idempotency-replayed")),
            (None, Some("true"))
        );
        assert_eq!(audited(), before, "nothing changed");
        let different = api.send(method, path, &headers, Some(&json!({ "label": "other" })));
        assert_eq!((different.status, &different.json()["code"]), (422, &json!("idempotency_key_reused")));
        assert_eq!(audited(), before);
    }
    // Another token's keys are its own.
    let mine = other.send("POST", "/v1/accounts", &keyed("write-0"), Some(&json!({ "id": "gamma" })));
    assert_eq!(mine.status, 201);
    // A write that failed is tried again.
    let body = json!({ "id": "delta", "plan": "later" });
    assert_eq!(api.send("POST", "/v1/accounts", &keyed("plan"), Some(&body)).status, 422);
    gateway.write_config(&format!("{}\n[plans.later]\n", gateway.config()));
    gateway.json(&["reload"]);
    assert_eq!(api.send("POST", "/v1/accounts", &keyed("plan"), Some(&body)).status, 201);
}

/// Many clients that send the same write at the same time make it once, and get the same answer.
#[test]
fn the_same_write_at_the_same_time_is_made_once() {
    let gateway = Gateway::start(&admin_config(""), &Upstream::start());
    let api = Api::of(&gateway);
    for round in 0..10 {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let api = api.clone();
                let headers = keyed(&format!("round-{round}"));
                std::thread::spawn(move || {
                    api.send("POST", "/v1/accounts/acme/keys", &headers, Some(&json!({ "label": "same" })))
                })
            })
            .collect();
        let answers: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        for answer in &answers {
            assert_eq!((answer.status, &answer.body), (201, &answers[0].body), "{}", answer.text());
        }
    }
    assert_eq!(api.get("/v1/accounts/acme/keys?limit=100")["data"].as_array().unwrap().len(), 11);
}

/// The gateway is killed while it performs a write. The client repeats the write: it was made once, and its answer has
/// the key that works.
#[test]
fn an_answer_that_a_crash_lost_is_given_when_the_write_is_repeated() {
    let rounds = if std::env::var_os("TOLLGATE_LONG").is_some() { 200 } else { 15 };
    let mut gateway = Gateway::start(&admin_config(""), &Upstream::start());
    let mut lost = 0;
    for round in 0..rounds {
        let api = Api::of(&gateway);
        let (key, grant) = (keyed(&format!("key-{round}")), keyed(&format!("grant-{round}")));
        let body = json!({ "label": format!("round-{round}") });
        let credits = json!({ "credits": 1, "reference": format!("round-{round}") });
        let writer = {
            let (api, key, grant, body, credits) =
                (api.clone(), key.clone(), grant.clone(), body.clone(), credits.clone());
            std::thread::spawn(move || {
                let made = api.try_send("POST", "/v1/accounts/acme/keys", &key, Some(&body));
                api.try_send("POST", "/v1/accounts/acme/grants", &grant, Some(&credits));
                made.filter(|made| made.status == 201)
            })
        };
        std::thread::sleep(Duration::from_micros(fastrand_u64(round) % 12_000));
        gateway = Gateway::start_in(gateway.crash());
        let before = writer.join().unwrap();
        let api = Api::of(&gateway);
        let after = api.send("POST", "/v1/accounts/acme/keys", &key, Some(&body));
        assert_eq!(after.status, 201, "{}", after.text());
        let answer = after.json();
        match before {
            Some(before) => assert_eq!(before.json(), answer, "an answer that arrived is given again"),
            None => lost += 1,
        }
        let headers = format!("x-api-key: {}\r\n", answer["key"].as_str().unwrap());
        assert_eq!(get(gateway.public, "/free/a", &headers).status, 200, "its key works");
        let granted = api.send("POST", "/v1/accounts/acme/grants", &grant, Some(&credits)).json();
        assert_eq!(granted["amount"], 1);
    }
    let api = Api::of(&gateway);
    let keys = api.get("/v1/accounts/acme/keys?limit=1000");
    assert_eq!(keys["data"].as_array().unwrap().len(), rounds + 1, "each was made once");
    assert_eq!(api.get("/v1/accounts/acme")["balance"], 1000 + rounds, "each grant was made once");
    assert!(lost > 0, "no answer was lost");
    assert_eq!(gateway.json(&["ledger", "verify"])["found"], 0);
}

/// Pseudo-random numbers that are the same in each run.
fn fastrand_u64(seed: usize) -> u64 {
    (seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40
}
