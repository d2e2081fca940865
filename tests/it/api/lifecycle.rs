//! Tests the whole life of accounts and keys through the API, and what requests through the gateway notice of it.

use serde_json::{Value, json};

use super::{Api, admin_config};
use crate::support::{Client, Gateway, Upstream, eventually, get, sha256};

fn with_key(key: &str) -> String {
    format!("x-api-key: {key}\r\n")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// A key works as soon as it is created. Its secret is shown once. Limits, scopes, expiry and state are in force when
/// the response arrives, and survive a restart.
#[test]
fn a_key_works_at_once_and_as_long_as_it_is_allowed() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&admin_config(""), &upstream);
    let api = Api::of(&gateway);
    api.post("/v1/accounts", json!({ "id": "beta", "plan": "growth", "name": "Beta Inc" }));
    api.post("/v1/accounts/beta/grants", json!({ "credits": "10.5", "reference": "order-1" }));
    let limits = json!([{ "name": "own", "requests": 3, "window": "1h" }]);
    let made =
        api.post("/v1/accounts/beta/keys", json!({ "label": "first", "limits": limits, "scopes": ["o*"] }));
    let (id, key) = (text(&made["id"]), text(&made["key"]));
    let call = |path: &str, key: &str| get(gateway.public, path, &with_key(key)).status;
    assert_eq!(call("/one", &key), 200);
    assert_eq!(call("/free/a", &key), 403, "outside its scopes");
    let shown = api.get(&format!("/v1/keys/{id}")).to_string();
    assert!(!shown.contains(&key), "{shown}");
    assert!(shown.contains(&key[key.len() - 4..]) && shown.contains("\"own\""), "{shown}");
    assert_eq!((call("/one", &key), call("/one", &key), call("/one", &key)), (200, 200, 429));
    let path = format!("/v1/keys/{id}");
    let widened = api.ok("PATCH", &path, Some(&json!({ "limits": null, "scopes": null })));
    assert_eq!((&widened["limits"], &widened["scopes"]), (&Value::Null, &Value::Null));
    assert_eq!((call("/one", &key), call("/free/a", &key)), (200, 200));

    let rotated = api.post(&format!("{path}/rotate"), json!({ "overlap": "1h" }));
    let second = text(&rotated["key"]);
    assert_eq!((call("/free/a", &key), call("/free/a", &second)), (200, 200), "both during the overlap");
    let third = text(&api.ok("POST", &format!("{path}/rotate"), None)["key"]);
    assert_eq!(
        [&key, &second, &third].map(|key| call("/free/a", key)),
        [401, 401, 200],
        "without an overlap"
    );

    let (code, folder) = gateway.stop();
    assert_eq!(code, Some(0));
    let gateway = Gateway::start_in(folder);
    let (api, call) = (Api::of(&gateway), |key: &str| get(gateway.public, "/free/a", &with_key(key)).status);
    assert_eq!([&second, &third].map(|key| call(key)), [401, 200]);
    api.ok("POST", &format!("{path}/disable"), None);
    assert_eq!(call(&third), 401);
    api.ok("POST", &format!("{path}/enable"), None);
    assert_eq!(call(&third), 200);
    assert_eq!(api.ok("DELETE", &path, None)["state"], "revoked");
    assert_eq!(call(&third), 401);
    assert_eq!(api.fails("POST", &format!("{path}/enable"), None), (409, "conflict".to_owned()));
    assert_eq!(api.get("/v1/accounts/beta")["balance"], json!(6.5));
}

/// A revoked key stops working within a second on connections that are open, and if no gateway ran meanwhile.
#[test]
fn a_revoked_key_stops_on_open_connections_and_between_gateways() {
    let gateway = Gateway::start(&admin_config(""), &Upstream::start());
    let api = Api::of(&gateway);
    let make = || {
        let made = api.post("/v1/accounts/acme/keys", json!({ "label": "x" }));
        (text(&made["id"]), text(&made["key"]))
    };
    let ((id, key), (other_id, other)) = (make(), make());
    let mut client = Client::connect(gateway.public);
    let request = format!("GET /free/a HTTP/1.1\r\nhost: a\r\n{}\r\n", with_key(&key));
    client.send(&request).unwrap();
    assert_eq!(client.read(false).unwrap().status, 200);
    api.ok("DELETE", &format!("/v1/keys/{id}"), None);
    client.send(&request).unwrap();
    assert_eq!(client.read(false).unwrap().status, 401);
    let (_, folder) = gateway.stop();
    let revoked = crate::support::cli(folder.path(), &["key", "revoke", &other_id]);
    assert!(revoked.status.success());
    let gateway = Gateway::start_in(folder);
    assert_eq!(get(gateway.public, "/free/a", &with_key(&other)).status, 401);
    let entries = Api::of(&gateway).get(&format!("/v1/audit?object=key/{other_id}"));
    let last = &entries["data"][0];
    assert_eq!(
        (&last["action"], &last["by"], &last["from"]),
        (&json!("key.revoke"), &json!("command"), &json!("control socket"))
    );
}

/// A deleted account keeps its entries; its keys stop, and its id is not used again.
#[test]
fn a_deleted_account_keeps_only_its_entries() {
    let gateway = Gateway::start(&admin_config(""), &Upstream::start());
    let api = Api::of(&gateway);
    api.post("/v1/accounts", json!({ "id": "beta" }));
    api.post("/v1/accounts/beta/grants", json!({ "credits": 5, "reference": "r" }));
    let key = text(&api.post("/v1/accounts/beta/keys", json!({ "label": "x" }))["key"]);
    assert_eq!(get(gateway.public, "/one", &with_key(&key)).status, 200);
    assert_eq!(api.ok("DELETE", "/v1/accounts/beta", None)["state"], "closed");
    assert_eq!(get(gateway.public, "/one", &with_key(&key)).status, 401);
    assert_eq!(api.get("/v1/accounts/beta")["state"], "closed");
    let kinds: Vec<String> = api.get("/v1/accounts/beta/entries")["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| text(&entry["kind"]))
        .collect();
    assert_eq!(kinds, ["charge", "grant"]);
    for (method, path, body) in [
        ("POST", "/v1/accounts", json!({ "id": "beta" })),
        ("PATCH", "/v1/accounts/beta", json!({ "name": "b" })),
        ("POST", "/v1/accounts/beta/grants", json!({ "credits": 5, "reference": "s" })),
        ("POST", "/v1/accounts/beta/keys", json!({ "label": "y" })),
    ] {
        let (status, _) = api.fails(method, path, Some(&body));
        assert!(matches!(status, 404 | 409), "{method} {path}: {status}");
    }
    let (_, folder) = gateway.stop();
    let gateway = Gateway::start_in(folder);
    assert_eq!(get(gateway.public, "/one", &with_key(&key)).status, 401);
    assert_eq!(gateway.json(&["ledger", "verify"])["found"], 0);
}

/// A change that is based on an old version is refused; the versions of accounts and keys are their ETags.
#[test]
fn changes_of_old_versions_are_refused() {
    let gateway = Gateway::start(&admin_config(""), &Upstream::start());
    let api = Api::of(&gateway);
    let tag = |path: &str| api.send("GET", path, "", None).header("etag").unwrap().to_owned();
    api.post("/v1/accounts", json!({ "id": "beta" }));
    let key = text(&api.post("/v1/accounts/beta/keys", json!({ "label": "x" }))["id"]);
    for (path, patch) in [
        ("/v1/accounts/beta".to_owned(), json!({ "name": "n" })),
        (format!("/v1/keys/{key}"), json!({ "label": "l" })),
    ] {
        let old = tag(&path);
        let patched =
            |tag: &str| api.send("PATCH", &path, &format!("if-match: {tag}\r\n"), Some(&patch)).status;
        assert_eq!(
            (patched(&old), patched(&old), patched("*"), patched("W/\"1\"")),
            (200, 412, 200, 400),
            "{path}"
        );
        assert_ne!(tag(&path), old);
        assert_eq!(patched(&tag(&path)), 200);
    }
}

/// What is wrong with a request is said with its field, and nothing changes.
#[test]
fn mistakes_are_named() {
    let gateway = Gateway::start(&admin_config(""), &Upstream::start());
    let api = Api::of(&gateway);
    let table = [
        ("/v1/accounts", json!({ "id": "a b" }), 422, "id"),
        ("/v1/accounts", json!({}), 422, "."),
        ("/v1/accounts", json!({ "id": "b", "colour": "red" }), 422, "colour"),
        ("/v1/accounts", json!({ "id": "b", "plan": "none" }), 422, "plan"),
        ("/v1/accounts", json!({ "id": "b", "name": "a\nb" }), 422, "name"),
        ("/v1/accounts/acme/keys", json!({ "label": "" }), 422, "label"),
        ("/v1/accounts/acme/keys", json!({ "label": "l", "environment": "A" }), 422, "environment"),
        ("/v1/accounts/acme/keys", json!({ "label": "l", "scopes": ["nothing"] }), 422, "scopes"),
        ("/v1/accounts/acme/keys", json!({ "label": "l", "expires": "soon" }), 422, "expires"),
        (
            "/v1/accounts/acme/keys",
            json!({ "label": "l", "expires": "2020-01-01T00:00:00Z" }),
            422,
            "expires",
        ),
        ("/v1/accounts/acme/keys", json!({ "label": "l", "allow_from": ["here"] }), 422, "allow_from[0]"),
        ("/v1/accounts/acme/keys", json!({ "label": "l", "sha256": "raw-key" }), 422, "sha256"),
        (
            "/v1/accounts/acme/keys",
            json!({ "label": "l", "limits": [{ "name": "m", "requests": 0, "window": "1s" }] }),
            422,
            "limits",
        ),
        ("/v1/accounts/acme/grants", json!({ "credits": 0, "reference": "r" }), 422, "credits"),
        ("/v1/accounts/acme/grants", json!({ "credits": "1.0000001", "reference": "r" }), 422, "credits"),
        ("/v1/accounts/acme/grants", json!({ "credits": 1, "reference": "" }), 422, "reference"),
        ("/v1/tokens", json!({ "name": "t", "role": "king" }), 422, "role"),
    ];
    let before = api.get("/v1/audit");
    for (path, body, status, field) in &table {
        let response = api.send("POST", path, "", Some(body));
        let problem = response.json();
        assert_eq!(
            (response.status, &problem["errors"][0]["field"]),
            (*status, &json!(field)),
            "{body}: {problem}"
        );
    }
    assert_eq!(api.get("/v1/audit"), before);
}

/// A leaked key stops working within a second, whichever of its secrets was found, until it is enabled again. So does
/// one of the configuration file. A report that cannot be understood changes nothing.
#[test]
fn a_leaked_key_stops_until_it_is_enabled_again() {
    let gateway = Gateway::start(&admin_config(""), &Upstream::start());
    let api = Api::of(&gateway);
    let made = api.post("/v1/accounts/acme/keys", json!({ "label": "x" }));
    let (id, old) = (text(&made["id"]), text(&made["key"]));
    let rotated = api.post(&format!("/v1/keys/{id}/rotate"), json!({ "overlap": "1h" }));
    let new = text(&rotated["key"]);
    let call = |key: &str| get(gateway.public, "/free/a", &with_key(key)).status;
    let report = |body: Value| api.fails("POST", "/v1/keys/report-leaked", Some(&body)).0;
    assert_eq!(report(json!({})), 422);
    assert_eq!(report(json!({ "key": new, "sha256": sha256(&new) })), 422);
    assert_eq!((report(json!({ "key": "nobody's" })), report(json!({ "sha256": "00" }))), (404, 422));
    assert_eq!([&old, &new].map(|key| call(key)), [200, 200]);

    let reported = api.post("/v1/keys/report-leaked", json!({ "key": old }));
    assert_eq!((text(&reported["id"]), &reported["state"]), (id.clone(), &json!("disabled")));
    assert_eq!([&old, &new].map(|key| call(key)), [401, 401]);
    api.ok("POST", &format!("/v1/keys/{id}/enable"), None);
    assert_eq!(call(&new), 200);
    api.post("/v1/keys/report-leaked", json!({ "sha256": sha256("good-key") }));
    assert_eq!(call("good-key"), 401);
    let audit = api.get("/v1/audit").to_string();
    assert!(audit.contains("key.report_leaked"), "{audit}");
    assert!([&old, &new].iter().all(|key| !audit.contains(key.as_str())));
}

/// What is not there, used already, or not JSON is answered with its status and code.
#[test]
fn requests_that_fail_have_a_status_and_a_code() {
    let gateway = Gateway::start(&admin_config(""), &Upstream::start());
    let api = Api::of(&gateway);
    let (hash, before) = (sha256("good-key"), api.get("/v1/audit"));
    assert_eq!(
        api.fails("POST", "/v1/accounts/acme/keys", Some(&json!({ "label": "l", "sha256": hash }))).0,
        409
    );
    assert_eq!(
        api.fails("POST", "/v1/accounts/nobody/grants", Some(&json!({ "credits": 1, "reference": "r" }))).0,
        404
    );
    assert_eq!(api.fails("GET", "/v1/accounts?limit=0", None), (400, "invalid_parameter".to_owned()));
    assert_eq!(api.fails("GET", "/v1/accounts?cursor=%00", None).0, 422);
    assert_eq!(api.fails("GET", "/v1/keys/nonsense", None), (404, "not_found".to_owned()));
    assert_eq!(api.fails("GET", "/v2", None).0, 404);
    assert_eq!(
        api.send("PUT", "/v1/accounts", "", None).header("allow").map(|allow| allow.contains("POST")),
        Some(true)
    );
    let raw = |body: &str| {
        let length = body.len();
        let headers = format!("content-type: application/json\r\ncontent-length: {length}\r\n");
        let mut client = Client::connect(api.address);
        let request = format!(
            "POST /v1/accounts HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n{headers}\r\n{body}",
            api.token
        );
        client.send(request).unwrap();
        client.read(false).unwrap().status
    };
    assert_eq!(
        (raw("{"), raw("{\"id\":\"x\"} x"), raw(&format!("\"{}\"", "x".repeat(300_000)))),
        (400, 400, 413)
    );
    assert_eq!(api.get("/v1/audit"), before);
}

/// Lists are read page by page, completely, also while rows are added.
#[test]
fn lists_are_paged() {
    let gateway = Gateway::start(&admin_config(""), &Upstream::start());
    let api = Api::of(&gateway);
    for number in 0..7 {
        api.post("/v1/accounts", json!({ "id": format!("b{number}") }));
        api.post("/v1/accounts/acme/keys", json!({ "label": format!("k{number}") }));
        api.post("/v1/accounts/acme/grants", json!({ "credits": 1, "reference": number.to_string() }));
    }
    for (path, field, expected) in [
        ("/v1/accounts", "id", 8),
        ("/v1/accounts/acme/keys", "id", 8),
        ("/v1/keys", "id", 8),
        ("/v1/accounts/acme/entries", "number", 8),
        ("/v1/audit", "number", 21),
    ] {
        let (mut rows, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = api.get(&format!("{path}?limit=3{cursor}"));
            assert!(page["data"].as_array().unwrap().len() <= 3);
            rows.extend(page["data"].as_array().unwrap().iter().map(|row| row[field].to_string()));
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(rows.len(), expected, "{path}");
        let whole = api.get(&format!("{path}?limit=1000"));
        let whole: Vec<String> =
            whole["data"].as_array().unwrap().iter().map(|row| row[field].to_string()).collect();
        assert_eq!(rows, whole, "{path}");
    }
}

/// Services that do not receive their requests through the gateway use the same keys and credits: a charge is made once
/// for each reference, and never takes more than there is.
#[test]
fn keys_are_verified_and_charged_without_the_gateway() {
    let gateway = Gateway::start(&admin_config(""), &Upstream::start());
    let api = Api::of(&gateway);
    let check =
        |key: &str, path: &str| api.post("/v1/verify", json!({ "key": key, "method": "GET", "path": path }));
    let verdict = check("good-key", "/one");
    assert_eq!(
        (&verdict["valid"], &verdict["account"], &verdict["route"]),
        (&json!(true), &json!("acme"), &json!("one"))
    );
    assert_eq!(check("wrong", "/one")["reason"], "invalid_key");
    assert_eq!(check("good-key", "/none")["reason"], "no_route");
    let charge = |credits: &str, reference: &str| json!({ "key": "good-key", "credits": credits, "reference": reference });
    let first = api.post("/v1/charge", charge("0.25", "job"));
    let again = api.post("/v1/charge", charge("0.25", "job"));
    assert_eq!((&first["repeated"], &again["repeated"]), (&json!(false), &json!(true)));
    assert_eq!((&first["entry"], &first["available"]), (&again["entry"], &json!(999.75)));
    assert_eq!(api.fails("POST", "/v1/charge", Some(&charge("0.5", "job"))).0, 409);
    assert_eq!(
        api.fails("POST", "/v1/charge", Some(&charge("999.76", "more"))),
        (409, "insufficient_credits".to_owned())
    );
    api.post("/v1/charge", charge("999.75", "all"));
    assert_eq!(check("good-key", "/one")["reason"], "insufficient_credits");
    assert_eq!(get(gateway.public, "/one", &with_key("good-key")).status, 402);
    assert_eq!(gateway.json(&["ledger", "verify"])["found"], 0);
    eventually("health is answered", || Client::try_connect(gateway.admin).is_some());
}
