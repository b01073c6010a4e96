//! The storage seam: every byte Haven keeps on disk goes through [`Disk`] and [`DiskFile`].
//!
//! Three things stand behind it: [`RealDisk`], a directory of the machine's file system; [`ReadOnlyDisk`],
//! the same directory only looked at; and [`VolatileDisk`], the same directory behind a model of a power loss: what was not flushed lives
//! only in the process, so that killing the process loses exactly what a power cut may lose. Its flushes can be made
//! to fail as Linux fails them.
//! Code above the seam must therefore flush what it promises: file contents with
//! [`DiskFile::sync`], new names, renames and removals with [`Disk::sync_dir`] of the parent. And it must write anew
//! what it finds and relies on: a flush in an earlier process may have failed ([`renew`]).
//!
//! Invariants
//! - Paths are relative to the disk's root and never leave it.
//! - One process holds a root at a time (an exclusive lock taken at open).
//!
//! [`testing`] has a disk that lets a test watch operations and make them fail.
//!
//! It must not know what is stored.

use std::io;
use std::path::Path;
use std::sync::Arc;

mod direct;
mod error;
mod path;
mod read_only;
mod real;
pub mod renew;
mod root;
pub mod testing;
mod volatile;
mod writeback;

pub use error::DiskError;
pub use read_only::ReadOnlyDisk;
pub use real::RealDisk;
pub use volatile::VolatileDisk;

/// A directory that keeps Haven's files. See the crate's head comment for what is durable when.
pub trait Disk: Send + Sync + 'static {
    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` when it is missing and `create` is false; else what the file system says.
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes a directory and its missing parents. Its names are durable (this one flushes by itself:
    /// directories are few and made rarely).
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Renames a file or directory, replacing a file at `to`. Durable after `sync_dir` of both parents.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable after `sync_dir` of its parent.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory and all below it. Durable after `sync_dir` of its parent.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, sorted. `NotFound` when it is missing.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Whether a file or directory of this name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Makes the directory's entries (creations, renames, removals in it) durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes everything durable that was written, named, renamed or removed below the root before this
    /// call: for many files at once, where flushing each would cost more.
    ///
    /// # Errors
    /// `Unsupported` where the system would not tell that bytes could not be written: flush each then.
    fn sync_all(&self) -> io::Result<()>;

    /// Space of the underlying file system.
    fn space(&self) -> io::Result<Space>;

    /// About how many bytes of it a file takes, holes not counted; nothing when it is missing.
    fn taken(&self, path: &Path) -> io::Result<u64> {
        let file = match self.open(path, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            opened => opened?,
        };
        let (mut at, mut taken) = (0, 0);
        while let Some(data) = file.next_data(at)? {
            at = file.next_hole(data)?;
            taken += at - data;
        }
        Ok(taken)
    }
}

/// Space of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Size of the file system, in bytes.
    pub total_bytes: u64,
    /// Bytes free to this process.
    pub free_bytes: u64,
    /// Files that this process can still make; `None`: as many as there is space for.
    pub free_files: Option<u64>,
}

/// An open file. All offsets and lengths are bytes; all calls may come from any thread.
pub trait DiskFile: Send + Sync {
    /// Reads at `offset` until `buf` is full or the file ends; returns the bytes read.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// As [`DiskFile::read_at`], appending at most `len` bytes to `out`. With capacity for them there,
    /// they are read straight into it.
    fn read_onto(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> io::Result<usize> {
        let start = out.len();
        out.resize(start + len, 0);
        let read = self.read_at(offset, &mut out[start..]);
        out.truncate(start + *read.as_ref().unwrap_or(&0));
        read
    }

    /// Writes all of `data` at `offset`, growing the file as needed. Durable after `sync`.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Writes the parts one after another at `offset` (one system call where possible).
    fn write_vectored_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()>;

    /// As [`DiskFile::write_vectored_at`], for much data that nobody reads soon: around the page cache where the
    /// system can. Durable after `sync`.
    fn write_past_cache_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.write_vectored_at(offset, parts)
    }

    /// Begins bringing what was written in the range (with a `len` of 0: up to the end) to the device, without
    /// waiting, so that a later `sync` has less to do. Promises nothing.
    fn start_writeback(&self, _offset: u64, _len: u64) {}

    /// Waits until what [`DiskFile::start_writeback`] began in the range has left for the device, so that not more and
    /// more is under way in front of others' flushes. Makes nothing durable.
    ///
    /// # Errors
    /// What was written in the range is lost. A later `sync` may not say so again.
    fn finish_writeback(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    /// Cuts or extends (with a hole) the file. Durable after `sync`.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Reserves space so that later writes inside it need no allocation and cannot run out of space.
    /// The reserved range reads as zeros and the length grows to cover it.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;

    /// The file's length.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Where at or after `offset` the next bytes are that may be other than zeros; `None` when there is
    /// nothing but a hole, or the end.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;

    /// Where at or after `offset` the next hole begins, or else the file ends: up to there may be bytes other than
    /// zeros. `offset` itself in a hole, and past the end.
    fn next_hole(&self, offset: u64) -> io::Result<u64>;

    /// Makes the range zeros and gives its space back, where the file system can. The file's length stays, also when the
    /// range goes past it. Durable after `sync`.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes everything written so far, and the length, durable (fdatasync). After an error nobody knows what of it
    /// is, and a later success says nothing of it: whatever shall be durable must be written again.
    fn sync(&self) -> io::Result<()>;
}
