//! Tests imports and the export of accounts and keys.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::api::{Api, admin_config};
use crate::support::{Gateway, Upstream, cli, get, sha256};

const BINARY: &str = env!("CARGO_BIN_EXE_tollgate");

/// Runs a command with this standard input.
fn with_input(gateway: &Gateway, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(BINARY);
    command.current_dir(gateway.folder.path()).args(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

const ACCOUNTS: &str = "id,name,plan,credits\nbeta,\"Beta, Inc.\",growth,12.5\ngamma,,,\nbad id,,,\ndelta,,nope,1\nbeta,,,\nlow,,,-1\n";

/// Lines are imported by their worth: good ones work at once, every refused one is named with its reason, and a
/// repeated import changes nothing. Raw keys come only from standard input, and are in no output.
#[test]
fn good_lines_work_and_refused_ones_are_named() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&admin_config(""), &upstream);
    let folder = gateway.folder.path();
    std::fs::write(folder.join("accounts.csv"), ACCOUNTS).unwrap();
    let told = gateway.cli(&["account", "import", "accounts.csv", "--check"]);
    assert!(
        text(&told).contains("line 4: id: ")
            && gateway.cli(&["account", "show", "beta"]).status.code() == Some(1)
    );
    let told = gateway.cli(&["account", "import", "accounts.csv"]);
    assert_eq!(told.status.code(), Some(1));
    let told = text(&told);
    assert!(told.starts_with("2 imported, 0 already there, 4 refused\n"), "{told}");
    for line in
        ["line 4: id: ", "line 5: plan: ", "line 6: account beta is in an earlier line", "line 7: credits: "]
    {
        assert!(told.contains(line), "{line} in {told}");
    }
    assert!(
        text(&gateway.cli(&["account", "import", "accounts.csv"])).starts_with("0 imported, 2 already there")
    );
    assert_eq!(Api::of(&gateway).get("/v1/accounts/beta")["balance"].to_string(), "12.5");
    let raw = "imported-raw-key-0000000001";
    let lines = format!(
        "{{\"account\":\"beta\",\"label\":\"raw\",\"key\":\"{raw}\",\"scopes\":[\"one\"]}}\n\n{{\"account\":\"beta\",\"label\":\"two\",\"sha256\":\"{}\"}}\n{{\"account\":\"beta\",\"label\":\"both\",\"key\":\"{raw}\",\"sha256\":\"{}\"}}\n{{\"account\":\"nobody\",\"label\":\"x\",\"key\":\"y\"}}\n{{\"account\":\"beta\"\n{{\"account\":\"beta\",\"label\":\"taken\",\"key\":\"good-key\"}}\n",
        sha256("second"),
        sha256("third")
    );
    let output = with_input(&gateway, &["key", "import", "-"], &lines);
    let told = text(&output);
    assert!(told.starts_with("2 imported, 0 already there, 4 refused\n"), "{told}");
    for line in [
        "line 4: a key is given by",
        "line 5: there is no account nobody",
        "line 6: this is not a JSON",
        "line 7: a key with this hash exists",
    ] {
        assert!(told.contains(line), "{line} in {told}");
    }
    assert_eq!(get(gateway.public, "/one", &format!("x-api-key: {raw}\r\n")).status, 200, "it works at once");
    assert_eq!(get(gateway.public, "/free/a", &format!("x-api-key: {raw}\r\n")).status, 403, "its scopes");
    assert_eq!(get(gateway.public, "/one", "x-api-key: second\r\n").status, 200);
    std::fs::write(folder.join("keys.jsonl"), &lines).unwrap();
    let told = text(&gateway.cli(&["key", "import", "keys.jsonl", "--output", "json"]));
    assert!(
        told.contains("raw keys are only read from standard input") && told.contains("\"known\": 1"),
        "{told}"
    );
    let again = with_input(&gateway, &["key", "import", "-"], &lines);
    assert!(text(&again).starts_with("0 imported, 2 already there"), "{}", text(&again));
    let shown = text(&gateway.cli(&["key", "list", "--output", "json"])) + &told + &text(&again);
    assert!(!shown.contains(raw) && !gateway.lines().join("").contains(raw), "a raw key is nowhere");
    let audit = Api::of(&gateway).get("/v1/audit?limit=1000").to_string();
    assert_eq!((audit.matches("account.import").count(), audit.matches("key.import").count()), (2, 2));
}

/// An import that is killed, with its gateway or without one, is finished by repeating it: no line is lost or doubled.
#[test]
fn an_import_that_was_killed_is_repeated() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&admin_config("[accounts.beta]\ncredits = 1\n"), &upstream);
    const KEYS: usize = 5_000;
    let rows: String = (0..KEYS).map(|at| format!("beta,k{at},{}\n", sha256(&format!("key {at}")))).collect();
    let file = gateway.folder.path().join("keys.csv");
    std::fs::write(&file, format!("account,label,sha256\n{rows}")).unwrap();
    let import = |folder: &std::path::Path| {
        let mut command = Command::new(BINARY);
        command.current_dir(folder).args(["key", "import", "keys.csv"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut child = import(gateway.folder.path());
    std::thread::sleep(std::time::Duration::from_millis(120));
    let folder = gateway.crash();
    child.wait().unwrap();
    let mut child = import(folder.path()); // now without a gateway
    std::thread::sleep(std::time::Duration::from_millis(120));
    child.kill().unwrap();
    child.wait().unwrap();
    let told = text(&cli(folder.path(), &["key", "import", "keys.csv"]));
    let numbers: Vec<usize> = told.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert_eq!((numbers[0] + numbers[1], numbers[2]), (KEYS, 0), "{told}");
    let listed = text(&cli(folder.path(), &["key", "list", "--account", "beta", "--output", "json"]));
    assert_eq!(listed.lines().count(), KEYS);
    assert!(cli(folder.path(), &["ledger", "verify"]).status.success());
}

/// What `export` writes is a configuration: with an empty ledger it serves the same keys with the same balances.
#[test]
fn an_export_serves_the_same_keys() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&admin_config(""), &upstream);
    let api = Api::of(&gateway);
    let limits = serde_json::json!([{ "name": "own", "requests": 3, "window": "1h", "methods": ["GET"] }]);
    api.post(
        "/v1/accounts",
        serde_json::json!({ "id": "a.b", "plan": "growth", "credits": "7.25", "name": "Anne \"B\"" }),
    );
    let terms = serde_json::json!({ "label": "x\"y", "limits": limits, "expires": "90d", "scopes": ["one"] });
    let made = api.post("/v1/accounts/a.b/keys", terms);
    let key = format!("x-api-key: {}\r\n", made["key"].as_str().unwrap());
    let off = api.post("/v1/accounts/a.b/keys", serde_json::json!({ "label": "off" }));
    api.ok("POST", &format!("/v1/keys/{}/disable", off["id"].as_str().unwrap()), None);
    let capped = api.post(
        "/v1/accounts/a.b/keys",
        serde_json::json!({ "label": "capped", "spend_limit": 2, "limits": [] }),
    );
    api.post("/v1/accounts", serde_json::json!({ "id": "gone", "plan": "growth", "credits": 3 }));
    api.ok("PATCH", "/v1/accounts/gone", Some(&serde_json::json!({ "suspended": true })));
    assert_eq!(get(gateway.public, "/one", &key).status, 200);
    let told = gateway.cli(&["export", "all.toml"]);
    assert!(told.status.success(), "{}", text(&told));
    assert!(!gateway.cli(&["export", "all.toml"]).status.success(), "an existing file is not replaced");
    let exported = std::fs::read_to_string(gateway.folder.path().join("all.toml")).unwrap();
    let config = admin_config("");
    let accounts = &config[config.find("[accounts.acme]").unwrap()..config.find("[plans.growth]").unwrap()];
    let second = Gateway::start(&format!("{}{exported}", config.replace(accounts, "")), &upstream);
    assert_eq!(
        Api::of(&second).fails("GET", "/v1/accounts/gone", None).0,
        404,
        "a suspended account is a comment"
    );
    let capped = format!("x-api-key: {}\r\n", capped["key"].as_str().unwrap());
    assert_eq!(get(second.public, "/one", &capped).status, 401, "so is a key with a spending limit");
    let (before, after) = (api.get("/v1/accounts"), Api::of(&second).get("/v1/accounts"));
    let terms = |accounts: &Value| -> Vec<String> {
        let account = |one: &Value| format!("{} {} {}", one["id"], one["plan"], one["balance"]);
        let all = accounts["data"].as_array().unwrap().iter();
        all.filter(|one| one["id"] != "gone").map(account).collect()
    };
    assert_eq!(terms(&before), terms(&after));
    let response = get(second.public, "/one", &key);
    assert_eq!(response.status, 200);
    assert!(response.header("ratelimit").unwrap().contains("\"own\";r=2"), "{response:?}");
    assert_eq!(get(second.public, "/free/a", &key).status, 403);
    let off = format!("x-api-key: {}\r\n", off["key"].as_str().unwrap());
    assert_eq!(get(second.public, "/one", &off).status, 401, "a disabled key is a comment");
    assert_eq!(get(second.public, "/one", "x-api-key: good-key\r\n").status, 200);
}
