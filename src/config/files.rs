//! Reads configuration files: regular files up to a maximum size, so that neither a FIFO nor an endless device blocks a
//! check or a reload.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Largest configuration file, in bytes: enough for over two million keys.
pub(super) const MAX_CONFIGURATION: u64 = 1024 * 1024 * 1024;
/// Largest file with a secret, a certificate chain or a private key, in bytes.
pub(super) const MAX_SECRET: u64 = 1024 * 1024;

/// Reads a regular file of at most `most` bytes; follows symbolic links.
///
/// # Errors
/// If it is not a regular file, is larger, or cannot be read.
pub(super) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    let too_large = || io::Error::other(format!("it has more than {most} bytes"));
    if length > most {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    file.take(most + 1).read_to_end(&mut bytes)?; // the file may have grown since its length was read
    if bytes.len() as u64 > most {
        return Err(too_large());
    }
    Ok(bytes)
}

/// The content of a file as UTF-8.
///
/// # Errors
/// If it is not UTF-8.
pub(super) fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
}

/// True if every user of this machine may change the file, so that its content cannot be trusted.
pub(super) fn is_open_to_all(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|data| data.mode() & 0o002 != 0)
}

/// Opens a regular file without blocking: opening a FIFO would wait for a writer.
fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let flags = i32::try_from(flags).map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_within_their_bound_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert!(read(&path, 4).unwrap_err().to_string().contains("more than 4 bytes"));
        for other in [Path::new("/dev/zero"), Path::new("/dev/null"), folder.path()] {
            assert!(read(other, 5).unwrap_err().to_string().contains("not a regular file"), "{other:?}");
        }
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(read(&fifo, 5).unwrap_err().to_string().contains("not a regular file"));
        assert!(!is_open_to_all(&path));
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        assert!(is_open_to_all(&path));
    }
}
