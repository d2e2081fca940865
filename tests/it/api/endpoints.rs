//! All endpoints of the API, with a request to each that succeeds. A test below fails if an endpoint is missing here.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Api, admin_config};
use crate::support::{Gateway, Upstream, eventually, get};

/// A request to an endpoint.
pub struct Request {
    pub method: &'static str,
    /// The path in the description.
    pub endpoint: &'static str,
    pub body: Option<Value>,
    /// The action of its audit entry; empty if it changes nothing.
    pub action: &'static str,
}

fn request(
    method: &'static str,
    endpoint: &'static str,
    body: Option<Value>,
    action: &'static str,
) -> Request {
    Request { method, endpoint, body, action }
}

/// A request to each endpoint, in an order in which all of them succeed: for the account `beta` and a key of it.
pub fn all() -> Vec<Request> {
    let mut all = of_accounts_and_keys();
    let end = all.split_off(all.len() - 2); // they delete the account and its key
    all.extend(of_webhooks());
    all.extend(of_people());
    all.extend(end);
    all
}

fn of_accounts_and_keys() -> Vec<Request> {
    let booking = |reference: &str| Some(json!({ "credits": "2.5", "reference": reference }));
    vec![
        request("POST", "/v1/accounts", Some(json!({ "id": "beta", "plan": "growth" })), "account.create"),
        request("GET", "/v1/accounts", None, ""),
        request("GET", "/v1/accounts/{account}", None, ""),
        request("PATCH", "/v1/accounts/{account}", Some(json!({ "name": "Beta" })), "account.change"),
        request("POST", "/v1/accounts/{account}/grants", booking("g"), "credits.grant"),
        request("POST", "/v1/accounts/{account}/adjustments", booking("a"), "credits.adjust"),
        request("GET", "/v1/accounts/{account}/entries", None, ""),
        request("GET", "/v1/accounts/{account}/payments", None, ""),
        request("POST", "/v1/accounts/{account}/keys", Some(json!({ "label": "one" })), "key.create"),
        request("GET", "/v1/accounts/{account}/keys", None, ""),
        request(
            "PUT",
            "/v1/accounts/{account}/groups/{group}",
            Some(json!({ "spend_limit": { "credits": 10, "every": "day" } })),
            "group.change",
        ),
        request("GET", "/v1/accounts/{account}/groups", None, ""),
        request("DELETE", "/v1/accounts/{account}/groups/{group}", None, "group.delete"),
        request("GET", "/v1/keys", None, ""),
        request("GET", "/v1/keys/{key}", None, ""),
        request("PATCH", "/v1/keys/{key}", Some(json!({ "label": "two", "scopes": ["one"] })), "key.change"),
        request("POST", "/v1/keys/{key}/disable", None, "key.disable"),
        request("POST", "/v1/keys/{key}/enable", None, "key.enable"),
        request("POST", "/v1/keys/{key}/rotate", Some(json!({ "overlap": "1h" })), "key.rotate"),
        request("POST", "/v1/keys/{key}/end-overlap", None, "key.end_overlap"),
        request("POST", "/v1/explain", Some(json!({ "key": "{key}", "method": "GET", "url": "/one" })), ""),
        request("GET", "/v1/requests/{request}", None, ""),
        request(
            "POST",
            "/v1/verify",
            Some(json!({ "key": "good-key", "method": "GET", "path": "/one" })),
            "",
        ),
        request(
            "POST",
            "/v1/charge",
            Some(json!({ "key": "good-key", "credits": 0.25, "reference": "c" })),
            "credits.charge",
        ),
        request("GET", "/v1/usage", None, ""),
        request("GET", "/v1/accounts/{account}/refusals", None, ""),
        request("GET", "/v1/status", None, ""),
        request("GET", "/v1/config", None, ""),
        request("POST", "/v1/reload", None, ""), // the file is unchanged, so nothing is published
        request("POST", "/v1/ledger/verify", None, ""),
        request("GET", "/v1/ledger/in-doubt", None, ""),
        request("POST", "/v1/ledger/in-doubt/{request}/give-back", None, "credits.give_back"),
        request("GET", "/v1/jobs", None, ""),
        request("POST", "/v1/jobs/{job}/settle", Some(json!({ "credits": 1 })), "job.settle"),
        request("POST", "/v1/tokens", Some(json!({ "name": "ci", "role": "support" })), "token.create"),
        request("GET", "/v1/tokens", None, ""),
        request("DELETE", "/v1/tokens/{token}", None, "token.revoke"),
        request("GET", "/v1/audit", None, ""),
        request("POST", "/v1/keys/report-leaked", Some(json!({ "key": "good-key" })), "key.report_leaked"),
        request("DELETE", "/v1/keys/{key}", None, "key.revoke"),
        request("DELETE", "/v1/accounts/{account}", None, "account.delete"),
    ]
}

/// The same for webhooks: first of the account, then of the operator.
fn of_webhooks() -> Vec<Request> {
    let endpoint = || Some(json!({ "url": "https://your-app.example/hooks" }));
    vec![
        request("GET", "/v1/accounts/{account}/alerts", None, ""),
        request(
            "PATCH",
            "/v1/accounts/{account}/alerts",
            Some(json!({ "credits_low": [5] })),
            "account.alerts",
        ),
        request("GET", "/v1/accounts/{account}/renewal", None, ""),
        request(
            "PATCH",
            "/v1/accounts/{account}/renewal",
            Some(json!({ "top_up": { "below": 1, "credits": 10 } })),
            "account.renewal",
        ),
        request("POST", "/v1/accounts/{account}/webhooks", endpoint(), "webhook.create"),
        request("GET", "/v1/accounts/{account}/webhooks", None, ""),
        request("GET", "/v1/accounts/{account}/webhooks/deliveries", None, ""),
        request("POST", "/v1/webhooks/{endpoint}/test", None, "webhook.test"),
        request(
            "POST",
            "/v1/accounts/{account}/webhooks/deliveries/{delivery}/replay",
            None,
            "webhook.replay",
        ),
        request("DELETE", "/v1/accounts/{account}/webhooks/{endpoint}", None, "webhook.delete"),
        request("POST", "/v1/webhooks", endpoint(), "webhook.create"),
        request("GET", "/v1/webhooks", None, ""),
        request("GET", "/v1/webhooks/{endpoint}", None, ""),
        request(
            "PATCH",
            "/v1/webhooks/{endpoint}",
            Some(json!({ "events": ["key.created"] })),
            "webhook.change",
        ),
        request("GET", "/v1/webhooks/{endpoint}/secret", None, ""),
        request("POST", "/v1/webhooks/{endpoint}/rotate", Some(json!({ "overlap": "1h" })), "webhook.rotate"),
        request("POST", "/v1/webhooks/{endpoint}/test", None, "webhook.test"),
        request("GET", "/v1/webhooks/{endpoint}/deliveries", None, ""),
        request("POST", "/v1/webhooks/{endpoint}/deliveries/{delivery}/replay", None, "webhook.replay"),
        request("DELETE", "/v1/webhooks/{endpoint}", None, "webhook.delete"),
    ]
}

/// The same for people.
fn of_people() -> Vec<Request> {
    let member = "/v1/accounts/{account}/members/{user}";
    vec![
        request("POST", "/v1/users", Some(json!({ "email": "ada@example.com" })), "user.create"),
        request("GET", "/v1/users", None, ""),
        request("GET", "/v1/users/{user}", None, ""),
        request("PATCH", "/v1/users/{user}", Some(json!({ "operator": "support" })), "user.change"),
        request("POST", "/v1/users/{user}/sign-in-link", None, "user.sign_in_link"),
        request("PATCH", member, Some(json!({ "role": "developer" })), "member.change"),
        request("GET", "/v1/accounts/{account}/members", None, ""),
        request("DELETE", member, None, "member.remove"),
        request("POST", "/v1/invitations", Some(json!({ "email": "bob@example.com" })), "user.invite"),
        request("GET", "/v1/invitations", None, ""),
        request("DELETE", "/v1/invitations/{invitation}", None, "user.uninvite"),
        request("POST", "/v1/portal/sessions", Some(json!({ "account": "beta" })), "portal.session"),
        request("POST", "/v1/accounts/{account}/approve", None, "account.approve"),
        request("DELETE", "/v1/users/{user}", None, "user.delete"),
    ]
}

/// Where the dashboard is on, and sign-ups wait for approval.
const DASHBOARD: &str = "[plans.sandbox]\nlimits = []\n[dashboard]\nsign_up = \"approval\"\nplan = \"growth\"\nsandbox_plan = \"sandbox\"\ncredits = 5\n\
    [[routes]]\nname = \"job\"\npath = \"/job\"\nupstream = \"api\"\nhold = 2\nopens = { id = \"json:/id\", deadline = \"1h\" }\n";

/// Signs somebody up. Returns the account, which waits for approval.
fn signed_up(gateway: &Gateway) -> String {
    let form = "name=Waiting&email=w%40example.com&password=a+long+password";
    let headers = "content-type: application/x-www-form-urlencoded\r\n";
    let response = crate::support::post(gateway.admin, "/sign-up", headers, form);
    let place = response.header("location").unwrap_or_else(|| panic!("{}", response.text())).to_owned();
    place.rsplit('/').next().unwrap().to_owned()
}

/// A gateway with a hold in doubt, whose request id is the second part.
fn with_a_doubt() -> (Gateway, Upstream, String) {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&admin_config(DASHBOARD), &upstream);
    let mut client = crate::support::Client::connect(gateway.public);
    client
        .send("GET /one HTTP/1.1\r\nhost: a\r\nx-api-key: good-key\r\nx-response-delay: 5000\r\n\r\n")
        .unwrap();
    eventually("the request arrives", || !upstream.seen().is_empty());
    std::thread::sleep(std::time::Duration::from_millis(300)); // its hold is on disk
    let gateway = Gateway::start_in(gateway.crash());
    let job = "x-api-key: good-key\r\nx-response-body: {\"id\":\"job_1\"}\r\n";
    assert_eq!(get(gateway.public, "/job", job).status, 200);
    let id = gateway.rows(&["ledger", "in-doubt"])[0]["id"].as_str().unwrap().to_owned();
    (gateway, upstream, id)
}

/// The description of the API.
pub fn description(gateway: &Gateway) -> Value {
    let output = gateway.cli(&["openapi"]);
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Endpoints of the description with their permissions.
fn described(gateway: &Gateway) -> BTreeSet<(String, String, String)> {
    let description = description(gateway);
    let mut found = BTreeSet::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let permission = operation["x-permission"].as_str().unwrap_or_else(|| panic!("{method} {path}"));
            found.insert((method.to_uppercase(), path.clone(), permission.to_owned()));
        }
    }
    found
}

struct Objects {
    key: String,
    endpoint: String,
    delivery: String,
    /// In doubt.
    request: String,
    /// Of this process.
    newest: String,
    user: String,
    invitation: String,
    /// An account that waits for approval.
    awaiting: String,
}

impl Request {
    fn path(&self, objects: &Objects) -> String {
        let request =
            if self.endpoint.starts_with("/v1/requests") { &objects.newest } else { &objects.request };
        let account = if self.endpoint.ends_with("/approve") { &objects.awaiting } else { "beta" };
        self.endpoint
            .replace("{account}", account)
            .replace("{user}", &objects.user)
            .replace("{invitation}", &objects.invitation)
            .replace("{key}", &objects.key)
            .replace("{request}", request)
            .replace("{endpoint}", &objects.endpoint)
            .replace("{delivery}", &objects.delivery)
            .replace("{group}", "team")
            .replace("{job}", "api:job_1")
            .replace("{token}", "ci")
    }

    fn body(&self, objects: &Objects) -> Option<Value> {
        let text = self.body.as_ref()?.to_string().replace("{key}", &objects.key);
        Some(serde_json::from_str(&text).unwrap())
    }

    fn send(&self, api: &Api, objects: &Objects) -> crate::support::Response {
        api.send(self.method, &self.path(objects), "", self.body(objects).as_ref())
    }
}

/// True if a role has a permission.
fn may(role: &str, permission: &str) -> bool {
    match permission {
        "read_accounts" => true,
        "read_all" => role == "support",
        "credits" => role == "billing",
        "manage" => false,
        other => panic!("{other}"),
    }
}

/// The newest entry of the audit log.
fn newest(api: &Api) -> Value {
    api.get("/v1/audit?limit=1")["data"][0].clone()
}

/// Sends a request as each role, and without a token or with a wrong one. Those that may not make it are refused, and
/// change nothing. Returns the clients whose role allows it.
fn refused_to_others<'a>(
    request: &Request,
    permission: &str,
    (api, objects): (&Api, &Objects),
    roles: &'a [(&'static str, Api)],
) -> Vec<&'a (&'static str, Api)> {
    let name = format!("{} {}", request.method, request.endpoint);
    let before = newest(api);
    // Only changes are tried with a wrong token.
    for token in if request.action.is_empty() { &[""][..] } else { &["", "wrong"] } {
        let response = request.send(&api.with_token(token), objects);
        // Many wrong tokens from one address are answered with 429.
        if token.is_empty() || response.status != 429 {
            assert_eq!(response.status, 401, "{name}");
            assert!(response.header("www-authenticate").unwrap().starts_with("Bearer"));
        }
    }
    let (allowed, others): (Vec<_>, Vec<_>) = roles.iter().partition(|(role, _)| may(role, permission));
    for (role, client) in others {
        let response = request.send(client, objects);
        assert_eq!(
            (response.status, &response.json()["code"]),
            (403, &json!("forbidden")),
            "{name} as {role}"
        );
    }
    assert_eq!(newest(api), before, "{name} was refused, so nothing changed");
    allowed
}

/// Every role at every endpoint: a request that the role does not allow is refused, and changes nothing; one that it
/// allows succeeds. Every change is in the audit log, with who made it and from where.
#[test]
fn every_role_may_do_what_it_says_and_every_change_is_recorded() {
    let (gateway, _upstream, request) = with_a_doubt();
    let api = Api::of(&gateway);
    let roles = ["billing", "support"].map(|role| {
        let token = gateway.json(&["token", "create", role, "--role", role])["token"].clone();
        (role, api.with_token(token.as_str().unwrap()))
    });
    let key = "key_0000000000000000".to_owned();
    let (endpoint, delivery) = ("wh_0000000000000000".to_owned(), "0".to_owned());
    let newest_request = get(gateway.public, "/one", "").header("x-request-id").unwrap().to_owned();
    let path = format!("/v1/requests/{newest_request}");
    eventually("it is kept", || api.send("GET", &path, "", None).status == 200);
    let (user, invitation) = ("user_0000000000000000".to_owned(), "0".repeat(64));
    let awaiting = signed_up(&gateway);
    let mut objects =
        Objects { key, endpoint, delivery, request, newest: newest_request, user, invitation, awaiting };
    let (all, described) = (all(), described(&gateway));
    let known: BTreeSet<_> =
        all.iter().map(|request| (request.method.to_owned(), request.endpoint.to_owned())).collect();
    let documented = described.iter().map(|(method, path, _)| (method.clone(), path.clone())).collect();
    assert_eq!(known, documented, "each endpoint has a request here");
    for request in &all {
        let name = format!("{} {}", request.method, request.endpoint);
        let is_it = |(method, path, _): &&(String, String, String)| {
            *method == request.method && *path == request.endpoint
        };
        let permission = &described.iter().find(is_it).unwrap().2;
        let allowed = refused_to_others(request, permission, (&api, &objects), &roles);
        let before = newest(&api)["number"].as_u64().unwrap();
        let (by, client) = match allowed.first() {
            Some((role, client)) => (*role, client),
            None => ("admin", &api),
        };
        let response = request.send(client, &objects);
        assert!((200..300).contains(&response.status), "{name}: {} {}", response.status, response.text());
        if request.endpoint == "/v1/accounts/{account}/keys" && request.method == "POST" {
            objects.key = response.json()["id"].as_str().unwrap().to_owned();
        }
        match request.action {
            "webhook.create" => objects.endpoint = response.json()["id"].as_str().unwrap().to_owned(),
            "user.create" => objects.user = response.json()["id"].as_str().unwrap().to_owned(),
            "user.invite" => objects.invitation = response.json()["id"].as_str().unwrap().to_owned(),
            "webhook.test" => objects.delivery = response.json()["number"].to_string(),
            _ => {}
        }
        let entry = newest(&api);
        if request.action.is_empty() {
            assert_eq!(entry["number"], before, "{name} only reads");
            continue;
        }
        // An approval changes the plan and grants credits too.
        let changes = if request.action == "account.approve" { 3 } else { 1 };
        assert_eq!(entry["number"], before + changes, "{name}: {entry}");
        let by = json!(format!("token:{by}"));
        assert_eq!((&entry["action"], &entry["by"]), (&json!(request.action), &by), "{name}");
        assert_eq!(entry["from"], "127.0.0.1", "{name}");
    }
    let text = api.get("/v1/audit?limit=1000").to_string();
    assert!(
        !text.contains("ak_live_") && !text.contains("good-key") && !text.contains("tollgate_"),
        "{text}"
    );
}
