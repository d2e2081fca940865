//! Writes the demo's configuration, from a template beside this file, and creates the temporary folder for it.
//!
//! The configuration is a file instead of values in memory, so that the demo passes the same checks as `serve`,
//! `tollgate … -c` finds its control socket, and the user can edit it.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const TEMPLATE: &str = include_str!("demo.toml");

/// An account of the demo: its id and its opening credits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) id: &'static str,
    pub(super) credits: &'static str,
}

/// The account for trying requests.
pub(super) const DEMO: Account = Account { id: "demo", credits: "8500" };
/// The account whose keys are limited to three requests per minute.
pub(super) const TRIAL: Account = Account { id: "trial", credits: "100" };
/// The account whose credits suffice for one person lookup, not for two.
pub(super) const NEARLY_EMPTY: Account = Account { id: "nearly-empty", credits: "5" };

/// The text of the configuration.
pub(super) fn text(listen: SocketAddr, admin: SocketAddr, upstream: SocketAddr) -> String {
    TEMPLATE
        .replace("{listen}", &listen.to_string())
        .replace("{admin}", &admin.to_string())
        .replace("{upstream}", &upstream.to_string())
        .replace("{demo_credits}", DEMO.credits)
        .replace("{trial_credits}", TRIAL.credits)
        .replace("{nearly_empty_credits}", NEARLY_EMPTY.credits)
}

/// A private folder that is removed with its contents when this value is dropped.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Creates a folder with a random name and mode 0700.
    pub(super) fn make() -> io::Result<Self> {
        let random = getrandom::u64().map_err(io::Error::other)?;
        let path = std::env::temp_dir().join(format!("tollgate-demo-{random:016x}"));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("warning: {} could not be removed: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_template_is_a_sound_configuration() {
        let folder = Folder::make().unwrap();
        let (path, local) = (folder.path().join("config.toml"), "127.0.0.1:9".parse().unwrap());
        std::fs::write(&path, text(local, "[::1]:0".parse().unwrap(), local)).unwrap();
        let loaded = crate::config::load(&path).unwrap_or_else(|report| panic!("{report}"));
        let opening = |account: Account| {
            loaded
                .accounts
                .iter()
                .any(|known| known.id.as_str() == account.id && known.credits == account.credits.parse().ok())
        };
        assert!(opening(DEMO) && opening(TRIAL) && opening(NEARLY_EMPTY));
        assert_eq!(loaded.accounts.len(), 3);
    }

    #[test]
    fn the_folder_is_private_and_goes_with_its_owner() {
        let folder = Folder::make().unwrap();
        let path = folder.path().to_owned();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(folder);
        assert!(!path.exists());
    }
}
