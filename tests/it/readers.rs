//! Tests that reading a client's bytes takes time linear in their number, with a small factor: all reading before the
//! key is known, and the reading of a body.
//!
//! Time is counted in instructions of the worker's thread by valgrind's callgrind, because these counts are repeatable.
//! A request costs some instructions whatever it contains. Therefore each reader gets a thousand bytes or more of its
//! slowest input, and eight times as many.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::floods::frames;
use crate::support::{Client, Gateway, Upstream, config, missing};

/// Maximum instructions per byte in a build without optimisation. The slowest reader takes 5,000: chunks of one byte,
/// for each of which hyper polls once. The others take 3,000 at most. For an optimised build see docs/performance.md.
const MOST_PER_BYTE: f64 = 7500.0;
/// Tolerance: eight times the bytes may take this factor more than eight times the instructions.
const SLACK: f64 = 1.3;
const LEAST: usize = 3000;

type Bytes = fn(usize) -> Vec<u8>;

fn get(path: &str, fields: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\n{fields}\r\n").into_bytes()
}

fn post(fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST /open/x HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    [head.as_bytes(), body].concat()
}

fn chunked(chunk: &str, count: usize) -> Vec<u8> {
    post("transfer-encoding: chunked\r\n", format!("{}0\r\n\r\n", chunk.repeat(count)).as_bytes())
}

/// This many fields, with about this many bytes in total.
fn fields(bytes: usize, count: usize, name: &str, filler: &str) -> String {
    let value = filler.repeat(bytes / count / filler.len());
    (0..count).map(|at| format!("{name}{at}: {value}\r\n")).collect()
}

/// A field whose value has about this many bytes of one repeated pattern.
fn field(name: &str, pattern: &str, bytes: usize) -> String {
    format!("{name}: {}\r\n", pattern.repeat(bytes / pattern.len()))
}

const HTTP1: [(&str, Bytes); 25] = [
    ("path, encoded over and over", |n| get(&format!("/%{}", "25".repeat(n / 2)), "")),
    ("path, encoded twice", |n| get(&format!("/open/{}", "%2541".repeat(n / 5)), "")),
    ("path, encoded", |n| get(&format!("/open/{}", "%41".repeat(n / 3)), "")),
    ("path, UTF-8", |n| get(&format!("/open/{}", "%C3%A9".repeat(n / 6)), "")),
    ("path of segments", |n| get(&format!("/open{}", "/a".repeat(n / 2)), "")),
    ("path of dots", |n| get(&format!("/open/{}", ".".repeat(n)), "")),
    ("path that no route has", |n| get(&format!("/{}", "x/".repeat(n / 2)), "")),
    ("query of parameters", |n| get(&format!("/open/x?{}", "a&".repeat(n / 2)), "")),
    ("query, encoded", |n| get(&format!("/open/x?{}", "%41%41=&".repeat(n / 8)), "")),
    ("query with a wrong key", |n| get(&format!("/one?{}", "a;".repeat(n / 2)), "x-api-key: wrong\r\n")),
    ("fields", |n| get("/open/x", &fields(n, 90, "x-field-", "a"))),
    ("Connection beside fields", |n| {
        get("/open/x", &(fields(900, 80, "x-", "a") + &field("connection", "x-f,", n)))
    }),
    ("Connection beside fields, with a wrong key", |n| {
        let wrong = "x-api-key: wrong\r\n".to_owned();
        get("/one", &(wrong + &fields(900, 80, "x-", "a") + &field("connection", "x-f,", n)))
    }),
    ("Cookie", |n| get("/open/x", &field("cookie", "a=b; ", n))),
    ("X-Forwarded-For", |n| get("/open/x", &field("x-forwarded-for", "127.0.0.1,", n))),
    ("TE", |n| get("/open/x", &field("te", "x,", n))),
    ("key", |n| get("/one", &field("x-api-key", "k", n))),
    ("Authorization", |n| get("/one", &format!("authorization: Bearer {}\r\n", "k".repeat(n)))),
    ("Origin", |n| get("/open/x", &field("origin", "http://a", n))),
    ("Host", |n| get("/open/x", "").replace_host(n)),
    ("Upgrade", |n| get("/open/x", &("connection: upgrade\r\n".to_owned() + &field("upgrade", "a,", n)))),
    ("chunks of a byte", |n| chunked("1\r\nx\r\n", n / 6)),
    ("chunk extensions", |n| chunked("1;a=b;c=\"d\"\r\nx\r\n", n / 17)),
    ("a chunk extension", |n| chunked(&format!("1{}\r\nx\r\n", ";a=b".repeat(n / 4)), 1)),
    ("trailers", |n| {
        let trailers = fields(n, 60, "x-trailer-", "a");
        post("transfer-encoding: chunked\r\n", format!("1\r\nx\r\n0\r\n{trailers}\r\n").as_bytes())
    }),
];

trait ReplaceHost {
    fn replace_host(self, bytes: usize) -> Vec<u8>;
}

impl ReplaceHost for Vec<u8> {
    fn replace_host(self, bytes: usize) -> Vec<u8> {
        let text = String::from_utf8(self).unwrap();
        text.replace("host: a", &format!("host: {}", "a.".repeat(bytes / 2))).into_bytes()
    }
}

/// An HTTP/2 request with these fields, then the frames of its body.
fn http2(fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let base = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/open/x")];
    let block = frames::head(&[&base[..], fields].concat());
    let settings = frames::frame(4, 0, 0, &[]);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let last = frames::frame(0, 1, 1, &[]);
    [preface, &settings[..], &frames::frame(1, 4, 1, &block), body, &last].concat()
}

const HTTP2: [(&str, Bytes); 3] = [
    ("DATA frames of a byte", |n| http2(&[], &frames::frame(0, 0, 1, b"x").repeat(n / 10))),
    ("Cookie in crumbs", |n| http2(&vec![("cookie", "a=b"); n / 13], &[])),
    ("a gRPC call that is refused", |n| {
        let call = [("content-type", "application/grpc"), ("x-api-key", "wrong")];
        http2(&[&call[..], &vec![("grpc-x", "aaaaaaaa"); n / 17]].concat(), &[])
    }),
];

/// A gateway under callgrind, and the number of dumps that callgrind made.
struct Counted {
    gateway: Gateway,
    folder: tempfile::TempDir,
    dumps: usize,
}

fn control(arguments: &[&str]) -> bool {
    let mut command = Command::new("callgrind_control");
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl Counted {
    fn start(upstream: &Upstream) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let out = format!("--callgrind-out-file={}", folder.path().join("out").display());
        let prefix = ["valgrind", "--tool=callgrind", "--separate-threads=yes", "--quiet", &out];
        let text = config("").replace("threads = 2\n", "threads = 1\ntrusted_proxies = [\"127.0.0.1\"]\n");
        Self { gateway: Gateway::start_by(&prefix, &text, upstream), folder, dumps: 0 }
    }

    /// Instructions of the busiest thread since the last call.
    fn instructions(&mut self) -> u64 {
        assert!(control(&["--dump", &self.gateway.id().to_string()]), "callgrind does not respond");
        self.dumps += 1;
        let dump = format!("out.{}-", self.dumps);
        let totals = |path: &Path| {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok())
        };
        let files = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let ours = files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&dump));
        ours.filter_map(|path| totals(&path)).max().unwrap_or(0)
    }

    /// Instructions that a request takes, from its connection to its response.
    fn cost(&mut self, bytes: &[u8]) -> u64 {
        self.instructions();
        let mut client = Client::connect(self.gateway.public);
        client.send(bytes).unwrap();
        if bytes.starts_with(b"PRI") {
            let mut told = Vec::new();
            while frames::read(&told).answered.is_empty() {
                told.extend(client.exactly(1).unwrap());
            }
        } else {
            client.read(false).unwrap();
        }
        self.instructions()
    }
}

/// Finds readers like the one of `/%252525…`, of which 30 KB once took a second.
#[test]
fn reading_is_linear_in_the_bytes_received() {
    if !control(&["--version"]) || Command::new("valgrind").arg("--version").output().is_err() {
        return missing("valgrind", "Debian: valgrind");
    }
    let upstream = Upstream::start();
    let mut counted = Counted::start(&upstream);
    counted.cost(&get("/open/x", "")); // warms up
    let mut slow = Vec::new();
    let cases = HTTP1.iter().map(|case| (case, LEAST)).chain(HTTP2.iter().map(|case| (case, LEAST / 2)));
    for ((name, bytes), least) in cases {
        let (few, many) = (counted.cost(&bytes(least)), counted.cost(&bytes(8 * least)));
        let per_byte = (many as f64 - few as f64) / (7 * least) as f64;
        println!("{per_byte:8.1} instructions per byte, {few:9} to {many:9}: {name}");
        if per_byte > MOST_PER_BYTE || many as f64 > few as f64 * 8.0 * SLACK {
            slow.push(name);
        }
    }
    assert!(slow.is_empty(), "too slow, or not linear: {slow:?}");
}

/// Bytes that arrive in one read are sent upstream in one write, even if the client sends each byte in its own chunk or
/// frame.
#[test]
fn pieces_that_came_together_go_upstream_together() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(""), &upstream);
    let pieces = 3000;
    let http1 = chunked("1\r\nx\r\n", pieces);
    let http2 = http2(&[], &frames::frame(0, 0, 1, b"x").repeat(pieces));
    for bytes in [http1, http2] {
        upstream.clear();
        let mut client = Client::connect(gateway.public);
        client.send(&bytes).unwrap();
        client.exactly(9).unwrap();
        for _ in 0..500 {
            if upstream.seen().len() == 1 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let seen = upstream.last();
        assert_eq!(seen.body.len(), pieces);
        assert!(seen.chunks <= 16, "{} chunks", seen.chunks);
    }
}
