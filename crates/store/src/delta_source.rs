//! Sending only what changed: the rows that the records of changes name, as the checkpoint has them, and
//! the changed ranges of data files, as they are now.
//!
//! A range that is sent may be newer than the rows, as in a whole snapshot: the receiver applies the log
//! from the position on. Ranges are sent with their holes, since the receiver has something there.
//!
//! Invariant: every byte is told once, as the value that it has here; never "cleared" first to be filled later. A range may
//! be wider than what changed (`changed_ranges`), and the receiver may be cut off anywhere: what it then has of a byte
//! that no entry touched is right, whether it got as far as to it or not.
//!
//! It must not know who receives.

use crate::base::{self, View};
use crate::changes::{Changed, Ranges};
use crate::extents::Extents;
use crate::masked::masked;
use crate::open::Generation;
use crate::record::{Inode, Place};
use crate::stream::{Piece, PiecesChunk, RowsChunk, Totals};
use crate::{fatal, keys};
use bytes::Bytes;
use haven_disk::Disk;
use haven_fs::{FsError, FsResult, Ino};
use std::io;

/// Where what is sent comes from.
pub type From<'a> = (&'a dyn Disk, &'a Generation, &'a View);

/// See the module's head comment.
pub struct DeltaSource {
    changed: Changed,
    /// A row that did not fit the last chunk.
    put_off: Option<(Vec<u8>, Option<Bytes>)>,
    /// Set when the rows are over.
    ranges: Option<Ranges>,
    /// A range that is of another file than the last chunk.
    ahead: Option<(Ino, u64, u64)>,
    patches: Patches,
}

/// Ranges of data files as they are now, in order. A file stays open from one of its ranges to the next.
#[derive(Default)]
pub struct Patches(Option<Patched>);

/// A file, and what is left of the range in it.
struct Patched {
    ino: Ino,
    extents: Option<Extents>,
    /// The inode's size.
    size: u64,
    /// Bytes of it that the file has.
    there: u64,
    /// What is to be said to be a hole after the extents: last, see the module's head comment.
    rest: Option<(u64, u64)>,
    over: bool,
}

impl DeltaSource {
    /// Sends what `changed` names.
    pub fn new(changed: Changed) -> Self {
        Self {
            changed,
            put_off: None,
            ranges: None,
            ahead: None,
            patches: Patches::default(),
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

    /// The next chunk of pieces of a file, and how many bytes of its data are in it.
    fn next_data(&mut self, from: From<'_>) -> FsResult<Option<(Vec<u8>, usize)>> {
        let unfinished = self.patches.unfinished();
        let mut chunk = unfinished.map(|ino| (ino, PiecesChunk::new(ino)));
        loop {
            if let Some((_, chunk)) = &mut chunk
                && !self.patches.fill(from.1, chunk)?
            {
                break;
            }
            let Some(range) = self.next_range(from.2)? else {
                break;
            };
            match &chunk {
                Some((ino, _)) if *ino != range.0 => {
                    self.ahead = Some(range);
                    if let Some(full) = chunk.take().and_then(|(_, chunk)| chunk.finish()) {
                        return Ok(Some(full));
                    }
                }
                _ => {
                    self.patches.go_to(from, range)?;
                    chunk.get_or_insert_with(|| (range.0, PiecesChunk::new(range.0)));
                }
            }
        }
        Ok(chunk.and_then(|(_, chunk)| chunk.finish()))
    }

    /// The range to go on with.
    fn next_range(&mut self, view: &View) -> FsResult<Option<(Ino, u64, u64)>> {
        match (self.ahead.take(), &mut self.ranges) {
            (None, Some(ranges)) => ranges.next(&mut self.changed, view),
            (ahead, _) => Ok(ahead),
        }
    }
}

impl Patches {
    /// Goes on with a range. Of a file that is gone there is nothing to tell.
    fn go_to(&mut self, from: From<'_>, (ino, start, end): (Ino, u64, u64)) -> FsResult<()> {
        if self.0.as_ref().is_none_or(|patched| patched.ino != ino) {
            self.0 = Patched::open(from, ino)?;
        }
        let Some(patched) = &mut self.0 else {
            return Ok(());
        };
        let whole = end.min(patched.there).max(start);
        let rest = if end >= patched.size { u64::MAX } else { end };
        if let Some(extents) = &mut patched.extents {
            extents.go_to(start, whole);
        }
        patched.rest = (whole < rest).then_some((whole, rest));
        patched.over = false;
        Ok(())
    }

    /// The file of a range that is not over.
    fn unfinished(&self) -> Option<Ino> {
        let patched = self.0.as_ref().filter(|patched| !patched.over);
        patched.map(|patched| patched.ino)
    }

    /// How many bytes of data are in a range, without reading them.
    pub fn data_bytes(&mut self, from: From<'_>, range: (Ino, u64, u64)) -> FsResult<u64> {
        self.go_to(from, range)?;
        let extents = self.0.as_mut().and_then(|patched| patched.extents.as_mut());
        let bytes = extents.map_or(Ok(0), Extents::data_bytes);
        bytes.map_err(|e| failed(from.1, range.0, e))
    }

    /// Puts what is left of the range into a chunk; false if it did not fit.
    fn fill(&mut self, generation: &Generation, chunk: &mut PiecesChunk) -> FsResult<bool> {
        let Some(patched) = &mut self.0 else {
            return Ok(true);
        };
        while !patched.over {
            let Some(room) = chunk.room() else {
                return Ok(false);
            };
            let next = match &mut patched.extents {
                Some(extents) => extents.next(room),
                None => Ok(None),
            };
            match next.map_err(|e| failed(generation, patched.ino, e))? {
                Some(piece) => chunk.push(&piece),
                None => match patched.rest.take() {
                    Some((start, end)) => chunk.push(&Piece::Hole { start, end }),
                    None => patched.over = true,
                },
            }
        }
        Ok(true)
    }
}

impl Patched {
    fn open((disk, generation, view): From<'_>, ino: Ino) -> FsResult<Option<Self>> {
        let inode = base::get(view, &keys::inode(ino))?;
        let inode = inode.map(|row| Inode::decode(ino, &row)).transpose()?;
        // Removed meanwhile, with its data.
        let Some(inode) = inode.filter(|inode| inode.place == Place::File) else {
            return Ok(None);
        };
        let (path, size) = (generation.data.path(ino), inode.attr.size);
        let failed = |e| fatal(format!("cannot open data file {}", path.display()), e);
        let file = match disk.open(&path, false) {
            Ok(file) => Some(masked(file, ino, view)?),
            // Never written, or removed since the checkpoint.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let there = match &file {
            Some(file) => file.len().map_err(failed)?.min(size),
            None => 0,
        };
        Ok(Some(Self {
            ino,
            extents: file.map(Extents::new),
            size,
            there,
            rest: None,
            over: true,
        }))
    }
}

fn failed(generation: &Generation, ino: Ino, error: io::Error) -> FsError {
    let path = generation.data.path(ino);
    fatal(format!("cannot read data file {}", path.display()), error)
}
