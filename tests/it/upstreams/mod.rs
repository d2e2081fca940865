//! Tests of upstreams: TLS, several servers, faults, retries.

mod faults;
mod health;
mod load;
mod peers;
mod servers;
mod tls;

use std::path::Path;
use std::sync::Arc;

use crate::support::{Gateway, config};

/// A folder with files for a gateway.
fn folder(files: &[(&str, &str)]) -> Arc<tempfile::TempDir> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), files);
    Arc::new(folder)
}

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

/// The configuration of [`config`] with these servers, and with more settings of their upstream.
fn with_servers(servers: &[String], more: &str) -> String {
    let list: Vec<String> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    let text = config("").replace("[\"http://{upstream}\"]", &format!("[{}]", list.join(", ")));
    text.replacen("response_timeout = \"5s\"", &format!("response_timeout = \"5s\"\n{more}"), 1)
}

fn start(folder: &Arc<tempfile::TempDir>, text: &str) -> Gateway {
    write(folder.path(), &[("config.toml", text)]);
    Gateway::start_in(Arc::clone(folder))
}
