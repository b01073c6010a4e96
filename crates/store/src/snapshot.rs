//! Sending: the last durable checkpoint as a stream of chunks.
//!
//! Rows come from one redb read transaction, so later checkpoints do not show. File data is read as it
//! is now: it may be newer than the rows, and a file may be gone because its inode was removed. Both are
//! what a crash leaves, too: the receiver applies the log from the position on and gets the same state.
//!
//! Invariant: data of a generation that was replaced is never sent; its files may be missing for
//! another reason than a removal.
//!
//! It must not know who receives.

use crate::base::{self, View, ViewRange};
use crate::changes::Changed;
use crate::data;
use crate::delta_source::{DeltaSource, From};
use crate::extents::Extents;
use crate::fatal;
use crate::keys;
use crate::masked::masked;
use crate::open::{Generation, Store};
use crate::record::{Inode, Place};
use crate::room::Announced;
use crate::stream::{self, Piece, PiecesChunk, RowsChunk, SnapshotError, Totals};
use bytes::Bytes;
use haven_disk::Disk;
use haven_fs::{FsResult, Ino};
use std::io;
use std::ops::Bound;
use std::sync::Arc;

/// The last durable checkpoint, being sent. Keeps its rows alive: drop it when it is not needed.
pub struct SnapshotReader {
    disk: Arc<dyn Disk>,
    generation: Arc<Generation>,
    view: View,
    applied: u64,
    position: Bytes,
    /// What is sent instead of everything, its base, and about how much it is.
    changes: Option<(u64, Announced, Box<DeltaSource>)>,
    stage: Stage,
    hasher: blake3::Hasher,
    totals: Totals,
}

enum Stage {
    Header,
    Rows {
        rows: ViewRange,
        put_off: Option<(Vec<u8>, Vec<u8>)>,
    },
    Files {
        inodes: ViewRange,
        file: Option<FileCursor>,
    },
    Changes(Box<DeltaSource>),
    End,
    Done,
}

struct FileCursor {
    ino: Ino,
    extents: Extents,
}

impl Store {
    /// Opens the last durable checkpoint for sending. `None` when no checkpoint has a position yet.
    pub fn snapshot_source(&self) -> FsResult<Option<SnapshotReader>> {
        let view = self.generation.base.view()?;
        let Some(position) = base::get(&view, keys::POSITION)? else {
            return Ok(None);
        };
        let applied = base::get(&view, keys::APPLIED)?;
        let applied = applied.and_then(|stored| stored.as_ref().try_into().ok());
        Ok(Some(SnapshotReader {
            applied: applied.map_or(0, u64::from_be_bytes),
            changes: None,
            disk: Arc::clone(&self.disk),
            generation: Arc::clone(&self.generation),
            view,
            position,
            stage: Stage::Header,
            hasher: blake3::Hasher::new(),
            totals: Totals::default(),
        }))
    }
}

impl SnapshotReader {
    /// The position that the rows belong to: apply the log from here on.
    pub fn position(&self) -> Bytes {
        self.position.clone()
    }

    /// Sends only what changed since log index `base`, if that is known: to a receiver whose last durable
    /// checkpoint in this same history belongs to `base`. False: everything will be sent. Only before the
    /// first chunk.
    pub fn since(&mut self, base: u64) -> FsResult<bool> {
        if !matches!(self.stage, Stage::Header) || base >= self.applied {
            return Ok(false);
        }
        // Twice: once to tell how much it is.
        let all = || Changed::since(&self.view, base);
        if let (Some(changed), Some(again)) = (all()?, all()?) {
            let announced = Announced::of_changes(self.from(), changed)?;
            self.changes = Some((base, announced, Box::new(DeltaSource::new(again))));
        }
        Ok(self.changes.is_some())
    }

    fn from(&self) -> From<'_> {
        (self.disk.as_ref(), &*self.generation, &self.view)
    }

    /// The next chunk, `None` at the end.
    ///
    /// # Errors
    /// [`SnapshotError::Replaced`] when the store installed a snapshot meanwhile, otherwise what the
    /// disk says.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        let chunk = self.produce();
        if self.generation.is_retired() {
            return Err(SnapshotError::Replaced);
        }
        let chunk = chunk?;
        if let Some(chunk) = &chunk {
            absorb(&mut self.hasher, chunk);
        }
        Ok(chunk.map(Bytes::from))
    }

    fn produce(&mut self) -> FsResult<Option<Vec<u8>>> {
        loop {
            let (chunk, next) = match &mut self.stage {
                Stage::Header => {
                    let (header, next) = self.begin()?;
                    (Some(header), Some(next))
                }
                Stage::Changes(source) => {
                    let totals = &mut self.totals;
                    let from = (self.disk.as_ref(), &*self.generation, &self.view);
                    match source.next_chunk(from, totals)? {
                        Some(chunk) => (Some(chunk), None),
                        None => (None, Some(Stage::End)),
                    }
                }
                Stage::Rows { rows, put_off } => {
                    match next_rows(rows, put_off, &mut self.totals)? {
                        Some(chunk) => (Some(chunk), None),
                        None => (None, Some(self.files()?)),
                    }
                }
                Stage::Files { inodes, file } => {
                    let from = (self.disk.as_ref(), &*self.generation, &self.view);
                    match next_data(from, inodes, file)? {
                        Some((chunk, bytes)) => {
                            self.totals.data_chunks += 1;
                            self.totals.data_bytes += bytes as u64;
                            (Some(chunk), None)
                        }
                        None => (None, Some(Stage::End)),
                    }
                }
                Stage::End => {
                    let hash = *self.hasher.finalize().as_bytes();
                    (Some(stream::end(self.totals, hash)), Some(Stage::Done))
                }
                Stage::Done => return Ok(None),
            };
            if let Some(next) = next {
                self.stage = next;
            }
            if chunk.is_some() {
                return Ok(chunk);
            }
        }
    }

    /// The header, and what comes after it.
    fn begin(&mut self) -> FsResult<(Vec<u8>, Stage)> {
        if let Some((base, announced, source)) = self.changes.take() {
            let header = stream::header(Some(base), self.applied, announced, &self.position);
            return Ok((header, Stage::Changes(source)));
        }
        let announced = Announced::of_everything(self.from())?;
        let header = stream::header(None, self.applied, announced, &self.position);
        let end = Bound::Excluded(&[keys::LOCAL][..]);
        let rows = base::range(&self.view, Bound::Unbounded, end)?;
        let rows = Stage::Rows {
            rows,
            put_off: None,
        };
        Ok((header, rows))
    }

    fn files(&self) -> FsResult<Stage> {
        let (from, end) = ([keys::INODE], [keys::INODE + 1]);
        let inodes = base::range(&self.view, Bound::Included(&from), Bound::Excluded(&end))?;
        Ok(Stage::Files { inodes, file: None })
    }
}

/// Adds a chunk to the running hash of a stream.
pub(crate) fn absorb(hasher: &mut blake3::Hasher, chunk: &[u8]) {
    hasher.update(&(chunk.len() as u64).to_be_bytes());
    hasher.update(chunk);
}

fn next_rows(
    rows: &mut ViewRange,
    put_off: &mut Option<(Vec<u8>, Vec<u8>)>,
    totals: &mut Totals,
) -> FsResult<Option<Vec<u8>>> {
    let mut chunk = RowsChunk::new();
    if let Some((key, value)) = put_off.take() {
        if !chunk.push(&key, &value) {
            return Err(fatal(
                "cannot make a snapshot",
                "a row does not fit a chunk",
            ));
        }
        totals.rows += 1;
    }
    while let Some(row) = base::next(rows)? {
        let (key, value) = (row.0.value(), row.1.value());
        if !chunk.push(key, value) {
            *put_off = Some((key.to_vec(), value.to_vec()));
            break;
        }
        totals.rows += 1;
    }
    match chunk.finish() {
        // The first row of all does not fit an empty chunk: the next call says so.
        None if put_off.is_some() => next_rows(rows, put_off, totals),
        chunk => Ok(chunk),
    }
}

/// The next chunk of data of a file, and how many bytes of data are in it. Holes are left out: the receiver has nothing.
fn next_data(
    from: From<'_>,
    inodes: &mut ViewRange,
    at: &mut Option<FileCursor>,
) -> FsResult<Option<(Vec<u8>, usize)>> {
    loop {
        let Some(cursor) = at else {
            let Some((key, value)) = base::next(inodes)? else {
                return Ok(None);
            };
            *at = open_file(from, key.value(), value.value())?;
            continue;
        };
        let mut chunk = PiecesChunk::new(cursor.ino);
        let mut over = false;
        while let (Some(room), false) = (chunk.room(), over) {
            let piece = cursor.extents.next(room).map_err(|e| {
                let shown = data::file_path(std::path::Path::new(""), cursor.ino);
                fatal(format!("cannot read data file {}", shown.display()), e)
            })?;
            match piece {
                Some(piece @ Piece::Data { .. }) => chunk.push(&piece),
                Some(Piece::Hole { .. }) => {}
                None => over = true,
            }
        }
        if over {
            *at = None;
        }
        if let Some(found) = chunk.finish() {
            return Ok(Some(found));
        }
    }
}

fn open_file(
    (disk, generation, view): From<'_>,
    key: &[u8],
    value: &[u8],
) -> FsResult<Option<FileCursor>> {
    let Some(ino) = keys::ino_of(key) else {
        return Ok(None);
    };
    let inode = Inode::decode(ino, value)?;
    if inode.place != Place::File {
        return Ok(None);
    }
    let path = generation.data.path(ino);
    let opened = disk.open(&path, false).and_then(|file| {
        let end = file.len()?.min(inode.attr.size);
        Ok((file, end))
    });
    match opened {
        Ok((file, end)) => {
            let mut extents = Extents::new(masked(file, ino, view)?);
            extents.go_to(0, end);
            Ok(Some(FileCursor { ino, extents }))
        }
        // Never written, or removed since the checkpoint.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fatal(
            format!("cannot open data file {}", path.display()),
            error,
        )),
    }
}
