//! Tests credits and limits while the clock jumps or stands still, with `libfaketime` under the real program.

use std::path::PathBuf;

use crate::support::audit::Books;
use crate::support::{Gateway, Upstream, config, get, sha256};

const KEY: &str = "x-api-key: good-key\r\n";

/// The path of libfaketime from Debian's package, if it is installed.
pub fn library() -> Option<PathBuf> {
    let found = glob::glob("/usr/lib/*/faketime/libfaketimeMT.so.1").unwrap().flatten().next();
    if found.is_none() {
        crate::support::missing("libfaketime", "Debian: faketime");
    }
    found
}

/// A wall clock that tests set under the real program.
pub struct FakeClock {
    folder: tempfile::TempDir,
    library: PathBuf,
}

impl FakeClock {
    /// `None` if libfaketime is not installed.
    pub fn new(at: &str) -> Option<Self> {
        let clock = Self { library: library()?, folder: tempfile::tempdir().unwrap() };
        clock.set(at);
        Some(clock)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("clock")
    }

    /// Sets the clock: by seconds from now such as `+3600`, or `@` and a time in UTC from which it goes on.
    pub fn set(&self, to: &str) {
        std::fs::write(self.folder.path().join("next"), to).unwrap();
        std::fs::rename(self.folder.path().join("next"), self.file()).unwrap();
    }

    /// The words before the program that is to see this clock.
    pub fn prefix(&self) -> Vec<String> {
        vec![
            "env".to_owned(),
            "TZ=UTC".to_owned(),
            format!("LD_PRELOAD={}", self.library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file().display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ]
    }
}

/// Promises 1, 2 and 6 do not depend on wall time: the clock jumps an hour forward and back, and stands still.
#[test]
fn a_clock_that_jumps_or_stands_still_changes_no_charge_and_refills_no_limit() {
    let Some(clock) = FakeClock::new("+0") else { return };
    let hash = sha256("limited");
    let more = format!(
        "[plans.few]\nlimits = [{{ name = \"hour\", requests = 5, window = \"2h\", algorithm = \"sliding-window\" }}]\n\
         [accounts.limited]\nplan = \"few\"\ncredits = 100\n[[accounts.limited.keys]]\nlabel = \"k\"\nsha256 = \"{hash}\"\n"
    );
    let upstream = Upstream::start();
    let prefix = clock.prefix();
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    let mut gateway = Gateway::start_by(&prefix, &config(&more), &upstream);
    let (mut paid, mut admitted) = (0, 0);
    for to in ["+0", "+3600", "-3600", "2026-01-01 00:00:00", "+0", "restart", "-3600", "restart", "+3600"] {
        if to == "restart" {
            let (code, folder) = gateway.stop();
            assert_eq!(code, Some(0));
            gateway = Gateway::restart_by(&prefix, folder);
        } else {
            clock.set(to);
        }
        for _ in 0..20 {
            assert_eq!(get(gateway.public, "/one", KEY).charged(), Some("1"), "{to}");
            paid += 1;
        }
        let response = get(gateway.public, "/free/a", "x-api-key: limited\r\n");
        admitted += i64::from(response.status == 200);
        let books = Books::read(&gateway, "acme");
        assert_eq!((books.charged, books.requests), (paid * 1_000_000, paid), "{to}");
        assert!(books.doubts.is_empty(), "{to}");
    }
    assert_eq!(admitted, 5, "promise 6: nothing is refilled by a clock that is set");
    let at: Vec<String> = gateway
        .rows(&["account", "statement", "acme"])
        .iter()
        .map(|entry| entry["at"].as_str().unwrap().to_owned())
        .collect();
    assert!(!at.is_sorted(), "the clock was set back, or this shows nothing: {at:?}");
    gateway.crash();
}
