//! Tests spending limits of groups of keys (promises 1 and 2).

use serde_json::{Value, json};

use super::jobs::BULK;
use super::spending::spend;
use crate::api::{Api, admin_config};
use crate::clocks::FakeClock;
use crate::dashboard::Portal;
use crate::support::{Gateway, Upstream, eventually};

fn text(key: &Value) -> String {
    key["key"].as_str().unwrap().to_owned()
}

#[test]
fn keys_of_a_group_spend_from_one_limit() {
    let Some(clock) = FakeClock::new("@2027-03-30 10:00:00") else { return };
    let (prefix, upstream) = (clock.prefix(), Upstream::start());
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    let gateway = Gateway::start_by(&prefix, &admin_config(BULK), &upstream);
    let api = Api::of(&gateway);
    api.post("/v1/accounts", json!({ "id": "ada", "credits": 1000 }));
    let put = |name: &str, limit: Value| {
        let body = json!({ "spend_limit": limit });
        api.ok("PUT", &format!("/v1/accounts/ada/groups/{name}"), Some(&body))
    };
    let key = |more: Value| {
        let mut body = json!({ "label": "k" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        api.post("/v1/accounts/ada/keys", body)
    };
    let made = put("team", json!({ "credits": 5, "every": "day" }));
    assert_eq!((&made["keys"], &made["spent"]), (&json!(0), &json!(0)));
    let (one, two) = (key(json!({ "group": "team" })), key(json!({ "group": "team", "spend_limit": 2 })));
    let (free, none) = (key(json!({})), json!({ "label": "k", "group": "nobody" }));
    let response = api.send("POST", "/v1/accounts/ada/keys", "", Some(&none));
    assert!(response.status == 409 && response.text().contains("no group nobody"), "{}", response.text());
    let (charged, refusal) = spend(&gateway, &text(&two));
    assert!(charged == 2 && refusal.contains("API key's spending limit"), "{charged} {refusal}");
    let (charged, refusal) = spend(&gateway, &text(&one));
    assert!(charged == 3 && refusal.contains("limit of the API key's group"), "{charged} {refusal}");
    assert_eq!(spend(&gateway, &text(&free)).0, 20, "a key in no group");
    // A crash does not renew the limit; a higher one is in force at once, for all its keys.
    let gateway = Gateway::restart_by(&prefix, gateway.crash());
    assert_eq!(spend(&gateway, &text(&one)).0, 0);
    let api = Api::of(&gateway);
    let put =
        |limit: Value| api.ok("PUT", "/v1/accounts/ada/groups/team", Some(&json!({ "spend_limit": limit })));
    assert_eq!(put(json!({ "credits": 7, "every": "day" }))["spent_in_period"], 5);
    assert_eq!(spend(&gateway, &text(&one)).0, 2);
    assert_eq!(spend(&gateway, &text(&two)).0, 0);
    let told = gateway.cli(&["explain", "--key-id", one["id"].as_str().unwrap(), "GET", "/one"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("group_spend_limit"), "{told}");
    // The next day.
    clock.set("@2027-03-31 00:00:01");
    let team = |api: &Api| api.get("/v1/accounts/ada/groups")["data"][0].clone();
    eventually("the next day", || team(&api)["spent_in_period"] == json!(0));
    assert_eq!(spend(&gateway, &text(&one)).0, 7);
    let group = team(&api);
    assert_eq!((&group["spent"], &group["keys"]), (&json!(14), &json!(2)));
    assert_eq!(gateway.json(&["ledger", "verify"])["differences"], json!([]));
}

#[test]
fn keys_are_moved_between_groups() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&admin_config(BULK), &upstream);
    let api = Api::of(&gateway);
    api.post("/v1/accounts", json!({ "id": "ada", "credits": 1000 }));
    let set = |name: &str, limit: &str| {
        gateway.json(&["account", "set-group", "ada", name, "--spend-limit", limit]);
    };
    set("red", "3");
    set("blue", "2/month");
    let made = gateway.json(&["key", "create", "--account", "ada", "--label", "k", "--group", "red"]);
    let (key, path) = (text(&made), format!("/v1/keys/{}", made["id"].as_str().unwrap()));
    let to = |group: Value| api.ok("PATCH", &path, Some(&json!({ "group": group })));
    assert_eq!(spend(&gateway, &key).0, 3);
    assert_eq!(to(json!("blue"))["group"], "blue");
    assert_eq!(spend(&gateway, &key).0, 2, "what was spent in another group does not count");
    let refused = gateway.cli(&["account", "delete-group", "ada", "blue"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("1 key is in the group blue"), "{told}");
    assert_eq!(to(Value::Null)["group"], Value::Null);
    assert_eq!(spend(&gateway, &key).0, 20);
    let gateway = Gateway::start_in(gateway.crash());
    let api = Api::of(&gateway);
    let groups = api.get("/v1/accounts/ada/groups");
    let spent = |at: usize| (groups["data"][at]["name"].clone(), groups["data"][at]["spent"].clone());
    assert_eq!((spent(0), spent(1)), ((json!("blue"), json!(2)), (json!("red"), json!(3))));
    gateway.json(&["account", "delete-group", "ada", "blue"]);
    let gone = api.send("DELETE", "/v1/accounts/ada/groups/blue", "", None);
    assert_eq!(gone.status, 404, "{}", gone.text());
    // Another account's groups are not found, and a name is what a path holds.
    assert_eq!(api.send("GET", "/v1/accounts/eve/groups", "", None).status, 404);
    let body = json!({ "spend_limit": -1 });
    let response = api.send("PUT", "/v1/accounts/ada/groups/red", "", Some(&body));
    assert!(response.status == 422 && response.text().contains("not negative"), "{}", response.text());
}

/// An account's owner puts keys in groups on the pages of the dashboard.
#[test]
fn owners_set_groups_on_their_pages() {
    let portal = Portal::start("");
    let (owner, viewer) = (portal.member("beta", "owner"), portal.member("beta", "viewer"));
    let group = "group=team&spend_limit=10%2Fday";
    assert_eq!(portal.form("/accounts/beta/groups", &viewer, group).status, 403);
    assert_eq!(portal.form("/accounts/beta/groups", &owner, "group=a+b&spend_limit=1").status, 422);
    let wrong = portal.form("/accounts/beta/groups", &owner, "group=team&spend_limit=lots");
    assert!(wrong.status == 422 && wrong.text().contains("looks like 100, or 100/day"));
    assert_eq!(portal.form("/accounts/beta/groups", &owner, group).status, 303);
    let page = portal.page("/accounts/beta/groups", &owner).text();
    assert!(page.contains("team") && page.contains("10/day") && page.contains("Delete"), "{page}");
    let made = portal.form("/accounts/beta/keys", &owner, "label=k&scope=all&group=team");
    assert_eq!(made.status, 303);
    let id = portal.api.get("/v1/accounts/beta/keys")["data"][0]["id"].as_str().unwrap().to_owned();
    let page = portal.page(&format!("/accounts/beta/keys/{id}"), &owner).text();
    assert!(page.contains("/accounts/beta/groups"), "the key's page tells its group");
    let delete = || portal.form("/accounts/beta/groups/delete", &owner, "group=team");
    assert!(delete().text().contains("1 key is in the group team"));
    let edit = portal.page(&format!("/accounts/beta/keys/{id}/edit"), &owner).text();
    assert!(edit.contains("<option value=\"team\" selected>"), "{edit}");
    let changed = portal.form(
        &format!("/accounts/beta/keys/{id}/edit"),
        &owner,
        "label=k&scope=all&group=&expires=keep",
    );
    assert_eq!(changed.status, 303, "{}", changed.text());
    assert_eq!(delete().status, 303);
}
