//! Plays the scenario table of buckets, expiry and refills on the real program, with its clock set.

use serde_json::{Value, json};

use super::jobs::{BULK, open, poll};
use crate::api::{Api, admin_config};
use crate::clocks::FakeClock;
use crate::support::{Gateway, Upstream, eventually, get};

const CONFIG: &str = r#"
[buckets.sub]
priority = 1
[buckets.promo]
priority = 2
[plans.sold]
refill = { credits = 10, every = "month", mode = "reset", rollover = 2, bucket = "sub", time_zone = "Europe/Paris" }
"#;

struct Played {
    gateway: Gateway,
    key: String,
}

impl Played {
    /// Does what a line says. `number`: that of the line.
    fn act(&mut self, number: usize, what: &[&str]) {
        let api = Api::of(&self.gateway);
        match what {
            ["create", "with", credits] => {
                let credits: Value = credits.parse().unwrap();
                api.post("/v1/accounts", json!({ "id": "ada", "plan": "sold", "credits": credits }));
                let key = api.post("/v1/accounts/ada/keys", json!({ "label": "k" }));
                self.key = key["key"].as_str().unwrap().to_owned();
            }
            ["spend", requests] => {
                for _ in 0..requests.parse().unwrap() {
                    let headers = format!("x-api-key: {}\r\n", self.key);
                    assert_eq!(get(self.gateway.public, "/one", &headers).charged(), Some("1"));
                }
            }
            ["grant", bucket, credits, "for", time] => {
                let credits: Value = credits.parse().unwrap();
                let grant = json!({ "credits": credits, "bucket": bucket, "expires": time, "reference": format!("g{number}") });
                api.post("/v1/accounts/ada/grants", grant);
            }
            ["hold", items] => {
                assert_eq!(open(&self.gateway, &self.key, "job", items.parse().unwrap()).status, 201);
            }
            ["settle", credits] => {
                let credits: Value = credits.parse().unwrap();
                let done =
                    json!({ "status": "completed", "stats": { "credits_cost": { "final": credits } } });
                assert_eq!(poll(&self.gateway, &self.key, "job", &done).status, 200);
            }
            ["wait" | "off"] => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn credits_are_granted_spent_and_expire_as_the_table_says() {
    let Some(clock) = FakeClock::new("@2027-01-31 08:59:00") else { return };
    let (prefix, upstream) = (clock.prefix(), Upstream::start());
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    let gateway = Gateway::start_by(&prefix, &admin_config(&format!("{BULK}{CONFIG}")), &upstream);
    let mut played = Played { gateway, key: String::new() };
    let table = include_str!("../../scenarios/buckets.txt");
    let lines = table.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let mut rows = 0;
    for (number, line) in lines {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [time, what, sub, promo, rest, _shows] = columns[..] else { panic!("six columns: {line}") };
        clock.set(&format!("@{time}:00"));
        let words: Vec<&str> = what.split(' ').collect();
        if let ["spend" | "hold" | "settle", ..] = *words {
            // What is due at this time is booked before, as if the request came a moment later.
            let now = |played: &Played| Api::of(&played.gateway).get("/v1/accounts/ada")["expiring"].clone();
            let is_past = |part: &Value| {
                let expires = part["expires"].as_str().unwrap();
                part["bucket"] == "sub" && expires <= &*format!("{}:00Z", time.replace(' ', "T"))
            };
            eventually(line, || !now(&played).as_array().unwrap().iter().any(is_past));
        }
        played.act(number, &words);
        let amount = |text: &str| text.parse::<Value>().unwrap();
        let wanted = [amount(sub), amount(promo), amount(rest)];
        eventually(line, || {
            let buckets = &Api::of(&played.gateway).get("/v1/accounts/ada")["buckets"];
            let of = |name: &str| buckets.get(name).cloned().unwrap_or(json!(0));
            [of("sub"), of("promo"), of("default")] == wanted
        });
        if what == "off" {
            let (code, folder) = played.gateway.stop();
            assert_eq!(code, Some(0));
            // The next line's time stands before the start.
            let next = table.lines().skip(number + 1).find(|line| line.starts_with("20")).unwrap();
            clock.set(&format!("@{}:00", next.split('|').next().unwrap().trim()));
            played.gateway = Gateway::restart_by(&prefix, folder);
        }
        rows += 1;
    }
    assert!(rows > 20, "the table has rows");
    assert_eq!(played.gateway.json(&["ledger", "verify"])["differences"], json!([]));
}
