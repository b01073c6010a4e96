//! Where the bytes of a regular file are: in a row of their own as long as the file has at most
//! [`INLINE_BYTES_MAX`] bytes, in a data file once it was longer. It never moves back.
//!
//! Small files are many: as rows they cost no file of the local file system each, and become durable with
//! the checkpoint's one commit.
//!
//! Replay safety: rows go back to the checkpoint as one, so changes of a row replay exactly. Moving out
//! (`move_out`) begins by cutting the data file to nothing and then writes all bytes of the row, so it
//! leaves the same data file whatever a crash left of an earlier time; from there on the file's operations
//! replay as `data` says. A checkpoint (or snapshot) from before the move says that the row counts, and
//! nobody looks at the data file; one from after it was preceded by a flush of the data file.
//!
//! Invariants
//! - Where the bytes are is part of the inode and follows from the entries applied, not from checkpoints.
//! - A row is never empty and never longer than its file; what is missing up to the size reads as zeros.
//!
//! It must not know attributes other than the size.

use crate::blocks::FileChunks;
use crate::keys;
use crate::open::Store;
use crate::record::{Inode, Place};
use bytes::Bytes;
use haven_fs::{FsResult, Ino};

/// Longest file that is kept in a row.
pub const INLINE_BYTES_MAX: usize = 4096;

const INLINE_SIZE_MAX: u64 = INLINE_BYTES_MAX as u64;

/// Where the bytes of a new file of `size` bytes are.
pub fn place_of(size: u64) -> Place {
    if size <= INLINE_SIZE_MAX {
        Place::Row
    } else {
        Place::File
    }
}

impl Store {
    /// The `len` bytes at `offset`, which are within the file.
    pub(super) fn read_contents(&self, inode: &Inode, offset: u64, len: usize) -> FsResult<Bytes> {
        let ino = inode.attr.ino;
        if len == 0 {
            return Ok(Bytes::new());
        }
        if inode.place == Place::File {
            return self.generation.data.read(ino, offset, len).map(Bytes::from);
        }
        let row = self.row(ino)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(row.len());
        let held = row.slice(start..start.saturating_add(len).min(row.len()));
        if held.len() == len {
            return Ok(held);
        }
        let mut padded = held.to_vec();
        padded.resize(len, 0);
        Ok(padded.into())
    }

    /// Writes `data`, which ends at `end`. The inode still has its old size.
    pub(super) fn write_contents(
        &mut self,
        inode: &mut Inode,
        offset: u64,
        data: &[u8],
        end: u64,
    ) -> FsResult<()> {
        let (ino, size) = (inode.attr.ino, inode.attr.size);
        if inode.place == Place::Row && end <= INLINE_SIZE_MAX {
            return self.write_row(ino, offset, data);
        }
        if inode.place == Place::Row {
            let row = self.row(ino)?;
            self.generation.data.start_over(ino, &row)?;
            self.move_out(inode, &row);
        }
        self.generation.data.write(ino, size, offset, data)
    }

    /// Cuts or grows the file to `size` bytes. The inode still has its old size.
    pub(super) fn resize_contents(&mut self, inode: &mut Inode, size: u64) -> FsResult<()> {
        let (ino, old) = (inode.attr.ino, inode.attr.size);
        match inode.place {
            Place::File => self.generation.data.resize(ino, old, size),
            Place::Row if size <= INLINE_SIZE_MAX => self.cut_row(ino, size),
            Place::Row => {
                let row = self.row(ino)?;
                if row.is_empty() {
                    self.generation.data.resize(ino, old, 0)?;
                } else {
                    self.generation.data.start_over(ino, &row)?;
                }
                self.move_out(inode, &row);
                Ok(())
            }
        }
    }

    /// Forgets the bytes of an inode that goes away.
    ///
    /// Replay safety: the data file stays until a checkpoint without the inode is durable. An inode whose
    /// row counts never had a data file.
    pub(super) fn drop_contents(&mut self, inode: &Inode) -> FsResult<()> {
        let ino = inode.attr.ino;
        if inode.map.chunks > 0 {
            let layers = &mut self.layers;
            FileChunks { layers, ino }.clear()?;
        }
        match inode.place {
            Place::File => {
                self.generation.data.forget(ino);
                self.layers.put(keys::grave(ino), Bytes::new());
                Ok(())
            }
            Place::Row => self.cut_row(ino, 0),
        }
    }

    /// The row's bytes went to the data file.
    fn move_out(&mut self, inode: &mut Inode, row: &Bytes) {
        if !row.is_empty() {
            self.layers.remove(keys::contents(inode.attr.ino));
        }
        inode.place = Place::File;
    }

    fn row(&self, ino: Ino) -> FsResult<Bytes> {
        let row = self.layers.get(&keys::contents(ino))?;
        Ok(row.unwrap_or_default())
    }

    fn write_row(&mut self, ino: Ino, offset: u64, data: &[u8]) -> FsResult<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(data.len());
        let row = self.row(ino)?;
        let mut bytes = Vec::with_capacity(row.len().max(end));
        bytes.extend_from_slice(&row[..row.len().min(start)]);
        bytes.resize(start, 0);
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(row.get(end..).unwrap_or_default());
        self.layers.put(keys::contents(ino), bytes);
        Ok(())
    }

    fn cut_row(&mut self, ino: Ino, size: u64) -> FsResult<()> {
        let row = self.row(ino)?;
        let kept = usize::try_from(size).unwrap_or(usize::MAX).min(row.len());
        if kept == row.len() {
            return Ok(());
        }
        if kept == 0 {
            self.layers.remove(keys::contents(ino));
        } else {
            // A copy: the cut-off bytes need not stay in memory.
            let kept = Bytes::copy_from_slice(&row[..kept]);
            self.layers.put(keys::contents(ino), kept);
        }
        Ok(())
    }
}
