//! Tests the tokens of the API: made, expired, revoked; the first one; guesses.

use std::process::Command;

use serde_json::{Value, json};

use super::{Api, TOKEN, admin_config};
use crate::support::{Gateway, Upstream, config, eventually};

#[test]
fn tokens_work_until_they_expire_or_are_revoked() {
    let gateway = Gateway::start(&admin_config(""), &Upstream::start());
    let api = Api::of(&gateway);
    let made = gateway.json(&["token", "create", "ci", "--role", "owner", "--expires", "2s"]);
    let short = api.with_token(made["token"].as_str().unwrap());
    let status = |api: &Api| api.send("GET", "/v1/accounts", "", None).status;
    assert_eq!(status(&short), 200);
    let listed = gateway.rows(&["token", "list"]);
    let names: Vec<&str> = listed.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["admin", "ci"]);
    assert!(listed[1]["last_used"].is_string(), "{listed:?}");
    assert!(listed.iter().all(|row| row.get("token").is_none()));
    let again = gateway.cli(&["token", "create", "ci", "--role", "owner"]);
    assert!(
        !again.status.success() && String::from_utf8_lossy(&again.stderr).contains("there is a token ci")
    );
    eventually("the token expires", || status(&short) == 401);
    let long = gateway.json(&["token", "create", "long", "--role", "support"]);
    let long = api.with_token(long["token"].as_str().unwrap());
    assert_eq!(status(&long), 200);
    gateway.json(&["token", "revoke", "long"]);
    assert_eq!(status(&long), 401);
    let (_, folder) = gateway.stop();
    let gateway = Gateway::start_in(folder);
    let moved = Api { address: gateway.admin, ..long };
    assert_eq!((status(&moved), status(&Api::of(&gateway))), (401, 200), "after a restart too");
    assert_eq!(
        Api::of(&gateway).fails("DELETE", "/v1/tokens/admin", None),
        (409, "defined_in_file".to_owned())
    );
}

/// Without a token in the file or the environment, one is made at the first start, and shown only then.
#[test]
fn the_first_token_is_shown_once() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start();
    let text = config("").replace("{upstream}", &upstream.address.to_string());
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    let folder = std::sync::Arc::new(folder);
    let errors = folder.path().join("errors");
    let start = |token: Option<&str>| {
        Gateway::start_command(std::sync::Arc::clone(&folder), |_| {
            let script = format!("exec \"{}\" serve 2>errors", env!("CARGO_BIN_EXE_tollgate"));
            let mut command = Command::new("sh");
            command.args(["-c", &script]);
            token.map(|token| command.env("TOLLGATE_ADMIN_TOKEN", token));
            command
        })
    };
    let gateway = start(None);
    eventually("the token is printed", || {
        std::fs::read_to_string(&errors).unwrap().contains("admin token: ")
    });
    let printed = std::fs::read_to_string(&errors).unwrap();
    let token = printed.split("admin token: ").nth(1).unwrap().split(' ').next().unwrap();
    assert!(!gateway.lines().iter().any(|line| line.contains(token)), "it is in no log line");
    let status = |gateway: &Gateway, token: &str| {
        Api { address: gateway.admin, token: token.to_owned() }.send("GET", "/v1/tokens", "", None).status
    };
    assert_eq!(status(&gateway, token), 200);
    gateway.stop();
    let gateway = start(Some(TOKEN));
    assert!(!std::fs::read_to_string(&errors).unwrap().contains("admin token"), "only at the first start");
    assert_eq!((status(&gateway, token), status(&gateway, TOKEN), status(&gateway, "x")), (200, 200, 401));
}

/// Wrong tokens are answered with 429 before long. A token that works is served all the same, from the same address.
#[test]
fn guesses_are_slowed_down() {
    let gateway = Gateway::start(&admin_config(""), &Upstream::start());
    let api = Api::of(&gateway);
    let guess = || api.with_token("guess").send("GET", "/v1/accounts", "", None);
    let guesses: Vec<_> = (0..60).map(|_| guess()).collect();
    let refused = guesses.iter().find(|response| response.status == 429).expect("some are refused");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(refused.json()["code"], "too_many_failures");
    assert_eq!(api.send("GET", "/v1/accounts", "", None).status, 200);
}

/// No output of the API contains a token or a key, except the one that creates it.
#[test]
fn secrets_are_shown_only_when_they_are_made() {
    let gateway = Gateway::start(&admin_config(""), &Upstream::start());
    let api = Api::of(&gateway);
    let key = api.post("/v1/accounts/acme/keys", json!({ "label": "canary" }))["key"].clone();
    let token = api.post("/v1/tokens", json!({ "name": "ci", "role": "support" }))["token"].clone();
    let secrets =
        [key, token, json!("good-key"), json!(TOKEN)].map(|secret| secret.as_str().unwrap().to_owned());
    let mut seen = String::new();
    for path in
        ["/v1/accounts", "/v1/keys", "/v1/tokens", "/v1/audit", "/v1/config", "/v1/status", "/openapi.json"]
    {
        seen += &api.get(path).to_string();
    }
    let wrong: Value = json!({ "key": "canary-in-a-body", "method": "GET", "path": "/one", "more": 1 });
    seen += &api.send("POST", "/v1/verify", "", Some(&wrong)).text();
    seen += &gateway.lines().join("\n");
    for secret in secrets.iter().map(String::as_str).chain(["canary-in-a-body"]) {
        assert!(!seen.contains(secret), "a secret is shown");
    }
    let (_, folder) = gateway.stop();
    for file in std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()) {
        let bytes = std::fs::read(&file).unwrap();
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found || file.ends_with("config.toml"), "a secret is in {}", file.display());
        }
    }
}
