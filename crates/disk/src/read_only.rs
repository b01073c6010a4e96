//! [`ReadOnlyDisk`]: a directory of the machine that is only looked at.
//!
//! Invariants
//! - Nothing on the file system changes: not the root, not its lock file, no file below.
//! - No node starts on the root while it is open, and it does not open while one runs: both hold the
//!   root's lock. Several readers may share it.
//!
//! It must not know what is stored.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::path::{below_root, joined};
use crate::real::RealFile;
use crate::{Disk, DiskError, DiskFile, RealDisk, Space};

/// A [`RealDisk`] that refuses every change. See the module's head comment.
#[derive(Debug)]
pub struct ReadOnlyDisk {
    real: RealDisk,
}

struct ReadOnlyFile(RealFile);

impl ReadOnlyDisk {
    /// Opens a root that a [`RealDisk`] made, without changing it.
    ///
    /// # Errors
    /// [`DiskError::InUse`] when a node runs on it; [`DiskError::NotARoot`] when none ever did.
    pub fn open(root: &Path) -> Result<ReadOnlyDisk, DiskError> {
        let real = RealDisk::open_to_read(root)?;
        Ok(ReadOnlyDisk { real })
    }
}

fn refused() -> io::Error {
    io::Error::new(
        io::ErrorKind::ReadOnlyFilesystem,
        "this disk was opened for reading only",
    )
}

impl Disk for ReadOnlyDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        if create {
            return Err(refused());
        }
        let file = self.real.open_to_read_file(&joined(&below_root(path)?))?;
        Ok(Arc::new(ReadOnlyFile(file)))
    }

    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn remove_file(&self, _path: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn remove_dir_all(&self, _path: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.real.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.real.exists(path)
    }

    /// Nothing was written through this disk, so nothing is to be flushed.
    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    /// See `sync_dir`.
    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        self.real.space()
    }

    fn taken(&self, path: &Path) -> io::Result<u64> {
        self.real.taken(path)
    }
}

impl DiskFile for ReadOnlyFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buf)
    }

    fn read_onto(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> io::Result<usize> {
        self.0.read_onto(offset, len, out)
    }

    fn write_at(&self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        Err(refused())
    }

    fn write_vectored_at(&self, _offset: u64, _parts: &[&[u8]]) -> io::Result<()> {
        Err(refused())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(refused())
    }

    fn allocate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Err(refused())
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.0.next_data(offset)
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        self.0.next_hole(offset)
    }

    fn punch(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Err(refused())
    }

    /// See [`ReadOnlyDisk`]'s `sync_dir`.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that cannot go on fails

    use super::*;

    #[test]
    fn what_a_disk_wrote_is_read_and_nothing_changes() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        let real = RealDisk::open(&root).unwrap();
        let file = Disk::open(&real, Path::new("file"), true).unwrap();
        file.write_at(0, b"bytes").unwrap();
        drop((file, real));
        let lock = std::fs::read(root.join("LOCK")).unwrap();

        let disk = ReadOnlyDisk::open(&root).unwrap();
        let file = disk.open(Path::new("file"), false).unwrap();
        let mut buf = [0; 9];
        assert_eq!(file.read_at(0, &mut buf).unwrap(), 5);
        assert_eq!((&buf[..5], file.len().unwrap()), (&b"bytes"[..], 5));
        assert_eq!(file.next_data(5).unwrap(), None);
        assert!(file.write_at(0, b"x").is_err() && file.set_len(0).is_err());
        assert!(file.allocate(0, 9).is_err() && file.write_vectored_at(0, &[b"x"]).is_err());
        let path = Path::new("file");
        assert!(disk.open(Path::new("new"), true).is_err() && disk.remove_file(path).is_err());
        assert!(disk.rename(path, Path::new("b")).is_err() && disk.remove_dir_all(path).is_err());
        assert!(disk.create_dir_all(Path::new("d")).is_err());
        assert_eq!(disk.list(Path::new("")).unwrap(), ["file"]);
        assert_eq!(std::fs::read(root.join("LOCK")).unwrap(), lock);
    }

    #[test]
    fn readers_share_and_exclude_a_node() {
        let dir = tempfile::tempdir().unwrap();
        let node = RealDisk::open(dir.path()).unwrap();
        let refusal = ReadOnlyDisk::open(dir.path()).unwrap_err();
        assert!(matches!(refusal, DiskError::InUse { .. }), "{refusal}");
        drop(node);
        let readers = [dir.path(); 2].map(|root| ReadOnlyDisk::open(root).unwrap());
        assert!(RealDisk::open(dir.path()).is_err());
        drop(readers);
        assert!(RealDisk::open(dir.path()).is_ok());
    }

    #[test]
    fn a_strange_directory_is_refused_and_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let refusal = ReadOnlyDisk::open(dir.path()).unwrap_err();
        assert!(matches!(refusal, DiskError::NotARoot { .. }), "{refusal}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(ReadOnlyDisk::open(&dir.path().join("none")).is_err());
    }
}
