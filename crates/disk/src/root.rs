//! The root directory of a disk: making it, opening it, and holding it alone.
//!
//! Invariants
//! - The lock lives as long as the disk or any file opened through it, so that no second process
//!   starts while a background thread of the first still writes.
//! - The lock is the kernel's (`flock`): it goes away with the process, whatever the file says. The
//!   pid inside the file is only for the error message.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::DiskError;

/// The lock file's name in the root.
pub(crate) const LOCK_NAME: &str = "LOCK";
/// Mode of the root directory when this process makes it.
const ROOT_MODE: u32 = 0o700;
/// A pid has at most this many digits; more in a lock file is not a pid.
const PID_DIGITS_MAX: u64 = 20;

/// The exclusive lock on a root, held until dropped or released.
#[derive(Debug)]
pub(crate) struct RootLock {
    file: File,
}

impl RootLock {
    /// Gives the root up while this value still exists.
    pub(crate) fn release(&self) -> io::Result<()> {
        rustix::fs::flock(&self.file, FlockOperation::Unlock).map_err(io::Error::from)
    }
}

/// Makes the root when it is missing, opens it and locks it.
pub(crate) fn open(root: &Path) -> Result<(PathBuf, OwnedFd, RootLock), DiskError> {
    make(root, ROOT_MODE)?;
    let root = root
        .canonicalize()
        .map_err(|e| DiskError::new("open", root.to_owned(), e))?;
    let dir = open_dir(&root)?;
    let lock = lock(&root, &dir)?;
    Ok((root, dir, lock))
}

/// Opens a root that exists and shares its lock with other readers. Changes nothing on disk.
pub(crate) fn open_to_read(root: &Path) -> Result<(PathBuf, OwnedFd, RootLock), DiskError> {
    let root = root
        .canonicalize()
        .map_err(|e| DiskError::new("open", root.to_owned(), e))?;
    let dir = open_dir(&root)?;
    let path = root.join(LOCK_NAME);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = match rustix::fs::openat(dir.as_fd(), LOCK_NAME, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Err(DiskError::NotARoot { root }),
        opened => opened.map_err(|e| DiskError::new("open", path.clone(), e.into()))?,
    };
    let mut file = File::from(fd);
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok((root, dir, RootLock { file })),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(DiskError::InUse {
            root,
            pid: holder(&mut file),
        }),
        Err(e) => Err(DiskError::new("lock", path, e.into())),
    }
}

fn open_dir(root: &Path) -> Result<OwnedFd, DiskError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(root, flags, Mode::empty()).map_err(|e| match e {
        rustix::io::Errno::NOTDIR => DiskError::NotADirectory {
            root: root.to_owned(),
        },
        e => DiskError::new("open", root.to_owned(), e.into()),
    })
}

/// Makes a directory and its parents, each made durable in its parent.
fn make(path: &Path, mode: u32) -> Result<(), DiskError> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => return Ok(()),
        Ok(_) => {
            return Err(DiskError::NotADirectory {
                root: path.to_owned(),
            });
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(DiskError::new("look at", path.to_owned(), e)),
    }
    let parent = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    make(parent, 0o755)?;
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(DiskError::new("make the directory", path.to_owned(), e)),
    }
    File::open(parent)
        .and_then(|d| d.sync_all())
        .map_err(|e| DiskError::new("flush", parent.to_owned(), e))
}

fn lock(root: &Path, dir: &OwnedFd) -> Result<RootLock, DiskError> {
    let path = root.join(LOCK_NAME);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::openat(dir.as_fd(), LOCK_NAME, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|e| DiskError::new("open", path.clone(), e.into()))?;
    let mut file = File::from(fd);
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(DiskError::InUse {
                root: root.to_owned(),
                pid: holder(&mut file),
            });
        }
        Err(e) => return Err(DiskError::new("lock", path, e.into())),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(|e| DiskError::new("write", path, e))?;
    Ok(RootLock { file })
}

/// The pid the holder wrote. It may be missing: the holder locks first and writes then.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_DIGITS_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
