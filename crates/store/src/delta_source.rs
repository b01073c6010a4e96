//! Sending only what changed: the rows that the records of changes name, as the checkpoint has them, and
//! the changed ranges of data files, as they are now.
//!
//! A range that is sent may be newer than the rows, as in a whole snapshot: the receiver applies the log
//! from the position on. Ranges are sent with their zeros, since the receiver has something there.
//!
//! It must not know who receives.

use crate::base::{self, View};
use crate::changes::{Changed, Ranges};
use crate::hash::is_zero;
use crate::masked::masked;
use crate::open::Generation;
use crate::record::{Inode, Place};
use crate::snapshot::DATA_BYTES;
use crate::stream::{self, RowsChunk, Totals};
use crate::{fatal, keys};
use bytes::Bytes;
use haven_disk::{Disk, DiskFile};
use haven_fs::{FsResult, Ino};
use std::io;
use std::sync::Arc;

/// Where what is sent comes from.
pub type From<'a> = (&'a dyn Disk, &'a Generation, &'a View);

/// See the module's head comment.
pub struct DeltaSource {
    changed: Changed,
    /// A row that did not fit the last chunk.
    put_off: Option<(Vec<u8>, Option<Bytes>)>,
    /// Set when the rows are over.
    ranges: Option<Ranges>,
    patch: Option<Patch>,
}

/// A range being sent.
struct Patch {
    ino: Ino,
    file: Option<Arc<dyn DiskFile>>,
    at: u64,
    end: u64,
    /// Everything behind `at` was said to be zeros: only the rest is sent.
    cleared: bool,
}

impl DeltaSource {
    /// Sends what `changed` names.
    pub const fn new(changed: Changed) -> Self {
        Self {
            changed,
            put_off: None,
            ranges: None,
            patch: None,
        }
    }

    /// The next chunk of rows or file data.
    pub fn next_chunk(&mut self, from: From<'_>, totals: &mut Totals) -> FsResult<Option<Vec<u8>>> {
        if self.ranges.is_none()
            && let Some(chunk) = self.next_rows(from.2, totals)?
        {
            return Ok(Some(chunk));
        }
        let chunk = self.next_data(from)?;
        if let Some((chunk, bytes)) = chunk {
            totals.data_chunks += 1;
            totals.data_bytes += bytes as u64;
            return Ok(Some(chunk));
        }
        Ok(None)
    }

    fn next_rows(&mut self, view: &View, totals: &mut Totals) -> FsResult<Option<Vec<u8>>> {
        let mut chunk = RowsChunk::of_edits();
        if let Some((key, value)) = self.put_off.take() {
            if !chunk.push_edit(&key, value.as_deref()) {
                return Err(fatal(
                    "cannot make a snapshot",
                    "a row does not fit a chunk",
                ));
            }
            totals.rows += 1;
        }
        while let Some(key) = self.changed.next(view)? {
            if key.first() == Some(&keys::RANGE) {
                self.ranges = Some(Ranges::from(&key));
                return Ok(chunk.finish());
            }
            let value = base::get(view, &key)?;
            if !chunk.push_edit(&key, value.as_deref()) {
                self.put_off = Some((key, value));
                return Ok(chunk.finish());
            }
            totals.rows += 1;
        }
        self.ranges = Some(Ranges::none());
        Ok(chunk.finish())
    }

    /// The next piece of a file, and how many bytes of its data are in it.
    fn next_data(&mut self, from: From<'_>) -> FsResult<Option<(Vec<u8>, usize)>> {
        loop {
            if let Some(patch) = &mut self.patch {
                if let Some(found) = patch.next(from.1)? {
                    return Ok(Some(found));
                }
                self.patch = None;
            }
            let Some(ranges) = &mut self.ranges else {
                return Ok(None);
            };
            let Some(range) = ranges.next(&mut self.changed, from.2)? else {
                return Ok(None);
            };
            let (patch, first) = Patch::open(from, range)?;
            self.patch = patch;
            if let Some(first) = first {
                return Ok(Some((first, 0)));
            }
        }
    }
}

impl Patch {
    /// Begins with a range; what to send first, if it goes to the file's end.
    fn open(
        (disk, generation, view): From<'_>,
        (ino, start, end): (Ino, u64, u64),
    ) -> FsResult<(Option<Self>, Option<Vec<u8>>)> {
        let inode = base::get(view, &keys::inode(ino))?;
        let inode = inode.map(|row| Inode::decode(ino, &row)).transpose()?;
        // Removed meanwhile, with its data.
        let Some(inode) = inode.filter(|inode| inode.place == Place::File) else {
            return Ok((None, None));
        };
        let path = generation.data.path(ino);
        let failed = |e| fatal(format!("cannot open data file {}", path.display()), e);
        let file = match disk.open(&path, false) {
            Ok(file) => Some(masked(file, ino, view)?),
            // Never written, or removed since the checkpoint.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let size = inode.attr.size;
        let cleared = end >= size;
        let end = match (&file, cleared) {
            (Some(file), true) => file.len().map_err(failed)?.min(size),
            (None, true) => start,
            (_, false) => end,
        };
        let patch = Self {
            ino,
            file,
            at: start,
            end,
            cleared,
        };
        let first = cleared.then(|| stream::zeros(ino, start, u64::MAX));
        Ok((Some(patch), first))
    }

    fn next(&mut self, generation: &Generation) -> FsResult<Option<(Vec<u8>, usize)>> {
        let failed = |e| {
            let path = generation.data.path(self.ino);
            fatal(format!("cannot read data file {}", path.display()), e)
        };
        while self.at < self.end {
            if let (Some(file), true) = (&self.file, self.cleared) {
                let found = file.next_data(self.at).map_err(failed)?;
                match found.filter(|&at| at < self.end) {
                    Some(found) => self.at = self.at.max(found),
                    None => return Ok(None),
                }
            }
            let (start, left) = (self.at, self.end - self.at);
            let piece = usize::try_from(left).unwrap_or(usize::MAX).min(DATA_BYTES);
            self.at += piece as u64;
            let mut bytes = vec![0; piece];
            if let Some(file) = &self.file {
                file.read_at(start, &mut bytes).map_err(failed)?;
            }
            if !is_zero(&bytes) {
                return Ok(Some((stream::data(self.ino, start, &bytes), piece)));
            }
            if !self.cleared {
                return Ok(Some((stream::zeros(self.ino, start, self.at), 0)));
            }
        }
        Ok(None)
    }
}
