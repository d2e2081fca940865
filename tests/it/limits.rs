//! Tests promise 6 over HTTP: limits hold over all workers, and across a reload, a clean restart and a crash.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::support::{Client, Gateway, Upstream, config, get, sha256};

fn limited(limit: &str) -> String {
    format!(
        "[plans.p]\nlimits = [{limit}]\n[accounts.limited]\nplan = \"p\"\n[[accounts.limited.keys]]\nlabel = \"k\"\nsha256 = \"{}\"\n",
        sha256("limited")
    )
}

const KEY: &str = "x-api-key: limited\r\n";

/// Sends requests until one is refused. Returns how many were admitted.
fn use_up(gateway: &Gateway, path: &str) -> usize {
    (0..1000).take_while(|_| get(gateway.public, path, KEY).status == 200).count()
}

#[test]
fn a_sliding_window_holds_over_all_workers() {
    let upstream = Upstream::start();
    let limit = r#"{ name = "s", requests = 50, window = "1s", algorithm = "sliding-window" }"#;
    let gateway = Gateway::start(&config(&limited(limit)), &upstream);
    let admitted = Mutex::new(Vec::new());
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::connect(gateway.public);
                while start.elapsed() < Duration::from_millis(3500) {
                    let sent = start.elapsed();
                    let response =
                        client.ask(format!("GET /free/a HTTP/1.1\r\nhost: a\r\n{KEY}\r\n")).unwrap();
                    if response.status == 200 {
                        admitted.lock().unwrap().push((sent, start.elapsed()));
                    } else {
                        assert_eq!(response.status, 429);
                    }
                }
            });
        }
    });
    let admitted = admitted.into_inner().unwrap();
    assert!(admitted.len() >= 100, "the window slides on: {}", admitted.len());
    for (from, _) in &admitted {
        let within = |(sent, answered): &&(Duration, Duration)| {
            sent >= from && *answered <= *from + Duration::from_secs(1)
        };
        assert!(admitted.iter().filter(within).count() <= 50);
    }
}

#[test]
fn a_retry_after_the_time_said_is_admitted() {
    let upstream = Upstream::start();
    for algorithm in ["gcra", "sliding-window"] {
        let limit = format!(r#"{{ name = "s", requests = 2, window = "2s", algorithm = "{algorithm}" }}"#);
        let gateway = Gateway::start(&config(&limited(&limit)), &upstream);
        assert_eq!(use_up(&gateway, "/free/a"), 2);
        let refused = get(gateway.public, "/free/a", KEY);
        let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        std::thread::sleep(Duration::from_secs(seconds));
        assert_eq!(get(gateway.public, "/free/a", KEY).status, 200, "{algorithm}");
    }
}

#[test]
fn scopes_count_apart_and_together() {
    let upstream = Upstream::start();
    let more = format!(
        "{}[[accounts.limited.keys]]\nlabel = \"second\"\nsha256 = \"{}\"\n\
         [[accounts.limited.keys]]\nlabel = \"own\"\nsha256 = \"{}\"\nlimits = []\n",
        limited(
            r#"{ name = "acc", requests = 6, window = "60s", scope = "account", except = ["one"] },
               { name = "kr", requests = 2, window = "60s", scope = "key+route", methods = ["GET"], except = ["open"] }"#
        ),
        sha256("second"),
        sha256("own"),
    );
    let more = more
        + "[[routes]]\nname = \"visits\"\npath = \"/visits\"\nupstream = \"api\"\npublic = true\nlimits = [{ name = \"ip\", requests = 3, window = \"60s\", scope = \"address\" }]\n";
    let gateway = Gateway::start(&config(&more), &upstream);
    let ask = |path: &str, key: &str| get(gateway.public, path, &format!("x-api-key: {key}\r\n"));
    assert_eq!(
        (0..4).filter(|_| ask("/free/a", "limited").status == 200).count(),
        2,
        "two of this key on this route"
    );
    assert_eq!(
        (0..4).filter(|_| ask("/header", "limited").status == 200).count(),
        0,
        "no credits, but not limited"
    );
    assert_eq!(ask("/header", "limited").status, 429);
    // The account has counted 2 + 2 requests; refused requests are not counted.
    assert_eq!((0..4).filter(|_| ask("/free/a", "second").status == 200).count(), 2);
    let refused = ask("/json", "second");
    assert_eq!(refused.status, 429, "six of the account");
    assert!(refused.header("ratelimit").unwrap().contains("\"acc\";r=0"));
    assert_eq!(ask("/free/a", "own").status, 200, "a key's own limits replace its plan's");
    assert_eq!((0..5).filter(|_| ask("/visits", "none").status == 200).count(), 3);
}

#[test]
fn nothing_is_refilled_by_a_reload_a_restart_or_a_crash() {
    let upstream = Upstream::start();
    for algorithm in ["gcra", "sliding-window"] {
        let limit = |requests: u32| {
            format!(r#"{{ name = "s", requests = {requests}, window = "10h", algorithm = "{algorithm}" }}"#)
        };
        let gateway = Gateway::start(&config(&limited(&limit(5))), &upstream);
        assert_eq!(use_up(&gateway, "/free/a"), 5);
        let text = gateway.config();
        gateway.write_config(&format!("{text}\n# a comment\n"));
        gateway.json(&["reload"]);
        assert_eq!(use_up(&gateway, "/free/a"), 0, "a reload refills nothing");
        let changed = text.replace("requests = 5", "requests = 8");
        gateway.write_config(&changed);
        gateway.json(&["reload"]);
        assert_eq!(use_up(&gateway, "/free/a"), 3, "what was used counts against the new number");
        gateway.write_config(
            &text.split("[[accounts.limited.keys]]").next().unwrap().replace("requests = 5", "requests = 8"),
        );
        gateway.json(&["reload"]);
        assert_eq!(get(gateway.public, "/free/a", KEY).status, 401, "what the file drops stops working");
        gateway.write_config(&changed);
        gateway.json(&["reload"]);
        assert_eq!(use_up(&gateway, "/free/a"), 0, "bringing a key back refills nothing");
        let (code, folder) = gateway.stop();
        assert_eq!(code, Some(0));
        let gateway = Gateway::start_in(folder);
        assert_eq!(use_up(&gateway, "/free/a"), 0, "a clean restart refills nothing");
        gateway.write_config(&text.replace("requests = 5", "requests = 10"));
        gateway.json(&["reload"]);
        assert_eq!(use_up(&gateway, "/free/a"), 2);
        std::thread::sleep(Duration::from_millis(2500)); // a crash forgets at most the last second
        let gateway = Gateway::start_in(gateway.crash());
        assert_eq!(use_up(&gateway, "/free/a"), 0, "a crash refills nothing older than a second");
    }
}

/// A key's meter is created when the key is first used, whatever commands changed the key before.
#[test]
fn all_secrets_of_a_key_count_together_through_every_command() {
    let upstream = Upstream::start();
    let limit = limited(r#"{ name = "s", requests = 6, window = "10h" }"#);
    let gateway = Gateway::start(&config(&limit), &upstream);
    let text = |made: &serde_json::Value| made["key"].as_str().unwrap().to_owned();
    let made = gateway.json(&["key", "create", "--account", "limited", "--label", "rotated"]);
    let (id, old) = (made["id"].as_str().unwrap(), text(&made));
    let new = text(&gateway.json(&["key", "rotate", id, "--overlap", "24h"]));
    // Neither secret was used yet, and the restart reads both from the ledger.
    let (_, folder) = gateway.stop();
    let gateway = Gateway::start_in(folder);
    let used = |gateway: &Gateway, key: &str| {
        get(gateway.public, "/free/a", &format!("x-api-key: {key}\r\n")).status == 200
    };
    assert!(used(&gateway, &old) && used(&gateway, &new), "two");
    gateway.json(&["key", "disable", id]);
    assert!(!used(&gateway, &old) && !used(&gateway, &new));
    gateway.json(&["key", "enable", id]);
    assert!(used(&gateway, &old) && used(&gateway, &new), "four");
    let newest = text(&gateway.json(&["key", "rotate", id, "--overlap", "24h"]));
    assert!(!used(&gateway, &old), "replaced twice");
    assert!(used(&gateway, &new) && used(&gateway, &newest), "six");
    assert!(!used(&gateway, &new) && !used(&gateway, &newest), "and no more");
    let (_, folder) = gateway.stop();
    let gateway = Gateway::start_in(folder);
    assert!(!used(&gateway, &new) && !used(&gateway, &newest), "a restart refills nothing");
    let explained = gateway.json(&["explain", "--key-id", id, "GET", "/free/a"]);
    assert_eq!(explained["reason"], "rate_limited");
}

#[test]
fn the_header_families_can_be_chosen() {
    let upstream = Upstream::start();
    let more = format!(
        "{}[response_headers]\nrate_limit = [\"x-ratelimit\"]\ncredits = false\n",
        limited(r#"{ name = "s", requests = 5, window = "60s" }"#)
    );
    let gateway = Gateway::start(&config(&more), &upstream);
    let response = get(gateway.public, "/free/a", KEY);
    assert_eq!(
        (response.header("x-ratelimit-limit"), response.header("x-ratelimit-remaining")),
        (Some("5"), Some("4"))
    );
    let reset: u64 = response.header("x-ratelimit-reset").unwrap().parse().unwrap();
    assert!(reset > 1_700_000_000);
    assert_eq!((response.header("ratelimit"), response.charged()), (None, None));
}
