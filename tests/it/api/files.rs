//! Tests that accounts and keys of the configuration file are visible, and that changes of them name the place where
//! they can be made.

use serde_json::{Value, json};

use super::{Api, admin_config};
use crate::support::{Gateway, Upstream, sha256};

#[test]
fn objects_of_the_file_are_shown_and_refuse_edits_with_file_and_line() {
    let gateway = Gateway::start(&admin_config(""), &Upstream::start());
    let api = Api::of(&gateway);
    let account = api.get("/v1/accounts/acme");
    assert_eq!((&account["source"], &account["balance"]), (&json!("file"), &json!(1000)));
    let key = api.get("/v1/accounts/acme/keys")["data"][0].clone();
    assert_eq!(
        (&key["source"], &key["label"], &key["key"]),
        (&json!("file"), &json!("good"), &json!("(in the file)"))
    );
    let key = format!("/v1/keys/{}", key["id"].as_str().unwrap());
    let text = gateway.config();
    let line = |wanted: &str| text.lines().position(|line| line.contains(wanted)).unwrap() + 1;
    let (account_line, key_line) = (line("[accounts.acme]"), line(&sha256("good-key")));
    let name = json!({ "name": "Acme" });
    let edits: [(&str, &str, Option<Value>, usize); 7] = [
        ("PATCH", "/v1/accounts/acme", Some(name), account_line),
        ("PATCH", "/v1/accounts/acme", Some(json!({ "plan": null })), account_line),
        ("DELETE", "/v1/accounts/acme", None, account_line),
        ("PATCH", &key, Some(json!({ "label": "x" })), key_line),
        ("PATCH", &key, Some(json!({ "limits": null })), key_line),
        ("POST", &format!("{key}/rotate"), None, key_line),
        ("DELETE", &key, None, key_line),
    ];
    for (method, path, body, line) in &edits {
        let response = api.send(method, path, "", body.as_ref());
        let problem = response.json();
        assert_eq!((response.status, &problem["code"]), (409, &json!("defined_in_file")), "{method} {path}");
        let place = format!("config.toml:{line}");
        assert!(problem["detail"].as_str().unwrap().ends_with(&place), "{method} {path}: {problem}");
    }
    // What the file does not say may be changed: the state, and credits.
    assert_eq!(api.ok("POST", &format!("{key}/disable"), None)["state"], "disabled");
    assert_eq!(crate::support::get(gateway.public, "/one", "x-api-key: good-key\r\n").status, 401);
    assert_eq!(api.ok("POST", &format!("{key}/enable"), None)["state"], "active");
    assert_eq!(crate::support::get(gateway.public, "/one", "x-api-key: good-key\r\n").status, 200);
    let suspended = api.ok("PATCH", "/v1/accounts/acme", Some(&json!({ "suspended": true })));
    assert_eq!(suspended["state"], "suspended");
    assert_eq!(crate::support::get(gateway.public, "/one", "x-api-key: good-key\r\n").status, 403);
    api.ok("PATCH", "/v1/accounts/acme", Some(&json!({ "suspended": false })));
    api.post("/v1/accounts/acme/grants", json!({ "credits": 1, "reference": "r" }));
    assert_eq!(crate::support::get(gateway.public, "/one", "x-api-key: good-key\r\n").status, 200);
}
