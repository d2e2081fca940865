//! Tests reloads: a valid file is swapped in atomically, whatever way it is replaced; an invalid file changes nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Client, Gateway, Upstream, config, get};

/// Broken files have version numbers from here on.
const BROKEN: usize = 100_000;
/// How soon the last valid file must be in force.
const SOON: Duration = Duration::from_secs(1);

/// Number of valid and of broken files that are written; `TOLLGATE_LONG=1` writes ten times as many.
fn rounds() -> usize {
    if std::env::var_os("TOLLGATE_LONG").is_some() { 2000 } else { 200 }
}

/// A configuration that shows its version number in the body of a 404.
fn version(number: usize) -> String {
    config("").replace("credits = 1000\n", "credits = 1000000\n")
        + &format!("[errors]\ndialect = \"v\"\n[dialects.v]\nno_route = {{ body = \"version {number}\" }}\n")
}

fn in_force(gateway: &Gateway) -> String {
    get(gateway.public, "/nowhere", "").text()
}

/// Waits until a version is in force. Returns how long that took.
fn wait_for(gateway: &Gateway, number: usize) -> Duration {
    let start = Instant::now();
    while in_force(gateway) != format!("version {number}") {
        assert!(start.elapsed() < 10 * SOON, "version {number} does not come: {}", in_force(gateway));
        std::thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}

#[test]
fn hundreds_of_good_and_broken_files_cost_no_request_and_no_credit() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&version(0), &upstream);
    let fill = |text: &str| text.replace("{upstream}", &upstream.address.to_string());
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = Client::connect(gateway.public);
                while !stop.load(Ordering::SeqCst) {
                    let response =
                        client.ask("GET /one HTTP/1.1\r\nhost: a\r\nx-api-key: good-key\r\n\r\n").unwrap();
                    assert_eq!(
                        (response.status, response.charged()),
                        (200, Some("1")),
                        "{}",
                        response.text()
                    );
                    served.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for number in 1..=rounds() {
            gateway.write_config(&fill(&version(number)));
            if number % 20 == 0 {
                let took = wait_for(&gateway, number);
                assert!(took < SOON, "in force only after {took:?}");
            } else {
                std::thread::sleep(Duration::from_millis(15));
            }
            let broken = fill(&version(number + BROKEN)).replace("credits = 1\n", "credits = -1\n");
            gateway.write_config(if number % 2 == 0 { &broken } else { &broken[..broken.len() / 2] });
            std::thread::sleep(Duration::from_millis(15));
            let shown = in_force(&gateway);
            let seen: usize = shown.trim_start_matches("version ").parse().unwrap();
            assert!(seen < BROKEN, "a broken file is never in force");
        }
        gateway.write_config(&fill(&version(9_999)));
        assert!(wait_for(&gateway, 9_999) < SOON);
        stop.store(true, Ordering::SeqCst);
    });
    let served = served.load(Ordering::SeqCst);
    assert!(served > 100);
    assert_eq!(gateway.available("acme"), (1_000_000 - served).to_string());
    assert_eq!(gateway.json(&["ledger", "verify"])["differences"], serde_json::json!([]));
}

#[test]
fn every_way_of_replacing_a_file_is_seen() {
    let upstream = Upstream::start();
    let fill = |number: usize| version(number).replace("{upstream}", &upstream.address.to_string());
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("conf");
    std::fs::create_dir(&folder).unwrap();
    // As Kubernetes mounts it: a symbolic link to a file, through a folder that is a symbolic link itself.
    std::fs::create_dir(folder.join("v1")).unwrap();
    std::fs::write(folder.join("v1/config.toml"), fill(1)).unwrap();
    std::os::unix::fs::symlink("v1", folder.join("data")).unwrap();
    std::os::unix::fs::symlink("conf/data/config.toml", root.path().join("config.toml")).unwrap();
    let gateway = Gateway::start_in(std::sync::Arc::new(root));
    let root = gateway.folder.path();
    assert_eq!(in_force(&gateway), "version 1");
    std::fs::create_dir(folder.join("v2")).unwrap();
    std::fs::write(folder.join("v2/config.toml"), fill(2)).unwrap();
    std::os::unix::fs::symlink("v2", folder.join("data.next")).unwrap();
    std::fs::rename(folder.join("data.next"), folder.join("data")).unwrap();
    assert!(wait_for(&gateway, 2) < SOON, "a swapped link");
    assert_eq!(gateway.json(&["status"])["ledger_healthy"], true, "commands still find the gateway");
    std::fs::write(folder.join("v2/config.toml"), fill(3)).unwrap();
    assert!(wait_for(&gateway, 3) < SOON, "written in place");
    std::fs::remove_dir_all(&folder).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(in_force(&gateway), "version 3", "a file that is gone changes nothing");
    std::fs::create_dir_all(folder.join("data")).unwrap();
    std::fs::write(folder.join("data/config.toml"), fill(4)).unwrap();
    assert!(wait_for(&gateway, 4) < SOON, "a folder made anew");
    std::fs::remove_file(root.join("config.toml")).unwrap();
    std::fs::write(root.join("config.toml"), fill(5)).unwrap();
    assert!(wait_for(&gateway, 5) < SOON, "a file where a link was");
    gateway.write_config(&fill(6));
    assert!(wait_for(&gateway, 6) < SOON, "a rename over the file");
    std::fs::write(root.join("config.toml"), fill(7)).unwrap();
    gateway.signal("HUP");
    assert!(wait_for(&gateway, 7) < SOON, "a signal");
}

#[test]
fn included_files_come_and_go() {
    let upstream = Upstream::start();
    let text = format!("include = [\"accounts.d/*.toml\"]\n{}", version(1));
    let gateway = Gateway::start(&text, &upstream);
    let folder = gateway.folder.path().join("accounts.d");
    std::fs::create_dir(&folder).unwrap();
    let account = format!(
        "[accounts.new]\ncredits = 5\n[[accounts.new.keys]]\nlabel = \"k\"\nsha256 = \"{}\"\n",
        crate::support::sha256("new")
    );
    std::fs::write(folder.join("new.toml"), &account).unwrap();
    let status = || get(gateway.public, "/free/a", "x-api-key: new\r\n").status;
    let wait = |expected: u16| {
        let start = Instant::now();
        while status() != expected {
            assert!(start.elapsed() < SOON, "{expected} does not come");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    wait(200);
    assert_eq!(get(gateway.public, "/one", "x-api-key: new\r\n").charged(), Some("1"));
    std::fs::remove_file(folder.join("new.toml")).unwrap();
    wait(401);
    std::fs::write(folder.join("new.toml"), account.replace("credits = 5", "credits = 50")).unwrap();
    wait(200);
    assert_eq!(gateway.available("new"), "4", "the opening grant is given once");
}

#[test]
fn a_refused_file_is_reported_everywhere() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(&version(1), &upstream);
    let text = gateway.config();
    std::fs::write(gateway.config_path(), text.replace("[auth", "[aut").replace("hold = 10", "hould = 10"))
        .unwrap();
    let output = gateway.cli(&["reload"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("unknown setting `hould`") && told.contains("did you mean `hold`?"), "{told}");
    gateway.line_with("configuration refused");
    assert!(gateway.json(&["status"])["last_reload_error"].as_str().unwrap().contains("hould"));
    assert_eq!(in_force(&gateway), "version 1");
    // A change that needs a restart is reported, and the other changes are applied.
    std::fs::write(
        gateway.config_path(),
        text.replace("version 1", "version 2").replace("threads = 2", "threads = 3"),
    )
    .unwrap();
    let warnings = gateway.json(&["reload"])["warnings"].to_string();
    assert!(warnings.contains("[server] threads"), "{warnings}");
    assert_eq!(in_force(&gateway), "version 2");
}

/// A plan is renamed while requests are served. No request may be decided without the plan's limits or prices.
#[test]
fn no_request_meets_the_plan_of_one_file_and_the_routes_of_another() {
    let upstream = Upstream::start();
    let with = |plan: &str| {
        let limit = "limits = [{ name = \"day\", requests = 5, window = \"24h\" }]";
        let many: String = (0..2000).map(|at| format!("[accounts.x{at}]\nplan = \"{plan}\"\n")).collect();
        config(&format!(
            "[plans.{plan}]\n{limit}\nprices = {{ one = {{ credits = 3 }} }}\n{many}[accounts.p]\nplan = \"{plan}\"\ncredits = 1000\n[[accounts.p.keys]]\nlabel = \"k\"\nsha256 = \"{}\"\n",
            crate::support::sha256("planned")
        ))
        .replace("{upstream}", &upstream.address.to_string())
    };
    let gateway = Gateway::start(&with("first"), &upstream);
    let (stop, admitted) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = Client::connect(gateway.public);
                while !stop.load(Ordering::SeqCst) {
                    let response =
                        client.ask("GET /one HTTP/1.1\r\nhost: a\r\nx-api-key: planned\r\n\r\n").unwrap();
                    match response.status {
                        200 => assert_eq!(response.charged(), Some("3"), "the plan's price"),
                        other => assert_eq!(other, 429),
                    }
                    admitted.fetch_add(u64::from(response.status == 200), Ordering::SeqCst);
                }
            });
        }
        for round in 0..6 {
            gateway.write_config(&with(if round % 2 == 0 { "second" } else { "first" }));
            gateway.json(&["reload"]);
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert_eq!(admitted.load(Ordering::SeqCst), 5, "five a day, whatever the plan is called");
    assert_eq!(gateway.available("p"), "985");
}
