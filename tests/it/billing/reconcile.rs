//! Tests `tollgate reconcile`: an upstream's bill is compared with what its requests were charged.

use std::fmt::Write;
use std::sync::Arc;

use serde_json::{Value, json};

use super::jobs::{BULK, done, open, poll};
use crate::api::admin_config;
use crate::support::{Gateway, Upstream, cli, eventually, get};

fn config(ledger: &str) -> String {
    let proxies = "[server]\ntrusted_proxies = [\"127.0.0.1/32\"]\n";
    let text = admin_config(BULK).replacen("[server]\n", proxies, 1);
    text.replacen("[ledger]\n", &format!("[ledger]\n{ledger}\n"), 1)
}

/// Runs `reconcile` with a bill. Returns the rows of what differs, and what it says on standard error.
fn reconcile(folder: &std::path::Path, bill: &str, arguments: &[&str]) -> (Vec<Value>, String) {
    std::fs::write(folder.join("bill"), bill).unwrap();
    let output = cli(folder, &[&["--output", "json", "reconcile", "bill"], arguments].concat());
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.success(), told.is_empty(), "{told}");
    let rows = String::from_utf8(output.stdout).unwrap();
    (rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), told)
}

/// Sends requests of all kinds, and returns what each costs, by its id as the upstream got it.
fn traffic(gateway: &Gateway, upstream: &Upstream) -> Vec<(String, &'static str)> {
    for request in ["/one", "/header", "/json", "/header", "/one", "/free/a"] {
        let headers = match request {
            "/header" => "x-response-header: x-cost: 2.5\r\n",
            "/json" => "x-response-body: {\"cost\":0.000001}\r\n",
            "/one" => "x-request-id: of-a-proxy\r\n",
            _ => "",
        };
        let headers = format!("x-api-key: good-key\r\n{headers}");
        assert_eq!(get(gateway.public, request, &headers).status, 200);
    }
    assert_eq!(
        get(gateway.public, "/header", "x-api-key: good-key\r\nx-response-status: 500\r\n").status,
        500
    );
    let costs = ["1", "2.5", "0.000001", "2.5", "1", "0", "0"];
    let ids = upstream.take().into_iter().map(|seen| seen.header("x-request-id").unwrap().to_owned());
    ids.zip(costs).collect()
}

#[test]
fn a_bill_is_compared_request_by_request() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config("requests = \"35d\""), &upstream);
    let costs = traffic(&gateway, &upstream);
    let csv = |costs: &[(String, &str)]| {
        let mut text = "request_id,cost,note\n".to_owned();
        costs.iter().for_each(|(id, cost)| writeln!(text, "{id},{cost},\"a, b\"").unwrap());
        text
    };
    let folder = Arc::clone(&gateway.folder);
    // Two requests have the proxy's id: what both were charged is compared with the one line of the bill.
    let mut bill = costs.clone();
    bill.remove(4);
    let (rows, told) = reconcile(folder.path(), &csv(&bill), &["--upstream", "api"]);
    assert_eq!(rows.len(), 1, "{rows:?} {told}");
    let expected = json!(["differs", 2, 1, -1]);
    assert_eq!(
        json!([rows[0]["what"], rows[0]["charged"], rows[0]["billed"], rows[0]["difference"]]),
        expected
    );
    bill[1].1 = "2.500001";
    bill.remove(2);
    bill.push(("req_000000000000000000".to_owned(), "7"));
    bill.push(("unknown".to_owned(), "0.25"));
    for offline in [false, true] {
        let (rows, told) = reconcile(folder.path(), &csv(&bill), &[]);
        let of = |row: &Value| (row["what"].as_str().unwrap().to_owned(), row["difference"].to_string());
        let expected = [
            ("not billed", "-0.000001"),
            ("differs", "-1"),
            ("differs", "0.000001"),
            ("not charged", "7"),
            ("not charged", "0.25"),
        ];
        let expected = expected.map(|(what, difference)| (what.to_owned(), difference.to_owned()));
        assert_eq!(rows.iter().map(of).collect::<Vec<_>>(), expected);
        let named = json!([rows[2]["request"], rows[2]["account"], rows[2]["route"]]);
        assert_eq!(named, json!([costs[1].0, "acme", "header"]));
        let summary = "3 agree, 2 differ, 2 billed and not charged, 1 charged and not billed; 13.250001 credits billed, 7.000001 charged; listed since 20";
        assert!(told.contains(summary), "{told}");
        let (rows, _) = reconcile(folder.path(), &csv(&bill), &["--within", "0.01", "--route", "one"]);
        let kinds: Vec<&str> = rows.iter().map(|row| row["what"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["differs", "of another route", "of another route", "not charged", "not charged"]);
        if !offline {
            gateway.signal("KILL");
            eventually("it has ended", || std::net::TcpStream::connect(gateway.public).is_err());
        }
    }
    // JSON lines, other columns, another unit. The lines of one request are added up, and rounded once.
    let mut lines = String::new();
    for (at, (id, cost)) in costs.iter().enumerate() {
        let half = cost.parse::<f64>().unwrap() / 200.0;
        let parts = if at == 2 {
            ["4e-9".to_owned(), "6e-9".to_owned()]
        } else {
            [half.to_string(), half.to_string()]
        };
        parts.iter().for_each(|cost| writeln!(lines, "{{\"call\":\"{id}\",\"usd\":{cost}}}").unwrap());
    }
    let (rows, told) = reconcile(folder.path(), &lines, &["--id", "call", "--cost", "usd", "--unit", "100"]);
    assert_eq!((rows.len(), told), (0, String::new()));
}

/// Jobs, holds in doubt and credits given back are as they were charged in the end. Requests before the setting are not
/// listed, and none is once the setting is gone.
#[test]
fn what_is_listed_follows_the_ledger() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(""), &upstream);
    get(gateway.public, "/one", "x-api-key: good-key\r\n");
    let refused = cli(gateway.folder.path(), &["reconcile", "config.toml"]);
    assert!(!refused.status.success());
    let text = gateway.config();
    gateway.write_config(&text.replacen("[ledger]\n", "[ledger]\nrequests = \"1h\"\n", 1));
    gateway.json(&["reload"]);
    let (rows, told) = reconcile(gateway.folder.path(), "id,cost\n", &[]);
    assert_eq!((rows.len(), told), (0, String::new()));
    assert_eq!(open(&gateway, "good-key", "job", 5).status, 201);
    assert_eq!(poll(&gateway, "good-key", "job", &done("2")).status, 200);
    let before = upstream.seen().len();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            crate::support::Client::connect(gateway.public)
                .ask("GET /one HTTP/1.1\r\nhost: a\r\nx-api-key: good-key\r\nx-response-delay: 3000\r\n\r\n")
        });
        eventually("the upstream has it", || upstream.seen().len() == before + 1);
        std::thread::sleep(std::time::Duration::from_millis(500)); // the hold is on disk
        gateway.signal("KILL");
    });
    let gateway = Gateway::start_in(gateway.crash());
    let charged = |gateway: &Gateway| {
        let (rows, _) = reconcile(gateway.folder.path(), "id,cost\n", &[]);
        rows.iter().map(|row| row["charged"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(charged(&gateway), ["2", "1"]);
    let doubt = gateway.rows(&["ledger", "in-doubt"])[0]["id"].as_str().unwrap().to_owned();
    gateway.json(&["ledger", "give-back", &doubt]);
    assert_eq!(charged(&gateway), ["2"]);
    gateway.write_config(&text);
    gateway.json(&["reload"]);
    let refused = cli(gateway.folder.path(), &["reconcile", "bill"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("requests = \"35d\""));
}

#[test]
fn wrong_bills_are_refused_with_their_line() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config("requests = \"35d\""), &upstream);
    for (bill, arguments, expected) in [
        ("id,cost\nreq_1,1\nreq_2,a\n", &[][..], "line 3: \"a\" is no cost"),
        ("id,price\nreq_1,1\n", &[], "line 2: there is no column cost, credits, amount"),
        ("id,cost\n,1\n", &[], "line 2: the request has no id"),
        ("{\"id\":\"a\",\"cost\":1}\n{\"id\":\n", &[], "line 2: it is no JSON object"),
        ("{\"id\":\"a\",\"cost\":99999999999999}\n", &[], "line 1: a cost of 99999999999999 does not fit"),
        ("id,cost\n", &["--id", "call"], ""),
        ("id,cost\na,1\n", &["--id", "call"], "line 2: there is no column call"),
        ("id,cost\n", &["--upstream", "other"], "there is no upstream \"other\""),
        ("id,cost\n", &["--route", "other"], "there is no route \"other\""),
        ("id,cost\n", &["--from", "yesterday"], "from"),
        ("id,cost\n", &["--from", "2h"], "from: requests are listed since 20"),
        ("id,cost\n", &["--to", "2h"], "the start must be before the end"),
        ("id,cost\n", &["--unit=-1"], "at most 18 decimals"),
    ] {
        std::fs::write(gateway.folder.path().join("bill"), bill).unwrap();
        let output = cli(gateway.folder.path(), &[&["reconcile", "bill"], arguments].concat());
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.success(), expected.is_empty(), "{bill:?} {arguments:?} {told}");
        assert!(told.contains(expected), "{bill:?} {arguments:?}: {told}");
    }
}
