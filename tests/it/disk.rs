//! Tests disk failures under the real program: `strace` injects errors of the kernel.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::audit::Books;
use crate::support::{Gateway, Upstream, config, get, missing, skipped};

const KEY: &str = "x-api-key: good-key\r\n";

/// True if strace can trace the program here; reports it otherwise.
pub fn can_trace() -> bool {
    let quiet = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let can =
        quiet(Command::new("strace").args(["-o", "/dev/null", "true"])).is_ok_and(|status| status.success());
    if Command::new("strace").arg("-V").output().is_err() {
        missing("strace", "Debian: strace");
    } else if !can {
        skipped("strace may not trace here");
    }
    can
}

/// Promise 1 for a ledger that cannot write: charged routes respond 503 and cost nothing, free routes are served, and
/// charging resumes by itself. A failed fsync is never treated as success.
#[test]
fn errors_of_the_disk_stop_charging_and_nothing_else() {
    if !can_trace() {
        return;
    }
    // A system call, its error, and which calls fail. Calls are counted per thread: some seconds without errors, then
    // some with.
    for fault in [
        "fdatasync:error=EIO:when=100..106",
        "pwrite64:error=EIO:when=100..110",
        "pwrite64:error=ENOSPC:when=100..110",
        "pwrite64:error=EDQUOT:when=100..110",
        "pwrite64:error=EROFS:when=100..110",
    ] {
        let upstream = Upstream::start();
        // The first start creates the file; only the second start is traced.
        let text = config("").replace("credits = 1000\n", "credits = 1000000\n");
        let (_, folder) = Gateway::start(&text, &upstream).stop();
        let inject = format!("inject={fault}");
        let traced = [
            "strace",
            "-D",
            "-f",
            "--seccomp-bpf",
            "-o",
            "/dev/null",
            "-e",
            "trace=fdatasync,pwrite64",
            "-e",
            &inject,
        ];
        let gateway = Gateway::restart_by(&traced, folder);
        let (mut paid, mut refused, mut after) = (0, 0, 0);
        let start = Instant::now();
        while after < 50 {
            assert!(start.elapsed() < Duration::from_secs(60), "{fault}: {paid} paid, {refused} refused");
            let charged = get(gateway.public, "/one", KEY);
            match charged.status {
                200 => {
                    paid += 1;
                    after += i32::from(refused > 0);
                }
                503 => {
                    assert!(charged.text().contains("ledger_unavailable"), "{}", charged.text());
                    assert_eq!(get(gateway.public, "/free/a", KEY).status, 200, "{fault}");
                    refused += 1;
                    after = 0;
                }
                other => panic!("{fault}: {other}"),
            }
        }
        let books = Books::read(&gateway, "acme");
        assert_eq!(
            (books.requests, books.charged),
            (paid, paid * 1_000_000),
            "{fault}: {refused} were refused"
        );
        let (code, folder) = gateway.stop();
        assert_eq!(code, Some(0), "{fault}");
        let gateway = Gateway::start_in(folder);
        assert_eq!(Books::read(&gateway, "acme").charged, books.charged, "{fault}");
    }
}

/// A backup that was made while requests were charged is a complete ledger. Restored in place of a lost one, it has all
/// charges up to the backup and can be used further.
#[test]
fn a_backup_made_under_load_is_restored() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(""), &upstream);
    let copy = gateway.folder.path().join("copy.db");
    let mut paid = 0;
    for _ in 0..10 {
        assert_eq!(get(gateway.public, "/one", KEY).status, 200);
        paid += 1;
    }
    let before = paid;
    std::thread::scope(|scope| {
        let backup = scope.spawn(|| gateway.json(&["ledger", "backup", copy.to_str().unwrap()]));
        while !backup.is_finished() || paid < 30 {
            assert_eq!(get(gateway.public, "/one", KEY).status, 200);
            paid += 1;
        }
        backup.join().unwrap();
    });
    for _ in 0..5 {
        assert_eq!(get(gateway.public, "/one", KEY).status, 200);
        paid += 1;
    }
    let folder = gateway.crash();
    // As the README describes.
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.journal-0", "ledger.db.journal-1"]
    {
        let _ = std::fs::rename(folder.path().join(name), folder.path().join(format!("lost-{name}")));
    }
    std::fs::rename(folder.path().join("copy.db"), folder.path().join("ledger.db")).unwrap();
    let gateway = Gateway::start_in(folder);
    let books = Books::read(&gateway, "acme");
    // The backup was made at a fold, in which one request may have been in flight.
    let copied = books.requests + books.doubts.len() as i64;
    assert!(books.doubts.len() <= 1 && (before..=paid - 5).contains(&copied), "{before}, {copied}, {paid}");
    assert_eq!(get(gateway.public, "/one", KEY).status, 200);
    assert_eq!(Books::read(&gateway, "acme").requests, books.requests + 1);
}

/// The gateway does not serve a damaged ledger and reports what to do. `ledger verify` still reports what it can find
/// out.
#[test]
fn a_damaged_ledger_is_not_served_and_says_how_to_restore() {
    let serve = |folder: &std::path::Path| {
        let output = crate::support::cli(folder, &["serve"]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(""), &upstream);
    for _ in 0..3 {
        assert_eq!(get(gateway.public, "/one", KEY).status, 200);
    }
    let (_, folder) = gateway.stop();
    let (path, sound) = (folder.path().join("ledger.db"), folder.path().join("sound.db"));
    std::fs::copy(&path, &sound).unwrap();
    // A balance was changed from outside.
    let ledger = rusqlite::Connection::open(&path).unwrap();
    ledger.execute_batch("UPDATE accounts SET balance = balance + 5").unwrap();
    drop(ledger);
    let (code, told) = serve(folder.path());
    assert_eq!(code, Some(1));
    assert!(told.contains("do not balance (by 5 millionths") && told.contains("ledger verify"), "{told}");
    let granted = crate::support::cli(folder.path(), &["account", "grant", "acme", "5", "--reference", "r"]);
    assert_eq!(granted.status.code(), Some(1), "nothing is booked on it");
    assert!(String::from_utf8_lossy(&granted.stderr).contains("do not balance"));
    let verified = crate::support::cli(folder.path(), &["ledger", "verify"]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&verified.stdout).contains("acme"));
    // A page of a table that is read at the start is overwritten.
    for table in ["accounts", "operator_accounts", "keys", "secrets", "limits", "journal", "open_holds"] {
        std::fs::copy(&sound, &path).unwrap();
        let ledger = rusqlite::Connection::open(&path).unwrap();
        let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
        let page: u64 = ledger.query_row(sql, [table], |row| row.get(0)).unwrap();
        drop(ledger);
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0xA5; 4096], (page - 1) * 4096).unwrap();
        let (code, told) = serve(folder.path());
        assert_eq!(code, Some(1), "{table}");
        assert!(told.contains("damaged") && told.contains("restore a backup"), "{table}: {told}");
    }
    // The intact file is restored.
    std::fs::copy(&sound, &path).unwrap();
    assert_eq!(Books::read(&Gateway::start_in(folder), "acme").requests, 3);
}
