//! Measures keys and accounts, in the store and in the configuration file.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tollgate::app::ControlPlane;
use tollgate::clock::Clock;
use tollgate::config;
use tollgate::types::KeyHash;

use crate::books::{self, file_keys, hash, key_text};
use crate::process::{Gateway, Memory};
use crate::upstream::Upstream;
use crate::{Sizes, heading, line, mib, ms};

/// Keys per account, as the requirement states.
const PER_ACCOUNT: usize = 10;
/// Key look-ups that are timed.
const LOOKUPS: usize = 1_000_000;

fn folder(text: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("config.toml"), text).expect("a written file");
    folder
}

pub fn with_ledger(keys: usize, accounts: usize, entries: usize) -> TempDir {
    let folder = folder(&books::config("127.0.0.1:9", ""));
    books::write(folder.path(), keys, accounts, entries);
    folder
}

/// Writes a configuration and a ledger into a folder, for other measurements.
pub fn write(folder: &Path, sizes: &Sizes) {
    let keys = sizes.keys[0];
    std::fs::create_dir_all(folder).expect("a folder");
    std::fs::write(folder.join("config.toml"), books::config("127.0.0.1:9", "")).expect("a written file");
    books::write(folder, keys, keys.div_ceil(PER_ACCOUNT).max(1), 0);
}

fn per(bytes: Memory, base: Memory, count: usize) -> String {
    format!("{:.1}", (bytes.resident as f64 - base.resident as f64) / count as f64)
}

/// Nanoseconds to find a key in the directory that the gateway uses.
fn lookup(path: &Path, keys: usize) -> f64 {
    let loaded = config::load(path).expect("a sound file");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let plane =
        runtime.block_on(ControlPlane::open(path, loaded, false, &Clock::system())).expect("an open ledger");
    let directory = plane.control.directory();
    let count = keys.min(LOOKUPS);
    let hashes: Vec<KeyHash> = (0..count).map(|at| hash(at * (keys / count))).collect();
    let mut best = f64::MAX;
    for _ in 0..3 {
        let begun = Instant::now();
        for round in 0..LOOKUPS.div_ceil(count) {
            for hash in &hashes {
                black_box(directory.find(black_box(hash))).expect("a known key");
            }
            black_box(round);
        }
        best = best.min(begun.elapsed().as_nanos() as f64 / (LOOKUPS.div_ceil(count) * count) as f64);
    }
    plane.close().expect("a closed ledger");
    best
}

fn create(gateway: &Gateway<'_>, sizes: &Sizes) -> Duration {
    let arguments = |at| format!("key create --account account-0 --label new-{at}");
    gateway.median(sizes.runs, |at| arguments(at).split(' ').map(str::to_owned).collect())
}

/// Measures ledgers with different numbers of keys: start, memory, look-up, commands.
pub fn of_the_store(sizes: &Sizes) {
    heading(
        "keys of the store, ten to an account, each account on a plan with one unused GCRA limit",
        &[
            "keys",
            "accounts",
            "start ms",
            "resident MiB",
            "peak MiB",
            "bytes/key",
            "look-up ns",
            "create ms",
            "reload ms",
        ],
    );
    let base = with_ledger(0, 1, 0);
    let base = Gateway::start(base.path()).settled(sizes.settle);
    for &keys in &sizes.keys {
        let accounts = keys.div_ceil(PER_ACCOUNT);
        let folder = with_ledger(keys, accounts, 0);
        let gateway = Gateway::start(folder.path());
        let memory = gateway.settled(sizes.settle);
        let reload = gateway.median(sizes.runs, |_| vec!["reload".to_owned()]);
        let (start, create) = (gateway.start, create(&gateway, sizes));
        drop(gateway);
        line(&[
            keys.to_string(),
            accounts.to_string(),
            ms(start),
            mib(memory.resident),
            mib(memory.peak),
            per(memory, base, keys),
            format!("{:.0}", lookup(&folder.path().join("config.toml"), keys)),
            ms(create),
            ms(reload),
        ]);
    }
    println!("base: {} MiB resident with no key and one account", mib(base.resident));
}

/// Measures the same number of keys with few accounts and with many.
pub fn accounts(sizes: &Sizes) {
    heading("accounts", &["accounts", "start ms", "resident MiB"]);
    let keys = sizes.accounts[1];
    let memory = sizes.accounts.map(|accounts| {
        let folder = with_ledger(keys, accounts, 0);
        let gateway = Gateway::start(folder.path());
        let memory = gateway.settled(sizes.settle);
        line(&[accounts.to_string(), ms(gateway.start), mib(memory.resident)]);
        memory
    });
    let more = sizes.accounts[1] - sizes.accounts[0];
    println!("bytes per account: {}", per(memory[1], memory[0], more));
}

/// Sends charged requests one after the other during a reload. Returns the time of the reload, the number of requests,
/// how many failed, and the longest response time.
fn serve_during(
    address: SocketAddr,
    key: &str,
    reload: impl FnOnce() -> Duration,
) -> (Duration, u64, u64, Duration) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut stream = TcpStream::connect(address).expect("a connection");
            let request = format!("GET /one HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\n\r\n");
            let (mut served, mut failed, mut longest) = (0, 0, Duration::ZERO);
            let mut buffer = [0; 4096];
            while !stop.load(Ordering::SeqCst) {
                let begun = Instant::now();
                let answered = stream.write_all(request.as_bytes()).and_then(|()| stream.read(&mut buffer));
                let well = answered.is_ok_and(|count| buffer[..count].starts_with(b"HTTP/1.1 200"));
                (served, failed) = (served + 1, failed + u64::from(!well));
                longest = longest.max(begun.elapsed());
                std::thread::sleep(Duration::from_millis(1));
            }
            (served, failed, longest)
        });
        let took = reload();
        stop.store(true, Ordering::SeqCst);
        let (served, failed, longest) = client.join().expect("a client");
        (took, served, failed, longest)
    })
}

/// Measures configuration files with different numbers of keys: the first start, and reloads after one key was added
/// and after all keys were replaced.
pub fn of_the_file(sizes: &Sizes) {
    heading(
        "keys of the file, reloaded under requests",
        &[
            "keys",
            "start ms",
            "again ms",
            "same ms",
            "one more ms",
            "all new ms",
            "requests",
            "failed",
            "longest ms",
            "resident MiB",
            "peak MiB",
        ],
    );
    let upstream = Upstream::start();
    for &keys in &sizes.file {
        let text = |keys, salt| books::config(&upstream.address.to_string(), &file_keys(keys, salt));
        // This key stays in the file through all reloads, so requests with it must never fail.
        let kept = format!(
            "[accounts.kept]\ncredits = 1000000\n[[accounts.kept.keys]]\nlabel = \"k\"\nsha256 = \"{}\"\n",
            hash(usize::MAX).to_hex()
        );
        let folder = folder(&(text(keys, 0) + &kept));
        let path = folder.path().join("config.toml");
        let first = Gateway::start(folder.path()).start;
        let gateway = Gateway::start(folder.path());
        let reload = |text: Option<String>| {
            let next = folder.path().join(".next");
            if let Some(text) = text {
                std::fs::write(&next, text + &kept).expect("a written file");
                std::fs::rename(&next, &path).expect("a renamed file");
            }
            serve_during(gateway.public, &key_text(usize::MAX), || gateway.command(&["reload"]))
        };
        let same = reload(None);
        let more = reload(Some(text(keys + 1, 0)));
        let new = reload(Some(text(keys, keys + 1)));
        let memory = gateway.settled(sizes.settle);
        let all = [same, more, new];
        line(&[
            keys.to_string(),
            ms(first),
            ms(gateway.start),
            ms(same.0),
            ms(more.0),
            ms(new.0),
            all.iter().map(|run| run.1).sum::<u64>().to_string(),
            all.iter().map(|run| run.2).sum::<u64>().to_string(),
            ms(all.iter().map(|run| run.3).max().unwrap_or_default()),
            mib(memory.resident),
            mib(memory.peak),
        ]);
        assert_eq!(all.iter().map(|run| run.2).sum::<u64>(), 0, "a reload costs no request");
    }
}
