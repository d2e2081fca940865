//! Tests promise 7: neither keys, queries, bodies nor header values are ever logged or stored.

use std::path::Path;

use crate::api::{Api, admin_config};
use crate::support::{Client, Gateway, Upstream, config, get, post, send, sha256};
use crate::traces::Collector;

/// Words that the test writes into every place that a client can write to, and nowhere else.
const CANARIES: [&str; 6] = [
    "canary-in-key-7f3a",
    "canary-in-query-91bc",
    "canary-in-header-55de",
    "canary-in-body-c0ff",
    "canary-in-path-2b2b",
    "canary-in-response-d00d",
];

fn everything_under(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => everything_under(&path, found),
            false => found.push((path.display().to_string(), std::fs::read(&path).unwrap_or_default())),
        }
    }
}

#[test]
fn nothing_a_client_sends_is_logged_or_stored() {
    let upstream = Upstream::start();
    let [key, query, header, body, path, response] = CANARIES;
    let more = format!(
        "[accounts.c]\ncredits = 100\n[[accounts.c.keys]]\nlabel = \"k\"\nsha256 = \"{}\"\n[[accounts.c.keys]]\nlabel = \"raw\"\nsha256 = \"{}\"\n",
        sha256(key),
        sha256("spare")
    );
    let collector = Collector::start();
    let traces = collector.as_ref().map(|collector| collector.settings("", "100%")).unwrap_or_default();
    // Turns on the most verbose log, and core files where the machine writes any.
    let prefix = ["env", "TOLLGATE_LOG=trace,h2=trace,rustls=trace", "prlimit", "--core=unlimited"];
    let gateway = Gateway::start_by(&prefix, &admin_config(&format!("{more}{traces}")), &upstream);
    let headers = format!("x-api-key: {key}\r\nx-note: {header}\r\nx-response-body: {response}\r\n");
    for path in
        ["/one".to_owned(), format!("/free/{path}"), format!("/nowhere/{path}"), format!("/free/{path}/../x")]
    {
        post(gateway.public, &format!("{path}?q={query}"), &headers, body);
    }
    get(gateway.public, &format!("/one?api_key={key}"), "");
    get(gateway.public, "/one", &format!("x-api-key: {key}{header}\r\n"));
    get(gateway.public, "/one", &format!("{headers}x-response-raw: {response}\r\n"));
    let _ = Client::connect(gateway.public).ask(format!("GET /{path} HTTP/1.1\r\nbad {header}\r\n\r\n"));
    send(gateway.public, format!("GET http://{path}/ HTTP/1.1\r\nhost: {header}\r\n\r\n"));
    let url = format!("http://{}/one?q={query}", gateway.public);
    let fields =
        [format!("x-api-key: {key}"), format!("x-note: {header}"), format!("x-response-body: {response}")];
    let mut curl = std::process::Command::new("curl");
    curl.args(["-s", "--http2-prior-knowledge", "-d", body])
        .args(fields.iter().flat_map(|field| ["-H", field]));
    match curl.arg(&url).output() {
        Ok(output) => assert!(String::from_utf8_lossy(&output.stdout).contains(response)),
        Err(_) => crate::support::missing("curl", "Debian: curl"),
    }
    // A reload's report does not repeat a raw key that stands in place of a hash.
    let text = gateway.config();
    std::fs::write(gateway.config_path(), text.replace(&sha256("spare"), key)).unwrap();
    let output = gateway.cli(&["reload"]);
    assert_eq!(output.status.code(), Some(1));
    let mut told = [output.stdout, output.stderr].concat();
    std::fs::write(gateway.config_path(), &text).unwrap();
    assert!(gateway.cli(&["ledger", "in-doubt"]).status.success(), "folds the journal into entries");
    std::thread::sleep(std::time::Duration::from_millis(1_500)); // time for the log's thread, and for the spans
    let api = Api::of(&gateway);
    for path in
        ["/metrics", "/v1/usage?by=key", "/v1/accounts/c/refusals", "/v1/audit", "/v1/keys", "/v1/accounts"]
    {
        let response = api.send("GET", path, "", None);
        assert_eq!(response.status, 200, "{path}");
        told.extend(response.text().into_bytes());
    }
    if let Some(collector) = collector {
        let spans = collector.text();
        assert!(spans.contains("GET /one") && spans.contains("POST /free/{*rest}"), "{spans}");
        told.extend(spans.into_bytes());
    }
    let log = gateway.lines().join("\n");
    assert!(log.contains("tollgate::request"), "requests were logged");
    gateway.signal("ABRT"); // would write a core file
    let folder = gateway.crash();
    let mut places = vec![("the log".to_owned(), log.into_bytes()), ("what was shown".to_owned(), told)];
    everything_under(folder.path(), &mut places);
    for (place, bytes) in places {
        let text = String::from_utf8_lossy(&bytes);
        for canary in CANARIES {
            assert!(!text.contains(canary), "{canary} stands in {place}");
        }
    }
}

#[test]
fn the_log_has_the_fields_that_were_asked_for() {
    let upstream = Upstream::start();
    let fields = |more: &str| -> Vec<String> {
        let mut gateway = Gateway::start(&config(more), &upstream);
        get(gateway.public, "/one", "x-api-key: good-key\r\n");
        let line: serde_json::Value = serde_json::from_str(&gateway.line_with("tollgate::request")).unwrap();
        line.as_object().unwrap().keys().cloned().collect()
    };
    let standard = [
        "timestamp",
        "level",
        "request_id",
        "route",
        "key",
        "status",
        "outcome",
        "credits",
        "duration_ms",
        "upstream_status",
        "server",
        "target",
    ];
    assert_eq!(fields(""), standard);
    assert_eq!(
        fields("[log]\nfields = \"minimal\"\n"),
        ["timestamp", "level", "route", "credits", "status", "target"]
    );
    let silent = Gateway::start(&config("[log]\nrequests = false\n"), &upstream);
    get(silent.public, "/one", "x-api-key: good-key\r\n");
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(!silent.lines().iter().any(|line| line.contains("tollgate::request")));
}
