//! Restarts and upgrades under load: no request fails, no connection is refused, and every charge is right.
//! `TOLLGATE_LONG` selects the long runs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::{Client, Gateway, Process, Upstream, config, eventually, get};

const BINARY: &str = env!("CARGO_BIN_EXE_tollgate");
const KEY: &str = "x-api-key: good-key\r\n";
const CLIENTS: usize = 12;

fn rounds() -> usize {
    if std::env::var_os("TOLLGATE_LONG").is_some() { 10 } else { 3 }
}

/// A folder with a configuration for an upstream. Its account has enough credits.
fn folder(upstream: &Upstream, more: &str) -> Arc<tempfile::TempDir> {
    let folder = tempfile::tempdir().unwrap();
    let text = config(more).replace("{upstream}", &upstream.address.to_string());
    let text = text.replacen("credits = 1000\n", "credits = 100000000\n", 1);
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    Arc::new(folder)
}

/// What clients did, and what it must have cost.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    asked: AtomicU64,
    cost: AtomicU64,
}

impl Load {
    /// Sends requests over one connection after another, until it is told to stop. None may fail.
    fn send(&self, address: SocketAddr) {
        let mut client = Client::connect(address);
        let mut round = 0_u64;
        while !self.stop.load(Ordering::Relaxed) {
            round += 1;
            // A price that is known when the response ends, some time after the request; and a fixed one.
            let (path, headers, cost) = match round % 8 {
                0 => ("/json", "x-response-body: {\"cost\":3}\r\nx-response-delay: 300\r\n", 3),
                _ => ("/one", "", 1),
            };
            let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n{KEY}{headers}\r\n");
            let response = client.ask(request).unwrap_or_else(|error| panic!("{path} failed: {error}"));
            assert_eq!(response.status, 200, "{}", response.text());
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.cost.fetch_add(cost, Ordering::Relaxed);
            if response.header("connection") == Some("close") {
                client = Client::connect(address);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// An event stream and a WebSocket that go on while the gateway changes.
fn keeps_streams(address: SocketAddr) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let events: Vec<String> = (0..30).map(|event| format!("event {event};")).collect();
            let headers = format!("x-response-chunks: {}\r\nx-response-pause: 100\r\n", events.join("|"));
            let response = get(address, "/free/events", &format!("{KEY}{headers}"));
            assert_eq!((response.status, response.text()), (200, events.concat()));
        });
        scope.spawn(|| {
            let mut client = Client::connect(address);
            let upgrade = "connection: upgrade\r\nupgrade: echo\r\n";
            client.send(format!("GET /free/ws HTTP/1.1\r\nhost: a\r\n{KEY}{upgrade}\r\n")).unwrap();
            assert_eq!(client.head().unwrap().status, 101);
            for round in 0..30 {
                let text = format!("message {round:02}");
                client.send(&text).unwrap();
                assert_eq!(client.exactly(text.len()).unwrap(), text.as_bytes());
                std::thread::sleep(Duration::from_millis(100));
            }
        });
    });
}

/// A request whose response comes this many milliseconds later, and says that it costs 3 credits.
fn slow(delay: u64) -> String {
    let headers = format!("{KEY}x-response-body: {{\"cost\":3}}\r\nx-response-delay: {delay}\r\n");
    format!("GET /json HTTP/1.1\r\nhost: a\r\n{headers}\r\n")
}

/// Checks that everything was charged once.
fn is_exact(gateway: &impl Fn(&[&str]) -> serde_json::Value, load: &Load) {
    let spent = 100_000_000 - gateway(&["account", "show", "acme"])["balance"].as_u64().unwrap();
    assert_eq!(spent, load.cost.load(Ordering::Relaxed), "{} requests", load.asked.load(Ordering::Relaxed));
    assert_eq!(gateway(&["ledger", "verify"])["differences"], serde_json::json!([]));
}

fn json(folder: &Path, arguments: &[&str]) -> serde_json::Value {
    let output =
        Command::new(BINARY).current_dir(folder).args(arguments).args(["--output", "json"]).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn no_doubts(folder: &Path) {
    let output =
        Command::new(BINARY).current_dir(folder).args(["ledger", "in-doubt", "--output", "json"]).output();
    assert_eq!(String::from_utf8_lossy(&output.unwrap().stdout), "", "holds in doubt");
}

#[test]
fn an_upgrade_under_load_fails_no_request() {
    let upstream = Upstream::start();
    let folder = folder(&upstream, "");
    let mut gateway = Gateway::start_in(Arc::clone(&folder));
    let (address, load) = (gateway.public, Load::default());
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| load.send(address));
        }
        for _ in 0..rounds() {
            let streams = scope.spawn(|| keeps_streams(address));
            std::thread::sleep(Duration::from_millis(700));
            let mut next = Gateway::upgrade(&gateway);
            assert_eq!(next.public, address);
            streams.join().unwrap();
            std::mem::swap(&mut gateway, &mut next);
            assert_eq!(next.wait(), Some(0), "the old process ends by itself");
            std::thread::sleep(Duration::from_millis(300));
        }
        load.stop.store(true, Ordering::Relaxed);
    });
    is_exact(&|arguments| json(folder.path(), arguments), &load);
    no_doubts(folder.path());
    assert!(load.asked.load(Ordering::Relaxed) > 500);
}

/// Waits until so many lines of a gateway contain a text.
fn wait_for(gateway: &Gateway, text: &str, times: usize) {
    eventually(text, || gateway.lines().iter().filter(|line| line.contains(text)).count() >= times);
}

/// A program that fails at its start, or later when it has the ledger, leaves a gateway that serves.
#[test]
fn a_program_that_fails_takes_nothing_over() {
    let upstream = Upstream::start();
    let folder = folder(&upstream, "");
    let program = folder.path().join("tollgate");
    run(Command::new("cp").arg(BINARY).arg(&program));
    let gateway = Gateway::start_command(Arc::clone(&folder), |_| {
        let mut command = Command::new(&program);
        command.arg("serve");
        command
    });
    let processes = Processes(folder.path());
    let replace = |write: &dyn Fn(&Path)| {
        let next = folder.path().join("next");
        write(&next);
        std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&next, &program).unwrap();
    };
    let is_served = || get(gateway.public, "/one", KEY).status == 200;
    assert!(is_served());
    // Other processes write the programs: a descriptor of this one could be inherited by a process of another test, and
    // a program that is open for writing cannot be started.
    let failing =
        |next: &Path| run(Command::new("sh").args(["-c", "printf '#!/bin/sh\nexit 3\n' >\"$0\""]).arg(next));
    replace(&failing);
    gateway.signal("USR2");
    wait_for(&gateway, "the process that was to take over has ended", 1);
    assert!(is_served());
    // A configuration that is wrong by now, before it is noticed: the new process ends.
    replace(&|next| run(Command::new("cp").arg(BINARY).arg(next)));
    let text = gateway.config();
    gateway.write_config("[server\n");
    gateway.signal("USR2");
    wait_for(&gateway, "the process that was to take over has ended", 2);
    gateway.write_config(&text);
    assert!(is_served());
    // An address that another process has: nothing was released yet.
    let blocker = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = blocker.local_addr().unwrap();
    let admin = format!("[admin]\nlisten = \"{other}\"");
    gateway.write_config(&text.replace("[admin]\nlisten = \"127.0.0.1:0\"", &admin));
    gateway.signal("USR2");
    wait_for(&gateway, "the process that was to take over has ended", 3);
    gateway.write_config(&text);
    drop(blocker);
    assert!(is_served());
    // A process that ends once it has the ledger: the old program is started again, even if its file is a worse one.
    replace(&failing);
    let mut stream = tollgate::control::socket::connect(&gateway.config_path()).unwrap().unwrap();
    stream.write_all(b"{\"command\":\"take_over\"}\n").unwrap();
    assert!(line(&mut stream).contains("sockets"));
    stream.write_all(b"\"ready\"\n").unwrap();
    assert!(line(&mut stream).contains("released"));
    drop(stream);
    assert!(is_served(), "a client that connects meanwhile waits");
    assert_eq!(json(folder.path(), &["account", "show", "acme"])["balance"], 100_000_000 - 5);
    assert_eq!(json(folder.path(), &["ledger", "verify"])["differences"], serde_json::json!([]));
    assert!(processes.kill(), "no process was left");
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success());
}

fn line(stream: &mut UnixStream) -> String {
    let (mut line, mut byte) = (String::new(), [0]);
    while !line.ends_with('\n') {
        stream.read_exact(&mut byte).unwrap();
        line.push(char::from(byte[0]));
    }
    line
}

/// Kills the processes of a folder when it is dropped: a gateway may have started another one.
struct Processes<'a>(&'a Path);

impl Processes<'_> {
    /// True if there was one.
    fn kill(&self) -> bool {
        let mut found = false;
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let place = process.path();
            if std::fs::read_link(place.join("cwd")).is_ok_and(|cwd| cwd == self.0) {
                let id = place.file_name().unwrap().to_string_lossy().into_owned();
                found |=
                    Command::new("kill").args(["-KILL", &*id]).status().is_ok_and(|status| status.success());
            }
        }
        found
    }
}

impl Drop for Processes<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Old processes that are killed before their requests ended leave them in doubt, as a crash does.
#[test]
fn an_old_process_that_is_killed_leaves_its_requests_in_doubt() {
    let upstream = Upstream::start();
    let folder = folder(&upstream, "");
    let old = Gateway::start_in(Arc::clone(&folder));
    let address = old.public;
    std::thread::spawn(move || {
        let _ = Client::connect(address).ask(slow(4000)); // its gateway is killed
    });
    std::thread::sleep(Duration::from_millis(500));
    let mut new = Gateway::upgrade(&old);
    old.signal("KILL");
    new.line_with("holds that the process before this one left open were charged in full");
    let rows = new.rows(&["ledger", "in-doubt"]);
    assert_eq!(rows.len(), 1);
    assert_eq!(new.json(&["account", "show", "acme"])["balance"], 100_000_000 - 10);
    let id = rows[0]["id"].as_str().unwrap().to_owned();
    new.json(&["ledger", "give-back", &id]);
    assert_eq!(new.json(&["account", "show", "acme"])["balance"], 100_000_000);
    assert_eq!(new.json(&["ledger", "verify"])["differences"], serde_json::json!([]));
}

/// Starts a gateway with a listening socket that the service manager opened.
fn activated(folder: &Path, socket: &TcpListener, environment: &[(&str, &str)]) -> Process {
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ WATCHDOG_PID=$$ LISTEN_FDS=1 exec \"$0\" serve";
    let stdin = Stdio::from(OwnedFd::from(socket.try_clone().unwrap()));
    let mut command = Command::new("sh");
    command.args(["-c", script, BINARY]).stdin(stdin).current_dir(folder).envs(environment.iter().copied());
    Process::start(&mut command)
}

/// With sockets of the service manager, a restart refuses no connection: clients wait until the next process serves.
#[test]
fn a_restart_with_socket_activation_fails_no_request() {
    let upstream = Upstream::start();
    let folder = folder(&upstream, "");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, load) = (socket.local_addr().unwrap(), Load::default());
    let path = folder.path().join("config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("127.0.0.1:0", &address.to_string(), 1)).unwrap();
    let mut process = activated(folder.path(), &socket, &[]);
    process.line_with("serving clients");
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| load.send(address));
        }
        for _ in 0..rounds() {
            let streams = scope.spawn(|| keeps_streams(address));
            std::thread::sleep(Duration::from_millis(700));
            process.signal("TERM");
            assert_eq!(process.wait(), Some(0));
            streams.join().unwrap();
            process = activated(folder.path(), &socket, &[]);
            process.line_with("serving clients");
            std::thread::sleep(Duration::from_millis(300));
        }
        load.stop.store(true, Ordering::Relaxed);
    });
    is_exact(&|arguments| json(folder.path(), arguments), &load);
    no_doubts(folder.path());
}

/// What the gateway tells systemd, in order; and the process that takes over from it.
#[test]
fn the_service_manager_is_told_what_the_gateway_does() {
    let upstream = Upstream::start();
    let folder = folder(&upstream, "");
    let place = folder.path().join("notify");
    let told = UnixDatagram::bind(&place).unwrap();
    told.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let next = |wanted: &str| {
        let mut buffer = [0; 1024];
        loop {
            let length = told.recv(&mut buffer).unwrap_or_else(|error| panic!("no {wanted}: {error}"));
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.contains(wanted) {
                return text;
            }
            assert!(text.contains("WATCHDOG=1"), "{text} before {wanted}");
        }
    };
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let environment =
        [("NOTIFY_SOCKET", &*place.to_string_lossy().into_owned()), ("WATCHDOG_USEC", "5000000")];
    let mut process = activated(folder.path(), &socket, &environment);
    process.line_with("serving clients");
    let _processes = Processes(folder.path());
    assert!(next("READY=1").contains(&format!("MAINPID={}", process.id())));
    next("WATCHDOG=1");
    process.signal("HUP");
    assert!(next("RELOADING=1").contains("MONOTONIC_USEC="));
    next("READY=1");
    process.signal("USR2");
    let ready = next("READY=1");
    let main = ready.lines().find_map(|line| line.strip_prefix("MAINPID=")).unwrap().to_owned();
    assert_ne!(main, process.id().to_string());
    assert_eq!(process.wait(), Some(0));
    told.set_nonblocking(true).unwrap();
    while told.recv(&mut [0; 1024]).is_ok() {} // also of the process before
    told.set_nonblocking(false).unwrap();
    next("WATCHDOG=1");
    assert!(Command::new("kill").arg(main).status().unwrap().success());
    next("STOPPING=1");
}

/// A stop waits longer for streams and WebSockets than for other requests.
#[test]
fn streams_have_their_own_deadline_at_a_stop() {
    let upstream = Upstream::start();
    let settings = "[server]\ndrain_timeout = \"300ms\"\nstream_drain_timeout = \"10s\"\n";
    let text = config("").replacen("[server]\n", settings, 1);
    let mut gateway = Gateway::start(&text, &upstream);
    let address = gateway.public;
    std::thread::scope(|scope| {
        scope.spawn(|| keeps_streams(address));
        let cut = scope.spawn(|| {
            let mut client = Client::connect(address);
            let headers = format!("{KEY}x-response-delay: 6000\r\n");
            client.ask(format!("GET /free/slow HTTP/1.1\r\nhost: a\r\n{headers}\r\n")).is_err()
        });
        std::thread::sleep(Duration::from_millis(500));
        gateway.signal("TERM");
        assert_eq!(gateway.wait(), Some(0));
        assert!(cut.join().unwrap(), "a request without a response is not waited for");
    });
}

/// While a process still finishes its requests, the one after it is not replaced: it takes the settlements of the first.
#[test]
fn one_process_takes_over_at_a_time() {
    let upstream = Upstream::start();
    let folder = folder(&upstream, "");
    let mut first = Gateway::start_in(Arc::clone(&folder));
    let address = first.public;
    let asked = std::thread::spawn(move || Client::connect(address).ask(slow(3000)).unwrap().status);
    std::thread::sleep(Duration::from_millis(500));
    let mut second = Gateway::upgrade(&first);
    let third =
        Command::new(BINARY).current_dir(folder.path()).args(["serve", "--upgrade"]).output().unwrap();
    assert!(!third.status.success());
    let told = String::from_utf8_lossy(&third.stderr).into_owned();
    assert!(told.contains("cannot take over from the running gateway"), "{told}");
    second.line_with("the process before this one has not ended yet");
    assert_eq!(asked.join().unwrap(), 200);
    assert_eq!(first.wait(), Some(0));
    second.line_with("the process before this one has ended");
    let third = Gateway::upgrade(&second);
    assert_eq!(second.wait(), Some(0));
    assert_eq!(third.json(&["account", "show", "acme"])["balance"], 100_000_000 - 3);
}
