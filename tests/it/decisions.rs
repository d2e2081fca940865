//! Tests what is kept about requests: to explain one, and to rehearse a configuration; and rules that are shadows.

use serde_json::{Value, json};

use crate::api::{Api, admin_config};
use crate::support::{Gateway, Response, Upstream, eventually, get, sha256};

const KEY: &str = "x-api-key: good-key\r\n";

fn id(response: &Response) -> String {
    response.header("x-request-id").unwrap().to_owned()
}

/// What is kept about a request, once the worker has passed it on.
fn kept(api: &Api, id: &str) -> Value {
    let path = format!("/v1/requests/{id}");
    eventually("the request is kept", || api.send("GET", &path, "", None).status == 200);
    api.get(&path)
}

fn names(request: &Value) -> Vec<String> {
    let steps = request["steps"].as_array().unwrap().iter();
    steps.map(|step| step["step"].as_str().unwrap().to_owned()).collect()
}

/// A request is explained by its id, by a proxy's id too: who refused it, and what came before; nothing of what the
/// client sent is shown.
#[test]
fn a_request_is_explained_by_its_id() {
    let more = "[plans.one]\nlimits = [{ name = \"hourly\", requests = 1, window = \"1h\" }]\n[accounts.poor]\nplan = \"one\"\n";
    let config = admin_config(more).replacen(
        "[server]\nlisten = [\"127.0.0.1:0\"]\n",
        "[server]\nlisten = [\"127.0.0.1:0\"]\ntrusted_proxies = [\"127.0.0.1\"]\n",
        1,
    );
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config, &upstream);
    let api = Api::of(&gateway);
    let made = api.post("/v1/accounts/poor/keys", json!({ "label": "p" }));
    let poor = format!("x-api-key: {}\r\n", made["key"].as_str().unwrap());
    let served = kept(&api, &id(&get(gateway.public, "/one?canary-in-query", KEY)));
    assert_eq!(
        names(&served),
        [
            "head", "route", "key", "account", "scope", "address", "body", "limits", "credits", "upstream",
            "charge"
        ]
    );
    assert_eq!((&served["account"], &served["route"]), (&json!("acme"), &json!("one")));
    assert_eq!((&served["outcome"], &served["credits"]), (&json!("proxied"), &json!(1)));
    assert_eq!((&served["status"], &served["upstream_status"]), (&json!(200), &json!(200)));
    assert!(!served.to_string().contains("canary"), "{served}");
    for (path, headers, refusing, reason) in [
        ("/one", poor.as_str(), "credits", "insufficient_credits"),
        ("/one", &poor, "limits", "rate_limited"),
        ("/one", "", "key", "missing_key"),
        ("/one?api_key=1", "", "key", "key_in_query"),
        ("/nowhere", KEY, "route", "no_route"),
        ("/a/../one", KEY, "head", "bad_request"),
    ] {
        let request = kept(&api, &id(&get(gateway.public, path, headers)));
        let last = request["steps"].as_array().unwrap().last().unwrap();
        assert_eq!((&last["step"], &last["reason"]), (&json!(refusing), &json!(reason)), "{request}");
        assert_eq!((&last["passes"], &request["credits"]), (&json!(false), &json!(0)), "{request}");
        assert_eq!((last["detail"] == "hourly"), reason == "rate_limited", "{request}");
    }
    let refusals = api.get("/v1/accounts/poor/refusals");
    assert_eq!(refusals["data"][0]["limit"], "hourly", "{refusals}");
    get(gateway.public, "/open/a", "x-request-id: from-the-proxy\r\n");
    let public = kept(&api, "from-the-proxy");
    assert_eq!(names(&public), ["head", "route", "body", "limits", "upstream", "charge"]);
    let missing = api.send("GET", "/v1/requests/req_000000000000000000", "", None);
    assert_eq!(missing.status, 404, "{}", missing.text());
    let told = gateway.cli(&["explain", "--request", served["id"].as_str().unwrap()]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("passes   upstream") && told.contains("proxied, 200, 1 credits"), "{told}");
}

fn metric(api: &Api, name: &str) -> f64 {
    let text = api.send("GET", "/metrics", "", None).text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    line.unwrap_or_else(|| panic!("{name} in {text}"))
}

/// A shadow limit, price or scope refuses and charges nothing; what it would have done is counted and explained.
#[test]
fn shadow_rules_refuse_nothing_and_are_counted() {
    let more = r#"
[[routes]]
name = "tried"
path = "/tried"
upstream = "api"
credits = 600
shadow = true
[plans.tried]
limits = [{ name = "few", requests = 2, window = "1h", shadow = true }, { name = "many", requests = 9, window = "1h" }]
[accounts.new]
plan = "tried"
credits = 10
"#;
    let upstream = Upstream::start();
    let gateway = Gateway::start(&admin_config(more), &upstream);
    let api = Api::of(&gateway);
    let scopes = json!({ "routes": ["one"], "shadow": true });
    let made = api.post("/v1/accounts/new/keys", json!({ "label": "n", "scopes": scopes }));
    assert_eq!(made["scopes"], scopes);
    let key = format!("x-api-key: {}\r\n", made["key"].as_str().unwrap());
    let mut last = None;
    for _ in 0..4 {
        let response = get(gateway.public, "/tried", &key);
        assert_eq!(
            (response.status, response.header("x-credits-used")),
            (200, Some("0")),
            "{}",
            response.text()
        );
        assert!(response.header("ratelimit").is_some_and(|header| !header.contains("few")), "{response:?}");
        last = Some(response);
    }
    assert_eq!(api.get("/v1/accounts/new")["balance"], json!(10));
    let request = kept(&api, &id(&last.unwrap()));
    let shadows: Vec<&Value> =
        request["steps"].as_array().unwrap().iter().map(|step| &step["shadow"]).collect();
    let shadows: Vec<&Value> = shadows.into_iter().filter(|shadow| !shadow.is_null()).collect();
    assert_eq!(shadows, ["route_forbidden", "rate_limited", "insufficient_credits"], "{request}");
    for (rule, count) in [("scope", 4.0), ("limit", 2.0), ("credits", 4.0)] {
        let name = format!("tollgate_shadow_refusals_total{{route=\"tried\",rule=\"{rule}\"}}");
        assert_eq!(metric(&api, &name), count, "{rule}");
    }
    assert_eq!(metric(&api, "tollgate_shadow_credits_total{route=\"tried\"}"), 2400.0);
    let explained = api.post("/v1/explain", json!({ "key": made["id"], "method": "GET", "url": "/tried" }));
    assert_eq!(
        (&explained["admitted"], explained.to_string().matches("\"shadow\"").count()),
        (&json!(true), 4)
    );
    // In force, the same rules refuse: a key's scopes first.
    let path = format!("/v1/keys/{}", made["id"].as_str().unwrap());
    api.ok("PATCH", &path, Some(&json!({ "scopes": ["one"] })));
    assert_eq!(get(gateway.public, "/tried", &key).status, 403);
}

/// `check --against` says which recorded decisions another file would have changed, by rule; none for the same file.
#[test]
fn a_file_is_rehearsed_against_recorded_requests() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&admin_config(""), &upstream);
    let mut last = String::new();
    for _ in 0..5 {
        last = id(&get(gateway.public, "/one", KEY));
        get(gateway.public, "/header", &format!("{KEY}x-response-header: x-cost: 2\r\n"));
        get(gateway.public, "/one", "");
    }
    kept(&Api::of(&gateway), &last);
    std::thread::sleep(std::time::Duration::from_millis(1_100)); // the other worker's
    let rehearse = |text: &str| -> Value {
        std::fs::write(gateway.config_path().with_file_name("new.toml"), text).unwrap();
        let arguments = ["check", "-c", "new.toml", "--against", "1h", "--gateway", "config.toml"];
        gateway.json(&arguments)
    };
    let now = gateway.config();
    let same = rehearse(&now);
    assert_eq!((&same["requests"], &same["changed"]), (&json!(15), &json!(0)), "{same}");
    assert_eq!((&same["rules"], &same["charges"]), (&json!({}), &json!({})), "{same}");
    let new = now
        .replace("path = \"/one\"\nupstream = \"api\"\ncredits = 1\n", "path = \"/one\"\nupstream = \"api\"\ncredits = 3\nlimits = [{ name = \"tight\", requests = 2, window = \"1h\" }]\n")
        .replace("label = \"good\"\n", "label = \"good\"\nscopes = [\"one\"]\n");
    let told = rehearse(&new);
    assert_eq!(told["rules"]["limit tight"]["refused"], 3, "{told}");
    assert_eq!(told["rules"]["scope"]["refused"], 5, "{told}");
    assert_eq!(told["changed"], 8, "those without a key are refused as before");
    assert_eq!(told["charges"]["one"], json!([5, 6]), "{told}");
    assert_eq!(told["charges"]["header"], json!([10, 0]), "{told}");
    let without = rehearse(&now.replace(&sha256("good-key"), &sha256("another")));
    assert_eq!(without["rules"]["key"]["refused"], 10, "{without}");
}
