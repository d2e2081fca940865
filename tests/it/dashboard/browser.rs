//! The dashboard in Debian's Chromium: `tests/clients/dashboard` uses it as people do, with JavaScript and without.

use std::process::Command;

use serde_json::{Value, json};

use super::Portal;
use crate::api::TOKEN;
use crate::foreign::{has, python, root};
use crate::payments::{StandIn, bought};

/// Runs a scenario, with JavaScript and without if it matters.
fn run(scenario: &str, scripts: &[bool], portal: &Portal, more: &Value) {
    let Some(python) = python() else { return };
    if !has("chromium") {
        return;
    }
    for script in scripts {
        let mut here = json!({
            "url": format!("http://{}", portal.pages),
            "api": format!("http://{}", portal.gateway.public),
            "script": script,
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            here[name] = value.clone();
        }
        let mut command = Command::new(&python);
        command.arg(root().join("tests/clients/dashboard")).args([scenario, &here.to_string()]);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{scenario}, JavaScript {script}: {text}");
    }
}

#[test]
fn a_customer_creates_uses_rotates_and_revokes_a_key() {
    run("keys", &[true, false], &Portal::start(""), &Value::Null);
}

#[test]
fn each_role_sees_and_may_do_what_it_says() {
    run("people", &[true, false], &Portal::start(""), &Value::Null);
}

#[test]
fn one_time_codes_are_used_once() {
    run("codes", &[true, false], &Portal::start(""), &Value::Null);
}

#[test]
fn webhooks_are_tested_and_sent_again() {
    run("webhooks", &[true, false], &Portal::start(""), &Value::Null);
}

#[test]
fn names_of_customers_are_inert() {
    let portal = Portal::start("");
    let grant = json!({ "grant": { "url": format!("http://{}", portal.gateway.admin), "token": TOKEN } });
    run("inert", &[true, false], &portal, &grant);
}

#[test]
fn credits_are_bought() {
    let service = StandIn::start();
    let portal = Portal::start(&service.config());
    service.send_events_to(portal.pages);
    run("buy", &[true, false], &portal, &Value::Null);
}

#[test]
fn another_site_cannot_write() {
    run("cross_site", &[true], &Portal::start(""), &Value::Null);
}

#[test]
fn addresses_are_verified_by_e_mail() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener); // free again for the mail server
    let portal = Portal::start(&format!("smtp = \"smtp://127.0.0.1:{port}\"\nfrom = \"api@example.com\"\n"));
    run("mail", &[true, false], &portal, &json!({ "smtp": port }));
}

/// The link of an operator.
fn operator(portal: &Portal) -> Value {
    let user = json!({ "email": "operator@example.com", "operator": "owner" });
    let made = portal.api.ok("POST", "/v1/users", Some(&user));
    let path = format!("/v1/users/{}/sign-in-link", made["id"].as_str().unwrap());
    portal.api.ok("POST", &path, None)["link"].clone()
}

#[test]
fn operators_run_the_gateway() {
    let portal = Portal::start("");
    run("operators", &[true], &portal, &json!({ "operator": operator(&portal) }));
    let portal = Portal::start("");
    run("operators", &[false], &portal, &json!({ "operator": operator(&portal) }));
}

/// axe-core finds nothing on any page, light and dark; no page is wider than 360 px or larger than 60 KB.
#[test]
fn every_page_is_accessible_small_and_fits() {
    if !root().join("target/clients/node_modules/axe-core/axe.min.js").exists() {
        crate::support::missing("axe-core", "scripts/test installs it");
        return;
    }
    let service = StandIn::start();
    let portal = Portal::start(&service.config());
    portal.api.ok("POST", "/v1/accounts", Some(&json!({ "id": "acme-2", "plan": "growth", "credits": 9 })));
    let limit = json!({ "spend_limit": { "credits": 10, "every": "day" } });
    portal.api.ok("PUT", "/v1/accounts/acme-2/groups/team", Some(&limit));
    let owner = portal.member("acme-2", "owner");
    let paid = bought(&portal, &service, &owner, "acme-2", "small&save=1");
    service.tell(&portal, &[&paid, &service.refunded(paid["data"]["object"]["id"].as_str().unwrap(), 100)]);
    let key = portal.api.ok("POST", "/v1/accounts/acme-2/keys", Some(&json!({ "label": "a key" })));
    let secret = key["key"].as_str().unwrap();
    for path in ["/one", "/one", "/nowhere"] {
        crate::support::get(portal.gateway.public, path, &format!("x-api-key: {secret}\r\n"));
    }
    let hook = json!({ "url": "http://127.0.0.1:9/hook" });
    portal.api.ok("POST", "/v1/accounts/acme-2/webhooks", Some(&hook));
    let more = json!({ "operator": operator(&portal), "account": "/accounts/acme-2", "key": key["id"] });
    run("sound", &[true], &portal, &more);
}
