//! Tests with third-party clients and servers: curl, nghttp, h2load, grpcio, websockets.
//!
//! `scripts/test` installs them. If one is absent, its test reports that and passes.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{Gateway, Upstream, config, missing, sha256};
use crate::tls::{Certificate, tls_config};

/// The folder of the project.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// True if a program can be run; reports it as missing otherwise.
pub fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        missing(program, "a package of Debian's");
    }
    found
}

/// The Python that has the packages of `scripts/test`; reports it as missing if there is none.
pub fn python() -> Option<PathBuf> {
    let python = root().join("target/clients/bin/python");
    if !python.exists() {
        missing("Python with its clients", "scripts/test installs them");
        return None;
    }
    Some(python)
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A server that runs a Python script, and the port that the script prints.
pub struct Peer {
    child: Child,
    pub port: String,
}

impl Peer {
    pub fn start(python: &Path, script: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(python)
            .args([&*root().join("tests/clients").join(script).to_string_lossy(), "serve"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Self { child, port: port.trim().to_owned() }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn client(python: &Path, script: &str, arguments: &[&str]) -> String {
    let script = root().join("tests/clients").join(script);
    run(Command::new(python).arg(script).arg("call").args(arguments))
}

#[test]
fn curl_speaks_every_version_with_and_without_tls() {
    if !has("curl") {
        return;
    }
    let upstream = Upstream::start();
    let certificate = Certificate::of("localhost");
    let gateway = certificate.gateway(&tls_config(&config(""), ""), &upstream);
    let ca = certificate.path();
    let (plain, secure) = (gateway.public, gateway.tls());
    let curl = |arguments: &[&str]| run(Command::new("curl").args(["-sS", "-i"]).args(arguments));
    let key = ["-H", "x-api-key: good-key"];
    let resolve = format!("localhost:{}:127.0.0.1", secure.port());
    let url = format!("https://localhost:{}/one", secure.port());
    let https = |arguments: &[&str]| {
        curl(&[arguments, &key, &["--cacert", &ca, "--resolve", &resolve, &url]].concat())
    };
    let table = [
        (https(&[]), "HTTP/2 200"),
        (https(&["--http1.1"]), "HTTP/1.1 200"),
        (https(&["--tlsv1.3", "-d", "hello"]), "HTTP/2 200"),
        (curl(&[&key[..], &[&*format!("http://{plain}/one")]].concat()), "HTTP/1.1 200"),
        (
            curl(&[&key[..], &["--http2-prior-knowledge", &*format!("http://{plain}/one")]].concat()),
            "HTTP/2 200",
        ),
        (curl(&["--http2-prior-knowledge", &format!("http://{plain}/one")]), "HTTP/2 401"),
    ];
    for (response, expected) in table {
        assert!(response.starts_with(expected), "{expected}: {response}");
        assert!(response.contains("\nx-request-id: req_"), "{response}");
    }
    assert_eq!(gateway.available("acme"), "995");
    let old = Command::new("curl")
        .args(["-sS", "--tls-max", "1.2", "--cacert", &ca, "--resolve", &resolve, &url])
        .output()
        .unwrap();
    assert!(!old.status.success(), "TLS 1.2 was taken without being asked for");
    let protos: Vec<String> = upstream
        .seen()
        .iter()
        .map(|seen| seen.header("x-forwarded-proto").unwrap_or_default().to_owned())
        .collect();
    assert_eq!(protos, ["https", "https", "https", "http", "http"]);
}

#[test]
fn nghttp_and_h2load_are_served() {
    if !(has("nghttp") && has("h2load")) {
        return;
    }
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(""), &upstream);
    let url = format!("http://{}/one", gateway.public);
    let told = run(Command::new("nghttp").args(["-v", "-H", "x-api-key: good-key", "-d", "/dev/null", &url]));
    assert!(told.contains(":status: 200") && told.contains("x-credits-used: 1"), "{told}");
    let load = ["-n", "300", "-c", "3", "-m", "20", "-H", "x-api-key: good-key", &url];
    let told = run(Command::new("h2load").args(load));
    assert!(told.contains("300 succeeded, 0 failed, 0 errored, 0 timeout"), "{told}");
    assert!(told.contains("status codes: 300 2xx, 0 3xx, 0 4xx, 0 5xx"), "{told}");
    assert_eq!(gateway.available("acme"), "699");
}

/// Unary calls, streams in both directions, a deadline, a cancelled call and refusals, over plain HTTP/2 and TLS.
#[test]
fn grpc_calls_are_carried_refused_and_priced_by_their_outcome() {
    let Some(python) = python() else { return };
    let server = Peer::start(&python, "grpc_peer.py", &[]);
    let upstream = Upstream::start();
    let route = r#"
[[routes]]
name = "echo"
path = "/sample.Echo/{call}"
upstream = "calls"
hold = 5
charge = [{ status = "2xx", from = "header:x-cost" }, { status = "400", credits = 1 }]
[accounts.poor]
[[accounts.poor.keys]]
label = "poor"
sha256 = "{poor}"
[upstreams.calls]
servers = ["h2c://127.0.0.1:{port}"]
"#;
    let route = route.replace("{port}", &server.port).replace("{poor}", &sha256("poor-key"));
    let certificate = Certificate::of("localhost");
    let gateway = certificate.gateway(&tls_config(&config(&route), ""), &upstream);
    let said = client(&python, "grpc_peer.py", &[&gateway.public.to_string(), "good-key"]);
    assert!(said.contains("as they should"), "{said}");
    std::thread::sleep(std::time::Duration::from_secs(4)); // the slow call ends at the upstream
    // Charges: the unary call 3; three streams whose trailers have no price 5 each; the failed precondition 1; the call
    // that its client gave up 3 or nothing, depending on how the upstream ends it; the cancelled call nothing.
    let spent = 1000 - gateway.available("acme").parse::<i64>().unwrap();
    assert!([19, 22].contains(&spent), "{spent}");
    let secure = gateway.tls().to_string();
    client(&python, "grpc_peer.py", &[&secure, "good-key", &certificate.path()]);
}

#[test]
fn websockets_are_carried_over_both_versions() {
    let Some(python) = python() else { return };
    let server = Peer::start(&python, "websocket_peer.py", &[]);
    let upstream = Upstream::start();
    let route = "[[routes]]\nname = \"ws\"\npath = \"/ws/{*rest}\"\nupstream = \"ws\"\ncredits = 2\n\
                 [upstreams.ws]\nservers = [\"http://127.0.0.1:PORT\"]\n";
    let gateway = Gateway::start(&config(&route.replace("PORT", &server.port)), &upstream);
    let said = client(&python, "websocket_peer.py", &[&gateway.public.to_string(), "good-key"]);
    assert!(said.contains("all messages came back"), "{said}");
    assert_eq!(gateway.available("acme"), "996");
}
