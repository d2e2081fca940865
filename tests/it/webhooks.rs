//! Tests webhooks with a receiver that verifies them with the reference library of Standard Webhooks.

use std::net::SocketAddr;

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
    eventually("the events", || receiver.seen("/ok/all").len() >= 5 && receiver.seen("/ok/acme").len() >= 4);
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
    std::thread::sleep(std::time::Duration::from_secs(7)); // the second attempt would have been made by now
    assert_eq!((receiver.seen("/ok"), receiver.seen("/fails").len()), (vec![], 1));
}
