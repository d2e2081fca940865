//! Checks the architecture rules that a program can check: which module may import which, where some code may be, how
//! large files and folders may be, and that `config.toml` is valid as it is.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected ends")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[path = "architecture/imports.rs"]
mod imports;
use imports::Imports;

/// Longest file, in lines. Functions are bounded by clippy (`clippy.toml`: 70 lines).
const MAX_LINES: usize = 400;

/// The modules that each module may import. A module that is not listed here is an error.
const MAY_KNOW: [(&str, &[&str]); 16] = [
    ("types", &[]),
    ("threads", &[]),
    ("clock", &["types"]),
    ("policy", &["types"]),
    ("tls", &["types"]),
    ("servers", &["policy", "tls", "types"]),
    ("snapshot", &["servers", "policy", "tls", "types"]),
    ("config", &["snapshot", "servers", "policy", "tls", "types"]),
    ("ledger", &["policy", "clock", "types"]),
    ("telemetry", &["policy", "types"]),
    ("directory", &["ledger", "policy", "types"]),
    ("upstream", &["snapshot", "servers", "policy", "tls", "threads", "clock", "types"]),
    ("limit_store", &["snapshot", "directory", "policy", "threads", "clock", "types"]),
    (
        "gateway",
        &[
            "snapshot",
            "directory",
            "ledger",
            "limit_store",
            "upstream",
            "policy",
            "clock",
            "types",
            "telemetry",
        ],
    ),
    (
        "control",
        &[
            "snapshot",
            "servers",
            "directory",
            "ledger",
            "limit_store",
            "config",
            "policy",
            "tls",
            "clock",
            "types",
            "telemetry",
        ],
    ),
    ("cli", &["app", "config", "control", "policy", "clock", "types", "telemetry"]),
];

/// Maximum number of files in a folder.
const MAX_FILES: usize = 16;

/// The submodules of the gateway, and the other submodules that each may import. `worker.rs` runs all of them.
const ROOMS: [(&str, &[&str]); 3] =
    [("connection", &[]), ("listener", &["connection"]), ("request", &["connection"])];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under a folder of the project, with its text.
fn sources(folder: &str) -> Vec<(String, String)> {
    fn walk(path: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(&path, found),
                false if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
                false => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found.sort();
    let named = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        (name, std::fs::read_to_string(path).unwrap())
    };
    found.into_iter().map(named).collect()
}

/// The top-level module that a file belongs to.
fn module(file: &str) -> &str {
    let name = file.strip_prefix("src/").unwrap();
    name.split(['/', '.']).next().unwrap()
}

/// The code of a file: without comments, and without the tests at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// Modules that a piece of code names by `crate::…`, also in a list of braces.
fn named(code: &str) -> BTreeSet<String> {
    let word =
        |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let mut names = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => drop(names.insert(word(rest))),
            Some(list) => {
                names.extend(list.split('}').next().unwrap().split(',').map(|name| word(name.trim())));
            }
        }
    }
    names
}

#[test]
fn each_module_knows_only_whom_it_may() {
    for (file, text) in sources("src") {
        let own = module(&file);
        if matches!(own, "main" | "lib" | "app") {
            continue; // the program, the list of modules, and the module that wires all parts
        }
        let (_, allowed) =
            MAY_KNOW.iter().find(|(name, _)| *name == own).unwrap_or_else(|| panic!("{file} has no rule"));
        for name in named(&code(&text)) {
            assert!(
                name == own || allowed.contains(&&*name),
                "{file} names {name}, which {own} may not know"
            );
        }
    }
}

#[test]
fn no_more_than_two_files_import_one_another_in_a_circle() {
    let sources = sources("src");
    let imports = Imports::parse(&sources);
    let edges = imports.edges();
    let circles: Vec<_> = imports::circles(&edges).into_iter().filter(|circle| circle.len() > 2).collect();
    let arrows = |circle: &BTreeSet<&str>| -> Vec<String> {
        let from =
            |file: &&str| format!("{file} -> {:?}", edges[file].intersection(circle).collect::<Vec<_>>());
        circle.iter().map(from).collect()
    };
    let told: Vec<Vec<String>> = circles.iter().map(arrows).collect();
    assert!(circles.is_empty(), "circles of imports: {told:#?}");
}

#[test]
fn each_room_of_the_gateway_knows_only_those_below_it() {
    let sources = sources("src");
    let room = |file: &str| {
        let path = file.strip_prefix("src/gateway/")?;
        ROOMS.into_iter().find(|(name, _)| path.starts_with(&format!("{name}/")))
    };
    for (file, imported) in Imports::parse(&sources).edges() {
        let Some((own, allowed)) = room(file) else { continue };
        for other in imported {
            let named = room(other).map_or("none", |(name, _)| name);
            let is_face = ["src/gateway/mod.rs", "src/gateway/worker.rs"].contains(&other);
            assert!(!is_face, "{file} imports {other}");
            let may = named == "none" || named == own || allowed.contains(&named);
            assert!(may, "{file} imports {other}, which {own} may not know");
        }
    }
}

#[test]
fn folders_are_small_enough_to_be_seen_at_once() {
    for folder in ["src", "benches"] {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for (file, _) in sources(folder) {
            let (folder, _) = file.rsplit_once('/').unwrap();
            *counts.entry(folder.to_owned()).or_default() += 1;
        }
        for (folder, count) in counts {
            assert!(count <= MAX_FILES, "{folder} has {count} files; at most {MAX_FILES}");
        }
    }
}

#[test]
fn the_planes_meet_through_types_that_do_only_what_each_may() {
    for (file, text) in sources("src") {
        let code = code(&text);
        let forbidden: &[&str] = match module(&file) {
            "gateway" => &["Bookkeeper", "Publisher", "dyn Store", "ledger::store"],
            "control" => &["Spender", "ledger::Hold", "Hold,", "SpenderSeed"],
            "policy" => &[
                "async ",
                "tokio",
                "std::fs",
                "tracing",
                "Mutex",
                "RwLock",
                "::now(",
                "SystemTime",
                "Atomic",
            ],
            "types" => &["async ", "tokio", "std::fs", "tracing", "Mutex", "::now("],
            _ => &[],
        };
        for word in forbidden {
            assert!(!code.contains(word), "{file} uses {word:?}");
        }
    }
}

#[test]
fn some_things_stand_in_one_place_only() {
    let only = |what: &str, marks: &[&str], place: fn(&str) -> bool| {
        for (file, text) in sources("src") {
            let code = code(&text);
            let found = marks.iter().find(|mark| code.contains(**mark));
            assert!(place(&file) || found.is_none(), "{file}: {what} ({found:?})");
        }
    };
    only("SQL", &["SELECT ", "INSERT INTO", "UPDATE ", "PRAGMA"], |file| {
        file.starts_with("src/ledger/sql") || file.starts_with("src/ledger/postgres")
    });
    only("the body of an error", &[".build_response("], |file| {
        file == "src/gateway/request/response/respond.rs" || file == "src/policy/reject.rs"
    });
    only("a mirror of the TOML", &["toml::Spanned;", "JsonSchema"], |file| {
        file.starts_with("src/config/raw") || file == "src/config/shape.rs"
    });
    only("a clock", &["Instant::now", "SystemTime::now"], |file| file == "src/clock.rs");
    only("unsafe code", &["unsafe "], |_| false);
}

#[test]
fn files_are_small_enough_to_be_read() {
    for folder in ["src", "tests", "benches"] {
        for (file, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(lines <= MAX_LINES, "{file} has {lines} lines; at most {MAX_LINES}");
        }
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for folder in ["src", "tests", "benches"] {
        for (file, text) in sources(folder) {
            assert!(text.starts_with("//! "), "{file} begins without a word about itself");
        }
    }
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        "unimplemented!",
        concat!("#[ign", "ore"),
    ];
    for folder in ["src", "tests", "benches"] {
        for (file, text) in sources(folder) {
            for mark in marks.iter().filter(|_| file != "tests/architecture.rs") {
                assert!(!text.contains(mark), "{file} has a {mark}");
            }
        }
    }
}

#[test]
fn the_configuration_at_the_root_runs_as_it_stands() {
    let loaded =
        tollgate::config::load(&root().join("config.toml")).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.report.problems().count(), 0, "{}", loaded.report);
}

#[test]
fn the_configuration_at_the_root_shows_every_setting() {
    let text = std::fs::read_to_string(root().join("config.toml")).unwrap();
    let schema = tollgate::config::raw::schema();
    let mut missing = Vec::new();
    let definitions = schema["$defs"].as_object().unwrap().values();
    for definition in definitions.chain([schema]) {
        for (name, setting) in definition["properties"].as_object().into_iter().flatten() {
            let later = setting.to_string().contains("NotSupportedYet");
            if !later && !text.contains(name.as_str()) {
                missing.push(name.clone());
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new(), "settings that config.toml does not show");
}
