//! Traces the system calls of a process on its files with `strace`: every write with its bytes, and every sync.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

use super::disk::Event;

/// The system calls that change files or make changes durable.
const CALLS: &str = "openat,write,writev,pwrite64,pwritev,ftruncate,fallocate,fsync,fdatasync,sync_file_range,\
                     unlink,unlinkat,rename,renameat,renameat2,link,linkat";
/// The file into which a traced process writes its acknowledgements.
pub const ACKNOWLEDGED: &str = "acknowledged";

/// True if processes can be traced on this machine.
pub fn is_possible() -> bool {
    let quiet = |command: &mut Command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()
    };
    quiet(Command::new("strace").args(["-o", "/dev/null", "true"])).is_ok_and(|status| status.success())
}

/// Runs a command. Returns what it did to the files of a folder, in order.
pub fn run(command: &Command, folder: &Path) -> Vec<Event> {
    let log = folder.with_extension("trace");
    let mut traced = Command::new("strace");
    traced.args(["-f", "-y", "-xx", "-s", "10000000", "--seccomp-bpf", "-e"]).arg(format!("trace={CALLS}"));
    traced.arg("-o").arg(&log).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        traced.env(name, value.unwrap_or_default());
    }
    let output = traced.stdin(Stdio::null()).output().unwrap();
    let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (told(&output.stdout), told(&output.stderr));
    assert!(output.status.success(), "{traced:?} ended with {}: {out}{err}", output.status);
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_file(log).unwrap();
    let mut unfinished: HashMap<&str, &str> = HashMap::new();
    let mut events = Vec::new();
    for line in text.lines() {
        let Some((process, line)) = line.split_once(' ') else { continue };
        let line = line.trim_start();
        if let Some(begun) = line.strip_suffix(" <unfinished ...>") {
            unfinished.insert(process, begun);
        } else if let Some((_, rest)) =
            line.strip_prefix("<... ").and_then(|line| line.split_once(" resumed>"))
        {
            let begun = unfinished.remove(process).unwrap();
            events.extend(event(&format!("{begun}{rest}"), folder));
        } else {
            events.extend(event(line, folder));
        }
    }
    events
}

/// Parses one finished system call. Returns `None` if the call is not about the folder or changes nothing.
fn event(line: &str, folder: &Path) -> Option<Event> {
    let (call, rest) = line.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    let arguments = arguments.trim_end().strip_suffix(')')?;
    if result.starts_with('-') || result.starts_with('?') {
        return None; // it failed
    }
    // The path of the call if it has one, or else the path of its descriptor.
    let path = match call {
        "openat" | "unlinkat" => text(arguments.split_once('"')?.1.split_once('"')?.0),
        "unlink" => text(arguments.trim_matches('"')),
        _ => text(arguments.split_once('<')?.1.split_once('>')?.0),
    };
    let path = String::from_utf8(path).unwrap();
    if Path::new(&path) == folder {
        return matches!(call, "fsync" | "fdatasync").then_some(Event::SyncFolder);
    }
    let name = Path::new(&path).strip_prefix(folder).ok()?.to_str()?.to_owned();
    if name.ends_with("-shm") || name.ends_with(".lock") || name.ends_with("(deleted)") {
        return None; // the content of these files need not outlive the process
    }
    let numbers = || arguments.rsplit(", ").map(|number| number.parse::<usize>());
    match call {
        "openat" if arguments.contains("O_TRUNC") => panic!("a file is cut while it is opened: {path}"),
        "openat" => arguments.contains("O_CREAT").then_some(Event::Create(name)),
        "unlink" | "unlinkat" => Some(Event::Unlink(name)),
        "ftruncate" => Some(Event::Truncate(name, numbers().next()?.unwrap())),
        "fsync" | "fdatasync" => Some(Event::Sync(name)),
        "write" if name == ACKNOWLEDGED => {
            let bytes = text(arguments.split_once('"')?.1.split_once('"')?.0);
            Some(Event::Acknowledge(String::from_utf8(bytes).unwrap().trim().parse().unwrap()))
        }
        "pwrite64" => {
            let bytes = text(arguments.split_once('"')?.1.split_once('"')?.0);
            assert_eq!(result.parse(), Ok(bytes.len()), "a write was short");
            Some(Event::Write(name, numbers().next()?.unwrap(), bytes))
        }
        _ => panic!("{call} on {path} is not understood"),
    }
    .filter(|_| call == "write" || !path.ends_with(ACKNOWLEDGED))
}

/// Decodes `\x61\x62` into bytes.
fn text(escapes: &str) -> Vec<u8> {
    hex::decode(escapes.replace("\\x", "")).unwrap()
}
