//! Tests the commands (section 2 of the contract), through the control socket of a running gateway and directly on the
//! ledger.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::support::{Gateway, Upstream, cli, config, get, sha256};

fn start(more: &str) -> Gateway {
    Gateway::start(&config(more), &Upstream::start())
}

fn status(gateway: &Gateway, key: &str) -> u16 {
    get(gateway.public, "/one", &format!("x-api-key: {key}\r\n")).status
}

#[test]
fn a_key_lives_through_its_commands() {
    let gateway = start("");
    let made = gateway.json(&[
        "key",
        "create",
        "--account",
        "acme",
        "--label",
        "ci",
        "--scope",
        "one",
        "--expires",
        "90d",
    ]);
    let (id, first) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert!(first.starts_with("ak_live_") && first.len() == 46);
    assert!(tollgate::policy::key::generate::is_well_formed(first));
    assert_eq!(status(&gateway, first), 200, "in force when the command returns");
    assert_eq!(get(gateway.public, "/free/a", &format!("x-api-key: {first}\r\n")).status, 403);
    gateway.json(&["key", "disable", id]);
    assert_eq!(status(&gateway, first), 401);
    gateway.json(&["key", "enable", id]);
    assert_eq!(status(&gateway, first), 200);
    let second = gateway.json(&["key", "rotate", id, "--overlap", "24h"]);
    assert_eq!(second["id"], id);
    let second = second["key"].as_str().unwrap();
    assert_eq!(
        (status(&gateway, first), status(&gateway, second)),
        (200, 200),
        "both work while they overlap"
    );
    let third = gateway.json(&["key", "rotate", id])["key"].as_str().unwrap().to_owned();
    assert_eq!(
        (status(&gateway, first), status(&gateway, second), status(&gateway, &third)),
        (401, 401, 200)
    );
    let shown = gateway.json(&["key", "show", id]);
    assert_eq!(shown["key"].as_str().unwrap().chars().count(), "ak_live_Ab12…9f3K".chars().count());
    assert!(!shown.to_string().contains(&third[14..]), "a key is shown once");
    assert_eq!(gateway.rows(&["key", "list", "--account", "acme"]).len(), 2);
    let (_, folder) = gateway.stop();
    let gateway = Gateway::start_in(folder);
    assert_eq!(status(&gateway, &third), 200, "it survives a restart");
    gateway.json(&["key", "revoke", id]);
    assert_eq!(status(&gateway, &third), 401);
    assert_eq!(gateway.cli(&["key", "enable", id]).status.code(), Some(1));
    let text = String::from_utf8(gateway.cli(&["key", "list"]).stdout).unwrap();
    assert!(text.starts_with("ID") && text.contains("revoked"), "{text}");
}

#[test]
fn a_files_key_can_be_switched_off_but_not_rotated() {
    let gateway = start("");
    let id = tollgate::types::KeyId::of_hash(&tollgate::types::KeyHash::of(b"good-key")).to_string();
    assert_eq!(&id[4..], &sha256("good-key")[..16]);
    for command in ["rotate", "revoke"] {
        let output = gateway.cli(&["key", command, &id]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("is defined in the configuration file"));
    }
    gateway.json(&["key", "disable", &id]);
    assert_eq!(status(&gateway, "good-key"), 401);
    gateway.json(&["reload"]);
    assert_eq!(status(&gateway, "good-key"), 401, "a reload does not switch it on again");
    gateway.json(&["key", "enable", &id]);
    assert_eq!(status(&gateway, "good-key"), 200);
}

#[test]
fn accounts_and_credits_are_exact_and_repeatable() {
    let gateway = start("[plans.p]\nconcurrency = 5\n");
    gateway.json(&["account", "create", "new", "--plan", "p"]);
    assert_eq!(gateway.cli(&["account", "create", "new"]).status.code(), Some(1));
    assert_eq!(gateway.cli(&["account", "create", "other", "--plan", "gold"]).status.code(), Some(1));
    let key = gateway.json(&["key", "create", "--account", "new", "--label", "k"])["key"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(status(&gateway, &key), 402);
    let grant = |credits: &str, reference: &str| {
        gateway.cli(&["account", "grant", "new", credits, "--reference", reference])
    };
    assert!(grant("2.25", "invoice 7").status.success());
    assert!(String::from_utf8_lossy(&grant("2.25", "invoice 7").stdout).contains("repeated   true"));
    assert_eq!(gateway.available("new"), "2.25", "the same reference is answered, not applied");
    assert_eq!(
        grant("3", "invoice 7").status.code(),
        Some(1),
        "another amount under the same reference is an error"
    );
    assert_eq!(status(&gateway, &key), 200);
    let adjust = |credits: &str, reference: &str| {
        gateway.cli(&["account", "adjust", "new", credits, "--reference", reference])
    };
    let refused = adjust("-1.250001", "a");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("has only 1.25 credits available"));
    assert!(adjust("-0.25", "b").status.success());
    assert!(adjust("-0.25", "b").status.success());
    assert_eq!(gateway.available("new"), "1");
    gateway.json(&["account", "suspend", "new"]);
    assert_eq!(status(&gateway, &key), 403);
    gateway.json(&["account", "resume", "new"]);
    assert_eq!(status(&gateway, &key), 200);
    assert_eq!((gateway.available("new"), status(&gateway, &key)), ("0".to_owned(), 402));
    let rows = gateway.rows(&["account", "statement", "new"]);
    let balance = rows.last().unwrap()["balance_after"].to_string();
    assert_eq!(balance, "0");
    assert_eq!(gateway.cli(&["account", "show", "nobody"]).status.code(), Some(1));
    let refused = gateway.cli(&["account", "grant", "new", "-5", "--reference", "x"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("to take some away, adjust"));
}

#[test]
fn commands_work_without_a_gateway_too() {
    let (_, folder) = start("").stop();
    let run = |arguments: &[&str]| {
        let output = cli(folder.path(), arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    run(&["account", "grant", "acme", "5", "--reference", "offline"]);
    assert!(run(&["account", "list"]).contains("1005"));
    let made = run(&["key", "create", "--account", "acme", "--label", "offline", "--output", "json"]);
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    assert!(run(&["ledger", "verify"]).contains("0 differences"));
    for command in [&["reload"][..], &["status"]] {
        let output = cli(folder.path(), command);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("no gateway serves ./config.toml"));
    }
    let gateway = Gateway::start_in(folder);
    assert_eq!(status(&gateway, made["key"].as_str().unwrap()), 200);
    assert_eq!(gateway.available("acme"), "1004");
}

#[test]
fn the_books_can_be_exported_backed_up_and_do_not_hide_a_change() {
    let gateway = start("");
    for _ in 0..3 {
        assert_eq!(status(&gateway, "good-key"), 200);
    }
    let rows = gateway.rows(&["ledger", "export"]);
    assert_eq!(rows.last().unwrap()["balance_after"].to_string(), "997");
    let csv = String::from_utf8(gateway.cli(&["ledger", "export", "--format", "csv"]).stdout).unwrap();
    assert!(csv.starts_with(
        "number,at,account,kind,amount,balance_after,bucket,key,route,outcome,requests,reference,by,link\r\n"
    ));
    assert_eq!(csv.lines().count(), rows.len() + 1);
    let copy = gateway.folder.path().join("copy.db");
    gateway.json(&["ledger", "backup", copy.to_str().unwrap()]);
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        gateway.cli(&["ledger", "backup", copy.to_str().unwrap()]).status.code(),
        Some(1),
        "nothing is overwritten"
    );
    for file in ["ledger.db", "ledger.db-wal"] {
        let mode = std::fs::metadata(gateway.folder.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let (_, folder) = gateway.stop();
    std::fs::rename(&copy, folder.path().join("ledger.db")).unwrap();
    for log in ["ledger.db-wal", "ledger.db-shm"] {
        let _ = std::fs::remove_file(folder.path().join(log));
    }
    let gateway = Gateway::start_in(folder);
    assert_eq!(gateway.available("acme"), "997", "a backup is a ledger");
    let (_, folder) = gateway.stop();
    let ledger = rusqlite::Connection::open(folder.path().join("ledger.db")).unwrap();
    ledger.execute_batch("UPDATE entries SET amount = amount + 1 WHERE kind = 'grant'").unwrap();
    drop(ledger);
    let output = cli(folder.path(), &["ledger", "verify"]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("3 differences"), "{told}");
    for what in ["balance_after", "link", "granted"] {
        assert!(told.contains(what), "{told}");
    }
}

/// Runs the recipe of the README, word for word.
#[test]
fn a_customer_can_recompute_a_statement_with_standard_tools() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let recipe = readme.split_once("printf '%s\\t'").unwrap().1.split_once("sha256sum").unwrap().0;
    let recipe = format!("printf '%s\\t'{recipe}sha256sum");
    let gateway = start("");
    gateway.json(&["account", "grant", "acme", "2.5", "--reference", "Rechnung 7, \"März\""]);
    for status in ["200", "404"] {
        get(gateway.public, "/one", &format!("x-api-key: good-key\r\nx-response-status: {status}\r\n"));
    }
    let mut link = "0".repeat(64);
    let rows = gateway.rows(&["account", "statement", "acme"]);
    assert!(rows.len() >= 4, "grants, a charge and a release: {rows:?}");
    for row in rows {
        let mut command = Command::new("sh");
        command.args(["-c", &recipe]).env("link_before", &link);
        for (name, value) in row.as_object().unwrap() {
            let text = match value {
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Null => String::new(),
                other => other.to_string(),
            };
            command.env(name, text);
        }
        let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
        link = row["link"].as_str().unwrap().to_owned();
        assert_eq!(output.split(' ').next(), Some(&*link), "{row}");
    }
}

#[test]
fn explain_says_what_a_request_would_meet() {
    let more = format!(
        "[plans.p]\nconcurrency = 3\nlimits = [{{ name = \"m\", requests = 1, window = \"1h\" }}]\n[accounts.e]\nplan = \"p\"\ncredits = 0.5\n[[accounts.e.keys]]\nlabel = \"k\"\nsha256 = \"{}\"\nscopes = [\"one\", \"free\"]\n",
        sha256("explained")
    );
    let gateway = start(&more);
    let id = tollgate::types::KeyId::of_hash(&tollgate::types::KeyHash::of(b"explained")).to_string();
    let explain = |method: &str, url: &str| gateway.json(&["explain", "--key-id", &id, method, url]);
    let reason =
        |explained: &serde_json::Value| explained["reason"].as_str().unwrap_or("admitted").to_owned();
    assert_eq!(reason(&explain("GET", "/free/a")), "admitted");
    assert_eq!(reason(&explain("GET", "/one")), "insufficient_credits");
    assert_eq!(reason(&explain("GET", "/header")), "route_forbidden");
    assert_eq!(reason(&explain("GET", "/nowhere")), "no_route");
    assert_eq!(reason(&explain("GET", "/a/../b")), "bad_request");
    assert_eq!(get(gateway.public, "/free/a", "x-api-key: explained\r\n").status, 200);
    let limited = explain("GET", "/free/a");
    assert_eq!((reason(&limited), limited["status"].as_u64()), ("rate_limited".to_owned(), Some(429)));
    let text =
        String::from_utf8(gateway.cli(&["explain", "--key-id", &id, "GET", "/free/a"]).stdout).unwrap();
    assert!(text.contains("REFUSES") && text.contains("refused: rate_limited (429)"), "{text}");
    assert_eq!(
        get(gateway.public, "/free/a", "x-api-key: explained\r\n").status,
        429,
        "and explaining takes nothing"
    );
}

#[test]
fn a_key_is_hashed_from_standard_input() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["key", "hash"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"good-key\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), sha256("good-key"));
}

/// Scanners find a generated key in any text by the printed expression, and tell it from others by the printed test.
#[test]
fn secret_scanners_recognise_generated_keys() {
    let gateway = start("");
    let made = gateway.json(&["key", "create", "--account", "acme", "--label", "k", "--env", "test"]);
    let key = made["key"].as_str().unwrap();
    let told = gateway.json(&["key", "pattern"]);
    let (pattern, test) = (told["pattern"].as_str().unwrap(), told["test"].as_str().unwrap());
    let shell = |script: &str, argument: &str| {
        let output = Command::new("sh").args(["-c", script, "sh", argument]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let found = |text: &str| shell(&format!("printf '%s' \"$1\" | grep -oP '{pattern}'"), text);
    assert_eq!(found(&format!("export API_KEY=\"{key}\"; run")), key);
    assert_eq!(found(&format!("{key}x")), "", "longer than a key");
    let last = if key.ends_with('0') { "1" } else { "0" };
    let mistyped = format!("{}{last}", &key[..key.len() - 1]);
    let is_key = |key: &str| shell(&format!("{test} \"$1\""), key);
    assert_eq!((is_key(key), is_key(&mistyped)), ("True".to_owned(), "False".to_owned()));
}

#[test]
fn commands_at_the_same_time_leave_books_and_gate_alike() {
    let gateway = start("");
    let made = gateway.json(&["key", "create", "--account", "acme", "--label", "k"]);
    let id = made["id"].as_str().unwrap();
    let mut secrets = vec![made["key"].as_str().unwrap().to_owned()];
    for _ in 0..5 {
        let rotated: Vec<serde_json::Value> = std::thread::scope(|scope| {
            let both = [(); 2].map(|()| scope.spawn(|| gateway.json(&["key", "rotate", id])));
            both.map(|one| one.join().unwrap()).to_vec()
        });
        secrets.extend(rotated.iter().map(|made| made["key"].as_str().unwrap().to_owned()));
        let working = secrets.iter().filter(|secret| status(&gateway, secret) == 200).count();
        assert_eq!(working, 1, "one secret opens the gate");
    }
    let last = secrets.iter().find(|secret| status(&gateway, secret) == 200).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| gateway.json(&["key", "disable", id]));
        scope.spawn(|| drop(gateway.cli(&["key", "rotate", id])));
    });
    assert_eq!(gateway.json(&["key", "show", id])["state"], "disabled");
    assert_eq!(status(&gateway, last), 401);
}
