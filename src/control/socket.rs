//! Sends commands to a running gateway over a Unix socket, the control socket.
//!
//! Each connection carries one command: one line of JSON, answered by one line, or by several lines for a long result.
//! The socket has mode 0600. Its folder has mode 0700 and belongs to the gateway's user, so that no other user can have
//! created the socket.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader as AsyncBufReader};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc};

use super::command::Command;
use super::operations::{Caller, OperationError};
use super::{Control, MAX_ROWS};
use crate::types::{KeyHash, Repeats};

/// Longest command, in bytes of JSON.
const MAX_REQUEST: u64 = 64 * 1024;
/// Longest time for a client to send its command.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Most files that are examined at start, to remove sockets of gateways that were killed.
const MAX_SWEPT: usize = 1000;
/// Age in seconds from which a socket without a listener is removed.
const SWEPT_AFTER: i64 = 60;
/// Most commands that are executed at the same time.
const MAX_COMMANDS: usize = 16;

/// One line of the reply to a command.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// One row of a long result.
    Row(Value),
    /// The final result.
    Done(Value),
    /// The command was refused.
    Failed {
        /// The reason, for the operator.
        message: String,
        /// The problems of a refused configuration; otherwise empty or null.
        problems: Value,
    },
}

/// Folders that may contain the socket, in the order in which a gateway tries them. A command tries all of them,
/// because its environment may differ from the gateway's.
fn folders() -> Vec<PathBuf> {
    let user = rustix::process::getuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let mut folders: Vec<PathBuf> = runtime.into_iter().map(|path| path.join("tollgate")).collect();
    folders.push(PathBuf::from(format!("/run/user/{user}/tollgate")));
    folders.push(PathBuf::from(format!("/tmp/tollgate-{user}")));
    folders.dedup();
    folders
}

/// The file name of the socket: a hash of the canonical path of the configuration's folder and the configuration's file
/// name. The file itself is not resolved, so the name stays the same if the file is a symbolic link that is replaced,
/// or is absent for a moment.
fn name(config: &Path) -> String {
    let folder = config.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let path = folder.join(config.file_name().unwrap_or_default());
    let hash = KeyHash::of(path.as_os_str().as_encoded_bytes()).to_hex();
    format!("{}.sock", &hash[..24])
}

/// True if a file or folder belongs to this user and no other user can change it.
fn is_ours(data: &std::fs::Metadata) -> bool {
    data.uid() == rustix::process::getuid().as_raw() && data.mode() & 0o077 == 0
}

/// True if the process at the other end runs as this user or as root.
fn is_peer_ours(socket: impl AsFd) -> bool {
    let peer = rustix::net::sockopt::socket_peercred(socket);
    peer.is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::getuid())
}

/// Creates the folder with mode 0700, or checks that an existing one belongs to this user and is closed to others.
fn private_folder(folder: &Path) -> Result<(), String> {
    let describe = |error: std::io::Error| format!("{}: {error}", folder.display());
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(describe(error)),
    }
    let data = std::fs::symlink_metadata(folder).map_err(describe)?;
    if data.is_dir() && is_ours(&data) {
        Ok(())
    } else {
        Err(format!("{} is not a folder that only this user may write", folder.display()))
    }
}

/// Removes sockets that killed gateways left behind: those without a listener. Recent sockets are kept, since a gateway
/// that is starting does not listen yet.
fn sweep(folder: &Path, own: &Path) {
    let made = |path: &Path| path.symlink_metadata().map(|data| data.mtime());
    let (Ok(entries), Ok(now)) = (std::fs::read_dir(folder), made(own)) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())).take(MAX_SWEPT) {
        let old = made(&path).is_ok_and(|made| made < now - SWEPT_AFTER);
        let is_socket = path.extension().is_some_and(|extension| extension == "sock");
        let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
        if old && is_socket && UnixStream::connect(&path).is_err_and(refused) {
            let _ = std::fs::remove_file(path); // another process may have removed it
        }
    }
}

/// The control socket of a gateway. Dropping it removes the socket's file.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Binds the socket for a configuration. The caller holds the ledger's lock, so an existing file at the socket's
    /// path belongs to a gateway that has ended.
    ///
    /// # Errors
    /// If the socket cannot be bound in any of the possible folders.
    pub fn bind(config: &Path) -> Result<Self, String> {
        let mut errors = Vec::new();
        for folder in folders() {
            match private_folder(&folder).and_then(|()| Self::bind_in(&folder, config)) {
                Ok(socket) => return Ok(socket),
                Err(error) => errors.push(error),
            }
        }
        Err(format!("no folder can hold the control socket: {}", errors.join("; ")))
    }

    fn bind_in(folder: &Path, config: &Path) -> Result<Self, String> {
        let path = folder.join(name(config));
        let describe = |error: std::io::Error| format!("{}: {error}", path.display());
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(describe(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(describe)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(describe)?;
        sweep(folder, &path);
        Ok(Self { listener, path: path.clone() })
    }

    /// Accepts and executes commands. Never returns. Connections of processes that want to take over are sent to
    /// `takeovers`.
    pub async fn serve(self, control: Arc<Control>, takeovers: mpsc::Sender<UnixStream>) {
        let (places, mut failures) = (Arc::new(Semaphore::new(MAX_COMMANDS)), Repeats::default());
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (control, takeovers) = (Arc::clone(&control), takeovers.clone());
                    tokio::spawn(async move {
                        let _ = answer(stream, &control, &takeovers).await; // fails if the client has disconnected
                        drop(place);
                    });
                }
                Err(error) => {
                    if let Some(more) = failures.should_log(control.clock.now()) {
                        tracing::warn!(%error, more, "cannot accept on the control socket; trying again");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // a file left behind is replaced at the next start
    }
}

async fn answer(
    mut stream: tokio::net::UnixStream,
    control: &Arc<Control>,
    takeovers: &mpsc::Sender<UnixStream>,
) -> std::io::Result<()> {
    if !is_peer_ours(&stream) {
        return Ok(()); // cannot happen, since the socket has mode 0600
    }
    let mut request = String::new();
    let mut reader = AsyncBufReader::new((&mut stream).take(MAX_REQUEST));
    tokio::time::timeout(REQUEST_TIME, reader.read_line(&mut request)).await??;
    let (rows, mut queue) = mpsc::channel(MAX_ROWS);
    let command: Result<Command, _> = serde_json::from_str(&request);
    if let Ok(Command::TakeOver) = command {
        let _ = takeovers.try_send(stream.into_std()?); // otherwise another process is taking over
        return Ok(());
    }
    let mut write = stream;
    let control = Arc::clone(control);
    let work = tokio::spawn(async move {
        match command {
            Ok(command) => control.execute(&Caller::command(), command, rows).await,
            Err(error) => {
                let message = format!("not a command of this version: {error}");
                Err(OperationError::Invalid { field: "command", message })
            }
        }
    });
    while let Some(row) = queue.recv().await {
        write.write_all(&encode(&Line::Row(row))).await?;
    }
    let line = match work.await {
        Ok(Ok(result)) => Line::Done(result),
        Ok(Err(failure)) => {
            let problems = failure.problems_json();
            Line::Failed { message: failure.to_string(), problems }
        }
        Err(error) => Line::Failed { message: format!("the command failed: {error}"), problems: Value::Null },
    };
    write.write_all(&encode(&line)).await?;
    write.shutdown().await
}

fn encode(line: &Line) -> Vec<u8> {
    let mut text = serde_json::to_vec(line).unwrap_or_default(); // plain values always serialise
    text.push(b'\n');
    text
}

/// Connects to the gateway that was started with a configuration file; `None` if no gateway listens.
///
/// # Errors
/// If the socket may have been created by another user, who could reply with a forged key.
pub fn connect(config: &Path) -> Result<Option<UnixStream>, String> {
    let name = name(config);
    folders().iter().find_map(|folder| connect_in(folder, &name).transpose()).transpose()
}

fn connect_in(folder: &Path, name: &str) -> Result<Option<UnixStream>, String> {
    let path = folder.join(name);
    let Ok(socket) = path.symlink_metadata() else { return Ok(None) };
    let foreign = |what: &Path| {
        Err(format!(
            "{} was created by another user, or other users may write to it, so it may not be the gateway's; remove it",
            what.display()
        ))
    };
    if !folder.symlink_metadata().is_ok_and(|data| data.is_dir() && is_ours(&data)) {
        return foreign(folder);
    }
    if !(socket.file_type().is_socket() && is_ours(&socket)) {
        return foreign(&path);
    }
    match UnixStream::connect(&path) {
        Ok(stream) if is_peer_ours(&stream) => Ok(Some(stream)),
        Ok(_) => foreign(&path),
        Err(_) => Ok(None), // no process listens: the gateway has ended
    }
}

/// Sends a command, and passes each row of its result to `row`.
///
/// # Errors
/// The message and the problems of the gateway's refusal, or a message if the connection fails or the reply is
/// incomplete.
pub fn ask(
    stream: UnixStream,
    command: &Command,
    mut row: impl FnMut(Value),
) -> Result<Value, (String, Value)> {
    let broken =
        |error: &dyn std::fmt::Display| (format!("the gateway's reply is incomplete: {error}"), Value::Null);
    let mut request = serde_json::to_vec(command).map_err(|error| broken(&error))?;
    request.push(b'\n');
    (&stream).write_all(&request).map_err(|error| broken(&error))?;
    for line in BufReader::new(&stream).lines() {
        let line = line.map_err(|error| broken(&error))?;
        match serde_json::from_str(&line).map_err(|error| broken(&error))? {
            Line::Row(value) => row(value),
            Line::Done(value) => return Ok(value),
            Line::Failed { message, problems } => return Err((message, problems)),
        }
    }
    Err(broken(&"the connection was closed early"))
}
