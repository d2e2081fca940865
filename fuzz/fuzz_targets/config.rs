//! Fuzzes the configuration file: any text is either accepted, or refused with a report of its errors.
#![no_main]

use std::cell::LazyCell;

use libfuzzer_sys::fuzz_target;

thread_local! {
    static FOLDER: LazyCell<tempfile::TempDir> = LazyCell::new(|| tempfile::tempdir().unwrap());
}

fuzz_target!(|text: &str| {
    // Skips texts that name other files, because this target tests only the text itself.
    if ["include", "file:", "certificate", "client_ca"].iter().any(|word| text.contains(word)) {
        return;
    }
    FOLDER.with(|folder| {
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        match tollgate::config::load(&path) {
            Ok(loaded) => assert_eq!(loaded.report.errors(), 0),
            Err(report) => {
                assert!(report.errors() > 0);
                assert!(!report.to_string().is_empty());
                assert_eq!(report.to_json().is_empty(), false);
            }
        }
    });
});
