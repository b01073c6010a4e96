//! Paths inside a disk: relative, without `..`, UTF-8, and not one of the disk's own names.

use std::io;
use std::path::{Component, Path, PathBuf};

use crate::root::LOCK_NAME;

/// Where `VolatileDisk` keeps files that have no durable name. Left over by a killed process, it is
/// removed by whoever opens the root next.
pub(crate) const STAGING: &str = ".volatile";

/// Checks a path and gives its names. Empty means the root.
pub(crate) fn names(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => names.push(
                name.to_str()
                    .ok_or_else(|| refused(path, "is not valid UTF-8"))?,
            ),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(refused(path, "leaves the disk's root"));
            }
        }
    }
    if names.first().is_some_and(|n| reserved(n)) {
        return Err(refused(path, "is a name the disk keeps for itself"));
    }
    Ok(names)
}

/// Checks a path that must name something below the root.
pub(crate) fn below_root(path: &Path) -> io::Result<Vec<&str>> {
    let names = names(path)?;
    if names.is_empty() {
        return Err(refused(path, "is the disk's root"));
    }
    Ok(names)
}

/// The checked path again, `.` for the root.
pub(crate) fn joined(names: &[&str]) -> PathBuf {
    if names.is_empty() {
        PathBuf::from(".")
    } else {
        names.iter().collect()
    }
}

/// Whether this name in the root belongs to the disk itself.
pub(crate) fn reserved(name: &str) -> bool {
    name == LOCK_NAME || name == STAGING
}

fn refused(path: &Path, why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("path {path:?} {why}; paths on a disk are relative to its root"),
    )
}
