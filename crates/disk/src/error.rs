//! Errors of opening a disk, worded for the operator. (File operations answer `io::Error`, whose
//! `kind` is kept and whose text names the operation and the path.)

use std::io;
use std::path::PathBuf;

/// Why a disk's root could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// Another process (or another disk of this process) holds the root.
    #[error(
        "{root} is already in use by another process{}; stop that one first, or use another directory",
        pid.map(|p| format!(" (pid {p})")).unwrap_or_default(),
        root = root.display()
    )]
    InUse {
        /// The root that was asked for.
        root: PathBuf,
        /// The holder, when it could be read from the lock file.
        pid: Option<u32>,
    },
    /// The root is there but is not a directory.
    #[error("{} is not a directory; give the directory that is to keep the data", .root.display())]
    NotADirectory {
        /// The root that was asked for.
        root: PathBuf,
    },
    /// The root is not one: no disk was ever opened there.
    #[error("{} is not a data directory of Haven: it holds no {lock}; give the directory that a node uses as its data directory", .root.display(), lock = crate::root::LOCK_NAME)]
    NotARoot {
        /// The root that was asked for.
        root: PathBuf,
    },
    /// The root may not be written (its owner, its mode, or a read-only file system).
    #[error(
        "no permission to {what} {}: {source}; the directory must be writable by the user this process runs as",
        .path.display()
    )]
    Permission {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot {what} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DiskError {
    /// Sorts a system error into permission trouble and the rest.
    pub(crate) fn new(what: &'static str, path: PathBuf, source: io::Error) -> DiskError {
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                DiskError::Permission { what, path, source }
            }
            _ => DiskError::Io { what, path, source },
        }
    }
}
