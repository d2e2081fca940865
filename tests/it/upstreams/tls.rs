//! TLS to upstreams: whom the gateway trusts, what it shows, and what it reads again.

use rcgen::date_time_ymd;

use super::{folder, start, with_servers, write};
use crate::support::{Authority, Gateway, Pair, Upstream, eventually, get, post, send};

fn url(upstream: &Upstream) -> String {
    format!("https://{}", upstream.address)
}

fn is_served(gateway: &Gateway) -> bool {
    get(gateway.public, "/one", "x-api-key: good-key\r\n").status == 200
}

/// A certificate that cannot be verified is an upstream that cannot be reached: the request costs nothing, and only the
/// operator is told why.
#[test]
fn a_certificate_is_verified() {
    let (trusted, unknown) = (Authority::new(), Authority::new());
    let of_2020 = |from: i32, until: i32| {
        trusted.issue_with(&["127.0.0.1"], |params| {
            (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
        })
    };
    let table = [
        ("", trusted.issue(&["127.0.0.1"])),
        ("", trusted.issue(&["other.test", "127.0.0.1"])),
        ("expired", of_2020(2020, 2021)),
        ("not valid yet", of_2020(2090, 2091)),
        ("not valid for name", trusted.issue(&["other.test"])),
        ("no trusted authority issued it", unknown.issue(&["127.0.0.1"])),
        ("no trusted authority issued it", Pair::self_signed(&["127.0.0.1"])),
    ];
    for (reason, pair) in table {
        let upstream = Upstream::start_tls(pair.server(&[b"http/1.1"], None));
        let mut gateway = start(
            &folder(&[("ca.pem", &trusted.pem)]),
            &with_servers(&[url(&upstream)], "tls = { ca = \"ca.pem\" }"),
        );
        let response = get(gateway.public, "/one", "x-api-key: good-key\r\n");
        if reason.is_empty() {
            assert_eq!((response.status, response.charged()), (200, Some("1")));
            continue;
        }
        assert_eq!((response.status, response.charged()), (502, Some("0")), "{reason}");
        assert_eq!(response.json()["code"], "upstream_unreachable");
        assert!(!response.text().to_lowercase().contains("certificate"), "{}", response.text());
        assert_eq!(gateway.available("acme"), "1000");
        assert_eq!(upstream.seen().len(), 0, "{reason}: the request was sent");
        let line = gateway.line_with("the certificate was refused");
        assert!(line.contains(reason), "{reason}: {line}");
        let status = gateway.json(&["status"]);
        let failure = status["upstreams"][0]["servers"][0]["last_failure"].to_string();
        assert!(failure.contains(reason), "{reason}: {status}");
    }
}

#[test]
fn a_fixed_name_is_verified_in_place_of_the_hosts() {
    let authority = Authority::new();
    let upstream = Upstream::start_tls(authority.issue(&["api.internal"]).server(&[], None));
    let address = format!("https://{}", upstream.address);
    for (more, status) in
        [("", 502), (", server_name = \"api.internal\"", 200), (", server_name = \"else\"", 502)]
    {
        let text =
            with_servers(std::slice::from_ref(&address), &format!("tls = {{ ca = \"ca.pem\"{more} }}"));
        let gateway = start(&folder(&[("ca.pem", &authority.pem)]), &text);
        assert_eq!(get(gateway.public, "/one", "x-api-key: good-key\r\n").status, status, "{more}");
    }
}

/// The system's authorities are those of OpenSSL's variables where they are set.
#[test]
fn the_systems_authorities_are_trusted_beside_or_without_own_ones() {
    let (of_system, own) = (Authority::new(), Authority::new());
    let [first, second] = [&of_system, &own]
        .map(|authority| Upstream::start_tls(authority.issue(&["127.0.0.1"]).server(&[b"http/1.1"], None)));
    let table = [
        ("", [200, 502]),
        ("tls = { ca = \"system\" }", [200, 502]),
        ("tls = { ca = \"own.pem\" }", [502, 200]),
        ("tls = { ca = [\"system\", \"own.pem\"] }", [200, 200]),
    ];
    for (more, statuses) in table {
        for (upstream, status) in [&first, &second].into_iter().zip(statuses) {
            let folder = folder(&[("own.pem", &own.pem), ("system.pem", &of_system.pem)]);
            write(folder.path(), &[("config.toml", &with_servers(&[url(upstream)], more))]);
            let system = format!("SSL_CERT_FILE={}", folder.path().join("system.pem").display());
            let gateway = Gateway::restart_by(&["env", &system], folder);
            let found = get(gateway.public, "/one", "x-api-key: good-key\r\n").status;
            assert_eq!(found, status, "{more} {}", upstream.address);
        }
    }
}

/// A client certificate is shown to servers that ask for one, and its files are read again when they change.
#[test]
fn own_certificates_are_shown_and_read_again() {
    let (servers, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    let upstream = Upstream::start_tls(servers.issue(&["127.0.0.1"]).server(&[], Some(&clients)));
    let stranger = others.issue(&["tollgate"]);
    let folder =
        folder(&[("ca.pem", &servers.pem), ("own.pem", &stranger.certificate), ("own.key", &stranger.key)]);
    let more = "tls = { ca = \"ca.pem\", certificate = \"own.pem\", private_key = \"own.key\" }";
    let gateway = start(&folder, &with_servers(&[url(&upstream)], more));
    assert!(!is_served(&gateway), "another authority's");
    let known = clients.issue(&["tollgate"]);
    write(folder.path(), &[("own.pem", &known.certificate), ("own.key", &known.key)]);
    eventually("the new certificate", || is_served(&gateway));
    assert_eq!(gateway.available("acme").parse::<u32>().unwrap(), 999);
}

/// The authorities are read again too, and connections that were verified by the former ones are not used any more.
#[test]
fn a_changed_authority_applies_to_the_next_request() {
    let (old, new) = (Authority::new(), Authority::new());
    let upstream = Upstream::start_tls(old.issue(&["127.0.0.1"]).server(&[], None));
    let folder = folder(&[("ca.pem", &old.pem)]);
    let gateway = start(&folder, &with_servers(&[url(&upstream)], "tls = { ca = \"ca.pem\" }"));
    assert!(is_served(&gateway) && is_served(&gateway));
    write(folder.path(), &[("ca.pem", &new.pem)]);
    assert!(gateway.cli(&["reload"]).status.success());
    assert!(!is_served(&gateway), "a connection of the former authority was used");
    write(folder.path(), &[("ca.pem", &old.pem)]);
    assert!(gateway.cli(&["reload"]).status.success());
    assert!(is_served(&gateway));
}

/// A reload that changes nothing about an upstream keeps its connections and sessions; new connections resume a session.
#[test]
fn connections_are_kept_and_sessions_resumed() {
    let authority = Authority::new();
    let upstream = Upstream::start_tls(authority.issue(&["127.0.0.1"]).server(&[], None));
    let text =
        with_servers(&[url(&upstream)], "tls = { ca = \"ca.pem\" }").replace("threads = 2", "threads = 1");
    let gateway = start(&folder(&[("ca.pem", &authority.pem)]), &text);
    for round in 0..5 {
        assert!(is_served(&gateway));
        gateway.write_config(&format!("{text}\n# {round}\n"));
        assert!(gateway.cli(&["reload"]).status.success());
    }
    assert_eq!(upstream.connections(), 1);
    assert_eq!(upstream.resumed(), 0);
    let closing = "x-api-key: good-key\r\nx-response-header: connection: close\r\nx-response-close: yes\r\n";
    for _ in 0..3 {
        assert_eq!(get(gateway.public, "/one", closing).status, 200);
    }
    assert!(upstream.resumed() >= 2, "{} of {}", upstream.resumed(), upstream.connections());
}

/// Everything that HTTP/1.1 does, over TLS: bodies of any framing, echoes while the request is being sent, trailers,
/// upgrades, and a body that ends with the connection.
#[test]
fn every_kind_of_exchange_works_over_tls() {
    let authority = Authority::new();
    let upstream = Upstream::start_tls(authority.issue(&["127.0.0.1"]).server(&[], None));
    let text = with_servers(&[url(&upstream)], "tls = { ca = \"ca.pem\" }\nhost = \"upstream\"");
    let gateway = start(&folder(&[("ca.pem", &authority.pem)]), &text);
    let key = "x-api-key: good-key\r\n";
    let large = "x".repeat(3_000_000);
    let echoed = post(gateway.public, "/one", &format!("{key}x-response-echo: yes\r\n"), &large);
    assert_eq!((echoed.status, echoed.text() == large), (200, true));
    let chunks =
        get(gateway.public, "/one", &format!("{key}te: trailers\r\nx-response-chunks: a|bc|def\r\n"));
    assert_eq!((chunks.text().as_str(), chunks.trailers.len()), ("abcdef", 1));
    let chunked = format!(
        "POST /one HTTP/1.1\r\nhost: gw\r\n{key}x-response-echo: yes\r\ntransfer-encoding: chunked\r\n\
         connection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    );
    assert_eq!(send(gateway.public, chunked).text(), "abc");
    assert_eq!(upstream.last().header("host"), Some(url(&upstream).trim_start_matches("https://")));
    let until_close = format!("{key}x-response-raw: HTTP/1.1 200 OK\\n\\nto the end\r\n");
    assert_eq!(get(gateway.public, "/one", &until_close).text(), "to the end");
    let head =
        send(gateway.public, format!("HEAD /one HTTP/1.1\r\nhost: gw\r\n{key}connection: close\r\n\r\n"));
    assert_eq!(head.status, 200);
    assert_eq!(gateway.json(&["status"])["upstreams"][0]["servers"][0]["in_flight"], 0);
}
