//! Runs the examples as they stand, with their own sample upstreams, and checks the scenario tables: what each request costs
//! by the rules of the systems that the examples show.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::support::{Client, Gateway, Process, eventually};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Starts the sample upstream and the gateway of an example, on free ports.
fn start(example: &str) -> (Gateway, Process) {
    let (text, upstream) = prepare(example);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    (Gateway::start_in(Arc::new(folder)), upstream)
}

/// The configuration of an example, on free ports, and its sample upstream.
pub fn prepare(example: &str) -> (String, Process) {
    let place = Path::new(ROOT).join("examples").join(example);
    let mut command = Command::new("python3");
    command.arg(place.join("upstream.py")).arg("0").stdin(Stdio::null());
    let mut upstream = Process::start(&mut command);
    let line = upstream.line_with("listening on ");
    let address = line.rsplit(' ').next().unwrap().trim().to_owned();
    let text = std::fs::read_to_string(place.join("config.toml")).unwrap();
    let text = text.replace("127.0.0.1:9100", &address).replace("127.0.0.1:8080", "127.0.0.1:0");
    (text.replace("127.0.0.1:8081", "127.0.0.1:0"), upstream)
}

/// The credits that an account can spend, as its customer sees them.
fn credits(gateway: &Gateway, key: &str) -> String {
    let head = format!("GET /account/info HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\n\r\n");
    let answer = Client::connect(gateway.public).ask(head).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["credits"].to_string()
}

fn play(example: &str) {
    let (gateway, _upstream) = start(example);
    play_at(example, &gateway, &gateway);
}

/// Sends the requests of a table, and checks the status and the credits after each. Those about jobs go to the second gateway.
pub fn play_at(example: &str, gateway: &Gateway, other: &Gateway) {
    let table = std::fs::read_to_string(format!("{ROOT}/tests/scenarios/{example}.txt")).unwrap();
    let (mut key, mut id, mut rows) = (String::new(), String::new(), 0);
    for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(next) = line.strip_prefix("as ") {
            next.clone_into(&mut key);
            continue;
        }
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [request, body, status, left, _shows] = columns[..] else { panic!("five columns: {line}") };
        let asked = if request.contains("$id") { other } else { gateway };
        let request = request.replace("$id", &id);
        let head = format!(
            "{request} HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut answer = Client::connect(asked.public).ask(&head).unwrap();
        if gateway.public != other.public && answer.header("retry-after") == Some("1") && status == "200" {
            // Within a second it knows that a job was settled at another gateway.
            std::thread::sleep(std::time::Duration::from_secs(2));
            answer = Client::connect(asked.public).ask(&head).unwrap();
        }
        assert_eq!(answer.status.to_string(), status, "{line}: {}", answer.text());
        if let Ok(json) = serde_json::from_slice::<serde_json::Value>(&answer.body)
            && let Some(found) = json["id"].as_str().or(json["job_id"].as_str())
        {
            found.clone_into(&mut id);
        }
        if left != "-" {
            // The charge of a response without a length is known when its last byte arrived, not before.
            eventually(line, || credits(gateway, &key) == left);
        }
        rows += 1;
    }
    assert!(rows > 4, "the table has rows");
    let status = gateway.json(&["status"]);
    assert_eq!(
        (&status["charges_unreadable"], &status["charges_capped"]),
        (&0.into(), &0.into()),
        "{status}"
    );
    assert_eq!(gateway.json(&["ledger", "verify"])["differences"], serde_json::json!([]));
}

#[test]
fn enrow_is_billed_as_its_documents_say() {
    play("enrow");
}

/// Enrow's two wallets: a charge that the subscription cannot pay alone is split, and the response says so.
#[test]
fn enrow_pays_from_two_wallets() {
    let (gateway, _upstream) = start("enrow");
    let verify = |emails: usize| {
        let body = format!("{{\"verifications\":[{}]}}", vec!["\"a\""; emails].join(","));
        let head = format!(
            "POST /email/verify/bulk HTTP/1.1\r\nhost: a\r\nx-api-key: enrow-example-key\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = Client::connect(gateway.public).ask(head).unwrap();
        answer.header("x-credits-split").map(str::to_owned)
    };
    let sub = r#"{"amount":0.25,"source":"sub","split":{"sub":0.25}}"#;
    assert_eq!(verify(1).as_deref(), Some(sub));
    let both = r#"{"amount":125,"source":"sub","split":{"sub":119.75,"default":5.25}}"#;
    assert_eq!(verify(500).as_deref(), Some(both));
    let statement = gateway.rows(&["account", "statement", "acme"]);
    let charges: Vec<_> = statement.iter().filter(|row| row["kind"] == "charge").collect();
    assert_eq!(charges.last().unwrap()["split"].to_string(), r#"{"default":-5.25,"sub":-120}"#);
}

#[test]
fn apione_is_billed_as_its_documents_say() {
    play("apione");
}

#[test]
fn a_language_model_is_billed_by_tokens() {
    play("llm");
}

/// The curl lines of each example.
#[test]
fn the_walks_end_with_what_is_left() {
    for (example, left) in
        [("enrow", "{\"credits\":197,"), ("apione", "{\"credits\":87,"), ("llm", "{\"credits\":4.999924,")]
    {
        let (gateway, _upstream) = start(example);
        let walk = format!("{ROOT}/examples/{example}/walk.sh");
        let api = format!("http://{}", gateway.public);
        let output = Command::new("sh").arg(walk).env("API", api).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
        assert!(told.lines().last().unwrap().starts_with(left), "{told}");
    }
}

/// The files of the examples pass `check`.
#[test]
fn the_examples_are_valid() {
    for example in ["enrow", "apione", "llm", "fleet"] {
        let place = format!("{ROOT}/examples/{example}");
        let output = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["check", "-c", "config.toml"])
            .current_dir(place)
            .env("LEDGER_URL", "postgres://user:password@localhost/ledger")
            .env("LIMITS_URL", "redis://localhost")
            .env("TOLLGATE_NODE", "a")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(told.contains("costs at most"), "{told}");
    }
}
