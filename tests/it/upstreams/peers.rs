//! Servers that others wrote, as upstreams with TLS: nginx, HAProxy, nghttpd, grpcio.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{folder, start, with_servers, write};
use crate::foreign::{Peer, client, has, python};
use crate::support::{Authority, Gateway, Upstream, config, eventually, get, missing, post, sha256};

const KEY: &str = "x-api-key: good-key\r\n";

/// A running server; killed when it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server and waits until it listens.
fn serve(command: &mut Command, port: u16) -> Server {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let server = Server(child);
    let begun = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{command:?} does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    server
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn program(name: &str) -> Option<String> {
    let places = [format!("/usr/sbin/{name}"), format!("/usr/bin/{name}"), format!("/usr/local/bin/{name}")];
    let found = places.into_iter().find(|place| Path::new(place).exists());
    if found.is_none() {
        missing(name, "a package of Debian's");
    }
    found
}

/// A folder with an authority and a certificate for 127.0.0.1, as one file too.
fn certified() -> Arc<tempfile::TempDir> {
    let authority = Authority::new();
    let pair = authority.issue(&["127.0.0.1"]);
    let whole = format!("{}{}", pair.certificate, pair.key);
    folder(&[
        ("ca.pem", &authority.pem),
        ("cert.pem", &pair.certificate),
        ("cert.key", &pair.key),
        ("all.pem", &whole),
    ])
}

/// nginx with TLS in front of an upstream; `more` are directives of its server.
fn nginx(folder: &Path, upstream: &Upstream, http2: bool, more: &str) -> Option<(Server, u16)> {
    let (nginx, port) = (program("nginx")?, free_port());
    let (root, http2) = (folder.display(), if http2 { " http2" } else { "" });
    let text = format!(
        "daemon off; master_process off; pid {root}/nginx.pid; error_log {root}/nginx.log;\n\
         events {{}}\nhttp {{ access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;\n\
         fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n\
         server {{ listen 127.0.0.1:{port} ssl{http2}; ssl_certificate {root}/cert.pem; ssl_certificate_key {root}/cert.key;\n\
         client_max_body_size 0; proxy_request_buffering off; proxy_buffering off; proxy_http_version 1.1;\n\
         proxy_set_header connection \"\"; add_header x-spoken $server_protocol; {more}\n\
         location / {{ proxy_pass http://{}; }} }} }}\n",
        upstream.address
    );
    write(folder, &[("nginx.conf", &text)]);
    let mut command = Command::new(nginx);
    command.arg("-c").arg(folder.join("nginx.conf")).arg("-e").arg(folder.join("nginx.log"));
    Some((serve(&mut command, port), port))
}

fn secured(port: u16, more: &str) -> String {
    with_servers(&[format!("https://127.0.0.1:{port}")], &format!("tls = {{ ca = \"ca.pem\" }}\n{more}"))
}

/// Exchanges of every kind.
fn is_served_completely(gateway: &Gateway, what: &str) {
    let large = "x".repeat(2_000_000);
    let echoed = post(gateway.public, "/one", &format!("{KEY}x-response-echo: yes\r\n"), &large);
    assert_eq!((echoed.status, echoed.text() == large), (200, true), "{what}");
    let chunks = get(gateway.public, "/one", &format!("{KEY}x-response-chunks: a|bc|def\r\n"));
    assert_eq!((chunks.status, chunks.text().as_str()), (200, "abcdef"), "{what}");
    let priced = get(gateway.public, "/header", &format!("{KEY}x-response-header: x-cost: 2.5\r\n"));
    assert_eq!((priced.status, priced.charged()), (200, Some("2.5")), "{what}");
    let missing = get(gateway.public, "/header", &format!("{KEY}x-response-status: 404\r\n"));
    assert_eq!((missing.status, missing.charged()), (404, Some("1")), "{what}");
}

/// The HTTP version is the one that both sides can speak; without one the upstream cannot be reached.
#[test]
fn nginx_is_spoken_to_in_the_version_that_both_know() {
    for (offers, setting, spoken) in [
        (true, "\"auto\"", "HTTP/2.0"),
        (true, "true", "HTTP/2.0"),
        (true, "false", "HTTP/1.1"),
        (false, "\"auto\"", "HTTP/1.1"),
        (false, "true", ""),
    ] {
        let (folder, upstream) = (certified(), Upstream::start());
        let Some((_nginx, port)) = nginx(folder.path(), &upstream, offers, "") else { return };
        let gateway = start(&folder, &secured(port, &format!("http2 = {setting}")));
        let response = get(gateway.public, "/one", KEY);
        if spoken.is_empty() {
            assert_eq!((response.status, response.charged()), (502, Some("0")));
            eventually("the reason is logged", || {
                gateway.lines().iter().any(|line| line.contains("does not offer HTTP/2"))
            });
            continue;
        }
        assert_eq!(response.header("x-spoken"), Some(spoken), "{setting}");
        is_served_completely(&gateway, spoken);
        assert_eq!(upstream.last().header("x-tollgate-account"), Some("acme"));
    }
}

/// A server that ends its connections after a few requests, and says so: no request fails.
#[test]
fn connections_that_nginx_ends_are_replaced() {
    for http2 in [false, true] {
        let (folder, upstream) = (certified(), Upstream::start());
        let Some((_nginx, port)) = nginx(folder.path(), &upstream, http2, "keepalive_requests 3;") else {
            return;
        };
        let gateway = start(&folder, &secured(port, ""));
        for round in 0..60 {
            let response = match round % 2 {
                0 => get(gateway.public, "/one", KEY),
                _ => post(gateway.public, "/one", &format!("{KEY}x-response-echo: yes\r\n"), "text"),
            };
            assert_eq!(response.status, 200, "HTTP/2: {http2}, request {round}");
        }
        assert_eq!(upstream.seen().len(), 60, "one was sent twice");
        assert_eq!(gateway.available("acme"), "940");
    }
}

/// Requests that a connection has no stream for go over another one, and do not wait.
#[test]
fn more_connections_are_opened_when_streams_run_out() {
    let (folder, upstream) = (certified(), Upstream::start());
    let Some((_nginx, port)) = nginx(folder.path(), &upstream, true, "http2_max_concurrent_streams 2;")
    else {
        return;
    };
    let gateway = start(&folder, &secured(port, "").replace("threads = 2", "threads = 1"));
    // The first requests come before the server's limit is known.
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let response = get(gateway.public, "/one", &format!("{KEY}x-response-delay: 1000\r\n"));
                assert_eq!((response.status, response.header("x-spoken")), (200, Some("HTTP/2.0")));
            });
        }
    });
    assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
}

#[test]
fn haproxy_is_served_in_both_versions() {
    for (alpn, spoken) in [("h2,http/1.1", "HTTP/2.0"), ("http/1.1", "HTTP/1.1")] {
        let (folder, upstream) = (certified(), Upstream::start());
        let Some(haproxy) = program("haproxy") else { return };
        let (port, root) = (free_port(), folder.path().display().to_string());
        let text = format!(
            "global\n  maxconn 100\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n\
             frontend tls\n  bind 127.0.0.1:{port} ssl crt {root}/all.pem alpn {alpn}\n\
             \x20 http-request set-var(txn.spoken) req.ver\n\
             \x20 http-response set-header x-spoken HTTP/%[var(txn.spoken)]\n  default_backend api\n\
             backend api\n  server one {}\n",
            upstream.address
        );
        write(folder.path(), &[("haproxy.cfg", &text)]);
        let _haproxy =
            serve(Command::new(haproxy).args(["-db", "-f"]).arg(folder.path().join("haproxy.cfg")), port);
        let gateway = start(&folder, &secured(port, ""));
        assert_eq!(get(gateway.public, "/one", KEY).header("x-spoken"), Some(spoken), "{alpn}");
        is_served_completely(&gateway, alpn);
    }
}

#[test]
fn nghttpd_is_served_with_and_without_tls() {
    let Some(nghttpd) = program("nghttpd") else { return };
    let folder = certified();
    write(folder.path(), &[("one", "from nghttpd")]);
    for tls in [true, false] {
        let (port, root) = (free_port(), folder.path().display().to_string());
        let mut command = Command::new(&nghttpd);
        command.args(["-d", &root, "-a", "127.0.0.1", "--echo-upload"]);
        match tls {
            true => command.args([port.to_string(), format!("{root}/cert.key"), format!("{root}/cert.pem")]),
            false => command.args(["--no-tls".to_owned(), port.to_string()]),
        };
        let _nghttpd = serve(&mut command, port);
        let text = match tls {
            true => secured(port, "http2 = true"),
            false => with_servers(&[format!("h2c://127.0.0.1:{port}")], ""),
        };
        let gateway = start(&folder, &text);
        let response = get(gateway.public, "/one", KEY);
        assert_eq!((response.status, response.text().as_str()), (200, "from nghttpd"), "TLS: {tls}");
        let large = "x".repeat(500_000);
        let echoed = post(gateway.public, "/one", KEY, &large);
        assert_eq!((echoed.status, echoed.text() == large), (200, true), "TLS: {tls}");
    }
}

/// gRPC from end to end: client, gateway with TLS, server with TLS.
#[test]
fn grpc_is_carried_over_tls_on_both_sides() {
    let (Some(python), true) = (python(), has("curl")) else { return };
    let authority = Authority::new();
    let pair = authority.issue(&["127.0.0.1", "localhost"]);
    let folder =
        folder(&[("ca.pem", &authority.pem), ("cert.pem", &pair.certificate), ("cert.key", &pair.key)]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let server = Peer::start(&python, "grpc_peer.py", &[&path("cert.pem"), &path("cert.key")]);
    let route = format!(
        "[[routes]]\nname = \"echo\"\npath = \"/sample.Echo/{{call}}\"\nupstream = \"calls\"\nhold = 5\n\
         charge = [{{ status = \"2xx\", from = \"header:x-cost\" }}]\n[accounts.poor]\n[[accounts.poor.keys]]\n\
         label = \"poor\"\nsha256 = \"{}\"\n[upstreams.calls]\nservers = [\"https://127.0.0.1:{}\"]\n\
         tls = {{ ca = \"ca.pem\" }}\n",
        sha256("poor-key"),
        server.port
    );
    let text = crate::tls::tls_config(&config(&route), "").replace("{upstream}", "127.0.0.1:9");
    let gateway = start(&folder, &text);
    let said = client(&python, "grpc_peer.py", &[&gateway.tls().to_string(), "good-key", &path("ca.pem")]);
    assert!(said.contains("as they should"), "{said}");
}
