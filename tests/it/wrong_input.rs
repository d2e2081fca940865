//! Tests wrong input: there is a clear error and the right exit code, and nothing is lost.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::{Gateway, Upstream, cli, config, get, sha256};

fn write(folder: &Path, text: &str) {
    std::fs::write(folder.join("config.toml"), text.replace("{upstream}", "127.0.0.1:9000")).unwrap();
}

/// Checks that `serve` exits with 1 and reports this text.
fn refuses(folder: &Path, expected: &str) -> String {
    let output = cli(folder, &["serve"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(expected), "{expected:?} in {told:?}");
    told
}

#[test]
fn a_wrong_configuration_is_refused_before_anything_listens() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    refuses(folder, "there is no file ./config.toml; name one with -c FILE");
    write(folder, "not toml at all");
    refuses(folder, "this is not TOML");
    std::fs::write(folder.join("config.toml"), [0xff, 0xfe]).unwrap();
    refuses(folder, "is not UTF-8");
    let hash = sha256("good-key");
    let key = |text: &str| format!("[[accounts.acme.keys]]\nlabel = \"b\"\nsha256 = \"{text}\"\n");
    let raw = "ak_live_0123456789abcdefghijABCDEFGHIJ01234567";
    let table = [
        ("colour = \"red\"\n".to_owned() + &config(""), "unknown setting `colour`"),
        (config(&key(raw)), "this is not a SHA-256"),
        (config(&key("hunter2")), "this is not a SHA-256"),
        (config(&key(&hash)), "this hash stands at key acme/good already"),
        (config("[accounts.b]\nplan = \"gold\"\n"), "there is no plan `gold`"),
        (config("[plans.p]\nprices = { onne = { credits = 1 } }\n"), "there is no route `onne`"),
        (
            config(
                "[[routes]]\nname = \"tie\"\npath = \"/{x}/{y}\"\nupstream = \"api\"\n[[routes]]\nname = \"tie2\"\npath = \"/{a}/{b}\"\nupstream = \"api\"\n",
            ),
            "ties with `tie`",
        ),
        (
            config(
                "[[routes]]\nname = \"dear\"\npath = \"/dear\"\nupstream = \"api\"\nhold = 1\ncharge = [{ status = \"2xx\", credits = 2 }]\n",
            ),
            "a charge of 2 is above its hold of 1",
        ),
        (
            config("[plans.p]\nprices = { header = { hold = 0.5 } }\n"),
            "a charge of 1 is above its hold of 0.5",
        ),
        (
            config("[[routes]]\nname = \"one\"\npath = \"/again\"\nupstream = \"api\"\n"),
            "route `one` is defined twice",
        ),
        ("[server]\nthreads = 1\n".to_owned(), "there is no route"),
        (config("[upstreams.x]\nservers = [\"ftp://a\"]\n"), "a server looks like"),
        (
            config(
                "[upstreams.x]\nservers = [\"http://a\"]\nset_headers = { authorization = \"env:TOLLGATE_NOT_SET\" }\n",
            ),
            "the environment has no variable TOLLGATE_NOT_SET",
        ),
        ("include = [\"missing.toml\"]\n".to_owned() + &config(""), "there is no file missing.toml"),
    ];
    for (text, expected) in table {
        write(folder, &text);
        let told = refuses(folder, expected);
        assert!(!told.contains(raw) && !told.contains("hunter2") && !told.contains(&hash), "{told}");
        assert!(!folder.join("ledger.db").exists(), "nothing was made");
    }
}

#[test]
fn a_wrong_ledger_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, &config("").replace("sqlite:ledger.db", "sqlite:missing/ledger.db"));
    refuses(folder, "does not exist; make it first");
    write(folder, &config(""));
    std::fs::write(
        folder.join("ledger.db"),
        "this is a text file, and long enough to be looked at as a database header would be",
    )
    .unwrap();
    refuses(folder, "this is not a Tollgate ledger");
    std::fs::remove_file(folder.join("ledger.db")).unwrap();
    let other = rusqlite::Connection::open(folder.join("ledger.db")).unwrap();
    other.execute_batch("CREATE TABLE notes (text TEXT); INSERT INTO notes VALUES ('mine');").unwrap();
    drop(other);
    refuses(folder, "this is another program's SQLite file");
    let other = rusqlite::Connection::open(folder.join("ledger.db")).unwrap();
    let notes: String = other.query_row("SELECT text FROM notes", [], |row| row.get(0)).unwrap();
    assert_eq!(notes, "mine", "the other program's file is untouched");
    assert!(!folder.join("ledger.db.lock").exists(), "and nothing is left beside it");
}

#[test]
fn a_newer_ledger_is_left_alone() {
    let upstream = Upstream::start();
    let (_, folder) = Gateway::start(&config(""), &upstream).stop();
    let ledger = rusqlite::Connection::open(folder.path().join("ledger.db")).unwrap();
    ledger.execute_batch("PRAGMA user_version = 99").unwrap();
    drop(ledger);
    refuses(folder.path(), "a newer Tollgate wrote this ledger");
}

#[test]
fn a_ledger_has_one_writer_and_an_address_one_listener() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(""), &upstream);
    let second = tempfile::tempdir().unwrap();
    let ledger = gateway.folder.path().join("ledger.db");
    let text = gateway.config();
    std::fs::write(second.path().join("config.toml"), text.replace("ledger.db", ledger.to_str().unwrap()))
        .unwrap();
    let told = refuses(second.path(), "serves it already; a ledger has one writer");
    assert!(told.contains(&gateway.id().to_string()), "it says who: {told}");
    let link = second.path().join("link.db");
    std::os::unix::fs::symlink(&ledger, &link).unwrap();
    std::fs::write(second.path().join("config.toml"), text.replace("ledger.db", link.to_str().unwrap()))
        .unwrap();
    refuses(second.path(), "serves it already; a ledger has one writer");
    let address = format!("listen = [\"{}\"]", gateway.public);
    std::fs::write(second.path().join("config.toml"), text.replace("listen = [\"127.0.0.1:0\"]", &address))
        .unwrap();
    refuses(second.path(), "another process does already");
    let admin = format!("[admin]\nlisten = \"{}\"", gateway.admin);
    std::fs::write(
        second.path().join("config.toml"),
        text.replace("[admin]\nlisten = \"127.0.0.1:0\"", &admin),
    )
    .unwrap();
    refuses(second.path(), "another process does already");
    assert_eq!(
        get(gateway.public, "/one", "x-api-key: good-key\r\n").status,
        200,
        "the first one is untouched"
    );
}

#[test]
fn a_file_without_permission_is_said_to_be_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    write(folder.path(), &config(""));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read(&file).is_err() {
        refuses(folder.path(), "no permission to read");
        return;
    }
    // root can read every file, so the program runs as another user, from a copy that this user may execute.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("tollgate");
    std::fs::copy(env!("CARGO_BIN_EXE_tollgate"), &program).unwrap();
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let output =
        Command::new("setpriv").args(nobody).arg(&program).args(["serve", "-c"]).arg(&file).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("no permission to read"), "{told}");
}

/// Another user may place a socket where a command looks for its gateway. No command is sent to that socket, and it
/// cannot respond to one.
#[test]
fn commands_speak_to_no_socket_but_this_users_own() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let chown = |path: &Path| std::os::unix::fs::chown(path, Some(65534), Some(65534)).is_ok();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), config("").replace("{upstream}", "127.0.0.1:9"))
        .unwrap();
    let runtime = folder.path().join("tollgate");
    let path = folder.path().canonicalize().unwrap().join("config.toml");
    let socket = runtime.join(format!("{}.sock", &sha256(path.to_str().unwrap())[..24]));
    let ways: [(&str, &dyn Fn() -> bool); 5] = [
        ("a folder that others may enter", &|| {
            mode(&runtime, 0o711);
            true
        }),
        ("a folder that others may write", &|| {
            mode(&runtime, 0o777);
            true
        }),
        ("a socket that others may use", &|| {
            mode(&socket, 0o666);
            true
        }),
        ("another user's folder", &|| chown(&runtime)),
        ("another user's socket", &|| chown(&socket)),
    ];
    for (what, spoil) in ways {
        let _ = std::fs::remove_dir_all(&runtime);
        std::fs::create_dir(&runtime).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        mode(&runtime, 0o700);
        mode(&socket, 0o600);
        if !spoil() {
            crate::support::skipped("another user's files can be made by root only");
            continue;
        }
        let output = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["account", "grant", "acme", "5", "--reference", "r"])
            .current_dir(folder.path())
            .env("XDG_RUNTIME_DIR", folder.path())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{what}: {told}");
        assert!(told.contains("by another user"), "{what}: {told}");
        assert!(listener.accept().is_err(), "{what} was spoken to");
    }
    let _ = std::fs::remove_dir_all(&runtime);
    // The ledger and its lock are not trusted either if other users can write to them.
    for name in ["ledger.db", "ledger.db.lock"] {
        let path = folder.path().join(name);
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, "").unwrap();
        mode(&path, 0o666);
        let output = cli(folder.path(), &["account", "list"]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {told}");
        assert!(told.contains("only this user may write"), "{name}: {told}");
        std::fs::remove_file(&path).unwrap();
    }
}

/// Only regular files are read: neither a check nor a reload waits for a FIFO or an endless device.
#[test]
fn no_fifo_and_no_endless_device_holds_up_a_check_or_a_reload() {
    let upstream = Upstream::start();
    let text = format!("include = [\"more/*.toml\"]\n{}", config(""));
    let gateway = Gateway::start(&text, &upstream);
    let more = gateway.folder.path().join("more");
    std::fs::create_dir(&more).unwrap();
    let fifo = more.join("a.toml");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let refused = |what: &str| {
        for command in [["check"], ["reload"]] {
            let output = gateway.cli(&command);
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{what}: {told}");
            assert!(told.contains("not a regular file"), "{what}: {told}");
        }
    };
    refused("a FIFO");
    std::fs::remove_file(&fifo).unwrap();
    for setting in ["sha256", "authorization"] {
        let secret = match setting {
            "sha256" => "[[accounts.acme.keys]]\nlabel = \"x\"\nsha256 = \"file:/dev/zero\"\n",
            _ => {
                "[upstreams.more]\nservers = [\"http://127.0.0.1:9\"]\nset_headers = { authorization = \"file:/dev/zero\" }\n"
            }
        };
        gateway.write_config(&format!("{}{secret}", gateway.config()));
        refused("an endless device");
        gateway.write_config(&gateway.config().replace(secret, ""));
    }
    assert!(gateway.cli(&["reload"]).status.success());
    assert_eq!(get(gateway.public, "/free/a", "x-api-key: good-key\r\n").status, 200);
}

/// A small file system, if this user may mount one.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_charging_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let Some(_disk) = SmallDisk::mount(&disk, "2m") else {
        crate::support::skipped("no permission to mount a small file system");
        return;
    };
    let upstream = Upstream::start();
    let text = config("").replace("{upstream}", &upstream.address.to_string());
    std::fs::write(
        folder.path().join("config.toml"),
        text.replace("sqlite:ledger.db", "sqlite:disk/ledger.db"),
    )
    .unwrap();
    let gateway = Gateway::start_in(std::sync::Arc::new(folder));
    let one = || get(gateway.public, "/one", "x-api-key: good-key\r\n");
    assert_eq!(one().charged(), Some("1"));
    let filler = disk.join("filler");
    let filled = std::fs::write(&filler, vec![0; 4 << 20]);
    assert!(filled.is_err(), "the disk is full");
    let mut charged = 1_u64;
    let refused = (0..200).map(|_| one()).find(|response| {
        charged += u64::from(response.status == 200);
        response.status != 200
    });
    let refused = refused.expect("charging stops");
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("ledger_unavailable")));
    assert_eq!(get(gateway.public, "/free/a", "x-api-key: good-key\r\n").status, 200, "free routes go on");
    assert_eq!(get(gateway.admin, "/readyz", "").status, 503);
    std::fs::remove_file(&filler).unwrap();
    let recovered = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        one().status == 200
    });
    assert!(recovered, "charging resumes by itself");
    charged += 1;
    assert_eq!(gateway.available("acme"), (1000 - charged).to_string(), "what was refused cost nothing");
    assert_eq!(gateway.json(&["ledger", "verify"])["differences"], serde_json::json!([]));
}

#[test]
fn a_read_only_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let Some(mounted) = SmallDisk::mount(&disk, "1m") else {
        crate::support::skipped("no permission to mount a small file system");
        return;
    };
    let status = Command::new("mount").args(["-o", "remount,ro"]).arg(&mounted.0).status().unwrap();
    assert!(status.success());
    write(folder.path(), &config("").replace("sqlite:ledger.db", "sqlite:disk/ledger.db"));
    refuses(folder.path(), "read-only file system");
}

#[test]
fn wrong_usage_is_exit_code_two() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["serv"][..],
        &["key", "show", "nonsense"],
        &["account", "grant", "acme", "1.2345678", "--reference", "r"],
        &[],
    ] {
        assert_eq!(cli(folder.path(), arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(cli(folder.path(), &["--version"]).status.code(), Some(0));
    for command in [
        "demo",
        "serve",
        "check",
        "schema",
        "key",
        "account",
        "ledger",
        "explain",
        "reload",
        "status",
        "completions",
    ] {
        assert_eq!(cli(folder.path(), &[command, "--help"]).status.code(), Some(0), "{command}");
    }
}
