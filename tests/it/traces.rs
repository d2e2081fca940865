//! Tests traces with a collector that decodes them with the messages that OpenTelemetry publishes.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::foreign::{Peer, python};
use crate::support::{Client, Gateway, Response, Upstream, config, eventually, get, send};

const KEY: &str = "x-api-key: good-key\r\n";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A collector.
pub struct Collector(Peer);

impl Collector {
    pub fn start() -> Option<Self> {
        python().map(|python| Self(Peer::start(&python, "otlp_receiver.py", &[])))
    }

    /// Settings of a gateway that sends its spans here. `path`: the collector's base path.
    pub fn settings(&self, path: &str, sample: &str) -> String {
        let port = &self.0.port;
        format!(
            "[traces]\notlp = \"http://127.0.0.1:{port}{path}\"\nsample = \"{sample}\"\nset_headers = {{ authorization = \"Bearer collectors-token\" }}\n"
        )
    }

    pub fn text(&self) -> String {
        let address: SocketAddr = format!("127.0.0.1:{}", self.0.port).parse().unwrap();
        let response = Client::connect(address).ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        response.map(|response: Response| response.text()).unwrap()
    }

    fn spans(&self) -> Vec<Value> {
        serde_json::from_str(&self.text()).unwrap()
    }

    /// Waits for this many spans.
    fn wait_for(&self, count: usize) -> Vec<Value> {
        eventually("the spans", || self.spans().len() >= count);
        self.spans()
    }
}

fn of_kind(spans: &[Value], kind: u64) -> Value {
    spans.iter().find(|span| span["kind"] == kind).unwrap_or_else(|| panic!("{spans:#?}")).clone()
}
const SERVER: u64 = 2;
const CLIENT: u64 = 3;

/// A request is a span at the gateway and one at the upstream, which continue the caller's trace; the upstream is told
/// the second one.
#[test]
fn a_request_is_two_spans_of_the_callers_trace() {
    let Some(collector) = Collector::start() else { return };
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(&collector.settings("", "100%")), &upstream);
    let context = format!("traceparent: 00-{TRACE}-{CALLER}-00\r\ntracestate: vendor=x\r\n");
    assert_eq!(get(gateway.public, "/one?q=1", &format!("{KEY}{context}")).status, 200);
    let seen = upstream.last();
    let spans = collector.wait_for(2);
    let (server, client) = (of_kind(&spans, SERVER), of_kind(&spans, CLIENT));
    assert_eq!((&server["trace"], &server["parent"]), (&json!(TRACE), &json!(CALLER)));
    assert_eq!((&client["trace"], &client["parent"]), (&json!(TRACE), &server["span"]));
    let told = format!("00-{TRACE}-{}-01", client["span"].as_str().unwrap());
    assert_eq!((seen.header("traceparent"), seen.header("tracestate")), (Some(&*told), Some("vendor=x")));
    assert_eq!((&server["name"], &client["name"]), (&json!("GET /one"), &json!("GET")));
    let attributes = &server["attributes"];
    for (name, value) in [
        ("http.request.method", json!("GET")),
        ("http.response.status_code", json!(200)),
        ("http.route", json!("/one")),
        ("tollgate.route", json!("one")),
        ("tollgate.account", json!("acme")),
        ("tollgate.outcome", json!("proxied")),
        ("tollgate.credits", json!("1")),
    ] {
        assert_eq!(attributes[name], value, "{name} of {attributes}");
    }
    assert_eq!(client["attributes"]["tollgate.upstream"], "api");
    assert_eq!(client["attributes"]["http.response.status_code"], 200);
    assert_eq!((&server["resource"]["service.name"], &server["error"]), (&json!("tollgate"), &json!(false)));
    assert_eq!(server["token"], "Bearer collectors-token", "what the operator sets is sent");
    let number = |span: &Value, name: &str| span[name].as_u64().unwrap();
    let end = |span: &Value| number(span, "start") + number(span, "nanoseconds");
    assert!(number(&client, "start") >= number(&server, "start") && end(&client) <= end(&server));
}

/// Without a caller's context, or with one that is malformed, a trace begins. Refused requests are one span.
#[test]
fn a_request_without_a_context_begins_a_trace() {
    let Some(collector) = Collector::start() else { return };
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(&collector.settings("/busy/", "100%")), &upstream);
    let bad = format!("traceparent: 00-{TRACE}-{CALLER}\r\ntracestate: vendor=x\r\n");
    assert_eq!(get(gateway.public, "/one", &format!("{KEY}{bad}")).status, 200);
    let seen = upstream.last();
    assert_eq!(seen.header("tracestate"), None, "it belongs to no valid context");
    assert_eq!(get(gateway.public, "/one", "").status, 401);
    send(gateway.public, "BREW /one HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let spans = collector.wait_for(4); // the first export is refused with 503, and tried again
    let client = of_kind(&spans, CLIENT);
    assert_ne!(client["trace"], TRACE);
    let told = format!("00-{}-{}-01", client["trace"].as_str().unwrap(), client["span"].as_str().unwrap());
    assert_eq!(seen.header("traceparent"), Some(&*told));
    let servers: Vec<&Value> = spans.iter().filter(|span| span["kind"] == SERVER).collect();
    assert!(servers.iter().all(|span| span["parent"] == ""), "each begins its trace");
    let outcome = |span: &Value| span["attributes"]["tollgate.outcome"].as_str().unwrap().to_owned();
    let mut outcomes: Vec<String> = servers.iter().map(|span| outcome(span)).collect();
    outcomes.sort();
    assert_eq!(outcomes, ["missing_key", "missing_key", "proxied"]);
    assert!(servers.iter().any(|span| span["name"] == "_OTHER /one"), "{servers:#?}");
}

/// What is not sampled has no span, and the upstream is told so; without `[traces]` nothing is changed.
#[test]
fn what_is_not_sampled_has_no_span() {
    let Some(collector) = Collector::start() else { return };
    let upstream = Upstream::start();
    let context = format!("traceparent: 00-{TRACE}-{CALLER}-01\r\n");
    let trusted = "[server]\nlisten = [\"127.0.0.1:0\"]\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let settings = config(&collector.settings("", "0%"));
    let gateway = Gateway::start(&settings, &upstream);
    get(gateway.public, "/one", KEY);
    let begun = upstream.last();
    assert!(begun.header("traceparent").is_some_and(|value| value.ends_with("-00")), "{begun:?}");
    get(gateway.public, "/one", &format!("{KEY}{context}"));
    let given = upstream.last();
    assert_eq!(given.header("traceparent"), Some(&*format!("00-{TRACE}-{CALLER}-01")), "as it came");
    assert_eq!(gateway.stop().0, Some(0));
    assert_eq!(collector.spans(), Vec::<Value>::new());
    let off = Gateway::start(&config(""), &upstream);
    get(off.public, "/one", KEY);
    assert_eq!(upstream.last().header("traceparent"), None);
    // A trusted proxy decides; the last spans are exported at the stop.
    let settings = settings.replacen("[server]\nlisten = [\"127.0.0.1:0\"]\n", trusted, 1);
    let gateway = Gateway::start(&settings, &upstream);
    get(gateway.public, "/one", &format!("{KEY}{context}"));
    assert_eq!(gateway.stop().0, Some(0));
    assert_eq!(collector.spans().len(), 2);
}

/// A collector that is away costs no request anything; its spans are dropped, counted and told of.
#[test]
fn a_collector_that_is_away_costs_no_request() {
    let upstream = Upstream::start();
    let settings = "[traces]\notlp = \"http://127.0.0.1:9\"\nsample = \"100%\"\n";
    let gateway = Gateway::start(&config(settings), &upstream);
    for _ in 0..20 {
        assert_eq!(get(gateway.public, "/one", KEY).status, 200);
    }
    assert_eq!(gateway.stop().0, Some(0));
}
