//! A disk for tests of the code above the seam: every operation asks a function of the test first, which
//! may count it, hold it up, cut the power, or make it fail. It may also tell of another space than there is.
//!
//! Invariant: an operation that the function refuses does not happen at all.
//!
//! It must not know what a test is after.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Disk, DiskFile, Space};

/// What is about to be done to a [`FaultyDisk`] or one of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskOp {
    /// [`Disk::open`].
    Open,
    /// [`Disk::create_dir_all`].
    CreateDirAll,
    /// [`Disk::rename`]; the path is the old one.
    Rename,
    /// [`Disk::remove_file`].
    RemoveFile,
    /// [`Disk::remove_dir_all`].
    RemoveDirAll,
    /// [`Disk::list`].
    List,
    /// [`Disk::exists`].
    Exists,
    /// [`Disk::sync_dir`].
    SyncDir,
    /// [`Disk::sync_all`]; the path is empty.
    SyncAll,
    /// [`Disk::space`]; the path is empty.
    Space,
    /// [`Disk::taken`].
    Taken,
    /// [`DiskFile::read_at`] and [`DiskFile::read_onto`].
    Read,
    /// [`DiskFile::write_at`] and [`DiskFile::write_vectored_at`].
    Write,
    /// [`DiskFile::finish_writeback`].
    FinishWriteback,
    /// [`DiskFile::set_len`].
    SetLen,
    /// [`DiskFile::allocate`].
    Allocate,
    /// [`DiskFile::len`].
    Len,
    /// [`DiskFile::next_data`] and [`DiskFile::next_hole`].
    NextData,
    /// [`DiskFile::punch`].
    Punch,
    /// [`DiskFile::sync`].
    Sync,
}

impl DiskOp {
    /// Whether the operation makes something durable.
    #[must_use]
    pub fn is_flush(self) -> bool {
        matches!(self, DiskOp::Sync | DiskOp::SyncDir | DiskOp::SyncAll)
    }
}

/// Asked before an operation on a path; an error is the operation's result.
type Ask = dyn Fn(DiskOp, &Path) -> io::Result<()> + Send + Sync;

/// What is told of a disk's space, given what is true.
type Tell = dyn Fn(Space) -> Space + Send + Sync;

/// A disk whose operations a test watches and decides upon.
#[derive(Clone)]
pub struct FaultyDisk {
    inner: Arc<dyn Disk>,
    ask: Arc<Ask>,
    tell: Arc<Tell>,
}

impl FaultyDisk {
    /// Puts `ask` before every operation of `inner` and of the files opened through it.
    pub fn new(
        inner: Arc<dyn Disk>,
        ask: impl Fn(DiskOp, &Path) -> io::Result<()> + Send + Sync + 'static,
    ) -> FaultyDisk {
        FaultyDisk {
            inner,
            ask: Arc::new(ask),
            tell: Arc::new(|space| space),
        }
    }

    /// Has `tell` decide how much space there is said to be.
    #[must_use]
    pub fn with_space(self, tell: impl Fn(Space) -> Space + Send + Sync + 'static) -> FaultyDisk {
        FaultyDisk {
            tell: Arc::new(tell),
            ..self
        }
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        (self.ask)(DiskOp::Open, path)?;
        Ok(Arc::new(FaultyFile {
            inner: self.inner.open(path, create)?,
            path: path.to_owned(),
            ask: Arc::clone(&self.ask),
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        (self.ask)(DiskOp::CreateDirAll, path)?;
        self.inner.create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.ask)(DiskOp::Rename, from)?;
        self.inner.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        (self.ask)(DiskOp::RemoveFile, path)?;
        self.inner.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        (self.ask)(DiskOp::RemoveDirAll, path)?;
        self.inner.remove_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        (self.ask)(DiskOp::List, path)?;
        self.inner.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        (self.ask)(DiskOp::Exists, path)?;
        self.inner.exists(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        (self.ask)(DiskOp::SyncDir, path)?;
        self.inner.sync_dir(path)
    }

    fn sync_all(&self) -> io::Result<()> {
        (self.ask)(DiskOp::SyncAll, Path::new(""))?;
        self.inner.sync_all()
    }

    fn space(&self) -> io::Result<Space> {
        (self.ask)(DiskOp::Space, Path::new(""))?;
        Ok((self.tell)(self.inner.space()?))
    }

    fn taken(&self, path: &Path) -> io::Result<u64> {
        (self.ask)(DiskOp::Taken, path)?;
        self.inner.taken(path)
    }
}

struct FaultyFile {
    inner: Arc<dyn DiskFile>,
    path: PathBuf,
    ask: Arc<Ask>,
}

impl FaultyFile {
    fn ask(&self, op: DiskOp) -> io::Result<()> {
        (self.ask)(op, &self.path)
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.ask(DiskOp::Read)?;
        self.inner.read_at(offset, buf)
    }

    fn read_onto(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> io::Result<usize> {
        self.ask(DiskOp::Read)?;
        self.inner.read_onto(offset, len, out)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.ask(DiskOp::Write)?;
        self.inner.write_at(offset, data)
    }

    fn write_vectored_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.ask(DiskOp::Write)?;
        self.inner.write_vectored_at(offset, parts)
    }

    fn write_past_cache_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.ask(DiskOp::Write)?;
        self.inner.write_past_cache_at(offset, parts)
    }

    fn start_writeback(&self, offset: u64, len: u64) {
        self.inner.start_writeback(offset, len);
    }

    fn finish_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        self.ask(DiskOp::FinishWriteback)?;
        self.inner.finish_writeback(offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.ask(DiskOp::SetLen)?;
        self.inner.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.ask(DiskOp::Allocate)?;
        self.inner.allocate(offset, len)
    }

    fn len(&self) -> io::Result<u64> {
        self.ask(DiskOp::Len)?;
        self.inner.len()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.ask(DiskOp::NextData)?;
        self.inner.next_data(offset)
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        self.ask(DiskOp::NextData)?;
        self.inner.next_hole(offset)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.ask(DiskOp::Punch)?;
        self.inner.punch(offset, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.ask(DiskOp::Sync)?;
        self.inner.sync()
    }
}
