//! Tests the metrics: their names and values, that Prometheus scrapes them, and that the dashboard and the alerts in
//! `contrib/` use only names that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::api::{Api, admin_config};
use crate::foreign::{has, root};
use crate::support::{Client, Gateway, Upstream, eventually, get, post};

const KEY: &str = "x-api-key: good-key\r\n";

/// The value of each line of Prometheus's text format.
fn values(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
        })
        .collect()
}

fn scrape(gateway: &Gateway) -> BTreeMap<String, f64> {
    values(&Api::of(gateway).send("GET", "/metrics", "", None).text())
}

/// A gateway that has served requests of all kinds.
fn used() -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    let more = "[accounts.poor]\ncredits = 1\n";
    let gateway = Gateway::start(&admin_config(more), &upstream);
    let api = Api::of(&gateway);
    let poor = api.post("/v1/accounts/poor/keys", serde_json::json!({ "label": "p" }))["key"].clone();
    let poor = format!("x-api-key: {}\r\n", poor.as_str().unwrap());
    for _ in 0..3 {
        assert_eq!(get(gateway.public, "/one", KEY).status, 200);
        get(gateway.public, "/one", &poor);
    }
    post(gateway.public, "/free/a", KEY, "abc");
    get(gateway.public, "/header", &format!("{KEY}x-response-header: x-cost: 20\r\n")); // above its hold
    get(gateway.public, "/one", "");
    get(gateway.public, "/nowhere", KEY);
    (gateway, upstream)
}

#[test]
fn requests_credits_and_the_ledger_are_measured() {
    let (gateway, _upstream) = used();
    let name = "tollgate_requests_total{route=\"one\",method=\"GET\",code_class=\"2xx\",outcome=\"proxied\"}";
    eventually("all are counted", || scrape(&gateway).get(name) == Some(&4.0));
    let metrics = scrape(&gateway);
    let value = |name: &str| *metrics.get(name).unwrap_or_else(|| panic!("{name} in {metrics:#?}"));
    let requests = |route: &str, method: &str, class: &str, outcome: &str| {
        value(&format!(
            "tollgate_requests_total{{route=\"{route}\",method=\"{method}\",code_class=\"{class}\",outcome=\"{outcome}\"}}"
        ))
    };
    assert_eq!(requests("one", "GET", "4xx", "insufficient_credits"), 2.0);
    assert_eq!(requests("one", "GET", "4xx", "missing_key"), 1.0);
    assert_eq!(requests("free", "POST", "2xx", "proxied"), 1.0);
    assert_eq!(requests("", "GET", "4xx", "no_route"), 1.0);
    assert_eq!(value("tollgate_credits_charged_total{route=\"one\"}"), 4.0);
    assert_eq!(value("tollgate_credits_charged_total{route=\"header\"}"), 10.0);
    assert_eq!(value("tollgate_credits_refused_total{route=\"one\"}"), 2.0);
    assert_eq!(value("tollgate_charge_capped_total{route=\"header\"}"), 1.0);
    assert_eq!(value("tollgate_upstream_requests_total{upstream=\"api\",code_class=\"2xx\"}"), 6.0);
    assert_eq!(value("tollgate_upstream_servers{upstream=\"api\",state=\"up\"}"), 1.0);
    assert!(value("tollgate_upstream_connect_seconds_count{upstream=\"api\"}") >= 1.0);
    assert_eq!(value("tollgate_request_duration_seconds_count{route=\"one\"}"), 7.0);
    assert_eq!(value("tollgate_overhead_seconds_count"), 6.0);
    assert!(value("tollgate_overhead_seconds_sum") < 5.0);
    assert!(value("tollgate_ledger_commit_seconds_count") >= 1.0);
    assert!(value("tollgate_ledger_batch_size_sum") >= 6.0, "six holds at least");
    assert_eq!((value("tollgate_holds"), value("tollgate_in_doubt_credits")), (0.0, 0.0));
    assert_eq!(value("tollgate_ledger_healthy"), 1.0);
    assert_eq!(value("tollgate_config_last_reload_successful"), 1.0);
    assert!(value("process_resident_memory_bytes") > 1e6 && value("process_cpu_seconds_total") > 0.0);
    assert!(value("process_start_time_seconds") > 1.7e9 && value("process_open_fds") > 5.0);
    assert!(value("tollgate_worker_busy_seconds_total{worker=\"0\"}") >= 0.0);
    assert!(metrics.keys().any(|name| name.starts_with("tollgate_build_info{version=")));
    // A refused reload, a hold in flight, and a crash.
    gateway.write_config("[server\n");
    eventually("the file is refused", || scrape(&gateway)["tollgate_config_last_reload_successful"] == 0.0);
    let mut client = Client::connect(gateway.public);
    client.send(format!("GET /one HTTP/1.1\r\nhost: a\r\n{KEY}x-response-delay: 3000\r\n\r\n")).unwrap();
    eventually("a hold is open", || scrape(&gateway)["tollgate_holds"] == 1.0);
    std::thread::sleep(Duration::from_millis(300));
    let folder = gateway.crash();
    let text = admin_config("[accounts.poor]\ncredits = 1\n").replace("{upstream}", "127.0.0.1:1");
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    let gateway = Gateway::start_in(folder);
    assert_eq!(scrape(&gateway)["tollgate_in_doubt_credits"], 1.0);
}

/// Counters keep their values and labels across reloads, and routes are told apart by name.
#[test]
fn counters_survive_reloads() {
    let (gateway, _upstream) = used();
    let name =
        "tollgate_requests_total{route=\"free\",method=\"POST\",code_class=\"2xx\",outcome=\"proxied\"}";
    eventually("all are counted", || scrape(&gateway).get(name) == Some(&1.0));
    let text = gateway.config();
    let (head, routes) = text.split_once("[[routes]]").unwrap();
    let renamed =
        format!("{head}[[routes]]\nname = \"new\"\npath = \"/new\"\nupstream = \"api\"\n[[routes]]{routes}");
    gateway.write_config(&renamed);
    gateway.json(&["reload"]);
    get(gateway.public, "/new", KEY);
    post(gateway.public, "/free/a", KEY, "abc");
    eventually("both are counted", || {
        let metrics = scrape(&gateway);
        let new = name.replace("free", "new").replace("POST", "GET");
        metrics.get(name) == Some(&2.0) && metrics.get(&new) == Some(&1.0)
    });
}

/// Metrics need a token, unless the file says otherwise. OpenMetrics is written for clients that accept it.
#[test]
fn formats_and_tokens() {
    let (gateway, upstream) = used();
    let api = Api::of(&gateway);
    let accept = "accept: application/openmetrics-text;version=1.0.0\r\n";
    let open = api.send("GET", "/metrics", accept, None);
    assert!(open.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(open.text().ends_with("# EOF\n") && open.text().contains("# TYPE tollgate_requests counter"));
    let plain = api.send("GET", "/metrics", "", None);
    assert!(plain.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(plain.text().contains("# TYPE tollgate_requests_total counter"), "{}", plain.text());
    assert_eq!(api.with_token("").send("GET", "/metrics", "", None).status, 401);
    let config = admin_config("").replace("[admin]\n", "[admin]\nopen = [\"/metrics\"]\n");
    let gateway = Gateway::start(&config, &upstream);
    assert_eq!(Api::of(&gateway).with_token("").send("GET", "/metrics", "", None).status, 200);
    for secret in ["good-key", "ak_live", "acme", "poor", "/free/a"] {
        assert!(!open.text().contains(secret) && !plain.text().contains(secret), "{secret} is in a metric");
    }
}

/// The queries of the dashboard and of the alerts.
fn queries() -> Vec<String> {
    let dashboard = std::fs::read_to_string(root().join("contrib/grafana/tollgate.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let targets =
        dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let mut queries: Vec<String> =
        targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
    queries.push(dashboard["annotations"]["list"][0]["expr"].as_str().unwrap().to_owned());
    queries.push(std::fs::read_to_string(root().join("contrib/prometheus/tollgate.rules.yml")).unwrap());
    queries
}

fn names_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let is_name = |word: &&str| word.starts_with("tollgate_") || word.starts_with("process_");
    words.filter(is_name).map(str::to_owned).collect()
}

/// Every name in the dashboard and the alerts is one that the gateway exports, and outcomes are real ones.
#[test]
fn dashboards_and_alerts_use_names_that_exist() {
    let (gateway, _upstream) = used();
    eventually("all are counted", || scrape(&gateway).len() > 60);
    let mut exported = names_in(&scrape(&gateway).keys().cloned().collect::<Vec<_>>().join("\n"));
    let families: Vec<String> =
        exported.iter().filter_map(|name| name.strip_suffix("_bucket")).map(str::to_owned).collect();
    exported.extend(families);
    let outcomes = tollgate::control::metrics::outcomes();
    for query in queries() {
        for name in names_in(&query) {
            assert!(exported.contains(&name), "{name} is not exported");
        }
        for part in query.split("outcome").skip(1).filter_map(|rest| rest.split('"').nth(1)) {
            for outcome in
                part.split('|').filter(|outcome| outcome.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
            {
                assert!(outcomes.contains(&outcome), "{outcome} is no outcome");
            }
        }
    }
}

struct Prometheus {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    fn start(gateway: &Gateway) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rules = root().join("contrib/prometheus/tollgate.rules.yml");
        let (target, token) = (gateway.admin, crate::api::TOKEN);
        let config = format!(
            "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files: [\"{}\"]\nscrape_configs:\n  \
             - job_name: tollgate\n    authorization:\n      credentials: {token}\n    static_configs:\n      \
             - targets: [\"{target}\"]\n",
            rules.display()
        );
        let path = folder.path().join("prometheus.yml");
        std::fs::write(&path, config).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let option = |name: &str, value: &dyn std::fmt::Display| format!("--{name}={value}");
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(option("config.file", &path.display()))
            .arg(option("storage.tsdb.path", &folder.path().join("data").display()))
            .arg(option("web.listen-address", &format!("127.0.0.1:{port}")))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, folder, port }
    }

    /// The value of a query, if it has one result.
    fn value(&self, query: &str) -> Option<f64> {
        let mut client = Client::try_connect(([127, 0, 0, 1], self.port).into())?;
        let query: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        client.send(format!("GET /api/v1/query?query={query} HTTP/1.1\r\nhost: p\r\n\r\n")).ok()?;
        let answer = client.read(false).ok()?;
        let answer: Value = serde_json::from_slice(&answer.body).ok()?;
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }
}

/// Prometheus scrapes the gateway, promtool accepts metrics and alerts, and every query of the dashboard is valid.
#[test]
fn prometheus_scrapes_the_gateway() {
    if !has("prometheus") || !has("promtool") {
        return;
    }
    let (gateway, _upstream) = used();
    let promtool = |arguments: &[&str], input: Option<PathBuf>| {
        let mut command = Command::new("promtool");
        command.args(arguments);
        if let Some(input) = input {
            command.stdin(std::fs::File::open(input).unwrap());
        }
        let output = command.output().unwrap();
        let text =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(output.status.success(), "{arguments:?}: {text}");
        text
    };
    let rules = root().join("contrib/prometheus/tollgate.rules.yml");
    promtool(&["check", "rules", &rules.to_string_lossy()], None);
    let metrics = gateway.folder.path().join("metrics");
    std::fs::write(&metrics, Api::of(&gateway).send("GET", "/metrics", "", None).body).unwrap();
    let found = promtool(&["check", "metrics"], Some(metrics));
    assert_eq!(found.trim(), "", "promtool finds nothing");
    let prometheus = Prometheus::start(&gateway);
    eventually("it is scraped", || prometheus.value("up") == Some(1.0));
    let requests = "tollgate_requests_total{route=\"one\",outcome=\"proxied\"}";
    eventually("requests are there", || prometheus.value(requests) == Some(4.0));
    for query in queries().iter().filter(|query| !query.contains("groups:")) {
        let query = query.replace("$__rate_interval", "1m").replace("$job", "tollgate");
        let rule = format!("groups: [{{name: q, rules: [{{record: q, expr: {query:?}}}]}}]\n");
        let path = prometheus.folder.path().join("query.yml");
        std::fs::write(&path, rule).unwrap();
        promtool(&["check", "rules", &path.to_string_lossy()], None);
    }
}
