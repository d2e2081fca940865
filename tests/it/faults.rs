//! Tests promises 1 and 5 while the disk fails. In every failure, the response's header, the log line and the entry
//! have the same amount, no refusal follows a charge, and a client that disconnects pays what a client that stays pays.
//! The gateway has a ledger that fails on command. Each kind of price is tested.

use std::path::Path;
use std::time::Duration;

use tollgate::app::{App, find_ledger};
use tollgate::clock::Clock;
use tollgate::ledger::record::Record;
use tollgate::ledger::store::{Journal, JournalRow, LedgerError, Result};
use tollgate::telemetry::logs::Logs;
use tollgate::types::WallTime;

use crate::support::{Client, Gateway, Upstream, config};

const KEY: &str = "x-api-key: good-key\r\n";
/// The environment variable that makes this process the gateway under test; its value is the gateway's folder.
const FOLDER: &str = "TOLLGATE_TEST_FAULTS";

/// A real journal that fails as a file in its folder orders: `hold`, `settle` or both, each once for every change of
/// the file; or `always`, every settlement.
struct Failing {
    inner: Box<dyn Journal>,
    orders: std::path::PathBuf,
    /// The last orders, and whether their failure of a hold and their failure of a settlement were carried out.
    done: (String, bool, bool),
}

impl Failing {
    /// True if a batch must fail.
    fn fails(&mut self, mut records: &[u8]) -> bool {
        let orders = std::fs::read_to_string(&self.orders).unwrap_or_default();
        if orders != self.done.0 {
            self.done = (orders.clone(), false, false);
        }
        let (mut holds, mut settles) = (false, false);
        while let Some(record) = Record::read(&mut records) {
            match record {
                Record::Claim { .. } | Record::Answer { .. } | Record::Unclaim { .. } => {}
                Record::Hold { .. } => holds = true,
                Record::Settle { .. } => settles = true,
                Record::Keep { .. } => {}
            }
        }
        if orders.contains("always") {
            return settles;
        }
        let hold = holds && orders.contains("hold") && !std::mem::replace(&mut self.done.1, true);
        let settle = settles && orders.contains("settle") && !std::mem::replace(&mut self.done.2, true);
        hold || settle
    }
}

impl Journal for Failing {
    fn read(&mut self, folded: u64) -> Result<Vec<JournalRow>> {
        self.inner.read(folded)
    }
    fn append(&mut self, seq: u64, at: WallTime, records: &[u8]) -> Result<()> {
        if self.fails(records) {
            return Err(LedgerError::Failed("told to".to_owned()));
        }
        self.inner.append(seq, at, records)
    }
    fn reset(&mut self, upto: u64) {
        self.inner.reset(upto);
    }
}

/// Runs the gateway under test if the environment variable is set; does nothing otherwise.
#[test]
fn a_gateway_over_a_failing_ledger() {
    let Some(folder) = std::env::var_os(FOLDER).map(std::path::PathBuf::from) else { return };
    let path = folder.join("config.toml");
    let loaded = tollgate::config::load(&path).unwrap();
    let logs = Logs::start(true).unwrap();
    let mut storage = find_ledger(path.to_str().unwrap()).unwrap().open().unwrap();
    let (inner, orders) = (storage.journal, folder.join("orders"));
    storage.journal = Box::new(Failing { inner, orders, done: Default::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let app = App::start_with(storage, &path, loaded, Clock::system(), logs.lines()).await.unwrap();
        tracing::info!(target: "tollgate", address = %app.public[0].address, "serving clients");
        tracing::info!(target: "tollgate", address = %app.admin, "serving operators");
        app.run().await.unwrap();
    });
}

const HOLD: u32 = 10;

/// Where a price comes from, and the request whose response has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Fixed,
    FixedNoContent,
    Header,
    HeaderNoContent,
    HeaderToHead,
    Json,
    Call,
    Upgrade,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Fixed,
        Self::FixedNoContent,
        Self::Header,
        Self::HeaderNoContent,
        Self::HeaderToHead,
        Self::Json,
        Self::Call,
        Self::Upgrade,
    ];

    fn known_at_head(self) -> bool {
        !matches!(self, Self::Json | Self::Call)
    }

    /// Method, path, and the header lines that tell the upstream how to respond.
    fn request(self, amount: u32) -> (&'static str, String, String) {
        let header = format!("x-response-header: x-cost: {amount}\r\n");
        let (method, path, told) = match self {
            Self::Fixed => ("GET", format!("/fixed-{amount}"), String::new()),
            Self::FixedNoContent => {
                ("GET", format!("/fixed-{amount}"), "x-response-status: 204\r\n".to_owned())
            }
            Self::Header => ("GET", "/header".to_owned(), header),
            Self::HeaderNoContent => {
                ("GET", "/header".to_owned(), format!("{header}x-response-status: 204\r\n"))
            }
            Self::HeaderToHead => ("HEAD", "/header".to_owned(), header),
            Self::Json => ("GET", "/json".to_owned(), format!("x-response-body: {{\"cost\":{amount}}}\r\n")),
            Self::Call => {
                let head = "HTTP/1.1 200 OK\\nconnection: close\\ncontent-type: application/grpc\\ntransfer-encoding: chunked\\n\\n";
                let rest = format!("5\\nhello\\n0\\ngrpc-status: 0\\nx-cost: {amount}\\n\\n");
                ("POST", "/header".to_owned(), format!("x-response-raw: {head}{rest}\r\n"))
            }
            // The upstream's response to an upgrade costs 3.
            Self::Upgrade => {
                ("GET", "/header".to_owned(), "connection: upgrade\r\nupgrade: echo\r\n".to_owned())
            }
        };
        (method, path, format!("x-response-delay: 30\r\n{told}"))
    }
}

fn start(upstream: &Upstream) -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    let fixed = |amount: u32, charge: &str| {
        format!(
            "[[routes]]\nname = \"fixed-{amount}\"\npath = \"/fixed-{amount}\"\nupstream = \"api\"\nhold = {HOLD}\ncharge = [{charge}]\n"
        )
    };
    let more = [
        fixed(10, "{ status = \"2xx\", credits = 10 }"),
        fixed(3, "{ status = \"2xx\", credits = 3 }"),
        fixed(0, "{ status = \"5xx\", credits = 3 }"),
    ];
    let text = config(&more.concat()).replace("credits = 1000\n", "credits = 100000\n");
    let text = text.replace("threads = 2\n", "threads = 2\ntrusted_proxies = [\"127.0.0.0/8\"]\n");
    let text = text.replace("{upstream}", &upstream.address.to_string());
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    Gateway::start_command(std::sync::Arc::new(folder), |folder| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "faults::a_gateway_over_a_failing_ledger", "--nocapture"]);
        command.env(FOLDER, folder);
        command
    })
}

/// Waits until the ledger accepts holds again.
fn recovers(gateway: &Gateway) {
    let probe = format!("GET /fixed-0 HTTP/1.1\r\nhost: a\r\n{KEY}\r\n");
    for _ in 0..200 {
        if Client::connect(gateway.public).ask(&probe).unwrap().status != 503 {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the ledger does not recover");
}

fn available(gateway: &Gateway) -> i64 {
    gateway.available("acme").parse().unwrap()
}

/// The log line of the request with this number.
fn logged(gateway: &Gateway, number: usize) -> serde_json::Value {
    let mark = format!("\"proxy_request_id\":\"case-{number}\"");
    for _ in 0..400 {
        if let Some(line) = gateway.lines().iter().find(|line| line.contains(&mark)) {
            return serde_json::from_str(line).unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no line of case {number}");
}

fn order(gateway: &Gateway, folder: &Path, orders: &str) {
    recovers(gateway);
    std::fs::write(folder.join("next"), orders).unwrap();
    std::fs::rename(folder.join("next"), folder.join("orders")).unwrap();
}

/// Runs one line of the table twice: with a client that stays, and with a client that disconnects.
fn case(gateway: &Gateway, upstream: &Upstream, kind: Kind, amount: u32, fault: &str, number: usize) {
    let what = format!("{kind:?}, {amount} of {HOLD}, {fault} fails");
    let folder = gateway.folder.path().to_owned();
    let refused = fault.contains("hold") && !(kind.known_at_head() && amount == 0);
    let expected = if refused { 0 } else { amount };
    let (method, path, told) = kind.request(amount);
    for leaves in [false, true] {
        let number = 2 * number + usize::from(leaves);
        order(gateway, &folder, &format!("{fault} {number}"));
        upstream.clear();
        let before = available(gateway);
        let mut client = Client::connect(gateway.public);
        let id = format!("x-request-id: case-{number}\r\n");
        client.send(format!("{method} {path} HTTP/1.1\r\nhost: a\r\n{KEY}{id}{told}\r\n")).unwrap();
        if leaves {
            while upstream.seen().is_empty() {
                std::thread::sleep(Duration::from_millis(2));
            }
            socket2::SockRef::from(&*client.socket()).set_linger(Some(Duration::ZERO)).unwrap();
        } else {
            let response = client.read(method == "HEAD").unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(response.status == 503, refused, "{what}: {}", response.text());
            if refused || kind.known_at_head() {
                assert_eq!(response.charged(), Some(&*expected.to_string()), "{what}: the header");
            }
        }
        drop(client);
        let line = logged(gateway, number);
        assert_eq!(line["credits"], expected.to_string(), "{what}, leaves: {leaves}: {line}");
        recovers(gateway);
        assert_eq!(before - available(gateway), i64::from(expected), "{what}, leaves: {leaves}: the entry");
    }
}

fn table(amount: u32) {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let faults = ["none", "hold", "settle", "hold and settle"];
    let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Upgrade || amount == 3);
    let rows = kinds.flat_map(|kind| faults.map(|fault| (kind, fault)));
    for (number, (kind, fault)) in rows.enumerate() {
        case(&gateway, &upstream, kind, amount, fault, number);
    }
    assert_eq!(gateway.json(&["ledger", "verify"])["differences"], serde_json::json!([]));
    assert_eq!(gateway.rows(&["ledger", "in-doubt"]).len(), 0);
}

#[test]
fn a_charge_as_high_as_its_hold_is_one_amount_in_every_failure() {
    table(HOLD);
}

#[test]
fn a_charge_below_its_hold_is_one_amount_in_every_failure() {
    table(3);
}

#[test]
fn no_charge_is_no_charge_in_every_failure() {
    table(0);
}

/// If a charge cannot be written for long, the gateway cuts the connection, so that no response says that the request
/// cost nothing.
#[test]
fn a_charge_that_cannot_be_written_is_never_denied() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let folder = gateway.folder.path().to_owned();
    let before = available(&gateway);
    order(&gateway, &folder, "always");
    let kinds = [Kind::FixedNoContent, Kind::Header, Kind::Json];
    let clients = kinds.iter().enumerate().map(|(number, kind)| {
        let (method, path, told) = kind.request(3);
        let mut client = Client::connect(gateway.public);
        let id = format!("x-request-id: case-{number}\r\n");
        client.send(format!("{method} {path} HTTP/1.1\r\nhost: a\r\n{KEY}{id}{told}\r\n")).unwrap();
        client
    });
    for (number, mut client) in clients.collect::<Vec<_>>().into_iter().enumerate() {
        let response = client.read(false);
        assert!(response.is_err(), "case {number} was answered whole: {response:?}");
        let line = logged(&gateway, number);
        assert_eq!((&line["credits"], &line["outcome"]), (&"3".into(), &"cut".into()), "case {number}");
    }
    std::fs::remove_file(folder.join("orders")).unwrap();
    recovers(&gateway);
    assert_eq!(before - available(&gateway), 9);
}
