//! Tests refills: each account gets what its plan says, when it says, exactly once (promises 1, 2 and 4).

use serde_json::{Value, json};

use crate::api::{Api, admin_config};
use crate::clocks::FakeClock;
use crate::support::{Gateway, Upstream, eventually, get, sha256};

const PLANS: &str = r#"
[buckets.sub]
priority = 1
[plans.monthly]
refill = { credits = 100, every = "month", mode = "reset", rollover = 30, bucket = "sub", time_zone = "Europe/Paris" }
[plans.daily]
refill = { credits = 5, every = "day", mode = "add", cap = 12 }
[accounts.filed]
plan = "monthly"
credits = 7
"#;

fn config() -> String {
    let key = format!("[[accounts.filed.keys]]\nlabel = \"k\"\nsha256 = \"{}\"\n", sha256("filed-key"));
    admin_config(&format!("{PLANS}{key}"))
}

fn spend(gateway: &Gateway, requests: usize) {
    for _ in 0..requests {
        assert_eq!(get(gateway.public, "/one", "x-api-key: filed-key\r\n").charged(), Some("1"));
    }
}

/// The bookings of an account, the oldest first, without charges and holds in doubt.
fn bookings(api: &Api, account: &str) -> Vec<(String, String, String)> {
    let entries = api.get(&format!("/v1/accounts/{account}/entries?limit=100"));
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let rows = entries["data"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .filter(|row| row["kind"] != "charge" && row["kind"] != "in_doubt");
    rows.map(|row| (text(&row["kind"]), row["amount"].to_string(), text(&row["reference"]))).collect()
}

fn row(kind: &str, amount: &str, reference: &str) -> (String, String, String) {
    (kind.to_owned(), amount.to_owned(), reference.to_owned())
}

/// An account of January 31 in Paris, a gateway that is off for three refills, a leap day, and the clock changes.
#[test]
fn a_month_begins_on_the_anchor_day_and_is_refilled_once() {
    let Some(clock) = FakeClock::new("@2028-01-31 10:00:00") else { return };
    let (prefix, upstream) = (clock.prefix(), Upstream::start());
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    let gateway = Gateway::start_by(&prefix, &config(), &upstream);
    let api = Api::of(&gateway);
    let account = api.get("/v1/accounts/filed");
    assert_eq!(account["buckets"], json!({ "default": 7, "sub": 100 }), "refilled before the first request");
    assert_eq!(account["refill"]["next"], "2028-02-28T23:00:00Z", "{account}");
    spend(&gateway, 60);
    // The last moment of the month in Paris, a reload, and a restart: nothing is refilled twice.
    clock.set("@2028-02-28 22:59:50");
    gateway.write_config(&format!("{}\n# a comment\n", gateway.config()));
    let (_, folder) = gateway.stop();
    let gateway = Gateway::restart_by(&prefix, folder);
    let api = Api::of(&gateway);
    assert_eq!(api.get("/v1/accounts/filed")["buckets"]["sub"], 40);
    clock.set("@2028-02-28 23:00:10");
    eventually("the refill of February 29", || gateway.available("filed") == "137");
    let leap = ("2028-02-29", "2028-01-31");
    let before = [
        row("grant", "7", "opening"),
        row("grant", "100", &format!("refill monthly month {}", leap.1)),
        row("expiry", "-40", "null"),
        row("grant", "130", &format!("refill monthly month {}", leap.0)),
    ];
    assert_eq!(bookings(&api, "filed"), before);
    spend(&gateway, 5);
    // Off for the refills of March 31, April 30 and May 31, and killed at once.
    let folder = gateway.crash();
    clock.set("@2028-06-10 00:00:00");
    let gateway = Gateway::restart_by(&prefix, Gateway::restart_by(&prefix, folder).crash());
    let api = Api::of(&gateway);
    eventually("caught up", || gateway.available("filed") == "137");
    let after = [
        &before[..],
        &[row("expiry", "-125", "null"), row("grant", "130", "refill monthly month 2028-05-31")],
    ];
    assert_eq!(bookings(&api, "filed"), after.concat());
    // The clock goes back, and forward again.
    clock.set("@2028-05-20 00:00:00");
    let (_, folder) = gateway.stop();
    let gateway = Gateway::restart_by(&prefix, folder);
    spend(&gateway, 1);
    clock.set("@2028-06-11 00:00:00");
    let api = Api::of(&gateway);
    std::thread::sleep(std::time::Duration::from_secs(7)); // some folds and looks for due refills
    assert_eq!(bookings(&api, "filed"), after.concat());
    assert_eq!(gateway.json(&["ledger", "verify"])["differences"], json!([]));
}

#[test]
fn refills_add_up_to_their_cap_and_follow_the_plan() {
    let Some(clock) = FakeClock::new("@2027-05-10 12:00:00") else { return };
    let (prefix, upstream) = (clock.prefix(), Upstream::start());
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    let gateway = Gateway::start_by(&prefix, &config(), &upstream);
    let api = Api::of(&gateway);
    api.post("/v1/accounts", json!({ "id": "new", "plan": "daily", "credits": 1 }));
    assert_eq!(api.get("/v1/accounts/new")["balance"], 6, "an account is refilled when it is created");
    clock.set("@2027-05-11 00:00:01");
    eventually("the next day", || gateway.available("new") == "11");
    clock.set("@2027-05-14 00:00:01");
    eventually("three days later", || gateway.available("new") == "12");
    // Another plan begins with its own refill; back on the first, today's is not repeated.
    api.ok("PATCH", "/v1/accounts/new", Some(&json!({ "plan": "monthly" })));
    assert_eq!(api.get("/v1/accounts/new")["buckets"], json!({ "default": 12, "sub": 100 }));
    api.ok("PATCH", "/v1/accounts/new", Some(&json!({ "plan": "daily" })));
    api.ok("PATCH", "/v1/accounts/new", Some(&json!({ "plan": null })));
    api.ok("PATCH", "/v1/accounts/new", Some(&json!({ "plan": "monthly" })));
    let account = api.get("/v1/accounts/new");
    assert_eq!(account["balance"], 112, "{account}");
    // A deleted account gets nothing.
    api.send("DELETE", "/v1/accounts/new", "", None);
    clock.set("@2027-07-14 00:00:01");
    eventually("the others are refilled", || {
        let grants = bookings(&api, "filed");
        grants.last().unwrap().2 == "refill monthly month 2027-07-10"
    });
    assert_eq!(api.get("/v1/accounts/new")["balance"], 112);
    // What the file drops is not refilled, but once it is back.
    let text = gateway.config();
    let without = text.replace(&text[text.find("[accounts.filed]").unwrap()..], "");
    gateway.write_config(&without);
    assert!(gateway.cli(&["reload"]).status.success());
    let before = bookings(&api, "filed").len();
    clock.set("@2027-09-14 00:00:01");
    eventually("the last refill expires", || bookings(&api, "filed").len() > before);
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(bookings(&api, "filed")[before..], [row("expiry", "-130", "null")]);
    gateway.write_config(&text);
    assert!(gateway.cli(&["reload"]).status.success());
    clock.set("@2027-09-14 02:00:01"); // absent accounts are looked at every hour
    eventually("refilled again", || {
        bookings(&api, "filed").last().unwrap().2 == "refill monthly month 2027-09-10"
    });
    assert_eq!(gateway.json(&["ledger", "verify"])["differences"], json!([]));
}

/// A refill that is new in the configuration begins at the reload; a changed amount with the next period.
#[test]
fn a_reload_changes_refills() {
    let upstream = Upstream::start();
    let gateway =
        Gateway::start(&admin_config("[accounts.filed]\nplan = \"growth\"\ncredits = 1\n"), &upstream);
    let plain = gateway.config();
    let with = |credits: u32, every: &str| {
        let refill = format!("refill = {{ credits = {credits}, every = \"{every}\", mode = \"add\" }}");
        let text = plain.replace("[plans.growth]\n", &format!("[plans.growth]\n{refill}\n"));
        gateway.write_config(&text);
        assert!(gateway.cli(&["reload"]).status.success());
    };
    for (credits, every, left) in
        [(5, "month", "6"), (9, "month", "6"), (9, "year", "15"), (9, "month", "15")]
    {
        with(credits, every);
        assert_eq!(gateway.available("filed"), left, "{credits} {every}");
    }
}

/// A reload that is refused changes no refill: the next one that is accepted does.
#[test]
fn a_refused_reload_loses_no_refill() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(
        &admin_config(
            "[plans.other]\nrefill = { credits = 1, every = \"day\", mode = \"add\" }\n[accounts.filed]\nplan = \"growth\"\n",
        ),
        &upstream,
    );
    let api = Api::of(&gateway);
    api.post("/v1/accounts", json!({ "id": "gone" }));
    api.send("DELETE", "/v1/accounts/gone", "", None);
    let plain = gateway.config();
    let refill = "[plans.growth]\nrefill = { credits = 5, every = \"month\", mode = \"add\" }\n";
    let better = plain.replace("[plans.growth]\n", refill);
    gateway.write_config(&format!("{better}[accounts.gone]\ncredits = 1\n"));
    assert!(!gateway.cli(&["reload"]).status.success(), "a deleted account does not come back");
    std::thread::sleep(std::time::Duration::from_secs(3)); // some looks for due refills
    assert_eq!(gateway.available("filed"), "0");
    gateway.write_config(&better);
    assert!(gateway.cli(&["reload"]).status.success());
    assert_eq!(gateway.available("filed"), "5");
}

/// What the last refill of a plan granted expires at the end of its period, also if no plan has a refill any more; another
/// time zone does not refill a period again; and an absent account gets one refill when it is back, not those it missed.
#[test]
fn refills_end_move_and_are_not_saved_up() {
    let Some(clock) = FakeClock::new("@2027-05-10 12:00:00") else { return };
    let (prefix, upstream) = (clock.prefix(), Upstream::start());
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    let refill = "refill = { credits = 5, every = \"month\", mode = \"reset\" }";
    let config = format!("[plans.only]\n{refill}\n[accounts.filed]\nplan = \"only\"\n");
    let gateway = Gateway::start_by(&prefix, &admin_config(&config), &upstream);
    let text = gateway.config();
    let reload = |text: &str| {
        gateway.write_config(text);
        assert!(gateway.cli(&["reload"]).status.success());
    };
    assert_eq!(gateway.available("filed"), "5");
    let in_zone =
        |zone: &str| text.replace("mode = \"reset\"", &format!("mode = \"reset\", time_zone = \"{zone}\""));
    for zone in ["Europe/Paris", "America/New_York", "UTC"] {
        reload(&in_zone(zone));
        assert_eq!(gateway.available("filed"), "5", "{zone}");
    }
    reload(&text.replace(refill, ""));
    clock.set("@2027-06-10 00:00:01");
    eventually("the last refill expires", || gateway.available("filed") == "0");
    // With a refill that adds up, absent for some months.
    let adding = text.replace("mode = \"reset\"", "mode = \"add\"");
    reload(&adding);
    assert_eq!(gateway.available("filed"), "5");
    let without = adding.replace("[accounts.filed]\nplan = \"only\"\n", "");
    reload(&without);
    clock.set("@2027-07-10 01:00:01");
    std::thread::sleep(std::time::Duration::from_secs(3));
    clock.set("@2027-11-10 01:00:01");
    std::thread::sleep(std::time::Duration::from_secs(3));
    reload(&adding);
    assert_eq!(gateway.available("filed"), "10");
    assert_eq!(gateway.json(&["ledger", "verify"])["differences"], json!([]));
}

/// A clock that was years ahead, or decades behind, grants no years of refills and stops none.
#[test]
fn a_wrong_clock_grants_no_years_of_refills() {
    let Some(clock) = FakeClock::new("@2027-05-10 12:00:00") else { return };
    let (prefix, upstream) = (clock.prefix(), Upstream::start());
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    let config = "[plans.only]\nrefill = { credits = 5, every = \"month\", mode = \"add\" }\n[accounts.filed]\nplan = \"only\"\n";
    let gateway = Gateway::start_by(&prefix, &admin_config(config), &upstream);
    assert_eq!(gateway.available("filed"), "5");
    let restart_at = |gateway: Gateway, time: &str| {
        let (_, folder) = gateway.stop();
        clock.set(time);
        Gateway::restart_by(&prefix, folder)
    };
    let gateway = restart_at(gateway, "@1970-01-02 00:00:00");
    let gateway = restart_at(gateway, "@2027-05-11 12:00:00");
    assert_eq!(gateway.available("filed"), "5");
    let gateway = restart_at(gateway, "@2027-08-11 12:00:00");
    assert_eq!(gateway.available("filed"), "20", "June, July and August");
    let gateway = restart_at(gateway, "@2031-01-01 00:00:00");
    let ahead: u64 = gateway.available("filed").parse().unwrap();
    let gateway = restart_at(gateway, "@2027-08-12 12:00:00");
    assert_eq!(gateway.available("filed"), ahead.to_string());
    clock.set("@2027-09-10 00:00:01");
    eventually("September", || gateway.available("filed") == (ahead + 5).to_string());
}

#[test]
fn wrong_refills_are_refused_with_what_to_do() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(), &upstream);
    for (refill, says) in [
        ("credits = 0, every = \"month\", mode = \"add\"", "a refill is more than 0 credits"),
        ("credits = 1, every = \"fortnight\", mode = \"add\"", "there is no period `fortnight`"),
        ("credits = 1, every = \"month\", mode = \"replace\"", "there is no mode `replace`"),
        ("credits = 1, every = \"month\", mode = \"reset\", cap = 5", "`cap` is for `mode = \"add\"`"),
        (
            "credits = 1, every = \"month\", mode = \"add\", rollover = 5",
            "`rollover` is for `mode = \"reset\"`",
        ),
        (
            "credits = 9, every = \"month\", mode = \"add\", cap = 5",
            "this cap is below the credits of one refill",
        ),
        ("credits = 9, every = \"day\", mode = \"add\", bucket = \"gold\"", "there is no bucket `gold`"),
        (
            "credits = 9, every = \"day\", mode = \"add\", time_zone = \"Paris\"",
            "there is no time zone `Paris`",
        ),
        ("every = \"day\", mode = \"add\"", "credits"),
    ] {
        let text = gateway.config().replace("credits = 5, every = \"day\", mode = \"add\", cap = 12", refill);
        gateway.write_config(&text);
        let output = gateway.cli(&["check"]);
        let told =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && told.contains(says), "{refill}: {told}");
        let back = text.replace(refill, "credits = 5, every = \"day\", mode = \"add\", cap = 12");
        gateway.write_config(&back);
    }
}
