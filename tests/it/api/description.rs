//! Tests that the description of the API (OpenAPI) is true: it is the same from the command and the gateway, and a
//! fuzzer that reads only the description finds no contradiction.

use std::process::Command;

use serde_json::json;

use super::endpoints::description;
use super::{Api, TOKEN, admin_config};
use crate::foreign::{python, root};
use crate::support::{Gateway, Upstream};

#[test]
fn the_description_is_served_and_printed() {
    let gateway = Gateway::start(&admin_config(""), &Upstream::start());
    let served = Api::of(&gateway).get("/openapi.json");
    assert_eq!(served, description(&gateway));
    assert_eq!(served["openapi"].as_str().map(|version| &version[..3]), Some("3.1"));
    assert_eq!(served["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    let text = served.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(served.pointer(reference).is_some(), "{reference} is described");
    }
    for (path, methods) in served["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            for status in ["400", "401", "403", "429", "503"] {
                assert!(responses.contains_key(status), "{method} {path}: {status}");
            }
            let about = operation["summary"].as_str().unwrap_or_default();
            assert!(!about.is_empty(), "{method} {path}");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let is_write = method != "get" && operation["x-permission"] != json!("read_all");
            let has_key = parameters.iter().any(|parameter| parameter["name"] == "Idempotency-Key");
            let is_read = operation["x-permission"].as_str().unwrap().starts_with("read");
            assert_eq!(has_key, is_write && !is_read, "{method} {path}");
        }
    }
}

/// The description is open to everybody only if the file says so.
#[test]
fn a_path_is_open_only_if_the_file_says_so() {
    let upstream = Upstream::start();
    let closed = Gateway::start(&admin_config(""), &upstream);
    let open = admin_config("").replace("[admin]\n", "[admin]\nopen = [\"/openapi.json\"]\n");
    let open = Gateway::start(&open, &upstream);
    let status =
        |gateway: &Gateway, path: &str| Api::of(gateway).with_token("").send("GET", path, "", None).status;
    assert_eq!((status(&closed, "/openapi.json"), status(&open, "/openapi.json")), (401, 200));
    assert_eq!(
        (status(&open, "/v1/accounts"), status(&closed, "/healthz"), status(&closed, "/readyz")),
        (401, 200, 200)
    );
}

/// A client that knows only the description runs the whole life of an account.
#[test]
fn a_client_that_knows_only_the_description_can_do_everything() {
    let Some(python) = python() else { return };
    let gateway = Gateway::start(&admin_config(""), &Upstream::start());
    let description = gateway.folder.path().join("openapi.json");
    std::fs::write(&description, gateway.cli(&["openapi"]).stdout).unwrap();
    let output = Command::new(python)
        .arg(root().join("tests/clients/openapi_client.py"))
        .arg(description)
        .args([&format!("http://{}", gateway.admin), TOKEN])
        .current_dir(gateway.folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(gateway.json(&["ledger", "verify"])["found"] == 0);
}

/// schemathesis makes requests from the description alone: valid ones, invalid ones, and sequences of them.
#[test]
fn a_fuzzer_finds_nothing() {
    let Some(python) = python() else { return };
    let gateway = Gateway::start(&admin_config(""), &Upstream::start());
    let description = gateway.folder.path().join("openapi.json");
    std::fs::write(&description, gateway.cli(&["openapi"]).stdout).unwrap();
    let examples = if std::env::var_os("TOLLGATE_LONG").is_some() { "300" } else { "15" };
    let output = Command::new(python.with_file_name("schemathesis"))
        .arg("--config-file")
        .arg(root().join("tests/clients/schemathesis.toml"))
        .arg("run")
        .arg(&description)
        .args([
            "--url",
            &format!("http://{}", gateway.admin),
            "--header",
            &format!("Authorization: Bearer {TOKEN}"),
        ])
        .args(["--checks", "all", "--mode", "all", "--max-examples", examples, "--seed", "1", "--no-color"])
        .args(["--rate-limit", "150/s", "--suppress-health-check", "all"])
        .current_dir(gateway.folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(gateway.json(&["ledger", "verify"])["found"] == 0);
}
