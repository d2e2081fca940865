//! Tests webhooks with a receiver that verifies them with the reference library of Standard Webhooks.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::{Api, admin_config};
use crate::foreign::{Peer, python};
use crate::support::{Client, Gateway, Upstream, eventually, get};

/// The receiver, from the gateway's point of view on the internet.
struct Receiver(Peer);

impl Receiver {
    fn start() -> Option<Self> {
        python().map(|python| Self(Peer::start(&python, "webhook_receiver.py", &[])))
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.0.port)
    }

    fn ask(&self, request: &str) -> String {
        let address: SocketAddr = format!("127.0.0.1:{}", self.0.port).parse().unwrap();
        let mut client = Client::connect(address);
        client.send(request).unwrap();
        String::from_utf8(client.read(false).unwrap().body).unwrap()
    }

    fn know(&self, path: &str, secret: &str) {
        let length = secret.len();
        self.ask(&format!("PUT {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{secret}"));
    }

    /// What arrived at a path.
    fn seen(&self, path: &str) -> Vec<Value> {
        let all: Vec<Value> = serde_json::from_str(&self.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n")).unwrap();
        all.into_iter().filter(|one| one["path"] == path).collect()
    }

    fn events(&self, path: &str) -> Vec<String> {
        self.seen(path).iter().map(|one| one["type"].as_str().unwrap().to_owned()).collect()
    }

    /// Creates an endpoint whose secret the receiver knows. Returns its id.
    fn endpoint(&self, api: &Api, list: &str, path: &str) -> String {
        let made = api.post(list, json!({ "url": self.url(path) }));
        self.know(path, made["secret"].as_str().unwrap());
        made["id"].as_str().unwrap().to_owned()
    }
}

const ALLOWED: &str = "[webhooks]\nallow_private = [\"127.0.0.0/8\"]\n";
const OF_ACME: &str = "/v1/accounts/acme/webhooks";

/// What happens to an account and its keys is told to its endpoints and to the operator's, verifiably, and to no other
/// account's.
#[test]
fn what_happens_to_an_account_is_told() {
    let Some(receiver) = Receiver::start() else { return };
    let gateway = Gateway::start(&admin_config(ALLOWED), &Upstream::start());
    let api = Api::of(&gateway);
    api.post("/v1/accounts", json!({ "id": "beta" }));
    receiver.endpoint(&api, OF_ACME, "/ok/acme");
    receiver.endpoint(&api, "/v1/accounts/beta/webhooks", "/ok/beta");
    receiver.endpoint(&api, "/v1/webhooks", "/ok/all");
    let made = api.post("/v1/accounts/acme/keys", json!({ "label": "x", "expires": "6d" }));
    let key = format!("/v1/keys/{}", made["id"].as_str().unwrap());
    api.ok("POST", &format!("{key}/rotate"), None);
    api.ok("DELETE", &key, None);
    api.post("/v1/accounts/beta/grants", json!({ "credits": 3, "reference": "r" }));
    api.post("/v1/accounts/acme/grants", json!({ "credits": "1.5", "reference": "r" }));
    let of_acme = ["key.created", "key.rotated", "key.revoked", "credits.granted"];
    let count = |path| receiver.seen(path).len();
    eventually("the events", || count("/ok/all") >= 5 && count("/ok/acme") >= 4 && count("/ok/beta") >= 1);
    assert_eq!(sorted(receiver.events("/ok/acme")), sorted(of_acme.map(str::to_owned).to_vec()));
    assert_eq!(receiver.events("/ok/beta"), ["credits.granted"]);
    let granted = receiver.seen("/ok/acme").into_iter().find(|one| one["type"] == "credits.granted").unwrap();
    assert_eq!((&granted["data"]["credits"], &granted["data"]["reference"]), (&json!(1.5), &json!("r")));
    let key = made["key"].as_str().unwrap();
    assert!(!receiver.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").contains(key), "no key is sent");
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

/// An endpoint that fails is tried again, also by the next process. Redirects are not followed, 410 disables, one that
/// hangs delays no other.
#[test]
fn a_message_is_delivered_at_least_once_or_given_up_for_a_reason() {
    let Some(receiver) = Receiver::start() else { return };
    let gateway = Gateway::start(&admin_config(ALLOWED), &Upstream::start());
    let api = Api::of(&gateway);
    let paths = ["/hangs", "/fails", "/later", "/redirects", "/gone", "/ok"];
    let ids = paths.map(|path| receiver.endpoint(&api, OF_ACME, path));
    api.post("/v1/accounts/acme/grants", json!({ "credits": 1, "reference": "r" }));
    eventually("one attempt at each", || paths.iter().all(|path| !receiver.seen(path).is_empty()));
    let folder = gateway.crash();
    let gateway = Gateway::start_in(folder);
    let api = Api::of(&gateway);
    eventually("the second attempts", || {
        ["/fails", "/later"].iter().all(|path| receiver.seen(path).len() >= 2)
    });
    let last = |id: &String| api.get(&format!("/v1/webhooks/{id}/deliveries"))["data"][0].clone();
    eventually("delivered", || ["delivered"; 3] == [1, 2, 5].map(|at: usize| text(&last(&ids[at])["state"])));
    let redirected = last(&ids[3]);
    assert_eq!((&redirected["status"], text(&redirected["state"])), (&json!(302), "waiting".to_owned()));
    let gone = api.get(&format!("/v1/webhooks/{}", ids[4]));
    assert_eq!((&gone["enabled"], &last(&ids[4])["state"]), (&json!(false), &json!("given up")));
    for path in paths {
        let seen = receiver.seen(path);
        assert!(
            seen.iter().all(|one| one["type"] == "credits.granted" && one["id"] == seen[0]["id"]),
            "{seen:?}"
        );
    }
    let replayed = format!("{OF_ACME}/deliveries/{}/replay", last(&ids[5])["number"]);
    let before = receiver.seen("/ok").len();
    api.ok("POST", &replayed, None);
    eventually("a message is sent again", || receiver.seen("/ok").len() > before);
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// `credits.exhausted` is sent once until credits are added; `webhook.test` is sent when it is asked for, also signed by
/// the old secret while a rotation overlaps.
#[test]
fn an_exhausted_account_is_told_once() {
    let Some(receiver) = Receiver::start() else { return };
    let gateway = Gateway::start(&admin_config(ALLOWED), &Upstream::start());
    let api = Api::of(&gateway);
    api.post("/v1/accounts", json!({ "id": "poor", "plan": "growth" }));
    api.post("/v1/accounts/poor/grants", json!({ "credits": 2, "reference": "r" }));
    let made = api.post("/v1/accounts/poor/keys", json!({ "label": "x" }));
    let id = receiver.endpoint(&api, "/v1/accounts/poor/webhooks", "/ok");
    let key = format!("x-api-key: {}\r\n", made["key"].as_str().unwrap());
    let low = api.ok("PATCH", "/v1/accounts/poor/alerts", Some(&json!({ "credits_low": ["1.5", 1, 1] })));
    assert_eq!(low, json!({ "credits_low": [1, 1.5] }));
    let spend = || (0..4).map(|_| get(gateway.public, "/one", &key).status).collect::<Vec<_>>();
    assert_eq!(spend(), [200, 200, 402, 402]);
    let count = |event: &str| receiver.events("/ok").iter().filter(|name| *name == event).count();
    eventually("exhausted", || count("credits.exhausted") == 1);
    let lows = || receiver.seen("/ok").into_iter().filter(|one| one["type"] == "credits.low");
    let thresholds: Vec<Value> = lows().map(|low| low["data"]["threshold"].clone()).collect();
    assert!(
        thresholds.len() == 2 && thresholds.contains(&json!(1)) && thresholds.contains(&json!(1.5)),
        "{thresholds:?}"
    );
    api.post("/v1/accounts/poor/grants", json!({ "credits": 1, "reference": "s" }));
    assert_eq!(spend(), [200, 402, 402, 402]);
    eventually("exhausted again", || count("credits.exhausted") == 2);
    api.post(&format!("/v1/webhooks/{id}/rotate"), json!({ "overlap": "1h" }));
    api.ok("POST", &format!("/v1/webhooks/{id}/test"), None);
    eventually("the test", || count("webhook.test") == 1);
}

/// No address is reached that is not public, unless the file allows its network: not by its URL, and not by a name.
#[test]
fn no_private_address_is_reached() {
    let Some(receiver) = Receiver::start() else { return };
    let gateway = Gateway::start(&admin_config(""), &Upstream::start());
    let api = Api::of(&gateway);
    let port = &receiver.0.port;
    for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1"] {
        for scheme in ["http", "https"] {
            let body = json!({ "url": format!("{scheme}://{host}:{port}/ok") });
            assert_eq!(api.fails("POST", OF_ACME, Some(&body)).0, 422, "{body}");
        }
    }
    let made = api.post(OF_ACME, json!({ "url": format!("https://localhost:{port}/ok") }));
    let id = made["id"].as_str().unwrap();
    api.ok("POST", &format!("/v1/webhooks/{id}/test"), None);
    let last = || api.get(&format!("/v1/webhooks/{id}/deliveries"))["data"][0].clone();
    eventually("an attempt", || last()["attempts"] == 1);
    assert!(text(&last()["error"]).contains("is not public"), "{}", last());
    assert!(receiver.seen("/ok").is_empty());
}

/// A name that points to a private address between the check and the connection is of no use: the address that was
/// checked is the one that is connected to.
#[test]
fn a_name_that_changes_reaches_no_private_address() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("config.toml"), admin_config("").replace("{upstream}", "127.0.0.1:9"))
        .unwrap();
    let public = "192.88.99.9 flips.internal\n"; // a public address that nobody has
    let Some(gateway) = Gateway::with_hosts(folder, public) else { return };
    let api = Api::of(&gateway);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("https://flips.internal:{}/ok", listener.local_addr().unwrap().port());
    let ids: Vec<String> = (0..20)
        .map(|number| text(&api.post(OF_ACME, json!({ "url": format!("{url}/{number}") }))["id"]))
        .collect();
    let hosts = gateway.folder.path().join("hosts"); // written in place, since it is bound
    let (start, mut rounds) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(5) {
        if rounds % 50 == 0 {
            ids.iter().for_each(|id| drop(api.ok("POST", &format!("/v1/webhooks/{id}/test"), None)));
        }
        rounds += 1;
        for line in [public, "127.0.0.1 flips.internal\n"] {
            std::fs::write(&hosts, line).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let errors: Vec<String> = ids
        .iter()
        .flat_map(|id| api.get(&format!("/v1/webhooks/{id}/deliveries"))["data"].as_array().unwrap().clone())
        .map(|delivery| text(&delivery["error"]))
        .collect();
    assert!(errors.iter().any(|error| error.contains("is not public")), "both answers were seen: {errors:?}");
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "nobody has connected");
}

/// `limit.reached` is sent at most once in the limit's window, for each key.
#[test]
fn a_limit_that_is_reached_is_told_once() {
    let Some(receiver) = Receiver::start() else { return };
    let more = format!(
        "{ALLOWED}[plans.small]\nlimits = [{{ name = \"hourly\", requests = 2, window = \"1h\" }}]\n"
    );
    let gateway = Gateway::start(&admin_config(&more), &Upstream::start());
    let api = Api::of(&gateway);
    api.post("/v1/accounts", json!({ "id": "small", "plan": "small", "credits": 100 }));
    receiver.endpoint(&api, "/v1/accounts/small/webhooks", "/ok");
    let keys = ["a", "b"].map(|label| api.post("/v1/accounts/small/keys", json!({ "label": label })));
    for round in 0..3 {
        for key in &keys {
            let key = format!("x-api-key: {}\r\n", text(&key["key"]));
            let statuses: Vec<u16> = (0..5).map(|_| get(gateway.public, "/one", &key).status).collect();
            assert_eq!(
                statuses.iter().filter(|status| **status == 429).count(),
                if round == 0 { 3 } else { 5 }
            );
        }
        std::thread::sleep(Duration::from_millis(1_200)); // refusals reach the ledger once a second
    }
    let told =
        || receiver.seen("/ok").into_iter().filter(|one| one["type"] == "limit.reached").collect::<Vec<_>>();
    eventually("both keys", || told().len() >= 2);
    let mut of_keys: Vec<String> = told().iter().map(|one| text(&one["data"]["key"])).collect();
    of_keys.sort();
    assert_eq!(of_keys, sorted(keys.iter().map(|key| text(&key["id"])).collect()), "each once");
    let data = &told()[0]["data"];
    assert_eq!(
        (&data["limit"], &data["window_seconds"], &data["account"]),
        (&json!("hourly"), &json!(3600.0), &json!("small"))
    );
}

/// The file's webhooks are endpoints: they keep their secret over a reload, and go with all that waits for them when the
/// file drops them. No later endpoint gets it.
#[test]
fn the_files_webhooks_are_endpoints() {
    let Some(receiver) = Receiver::start() else { return };
    let plain = admin_config(ALLOWED);
    let with = |path: &str| {
        let line = format!("[accounts.acme]\nwebhooks = [\"{}\"]\n", receiver.url(path));
        plain.replacen("[accounts.acme]\n", &line, 1)
    };
    assert_ne!(with("/gone"), plain);
    let gateway = Gateway::start(&with("/fails"), &Upstream::start());
    let api = Api::of(&gateway);
    let list = || api.get(OF_ACME);
    let id = text(&list()[0]["id"]);
    let secret = || text(&api.get(&format!("/v1/webhooks/{id}/secret"))["secret"]);
    let before = secret();
    receiver.know("/fails", &before);
    api.post("/v1/accounts/acme/grants", json!({ "credits": 1, "reference": "r" }));
    eventually("an attempt", || receiver.events("/fails") == ["credits.granted"]);
    let reload = |text: &str| {
        gateway.write_config(&text.replace("{upstream}", "127.0.0.1:9"));
        gateway.json(&["reload"]);
    };
    reload(&format!("{}\n# changed\n", with("/fails")));
    assert_eq!(secret(), before);
    reload(&plain);
    assert_eq!(list(), json!([]));
    receiver.endpoint(&api, "/v1/accounts/acme/webhooks", "/ok");
    std::thread::sleep(Duration::from_secs(7)); // the second attempt would have been made by now
    assert_eq!((receiver.seen("/ok"), receiver.seen("/fails").len()), (vec![], 1));
}
