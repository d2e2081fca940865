//! Tests `tollgate demo` as a new user runs it: the built binary, its output, and its end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    unreachable_pub,
    reason = "a test that meets the unexpected ends, and looks at the real clock"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// How long the demo may take to end after it was asked to.
const END: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// The command that runs the demo, with its own folder for temporary files.
fn tollgate(temporary: &tempfile::TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.arg("demo").env("TMPDIR", temporary.path()).stdin(Stdio::null());
    command
}

fn is_empty(folder: &tempfile::TempDir) -> bool {
    std::fs::read_dir(folder.path()).unwrap().next().is_none()
}

/// Kills the process if a failed assertion would leave it running.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        let mut waited = Duration::ZERO;
        while waited < END {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            sleep(LOOK);
            waited += LOOK;
        }
        panic!("still running {END:?} after the signal");
    }
}

#[test]
fn the_self_test_passes_in_both_dialects() {
    let temporary = tempfile::tempdir().unwrap();
    let done = tollgate(&temporary).arg("--self-test").output().unwrap();
    let (text, errors) = (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
    assert_eq!((done.status.code(), errors.as_str()), (Some(0), ""), "{text}");
    for expected in [
        "=== dialect apione ===",
        "=== dialect enrow ===",
        "{\"message\":\"No apikey found in the x-api-key headers\"}",
        "{\"message\":\"This apikey is not valid\"}",
        "\"code\":\"invalid_api_key\"",
        "\"code\":\"rate_limit_exceeded\"",
        "\"code\":\"insufficient_credits\"",
        " passed, 0 failed\n",
    ] {
        assert!(text.contains(expected), "{expected} is missing in\n{text}");
    }
    assert!(!text.contains("FAILED"), "{text}");
    assert!(is_empty(&temporary), "the folder is left behind");
}

/// Starts the demo, and reads its output up to the key. Returns the process, its further output, the gateway, the
/// folder and the key.
fn start(temporary: &tempfile::TempDir) -> (Running, BufReader<impl Read>, String, PathBuf, String) {
    let mut command = tollgate(temporary);
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).stdout(Stdio::piped());
    let mut running = Running(command.spawn().unwrap());
    let mut lines = BufReader::new(running.0.stdout.take().unwrap());
    let mut field = |name: &str| loop {
        let mut line = String::new();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended before it named its {name}");
        let mut words = line.split_whitespace();
        if words.next() == Some(name) {
            break words.next().unwrap().to_owned();
        }
    };
    let (gateway, config, key) = (field("gateway"), field("config"), field("key"));
    let gateway = gateway.strip_prefix("http://").unwrap().to_owned();
    let folder = PathBuf::from(config).parent().unwrap().to_owned();
    (running, lines, gateway, folder, key)
}

#[test]
fn the_demo_serves_until_ctrl_c_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut running, mut rest, gateway, folder, key) = start(&temporary);
    assert!(folder.is_dir());
    let mut stream = TcpStream::connect(&gateway).unwrap();
    stream.set_read_timeout(Some(END)).unwrap();
    let body = r#"{"email":"john.doe@example.com"}"#;
    let head = format!(
        "POST /email/verify/single HTTP/1.1\r\nhost: {gateway}\r\nx-api-key: {key}\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    assert!(response.contains("\r\nx-credits-used: 0.25\r\n"), "{response}");
    assert!(response.contains("\r\nx-credits-remaining: 8499.75\r\n"), "{response}");

    running.signal("-INT");
    assert_eq!(running.exit_code(), Some(0));
    assert!(!folder.exists() && is_empty(&temporary));
    let mut text = String::new();
    rest.read_to_string(&mut text).unwrap();
    assert!(
        text.contains(&format!("curl -i http://{gateway}/api/v1/people/enrich -H 'x-api-key: {key}'")),
        "{text}"
    );
}

#[test]
fn a_closed_terminal_ends_the_demo() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut running, _rest, ..) = start(&temporary);
    running.signal("-HUP");
    assert_eq!(running.exit_code(), Some(0));
    assert!(is_empty(&temporary));
}

#[test]
fn an_address_in_use_is_told() {
    let temporary = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flag, other) in [("--listen", "--admin"), ("--admin", "--listen")] {
        let done = tollgate(&temporary).args([flag, &address, other, "127.0.0.1:0"]).output().unwrap();
        let errors = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(1), "{errors}");
        assert!(errors.starts_with(&format!("error: cannot listen on {address}")), "{errors}");
        assert!(done.stdout.is_empty() && is_empty(&temporary));
    }
}
