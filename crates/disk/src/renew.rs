//! Making durable what an earlier process has left.
//!
//! When a flush fails, the system takes what it could not write for clean (Linux does, on every file system): whoever
//! opens the files afterwards reads it, flushes with success, and loses it with the power. So whatever a process finds
//! at its start and relies on is written once more before it is flushed, unless something else proves that it is durable.
//! Writing the same bytes to the same place harms nothing if the power goes meanwhile.
//!
//! It must not know what is relied on: that is each owner's part (docs/decisions/0010).

use std::io;
use std::path::{Path, PathBuf};

use crate::{Disk, DiskFile};

/// A file of this name in a directory is left over from [`names`].
pub const PROBE: &str = "probe";

/// Bytes read and written at once.
const STEP: usize = 1 << 20;

/// Writes what is between `start` and `end` (or the file's end, if that comes first) once more. Durable after
/// [`DiskFile::sync`].
///
/// # Errors
/// The disk's.
pub fn bytes(file: &dyn DiskFile, start: u64, end: u64) -> io::Result<()> {
    let mut at = start;
    let mut buf = vec![0; STEP.min(usize::try_from(end.saturating_sub(start)).unwrap_or(STEP))];
    while at < end {
        let wanted = buf
            .len()
            .min(usize::try_from(end - at).unwrap_or(usize::MAX));
        let read = file.read_at(at, &mut buf[..wanted])?;
        if read == 0 {
            break;
        }
        file.write_at(at, &buf[..read])?;
        at += read as u64;
    }
    Ok(())
}

/// Sets the length that the file has once more, and with it that nothing lies behind it. Durable after
/// [`DiskFile::sync`]. A crash in between leaves the file at most `step` zeros longer.
///
/// # Errors
/// The disk's.
pub fn length(file: &dyn DiskFile, step: u64) -> io::Result<()> {
    let len = file.len()?;
    file.set_len(len + step)?;
    file.set_len(len)
}

/// Makes the names in a directory durable, and that those which are gone are gone: changes one, and flushes. On file
/// systems with a journal what was changed before becomes durable with what is changed later, or neither.
///
/// # Errors
/// The disk's.
pub fn names(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    touch(disk, dir)?;
    disk.sync_dir(dir)
}

/// [`names`] without the flush, which must follow.
///
/// # Errors
/// The disk's.
pub fn touch(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let probe = dir.join(PROBE);
    drop(disk.open(&probe, true)?);
    disk.remove_file(&probe)
}

/// Makes a directory and its missing parents durable under their names, be they there or not.
///
/// # Errors
/// The disk's.
pub fn dir(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let mut parent = PathBuf::new();
    for name in path.components() {
        if disk.exists(&parent)? {
            touch(disk, &parent)?;
        }
        parent.push(name);
    }
    disk.create_dir_all(path)
}

/// Makes a file, whose parts are given, durable under its name, in place of one that may be there: a crash leaves the
/// old one or the new one, whole. `fresh` is the name that it has until then.
///
/// # Errors
/// The disk's.
pub fn replace(disk: &dyn Disk, path: &Path, fresh: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let file = disk.open(fresh, true)?;
    file.set_len(0)?;
    file.write_vectored_at(0, parts)?;
    file.sync()?;
    disk.rename(fresh, path)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new("")))
}
