//! Tests jobs: what a request holds is charged when a later one tells what the job cost, exactly once, through stops,
//! crashes and upgrades; and nobody sees another account's job (promises 1, 2, 4 and 5).

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::{Api, admin_config};
use crate::dashboard::Portal;
use crate::support::{Client, Gateway, Response, Upstream, eventually, get, sha256};

pub const KEY: &str = "x-api-key: good-key\r\n";

/// Routes whose requests open jobs, with a hold for each item, and settle them at what they cost.
pub const BULK: &str = r#"
[[routes]]
name = "bulk"
path = "/bulk"
methods = ["POST"]
upstream = "api"
hold = { each = 1, of = "/records", max_items = 5000 }
opens = { id = "json:/id", deadline = "48h" }
[[routes]]
name = "bulk.get"
path = "/bulk/{id}"
methods = ["GET"]
upstream = "api"
settles = { id = "path:id", done = { "json:/status" = ["completed", "failed"] }, credits = "json:/stats/credits_cost/final" }
"#;

pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Requests by which the upstream tells about a job.
pub const CALLBACKS: &str = r#"
[callbacks.api]
path = "/callbacks/people"
secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
id = "json:/id"
done = { "json:/status" = "completed" }
credits = [{ from = "json:/credits/cost" }]
"#;

/// Such a request, signed now or at another time.
pub fn tell(gateway: &Gateway, body: &str, ago: i64, secret: &str) -> Response {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let at = i64::try_from(since.as_secs()).unwrap() - ago;
    let signature = tollgate::policy::key::signature::sign([secret].into_iter(), "msg_1", at, body);
    let headers =
        format!("webhook-id: msg_1\r\nwebhook-timestamp: {at}\r\nwebhook-signature: {signature}\r\n");
    crate::support::post(gateway.public, "/callbacks/people", &headers, body)
}

const JOBS: &str = r#"
[[routes]]
name = "find"
path = "/find"
methods = ["POST"]
upstream = "api"
hold = 4
opens = { id = "header:x-job", deadline = "5s", at_deadline = "charge" }
[[routes]]
name = "find.get"
path = "/find"
methods = ["GET"]
upstream = "api"
settles = { id = "query:id", status = "200", charge = [
  { when = { "json:/qualification" = "found" }, credits = 1 },
] }
[plans.small]
jobs = 2
limits = [{ name = "per-minute", requests = 3, window = "60s", except = ["*.get"] }]
[accounts.other]
plan = "small"
credits = 100
"#;

pub(super) fn config() -> String {
    let key = format!("[[accounts.other.keys]]\nlabel = \"k\"\nsha256 = \"{}\"\n", sha256("other-key"));
    admin_config(&format!("{BULK}{CALLBACKS}{JOBS}{key}"))
}

fn start() -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    (Gateway::start(&config(), &upstream), upstream)
}

/// Asks for a bulk search of so many records; the upstream names the job.
pub fn open(gateway: &Gateway, key: &str, job: &str, records: usize) -> Response {
    let body = format!("{{\"records\":[{}]}}", vec!["1"; records].join(","));
    let mut client = Client::connect(gateway.public);
    let head = format!(
        "POST /bulk HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\nx-response-body: {{\"id\":\"{job}\"}}\r\n\
         x-response-status: 201\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    client.ask(head).unwrap()
}

/// Asks for the results of a job, of which the upstream says this.
pub fn poll(gateway: &Gateway, key: &str, job: &str, says: &Value) -> Response {
    get(gateway.public, &format!("/bulk/{job}"), &format!("x-api-key: {key}\r\nx-response-body: {says}\r\n"))
}

pub fn done(cost: &str) -> Value {
    let cost: Value = serde_json::from_str(cost).unwrap();
    json!({ "status": "completed", "stats": { "credits_cost": { "final": cost } } })
}

#[test]
fn a_job_is_charged_once_when_it_is_done() {
    let (gateway, upstream) = start();
    let opened = open(&gateway, "good-key", "job_1", 3);
    assert_eq!((opened.status, opened.charged()), (201, None));
    assert_eq!(gateway.available("acme"), "997", "held until the job is done");
    let polled = poll(&gateway, "good-key", "job_1", &json!({ "status": "ongoing" }));
    assert_eq!(polled.status, 200);
    poll(&gateway, "good-key", "job_1", &json!({ "status": ["completed"] }));
    assert_eq!(gateway.available("acme"), "997");
    // The settlement is on disk before the last byte of the response leaves.
    poll(&gateway, "good-key", "job_1", &done("2"));
    assert_eq!(gateway.available("acme"), "998");
    for _ in 0..3 {
        assert_eq!(
            poll(&gateway, "good-key", "job_1", &done("1")).status,
            200,
            "results can be fetched again"
        );
    }
    assert_eq!(gateway.available("acme"), "998");
    // More than was held is capped; what cannot be read costs the hold.
    open(&gateway, "good-key", "job_2", 2);
    poll(&gateway, "good-key", "job_2", &done("5"));
    open(&gateway, "good-key", "job_3", 2);
    poll(&gateway, "good-key", "job_3", &json!({ "status": "failed" }));
    assert_eq!(gateway.available("acme"), "994");
    // A response without an id cannot be settled later, so it costs the hold.
    let unnamed = "{\"records\":[1]}";
    let head = format!("POST /bulk HTTP/1.1\r\nhost: a\r\n{KEY}content-length: {}\r\n\r\n", unnamed.len());
    Client::connect(gateway.public).ask(format!("{head}{unnamed}")).unwrap();
    assert_eq!(gateway.available("acme"), "993");
    // The upstream's errors cost nothing, and open nothing.
    let failed = format!(
        "POST /bulk HTTP/1.1\r\nhost: a\r\n{KEY}x-response-status: 500\r\ncontent-length: 15\r\n\r\n"
    );
    Client::connect(gateway.public).ask(format!("{failed}{unnamed}")).unwrap();
    assert_eq!(gateway.available("acme"), "993");
    assert_eq!(gateway.json(&["ledger", "verify"])["differences"], json!([]));
    drop(upstream);
}

/// Whatever the client does, a job that is done is charged; a HEAD, an error and a response that is cut are not the end of it.
#[test]
fn a_job_that_is_done_is_charged_once_its_response_can_be_read() {
    let (gateway, upstream) = start();
    let ask = |method: &str, job: &str, headers: &str| {
        let mut client = Client::connect(gateway.public);
        client.send(format!("{method} /bulk/{job} HTTP/1.1\r\nhost: a\r\n{KEY}{headers}\r\n")).unwrap();
        client
    };
    open(&gateway, "good-key", "a", 3);
    // The client leaves within the results.
    let says = done("2").to_string();
    let (first, rest) = says.split_at(20);
    let mut client =
        ask("GET", "a", &format!("x-response-chunks: {first}|{rest}\r\nx-response-pause: 300\r\n"));
    client.head().unwrap();
    socket2::SockRef::from(&*client.socket()).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    eventually("charged", || gateway.available("acme") == "998");
    // Results may be long, and no part of them may be asked for alone.
    open(&gateway, "good-key", "b", 3);
    upstream.clear();
    let pad = format!("{{\"x\":\"{}\",{}", "y".repeat(3 << 20), &done("1").to_string()[1..]);
    let mut client = Client::connect(gateway.public);
    let head = format!(
        "GET /bulk/b HTTP/1.1\r\nhost: a\r\n{KEY}range: bytes=0-9\r\nx-response-echo: 1\r\ncontent-length: {}\r\n\r\n",
        pad.len()
    );
    client.send(head).unwrap();
    assert_eq!(client.ask(&pad).unwrap().body.len(), pad.len());
    assert_eq!(upstream.last().header("range"), None);
    assert_eq!(gateway.available("acme"), "997");
    // Nothing is charged for what tells nothing.
    let find = format!(
        "POST /find HTTP/1.1\r\nhost: a\r\n{KEY}x-response-header: x-job: f\r\ncontent-length: 0\r\n\r\n"
    );
    Client::connect(gateway.public).ask(find).unwrap();
    let answers = [
        "x-response-status: 204\r\n",
        "x-response-cut: 3\r\nx-response-body: {\"qualification\":\"found\"}\r\n",
    ];
    for (method, headers) in [("HEAD", ""), ("GET", answers[0]), ("GET", answers[1])] {
        let mut client = Client::connect(gateway.public);
        let _ = client.ask(format!("{method} /find?id=f HTTP/1.1\r\nhost: a\r\n{KEY}{headers}\r\n"));
        assert_eq!(gateway.available("acme"), "993", "{method} {headers}");
    }
    let gateway = Gateway::start_in(gateway.crash());
    assert_eq!(
        get(gateway.public, "/bulk/b", KEY).status,
        200,
        "after a crash the account still finds its jobs"
    );
}

#[test]
fn a_job_is_found_by_its_account_only() {
    let (gateway, upstream) = start();
    open(&gateway, "good-key", "job_1", 1);
    upstream.clear();
    for job in ["job_1", "job_2", "%6Aob_1"] {
        let refused = poll(&gateway, "other-key", job, &done("0"));
        assert_eq!(refused.status, 404, "{job}");
        assert!(refused.text().contains("no_job"), "{}", refused.text());
    }
    assert!(upstream.seen().is_empty(), "the upstream's answer would be another account's");
    assert_eq!(poll(&gateway, "good-key", "%6Aob_1", &done("1")).status, 200);
    assert_eq!(gateway.available("acme"), "999");
    assert_eq!(poll(&gateway, "other-key", "job_1", &done("0")).status, 404, "also once it is settled");
    let gateway = Gateway::start_in(gateway.stop().1);
    assert_eq!(poll(&gateway, "other-key", "job_1", &done("0")).status, 404, "also after a restart");
    assert_eq!(poll(&gateway, "good-key", "job_1", &done("0")).status, 200);
    let twice = get(gateway.public, "/find?id=a&id=b", KEY);
    assert_eq!(twice.status, 400, "{}", twice.text());
}

#[test]
fn open_jobs_count_against_the_plan() {
    let (gateway, _upstream) = start();
    assert_eq!(open(&gateway, "other-key", "a", 1).status, 201);
    assert_eq!(open(&gateway, "other-key", "b", 1).status, 201);
    let refused = open(&gateway, "other-key", "c", 1);
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert!(refused.text().contains("concurrency_limited"), "{}", refused.text());
    // The polls are outside the limit per minute, which has one request left: the refused one was not counted.
    for _ in 0..5 {
        assert_eq!(poll(&gateway, "other-key", "a", &json!({})).status, 200);
    }
    let gateway = Gateway::start_in(gateway.crash());
    assert_eq!(open(&gateway, "other-key", "c", 1).status, 429, "restarts keep them");
    poll(&gateway, "other-key", "a", &done("0.5"));
    assert_eq!(open(&gateway, "other-key", "c", 1).status, 201);
    assert_eq!(gateway.available("other"), "97.5");
}

/// What the deadline does, and an upstream that names the same job twice: it is paid for once.
#[test]
fn deadlines_settle_jobs() {
    let (gateway, _upstream) = start();
    let find = |job: &str| {
        let headers = format!("{KEY}x-response-header: x-job: {job}\r\n");
        let head = format!("POST /find HTTP/1.1\r\nhost: a\r\n{headers}content-length: 0\r\n\r\n");
        assert_eq!(Client::connect(gateway.public).ask(head).unwrap().status, 200);
    };
    find("f1");
    find("f1");
    find("f2");
    find("f3");
    assert_eq!(gateway.available("acme"), "988");
    let found = |job: &str, body: &str| {
        get(gateway.public, &format!("/find?id={job}"), &format!("{KEY}x-response-body: {body}\r\n"))
    };
    found("f1", "{\"qualification\":\"not_found\"}");
    assert_eq!(gateway.available("acme"), "992");
    found("f2", "{\"qualification\":\"found\"}");
    assert_eq!(gateway.available("acme"), "995");
    get(gateway.public, "/find?id=f3", &format!("{KEY}x-response-status: 202\r\n"));
    assert_eq!(gateway.available("acme"), "995", "202 is not done");
    let jobs = || Api::of(&gateway).get("/v1/jobs?account=acme")["data"].clone();
    eventually("the deadline", || jobs()[0]["state"] == "settled");
    assert_eq!(gateway.available("acme"), "995", "charged at the deadline");
    assert_eq!((&jobs()[0]["id"], &jobs()[0]["charged"]), (&json!("api:f3"), &json!(4)));
    assert_eq!(jobs().as_array().unwrap().len(), 3);
}

#[test]
fn an_operator_settles_a_job_once() {
    let (gateway, _upstream) = start();
    let api = Api::of(&gateway);
    open(&gateway, "good-key", "job_1", 5);
    open(&gateway, "other-key", "job_1", 5);
    let row = api.get("/v1/jobs?account=acme")["data"][0].clone();
    assert_eq!((&row["state"], &row["held"], &row["route"]), (&json!("open"), &json!(5), &json!("bulk")));
    let settle = |body: &Value| api.send("POST", "/v1/jobs/api:job_1/settle", "", Some(body));
    assert_eq!(settle(&json!({ "credits": 1 })).status, 409, "several accounts have one");
    let settled = settle(&json!({ "credits": "1.25", "account": "acme" })).json();
    assert_eq!((&settled["charged"], &settled["repeated"]), (&json!(1.25), &json!(false)));
    let again = settle(&json!({ "credits": 3, "account": "acme" })).json();
    assert_eq!((&again["charged"], &again["repeated"]), (&json!(1.25), &json!(true)));
    assert_eq!(gateway.available("acme"), "998.75");
    let other = settle(&json!({ "credits": 0 })).json(); // the open one
    assert_eq!((&other["account"], &other["repeated"]), (&json!("other"), &json!(false)));
    assert_eq!(gateway.available("other"), "100");
    assert_eq!(api.send("POST", "/v1/jobs/nope/settle", "", Some(&json!({ "credits": 0 }))).status, 404);
}

#[test]
fn customers_see_their_jobs_and_no_others() {
    let portal = Portal::start(&format!("{BULK}{JOBS}"));
    let cookie = portal.member("beta", "viewer");
    let made = portal.api.ok("POST", "/v1/accounts/beta/keys", Some(&json!({ "label": "k" })));
    assert_eq!(open(&portal.gateway, made["key"].as_str().unwrap(), "<b>one", 3).status, 201);
    let page = portal.page("/accounts/beta/credits", &cookie).text();
    assert!(page.contains("api:&lt;b&gt;one") && !page.contains("<b>one"), "{page}");
    let other = portal.member("gamma", "viewer");
    let page = portal.page("/accounts/gamma/credits", &other);
    assert!(page.status == 200 && !page.text().contains("api:"), "{}", page.text());
}

#[test]
fn an_upstream_tells_about_a_job_in_a_signed_request() {
    let (gateway, _upstream) = start();
    for job in ["a", "b"] {
        open(&gateway, "good-key", job, 3);
    }
    let now = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        i64::try_from(since.as_secs()).unwrap()
    };
    let (secret, other) = (SECRET, "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let call = |body: &str, ago: i64, secret: &str| tell(&gateway, body, ago, secret);
    let finished = r#"{"id":"a","status":"completed","credits":{"cost":2}}"#;
    assert_eq!(call(finished, 0, other).status, 401);
    assert_eq!(call(finished, 400, secret).status, 401);
    assert_eq!(call(r#"{"id":"a","status":"ongoing"}"#, 0, secret).text(), r#"{"settled":false}"#);
    assert_eq!(gateway.available("acme"), "994");
    assert_eq!(call(finished, 0, secret).text(), r#"{"settled":true}"#);
    assert_eq!(call(finished, 0, secret).text(), r#"{"settled":false}"#, "it is settled");
    assert_eq!(call(&finished.replace("\"a\"", "\"x\""), 0, secret).status, 404);
    assert_eq!(gateway.available("acme"), "995");
    assert_eq!(call(r#"{"status":"completed"}"#, 0, secret).status, 400);
    assert_eq!(get(gateway.public, "/callbacks/people", "").status, 404);
    let many = vec!["v1,"; 4000].join(" ");
    let headers = format!("webhook-id: a\r\nwebhook-timestamp: {}\r\nwebhook-signature: {many}\r\n", now());
    assert_eq!(crate::support::post(gateway.public, "/callbacks/people", &headers, finished).status, 401);
    let long = format!("{{\"id\":\"b\",\"x\":\"{}\"}}", "y".repeat(300_000));
    assert_eq!(call(&long, 0, secret).status, 413);
    open(&gateway, "other-key", "b", 1);
    assert_eq!(call(r#"{"id":"b","status":"completed","credits":{"cost":1}}"#, 0, secret).status, 404);
    assert_eq!(gateway.available("acme"), "995", "two accounts have a job with this id");
}
