//! Tests `check`: it reports all mistakes of a file at the same time, each with its position.

use crate::support::{cli, sha256};

/// A file with ten different mistakes. A comment numbers each line that has one.
fn ten_mistakes() -> String {
    format!(
        r#"[server]
listen = ["127.0.0.1:8080"]
header_timout = "10s"            # 1
idle_timeout = "60"              # 2
threads = "many"                 # 3

[upstreams.people]
servers = ["http://127.0.0.1:9000"]

[[routes]]
name = "people.enrich"
path = "/api/v1/people/enrich"
upstream = "poeple"              # 4
credits = 0.1234567              # 5

[[routes]]
name = "phone.find"
path = "/phone/single"
upstream = "people"
hold = 50
charge = [{{ status = "404", credits = 51 }}] # 6

[plans.growth]
refill = {{ credits = 0, every = "month", mode = "add" }} # 7

[accounts.acme]
plan = "grwth"                   # 8

[[accounts.acme.keys]]
label = "raw"
sha256 = "ak_live_0123456789abcdefghijABCDEFGHIJ01234567" # 9

[[accounts.acme.keys]]
label = "scoped"
sha256 = "{}"
scopes = ["peple.*"]             # 10
"#,
        sha256("a key")
    )
}

#[test]
fn a_file_with_ten_mistakes_reports_ten_each_at_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let text = ten_mistakes();
    std::fs::write(folder.path().join("config.toml"), &text).unwrap();
    let output = cli(folder.path(), &["check", "--format", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let problems: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let problems = problems.as_array().unwrap();
    let marked: Vec<u64> =
        (1_u64..).zip(text.lines()).filter(|(_, line)| line.contains("# ")).map(|(at, _)| at).collect();
    let found: Vec<u64> = problems.iter().map(|problem| problem["line"].as_u64().unwrap()).collect();
    assert_eq!(found, marked, "{problems:#?}");
    let columns: Vec<u64> = problems.iter().map(|problem| problem["column"].as_u64().unwrap()).collect();
    assert_eq!(columns, [1, 16, 11, 12, 11, 39, 22, 8, 10, 11]);
    let told = String::from_utf8(cli(folder.path(), &["check"]).stderr).unwrap();
    for line in &marked {
        assert!(told.contains(&format!("config.toml:{line}:")), "{told}");
    }
    for hint in ["did you mean `header_timeout`?", "did you mean `people`?", "did you mean `growth`?"] {
        assert!(told.contains(hint), "{hint} in {told}");
    }
    assert!(told.ends_with("10 errors\n"));
    assert!(
        !told.contains("0123456789abc") && !told.contains(&sha256("a key")[..16]),
        "nothing secret is quoted: {told}"
    );
}

#[test]
fn broken_toml_is_reported_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), "[server\nlisten = 1\n\nx = \n").unwrap();
    let told = String::from_utf8(cli(folder.path(), &["check"]).stderr).unwrap();
    assert!(told.contains("this is not TOML") && told.contains("config.toml:1:"), "{told}");
}

#[test]
fn where_a_ledger_is_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let base = crate::support::config("").replace("{upstream}", "127.0.0.1:9000");
    let good = "url = \"postgres://me:hunter2@db.internal/tollgate?sslmode=disable\"";
    for (settings, problem) in [
        (good.to_owned(), None),
        (format!("{good}\njournal = \"shared\""), None),
        (format!("{good}\njournal = \"local\"\njournal_folder = \"/var/lib/tollgate\""), None),
        (good.replace("?sslmode=disable", ""), None),
        (good.replace("=disable", "=verify-full"), None),
        (good.replace("=disable", "=prefer"), Some("may go without TLS unnoticed")),
        (good.replace("sslmode", "sslmod"), Some("unknown option")),
        (good.replace("me:hunter2@", ""), Some("has no user")),
        (good.replace("/tollgate", "/"), Some("has no database")),
        (good.replace("db.internal", ""), Some("has no host")),
        (good.replace("postgres:", "mysql:"), Some("a ledger looks like")),
        ("url = \"sqlite:\"".to_owned(), Some("a ledger looks like")),
        ("url = \"sqlite:a.db\"\njournal = \"shared\"".to_owned(), Some("is for a ledger in PostgreSQL")),
        (format!("{good}\njournal = \"share\""), Some("there is no kind of journal `share`")),
        (format!("{good}\njournal = \"shared\"\njournal_folder = \"a\""), Some("has no folder")),
        (format!("{good}\ntls = {{ ca = \"system\" }}"), Some("uses no TLS")),
        (good.replace("=disable", "=require") + "\ntls = { ca = \"no.pem\" }", Some("no.pem")),
        ("url = \"env:TOLLGATE_TEST_NO_LEDGER\"".to_owned(), Some("the environment has no variable")),
    ] {
        let text = base.replace("url = \"sqlite:ledger.db\"", &settings);
        std::fs::write(folder.path().join("config.toml"), text).unwrap();
        let told = String::from_utf8(cli(folder.path(), &["check"]).stderr).unwrap();
        match problem {
            None => assert!(!told.contains("error"), "{settings}: {told}"),
            Some(problem) => assert!(told.contains(problem), "{settings}: {told}"),
        }
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn how_requests_are_repeatable_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let base = crate::support::config("").replace("{upstream}", "127.0.0.1:9000");
    for (settings, problem) in [
        ("", None),
        ("keep = \"1h\"\nmax_body = \"1MiB\"", None),
        ("keep = \"59m\"", Some("responses are kept for 1h to 30d")),
        ("keep = \"31d\"", Some("responses are kept for 1h to 30d")),
        ("max_body = \"2MiB\"", Some("this size must be from 1024 to 1048576 bytes")),
        ("header = \"x\"", Some("header")),
    ] {
        std::fs::write(folder.path().join("config.toml"), format!("{base}[idempotency]\n{settings}\n"))
            .unwrap();
        let told = String::from_utf8(cli(folder.path(), &["check"]).stderr).unwrap();
        assert!(
            problem.map_or(!told.contains("error"), |problem| told.contains(problem)),
            "{settings}: {told}"
        );
    }
}

#[test]
fn a_record_waits_for_a_commit_for_at_most_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let base = crate::support::config("").replace("{upstream}", "127.0.0.1:9000");
    for (delay, is_taken) in [("1ms", true), ("1s", true), ("1001ms", false), ("0s", false)] {
        let text = base.replacen("[ledger]\n", &format!("[ledger]\ncommit_delay = \"{delay}\"\n"), 1);
        assert_ne!(text, base);
        std::fs::write(folder.path().join("config.toml"), text).unwrap();
        let output = cli(folder.path(), &["check"]);
        assert_eq!(output.status.success(), is_taken, "{delay}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_schema_describes_the_files_that_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let output = cli(folder.path(), &["schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    for section in ["server", "routes", "plans", "accounts", "upstreams", "dialects"] {
        assert!(schema["properties"][section].is_object(), "{section}");
    }
    let route = &schema["$defs"]["Route"];
    assert!(
        route["properties"]["charge"].is_object()
            && route["required"].as_array().unwrap().contains(&"path".into())
    );
}

/// `check` warns of prices that no response can have, each with its position, and accepts the file.
#[test]
fn a_json_price_where_there_is_no_body_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let route = |name: &str, rest: &str| {
        format!("[[routes]]\nname = \"{name}\"\npath = \"/{name}\"\nupstream = \"a\"\n{rest}\n")
    };
    let json =
        |status: &str| format!("hold = 5\ncharge = [{{ status = \"{status}\", from = \"json:/cost\" }}]");
    let text = [
        "[upstreams.a]\nservers = [\"http://127.0.0.1:9\"]\n".to_owned(),
        route("get", &json("2xx")),
        route("post", &format!("methods = [\"POST\"]\n{}", json("2xx"))),
        route("never", &format!("methods = [\"POST\"]\n{}", json("204"))),
        "[plans.p]\nprices = { get = { charge = [{ status = \"201\", from = \"json:/x\" }] } }\n".to_owned(),
    ];
    std::fs::write(folder.path().join("config.toml"), text.concat()).unwrap();
    let output = cli(folder.path(), &["check", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let problems: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let found: Vec<(u64, &str)> = problems
        .iter()
        .map(|problem| (problem["line"].as_u64().unwrap(), problem["severity"].as_str().unwrap()))
        .collect();
    assert_eq!(found, [(8, "warning"), (22, "warning"), (24, "warning")], "{problems:?}");
}

/// Mistakes in what a fleet shares, each with a part of its message.
#[test]
fn mistakes_in_the_settings_of_a_fleet_are_explained() {
    let ledger =
        |more: &str| format!("[ledger]\nurl = \"postgres://a:b@127.0.0.1/c?sslmode=disable\"\n{more}\n");
    let fleet = |limits: &str| ledger("node = \"a\"") + &format!("[limits]\n{limits}\n");
    let cases = [
        ("[ledger]\nnode = \"a\"\n".to_owned(), "for a ledger in PostgreSQL"),
        (ledger("node = \"main\""), "the name of a node is"),
        (ledger("journal = \"both\""), "there is no kind of journal"),
        ("[ledger]\nurl = \"postgres://a@h/c?sslmode=prefer\"\n".to_owned(), "without TLS unnoticed"),
        ("[ledger]\nurl = \"postgres://h/c\"\n".to_owned(), "has no user"),
        ("[limits]\nstore = \"redis://h\"\n".to_owned(), "only the gateways of a fleet"),
        ("[limits]\noutage = \"open\"\n".to_owned(), "`store` is missing"),
        (fleet("store = \"http://secret@h\""), "a store looks like"),
        (fleet("store = \"rediss://h#insecure\""), "has no fragment"),
        (fleet("store = [\"redis://h\", \"rediss://i\"]"), "use TLS, or none does"),
        (fleet("store = []"), "1 to 64 servers"),
        (fleet("store = \"redis://h\"\noutage = \"opne\""), "there is no outage policy"),
        (fleet("store = \"redis://h\"\nprefix = \"a b\""), "a prefix is"),
        (fleet("store = \"redis://h\"\ntls = { ca = \"a.pem\" }"), "uses no TLS"),
        (fleet("store = \"rediss://h\"\ntls = { ca = \"a.pem\" }"), "cannot be read"),
        (fleet("store = \"rediss://h\"\ntls = { certificate = \"a.pem\" }"), "`private_key` is missing"),
        (
            fleet(
                "store = \"redis://h\"\n[plans.p]\nlimits = [{ name = \"a\", requests = 1, window = \"1s\", outage = \"x\" }]",
            ),
            "there is no outage policy",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (text, expected) in cases {
        std::fs::write(folder.path().join("config.toml"), &text).unwrap();
        let output = cli(folder.path(), &["check", "--format", "json"]);
        let problems = String::from_utf8(output.stdout).unwrap();
        assert!(problems.contains(expected), "{text}: {problems}");
        assert!(!problems.contains("secret@"), "{problems}");
    }
}
