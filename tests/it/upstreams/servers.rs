//! Several servers: how requests are spread, queues, names that are resolved again, and reloads.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{folder, start, with_servers, write};
use crate::support::{Client, Gateway, Upstream, eventually, get, sha256};

const KEY: &str = "x-api-key: good-key\r\n";

fn upstreams<const N: usize>() -> [Upstream; N] {
    std::array::from_fn(|_| Upstream::start())
}

fn urls(upstreams: &[Upstream]) -> Vec<String> {
    upstreams.iter().map(|upstream| format!("http://{}", upstream.address)).collect()
}

/// Sends requests from several clients at once. Returns how many requests each upstream got.
fn spread(gateway: &Gateway, upstreams: &[Upstream], clients: usize, each: usize) -> Vec<usize> {
    upstreams.iter().for_each(Upstream::clear);
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut client = Client::connect(gateway.public);
                for _ in 0..each {
                    let response =
                        client.ask(format!("GET /free/x HTTP/1.1\r\nhost: a\r\n{KEY}\r\n")).unwrap();
                    assert_eq!(response.status, 200);
                }
            });
        }
    });
    upstreams.iter().map(|upstream| upstream.seen().len()).collect()
}

/// The share of each server is that of its weight, within a tenth.
#[test]
fn requests_are_spread_by_weight() {
    let upstreams = upstreams::<3>();
    let list = urls(&upstreams);
    for balance in ["least-requests", "round-robin"] {
        let text = with_servers(&[], &format!("balance = \"{balance}\"")).replace(
            "servers = []",
            &format!(
                "servers = [\"{}\", {{ url = \"{}\" }}, {{ url = \"{}\", weight = 2 }}]",
                list[0], list[1], list[2]
            ),
        );
        let gateway = start(&folder(&[]), &text);
        let counts = spread(&gateway, &upstreams, 8, 250);
        for (count, wanted) in counts.iter().zip([500_usize, 500, 1000]) {
            let tolerance = if balance == "round-robin" { 5 } else { wanted / 10 };
            assert!(count.abs_diff(wanted) <= tolerance, "{balance}: {counts:?}");
        }
    }
}

/// A server that is slow gets fewer requests, because it is busier.
#[test]
fn a_slow_server_gets_fewer_requests() {
    let upstreams = upstreams::<3>();
    upstreams[0].set_delay(Duration::from_millis(20));
    let gateway = start(&folder(&[]), &with_servers(&urls(&upstreams), ""));
    let counts = spread(&gateway, &upstreams, 8, 100);
    assert!(counts[0] < 800 / 6, "{counts:?}");
}

/// Requests of one account, key or header value go to one server, as long as it is there.
#[test]
fn what_has_the_hash_in_common_goes_to_one_server() {
    let upstreams = upstreams::<4>();
    let text = |list: &[String]| with_servers(list, "balance = \"hash\"\nhash = \"header:x-tenant\"");
    let list = urls(&upstreams);
    let gateway = start(&folder(&[]), &text(&list));
    let place = |tenant: usize| {
        let places: Vec<usize> = (0..3)
            .map(|_| {
                upstreams.iter().for_each(Upstream::clear);
                get(gateway.public, "/free/x", &format!("{KEY}x-tenant: {tenant}\r\n"));
                upstreams.iter().position(|upstream| !upstream.seen().is_empty()).unwrap()
            })
            .collect();
        assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
        places[0]
    };
    let before: Vec<usize> = (0..40).map(place).collect();
    let used: HashSet<_> = before.iter().collect();
    assert_eq!(used.len(), 4, "{before:?}");
    gateway.write_config(&text(&list[..3]));
    assert!(gateway.cli(&["reload"]).status.success());
    for (tenant, was) in before.into_iter().enumerate() {
        let now = place(tenant);
        assert!(now == was || was == 3, "tenant {tenant} moved from {was} to {now}");
    }
}

/// The keys of one account go to one server, or each key to its own; on public routes the client's address decides.
#[test]
fn accounts_and_keys_have_their_server() {
    let upstreams = upstreams::<3>();
    let mut accounts = String::new();
    for account in 0..12 {
        accounts.push_str(&format!("[accounts.a{account}]\ncredits = 100\n"));
        for key in 0..2 {
            let hash = sha256(&format!("key-{account}-{key}"));
            accounts
                .push_str(&format!("[[accounts.a{account}.keys]]\nlabel = \"{key}\"\nsha256 = \"{hash}\"\n"));
        }
    }
    for by in ["account", "key"] {
        let text = with_servers(&urls(&upstreams), &format!("balance = \"hash\"\nhash = \"{by}\""));
        let gateway = start(&folder(&[]), &(text + &accounts));
        let place = |path: &str, key: &str| {
            upstreams.iter().for_each(Upstream::clear);
            for _ in 0..3 {
                assert_eq!(get(gateway.public, path, &format!("x-api-key: {key}\r\n")).status, 200);
            }
            let counts: Vec<usize> = upstreams.iter().map(|upstream| upstream.seen().len()).collect();
            counts.iter().position(|count| *count == 3).unwrap_or_else(|| panic!("{by}: {counts:?}"))
        };
        let places: Vec<[usize; 2]> =
            (0..12).map(|account| [0, 1].map(|key| place("/one", &format!("key-{account}-{key}")))).collect();
        let used: HashSet<_> = places.iter().flatten().collect();
        assert_eq!(used.len(), 3, "{by}: {places:?}");
        assert_eq!(places.iter().all(|[one, other]| one == other), by == "account", "{by}: {places:?}");
        let public: HashSet<_> = (0..6).map(|key| place("/open/x", &format!("key-{key}-0"))).collect();
        assert_eq!(public.len(), 1, "{by}: all come from one address");
    }
}

/// At `max_requests` the other servers are used, then requests wait, then they are refused, and cost nothing.
#[test]
fn a_full_server_has_a_queue_and_an_end_of_it() {
    let upstreams = upstreams::<2>();
    let more = "max_requests = 2\nqueue = { most = 3, time = \"1500ms\" }";
    let gateway = start(&folder(&[]), &with_servers(&urls(&upstreams), more));
    let begun = Instant::now();
    let mut statuses: Vec<(u16, Duration)> = std::thread::scope(|scope| {
        let asks: Vec<_> = (0..10)
            .map(|_| {
                scope.spawn(|| {
                    let slow = format!("{KEY}x-response-delay: 1000\r\n");
                    let response = get(gateway.public, "/one", &slow);
                    if response.status == 503 {
                        assert_eq!(response.json()["code"], "overloaded");
                        assert_eq!(response.charged(), Some("0"));
                    }
                    (response.status, begun.elapsed())
                })
            })
            .collect();
        asks.into_iter().map(|ask| ask.join().unwrap()).collect()
    });
    statuses.sort();
    let count = |status: u16| statuses.iter().filter(|(found, _)| *found == status).count();
    assert_eq!((count(200), count(503)), (7, 3), "{statuses:?}");
    let (first, last) = (statuses[0].1, statuses[6].1);
    assert!(first < Duration::from_millis(1600) && last > Duration::from_millis(1900), "{statuses:?}");
    assert_eq!(gateway.available("acme"), "993");
    // A queue whose time passes.
    let (blocked, waits) = std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| get(gateway.public, "/one", &format!("{KEY}x-response-delay: 3000\r\n")));
                }
            });
        });
        std::thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        let response = get(gateway.public, "/one", KEY);
        let waited = begun.elapsed();
        slow.join().unwrap();
        (response.status, waited)
    });
    assert_eq!(blocked, 503);
    assert!((1400..2500).contains(&waits.as_millis()), "{waits:?}");
}

/// A reload that changes the list keeps the connections of the servers that stay.
#[test]
fn servers_that_stay_keep_their_connections() {
    let upstreams = upstreams::<3>();
    let list = urls(&upstreams);
    let text = |list: &[String]| with_servers(list, "").replace("threads = 2", "threads = 1");
    let gateway = start(&folder(&[]), &text(&list[..2]));
    spread(&gateway, &upstreams, 1, 40);
    assert_eq!(upstreams[0].connections(), 1);
    gateway.write_config(&text(&[list[0].clone(), list[2].clone()]));
    assert!(gateway.cli(&["reload"]).status.success());
    let counts = spread(&gateway, &upstreams, 1, 40);
    assert_eq!((upstreams[0].connections(), upstreams[2].connections()), (1, 1));
    assert!(counts[0] > 0 && counts[1] == 0 && counts[2] > 0, "{counts:?}");
}

/// A connection is closed one second before the server would close it (`Keep-Alive: timeout`).
#[test]
fn connections_are_closed_before_the_server_closes_them() {
    let upstream = Upstream::start();
    for (timeout, connections) in [(0, 3), (1, 3), (2, 2), (60, 1)] {
        let text =
            with_servers(&urls(std::slice::from_ref(&upstream)), "").replace("threads = 2", "threads = 1");
        let gateway = start(&folder(&[]), &text);
        let before = upstream.connections();
        for pause in [0, 0, 1200] {
            std::thread::sleep(Duration::from_millis(pause));
            let announced = format!("x-response-header: Keep-Alive: max=9, timeout={timeout}\r\n");
            assert_eq!(get(gateway.public, "/one", &format!("{KEY}{announced}")).status, 200);
        }
        assert_eq!(upstream.connections() - before, connections, "timeout={timeout}");
    }
}

/// Names are resolved again: new addresses are used, a name that cannot be resolved keeps its addresses, and each of many
/// addresses is a server.
#[test]
fn names_are_resolved_again() {
    let upstream = Upstream::start_at("0.0.0.0:0");
    let text = with_servers(
        &[format!("http://api.internal:{}", upstream.address.port())],
        "resolve_every = \"200ms\"",
    );
    let folder = folder(&[("config.toml", &text)]);
    let line = |last: u8| format!("127.0.0.{last} api.internal\n");
    let Some(mut gateway) = Gateway::with_hosts(Arc::clone(&folder), &line(2)) else { return };
    let servers = |gateway: &Gateway| -> Vec<String> {
        let status = gateway.json(&["status"]);
        let rows = status["upstreams"][0]["servers"].as_array().unwrap().clone();
        rows.iter().map(|row| row["server"].as_str().unwrap().split(':').next().unwrap().to_owned()).collect()
    };
    assert_eq!(get(gateway.public, "/one", KEY).status, 200);
    assert_eq!(servers(&gateway), ["127.0.0.2"]);
    let hosts = folder.path().join("hosts"); // written in place, since it is bound
    std::fs::write(&hosts, line(3)).unwrap();
    eventually("the new address", || servers(&gateway) == ["127.0.0.3"]);
    assert_eq!(get(gateway.public, "/one", KEY).status, 200);
    std::fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    gateway.line_with("a server's name cannot be resolved; its addresses stay in use");
    assert_eq!(servers(&gateway), ["127.0.0.3"]);
    assert_eq!(get(gateway.public, "/one", KEY).status, 200);
    let unresolved = gateway.json(&["status"])["upstreams"][0]["unresolved"][0].clone();
    assert_eq!(unresolved["name"], "api.internal", "{unresolved}");
    std::fs::write(&hosts, (11..21).map(line).collect::<String>()).unwrap();
    eventually("ten addresses", || servers(&gateway).len() == 10);
    upstream.clear();
    for _ in 0..100 {
        assert_eq!(get(gateway.public, "/one", KEY).status, 200);
    }
    let status = gateway.json(&["status"]);
    let rows = status["upstreams"][0]["servers"].as_array().unwrap().clone();
    assert!(rows.iter().filter(|row| row["requests"].as_u64() > Some(0)).count() >= 8, "{status}");
}

/// A name that cannot be resolved at the start is no reason not to start: its requests fail at once, cost nothing, and
/// work as soon as it can be resolved. A name that a reload adds is waited for.
#[test]
fn a_name_without_an_address_fails_alone() {
    let upstream = Upstream::start();
    let port = upstream.address.port();
    let text = with_servers(&[format!("http://later.internal:{port}")], "resolve_every = \"200ms\"");
    let folder = folder(&[("config.toml", &text)]);
    let Some(mut gateway) = Gateway::with_hosts(Arc::clone(&folder), "127.0.0.1 localhost\n") else { return };
    gateway.line_with("a server's name cannot be resolved");
    let response = get(gateway.public, "/one", KEY);
    assert_eq!((response.status, response.charged()), (502, Some("0")));
    std::fs::write(folder.path().join("hosts"), "127.0.0.1 later.internal\n127.0.0.1 other.internal\n")
        .unwrap();
    eventually("the address", || get(gateway.public, "/one", KEY).status == 200);
    gateway.write_config(&text.replace("later.internal", "other.internal"));
    assert!(gateway.cli(&["reload"]).status.success());
    assert_eq!(get(gateway.public, "/one", KEY).status, 200);
}

/// IPv6 addresses work, in URLs and as answers for names.
#[test]
fn servers_may_have_ipv6_addresses() {
    let upstream = Upstream::start_at("[::1]:0");
    let port = upstream.address.port();
    let gateway =
        start(&folder(&[]), &with_servers(&[format!("http://[::1]:{port}")], "host = \"upstream\""));
    assert_eq!(get(gateway.public, "/one", KEY).status, 200);
    assert_eq!(upstream.last().header("host"), Some(&*format!("[::1]:{port}")));
    let text = with_servers(&[format!("http://six.internal:{port}")], "");
    let folder = folder(&[("config.toml", &text)]);
    let Some(gateway) = Gateway::with_hosts(folder, "::1 six.internal\n") else { return };
    assert_eq!(get(gateway.public, "/one", KEY).status, 200);
}

#[test]
fn mistakes_about_servers_are_told_with_their_place() {
    let folder = folder(&[]);
    let table: HashMap<&str, &str> = HashMap::from([
        ("servers = [\"ftp://a\"]", "a server looks like"),
        ("servers = [\"http://a/path\"]", "a server looks like"),
        ("servers = []", "an upstream needs a server"),
        ("servers = [\"http://a\", \"http://a:80\"]", "this server is listed twice"),
        ("servers = [{ url = \"http://a\", weight = 0 }]", "a weight is from 1 to 1000"),
        ("servers = [{ url = \"http://a\", wieght = 2 }]", "did you mean `weight`?"),
        ("servers = [{ weight = 2 }]", "the setting `url` is missing"),
        ("servers = [\"http://a\"]\nbalance = \"random\"", "there is no balance `random`"),
        ("servers = [\"http://a\"]\nbalance = \"hash\"", "`hash` is missing beside this"),
        ("servers = [\"http://a\"]\nhash = \"account\"", "`hash` needs `balance = \"hash\"`"),
        ("servers = [\"http://a\"]\nbalance = \"hash\"\nhash = \"acount\"", "did you mean `account`?"),
        ("servers = [\"http://a\"]\nhttp2 = true", "`http2` is for servers with https://"),
        ("servers = [\"https://a\"]\nhttp2 = \"yes\"", "`http2` is \"auto\", true or false"),
        ("servers = [\"http://a\"]\ntls = { ca = \"system\" }", "`tls` is for servers with https://"),
        ("servers = [\"https://a\"]\ntls = { ca = \"gone.pem\" }", "gone.pem cannot be read"),
        ("servers = [\"https://a\"]\ntls = { ca = [] }", "no certificate authority"),
        (
            "servers = [\"https://a\"]\ntls = { certificate = \"a.pem\" }",
            "`private_key` is missing beside this",
        ),
        ("servers = [\"https://a\"]\ntls = { server_name = \"a b\" }", "a server name is a host name"),
        ("servers = [\"https://a\"]\ntls = { verify = false }", "unknown setting `verify`"),
        ("servers = [\"http://a\"]\nqueue = { most = -1 }", "expected an integer from 0"),
        ("servers = [\"http://a\"]\nresolve_every = \"0s\"", "must not be zero"),
        ("servers = [\"http://a\"]\nhealth = { path = \"x\" }", "a path begins with /"),
        ("servers = [\"http://a\"]\nhealth = { path = \"/\", status = \"ok\" }", "a status looks like"),
        ("servers = [\"http://a\"]\nhealth = { path = \"/\", up_after = 0 }", "at least 1"),
        ("servers = [\"http://a\"]\nejection = { at_most = \"120%\" }", "a share looks like \"50%\""),
        ("servers = [\"http://a\"]\nejection = { rate = \"0%\" }", "at least \"1%\""),
        ("servers = [\"http://a\"]\nretries = { most = 11 }", "at most 10 retries"),
    ]);
    for (settings, message) in table {
        let text = with_servers(&[], "").replace("servers = []", settings);
        write(folder.path(), &[("config.toml", &text)]);
        let told = crate::support::cli(folder.path(), &["check"]);
        let told = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(told.contains(message), "{settings}: {told}");
        assert!(told.contains("config.toml:"), "{settings}: {told}");
    }
}

/// Secrets of files are read again when the files change, and shown nowhere.
#[test]
fn secrets_for_upstreams_are_read_again_and_never_shown() {
    let upstream = Upstream::start();
    let address = format!("http://{}", upstream.address);
    let more = "set_headers = { authorization = \"file:token\" }";
    let folder = folder(&[("token", "Bearer first-secret")]);
    let gateway = start(&folder, &with_servers(&[address], more));
    let sent = || {
        get(gateway.public, "/one", KEY);
        upstream.last().header("authorization").unwrap_or_default().to_owned()
    };
    assert_eq!(sent(), "Bearer first-secret");
    write(folder.path(), &[("token", "Bearer second-secret\n")]);
    eventually("the new secret", || sent() == "Bearer second-secret");
    let shown =
        format!("{}{:?}{}", gateway.json(&["status"]), gateway.cli(&["check"]), gateway.lines().join("\n"));
    assert!(!shown.contains("secret\"") && !shown.contains("-secret"), "{shown}");
}
