//! Receiving only what changed: the stream is kept in a file beside the present state until all of it is
//! there and checked; then it is put into the present state.
//!
//! Why a crash does no harm: file data goes into the data files first and is flushed, then all rows are
//! committed in one durable step. Until that step the rows are those of the old checkpoint, and some data
//! files are ahead of them, by changes that the log holds after that checkpoint: the situation after any
//! crash. The next stream begins at the old checkpoint again, and so covers every range that was put in.
//!
//! Invariants
//! - Nothing of the stream is believed, see `receive`; nothing of the present state is touched before the
//!   stream is whole.
//! - A base that does not fit (the numbers of inodes do not add up) is remembered as doubted: from then on
//!   only a whole snapshot is asked for.
//! - Whatever is left of a stream that was not installed is removed, at the latest by the next open.
//!
//! It must not know who sends.

use crate::base::{self, Put, View};
use crate::changes::Recorder;
use crate::current;
use crate::open::{Generation, Store};
use crate::record::{self, Counters};
use crate::snapshot::absorb;
use crate::stream::{self, Chunk, EditIter, Piece, PieceIter, SnapshotError, Stage, Totals};
use crate::{CHUNK_BYTES_MAX, fatal, keys};
use bytes::Bytes;
use haven_disk::{Disk, DiskFile};
use haven_fs::{FILE_SIZE_MAX, FsResult, Ino};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The file that holds the stream, in a directory like that of a generation.
const SPOOL_FILE: &str = "changes";
/// Before each chunk in it: its length.
const LENGTH_BYTES: usize = 4;

/// Where a stream is put, and into what state it shall go.
pub struct Site<'a> {
    pub disk: &'a Arc<dyn Disk>,
    pub dir: &'a Path,
    pub number: u64,
    pub live: &'a Arc<Generation>,
    pub doubted: &'a Arc<AtomicBool>,
}

/// A stream of changes being received.
pub struct DeltaWriter {
    spool: Spool,
    live: Arc<Generation>,
    doubted: Arc<AtomicBool>,
    view: View,
    stage: Stage,
    base: u64,
    applied: u64,
    position: Bytes,
    counters: Counters,
    /// Inodes more, or less, than the present state has.
    inodes_more: i64,
    last_key: Vec<u8>,
    last_data: (Ino, u64),
    hasher: blake3::Hasher,
    totals: Totals,
}

/// A whole stream of changes, ready to be put into the state.
pub struct StagedDelta {
    spool: Spool,
    live: Arc<Generation>,
    applied: u64,
    position: Bytes,
}

impl StagedDelta {
    /// The position that the state will have.
    pub fn position(&self) -> Bytes {
        self.position.clone()
    }
}

impl DeltaWriter {
    /// Starts receiving.
    pub fn new(site: &Site<'_>) -> FsResult<Self> {
        let view = site.live.base.view()?;
        let counters = base::get(&view, keys::COUNTERS)?
            .ok_or_else(|| fatal("the metadata is damaged", "its counters are missing"))?;
        Ok(Self {
            spool: Spool::new(site.disk, site.dir, site.number)?,
            live: Arc::clone(site.live),
            doubted: Arc::clone(site.doubted),
            counters: Counters::decode(&counters)?,
            view,
            stage: Stage::Start,
            base: 0,
            applied: 0,
            position: Bytes::new(),
            inodes_more: 0,
            last_key: Vec::new(),
            last_data: (Ino(0), 0),
            hasher: blake3::Hasher::new(),
            totals: Totals::default(),
        })
    }

    /// Takes the next chunk.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        match stream::parse(chunk)? {
            Chunk::Header {
                base,
                applied,
                position,
                ..
            } => {
                self.stage.advance(Stage::Start, Stage::Start)?;
                self.stage = Stage::Rows;
                self.begin(base.unwrap_or(0), applied, position)?;
            }
            Chunk::Edits(edits) => {
                self.stage.advance(Stage::Rows, Stage::Rows)?;
                for edit in EditIter(edits) {
                    let (key, value) = edit?;
                    self.take_edit(key, value)?;
                }
                self.spool.rows_end = self.spool.push(chunk)?;
            }
            Chunk::Data { ino, pieces } => {
                self.stage.advance(Stage::Rows, Stage::Data)?;
                for piece in PieceIter(pieces) {
                    self.take_piece(ino, piece?)?;
                }
                self.totals.data_chunks += 1;
                self.spool.push(chunk)?;
            }
            Chunk::End { totals, hash } => {
                self.stage.advance(Stage::Rows, Stage::Ended)?;
                self.check_end(totals, hash)?;
            }
            Chunk::Rows(_) => return Err(SnapshotError::Bad("whole rows among changes")),
        }
        absorb(&mut self.hasher, chunk);
        Ok(())
    }

    /// Once it is whole: how many bytes of file data are to be put in their places.
    pub fn ended(&self) -> Option<u64> {
        (self.stage == Stage::Ended).then_some(self.totals.data_bytes)
    }

    /// It must be whole.
    pub fn finish(mut self) -> Result<StagedDelta, SnapshotError> {
        if self.stage != Stage::Ended {
            return Err(SnapshotError::Bad("the end is missing"));
        }
        self.spool.write()?;
        Ok(StagedDelta {
            spool: self.spool,
            live: self.live,
            applied: self.applied,
            position: self.position,
        })
    }

    fn begin(&mut self, base: u64, applied: u64, position: &[u8]) -> Result<(), SnapshotError> {
        let own = applied_in(&self.view)?;
        if base > own || own > applied {
            return Err(SnapshotError::Bad(
                "changes since another state than the one here",
            ));
        }
        self.base = base;
        self.applied = applied;
        self.position = Bytes::copy_from_slice(position);
        Ok(())
    }

    fn take_edit(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), SnapshotError> {
        let nonsense = SnapshotError::Bad("a row has no meaning");
        if key <= self.last_key.as_slice() {
            return Err(SnapshotError::Bad("rows out of order"));
        }
        let good = match value {
            Some(value) => record::validate(key, value).is_ok(),
            None => keys::is_well_formed(key) && key != keys::COUNTERS,
        };
        if !good {
            return Err(nonsense);
        }
        if let (keys::COUNTERS, Some(value)) = (key, value) {
            self.counters = Counters::decode(value)?;
        }
        if key.first() == Some(&keys::INODE) {
            let before = base::get(&self.view, key)?.is_some();
            self.inodes_more += i64::from(value.is_some()) - i64::from(before);
        }
        self.last_key = key.to_vec();
        self.totals.rows += 1;
        Ok(())
    }

    fn take_piece(&mut self, ino: Ino, piece: Piece<'_>) -> Result<(), SnapshotError> {
        let (start, end) = piece.span();
        if (ino, start) < self.last_data {
            return Err(SnapshotError::Bad("file data out of order"));
        }
        let to_the_end = matches!(piece, Piece::Hole { end: u64::MAX, .. });
        if start > FILE_SIZE_MAX || (end > FILE_SIZE_MAX && !to_the_end) {
            return Err(SnapshotError::Bad("file data beyond the largest file"));
        }
        if ino.0 >= self.counters.next_ino {
            return Err(SnapshotError::Bad("data of an unknown file"));
        }
        if let Piece::Data { bytes, .. } = piece {
            self.totals.data_bytes += bytes.len() as u64;
        }
        self.last_data = (ino, end);
        Ok(())
    }

    fn check_end(&self, totals: Totals, hash: [u8; 32]) -> Result<(), SnapshotError> {
        if totals != self.totals {
            return Err(SnapshotError::Bad("counts differ: a part is missing"));
        }
        if hash != *self.hasher.finalize().as_bytes() {
            return Err(SnapshotError::Bad("checksum differs"));
        }
        let before = base::get(&self.view, keys::COUNTERS)?;
        let before = before.map(|row| Counters::decode(&row)).transpose()?;
        let before = before.map_or(0, |counters| counters.inodes);
        if before.checked_add_signed(self.inodes_more) != Some(self.counters.inodes) {
            self.doubted.store(true, Ordering::Release);
            return Err(SnapshotError::Bad(
                "the changes do not fit the state here; a whole snapshot is needed",
            ));
        }
        Ok(())
    }
}

impl Store {
    /// Puts the changes into the present state. See the module's head comment. What was applied in memory
    /// since the last checkpoint is in the changes, too.
    pub(crate) fn install_delta(&mut self, staged: &StagedDelta) -> FsResult<()> {
        const WHAT: &str = "cannot install changes";
        if !Arc::ptr_eq(&staged.live, &self.generation) {
            return Err(fatal(WHAT, "they were received for another state"));
        }
        if applied_in(&self.generation.base.view()?)? > staged.applied {
            return Err(fatal(WHAT, "they are older than the state here"));
        }
        if self.layers.is_frozen() && self.in_flight.strong_count() > 0 {
            return Err(fatal(WHAT, "a checkpoint is under way"));
        }
        self.mutate(|store| {
            let data = &store.generation.data;
            data.forget_all();
            staged.spool.each_piece(&mut |ino, piece| match piece {
                Piece::Data { offset, bytes } => data.patch(ino, offset, bytes),
                Piece::Hole { start, end } => data.patch_hole(ino, start, end),
            })?;
            data.forget_all();
            // In this order: what is given back from here on is said to remain.
            let remains = data.all_remains();
            data.flush(&data.take_dirty())?;
            store.commit_delta(staged, &remains)?;
            store.adopt(Arc::clone(&store.generation))
        })
    }

    fn commit_delta(&self, staged: &StagedDelta, remains: &[(Ino, Vec<u8>)]) -> FsResult<()> {
        let base = &self.generation.base;
        let view = base.view()?;
        let mut recorder = Some(Recorder::new(&view, staged.applied)?);
        base.commit_all(&mut |put| {
            let Some(mut recorder) = recorder.take() else {
                return Ok(());
            };
            staged.spool.each_row(&mut |key, value| {
                if let Some((part, keys)) = recorder.push(key) {
                    put(&part, keys.as_deref())?;
                }
                put(key, value)?;
                match (key.first(), keys::ino_of(key), value) {
                    (Some(&keys::INODE), Some(ino), None) => put(&keys::grave(ino), Some(&[])),
                    _ => Ok(()),
                }
            })?;
            let mut ranges = Joined::default();
            let mut note = |range: Option<(Ino, u64, u64)>| match range {
                Some((ino, start, end)) => recorder.push(&keys::range(ino, start, end)),
                None => None,
            };
            staged.spool.each_piece(&mut |ino, piece| {
                let (start, end) = piece.span();
                match note(ranges.add(ino, start, end)) {
                    Some((part, keys)) => put(&part, keys.as_deref()),
                    None => Ok(()),
                }
            })?;
            let last = note(ranges.0.take());
            let rest = recorder.finish(&view)?;
            for (key, value) in last.into_iter().chain(rest) {
                put(&key, value.as_deref())?;
            }
            put_remains(&view, remains, put)?;
            put(keys::APPLIED, Some(&staged.applied.to_be_bytes()))?;
            put(keys::POSITION, Some(&staged.position))
        })
    }
}

/// Puts the rows of what remains of cuts in place of all that were there: what came into data files is none any more.
fn put_remains(before: &View, remains: &[(Ino, Vec<u8>)], put: Put<'_>) -> FsResult<()> {
    let end = keys::after_prefix(keys::REMAINS);
    let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut old = base::range(before, Bound::Included(keys::REMAINS), end)?;
    while let Some((key, _)) = base::next(&mut old)? {
        put(key.value(), None)?;
    }
    remains
        .iter()
        .try_for_each(|(ino, row)| put(&keys::remains(*ino), Some(row)))
}

/// Ranges that follow each other, as one.
#[derive(Default)]
struct Joined(Option<(Ino, u64, u64)>);

impl Joined {
    /// Adds the next range; one that is over comes back.
    fn add(&mut self, ino: Ino, start: u64, end: u64) -> Option<(Ino, u64, u64)> {
        match &mut self.0 {
            Some((of, _, to)) if *of == ino && start <= *to => {
                *to = end.max(*to);
                None
            }
            other => other.replace((ino, start, end)),
        }
    }
}

fn applied_in(view: &View) -> FsResult<u64> {
    let stored = base::get(view, keys::APPLIED)?;
    let number = stored.and_then(|stored| stored.as_ref().try_into().ok());
    Ok(number.map_or(0, u64::from_be_bytes))
}

/// Chunks in a file. It need not survive anything; it is removed with this.
struct Spool {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file: Arc<dyn DiskFile>,
    waiting: Vec<u8>,
    len: u64,
    /// Where the rows end and the file data begin.
    rows_end: u64,
}

impl Spool {
    fn new(disk: &Arc<dyn Disk>, dir: &Path, number: u64) -> FsResult<Self> {
        let dir = current::generation_dir(dir, number);
        let failed = |e| fatal(format!("cannot keep changes in {}", dir.display()), e);
        disk.create_dir_all(&dir).map_err(failed)?;
        let file = disk.open(&dir.join(SPOOL_FILE), true).map_err(failed)?;
        Ok(Self {
            disk: Arc::clone(disk),
            file,
            waiting: Vec::new(),
            len: 0,
            rows_end: 0,
            dir,
        })
    }

    fn failed(&self, error: std::io::Error) -> haven_fs::FsError {
        fatal(
            format!("cannot keep changes in {}", self.dir.display()),
            error,
        )
    }

    /// Adds a chunk; how long the file is with it.
    fn push(&mut self, chunk: &[u8]) -> FsResult<u64> {
        // Parsing has found it no longer than `CHUNK_BYTES_MAX`.
        let len = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        self.waiting.extend_from_slice(&len.to_be_bytes());
        self.waiting.extend_from_slice(chunk);
        if self.waiting.len() >= CHUNK_BYTES_MAX {
            self.write()?;
        }
        Ok(self.len + self.waiting.len() as u64)
    }

    fn write(&mut self) -> FsResult<()> {
        let written = self.file.write_at(self.len, &self.waiting);
        written.map_err(|e| self.failed(e))?;
        self.len += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    fn each(
        &self,
        range: std::ops::Range<u64>,
        visit: &mut dyn FnMut(Chunk<'_>) -> FsResult<()>,
    ) -> FsResult<()> {
        let changed = |_| fatal("cannot install changes", "what was received has changed");
        let mut at = range.start;
        let mut chunk = Vec::new();
        while at < range.end {
            let mut len = [0; LENGTH_BYTES];
            self.read(at, &mut len)?;
            let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
            chunk.resize(len.min(CHUNK_BYTES_MAX), 0);
            self.read(at + LENGTH_BYTES as u64, &mut chunk)?;
            visit(stream::parse(&chunk).map_err(changed)?)?;
            at += (LENGTH_BYTES + len) as u64;
        }
        Ok(())
    }

    fn read(&self, at: u64, bytes: &mut [u8]) -> FsResult<()> {
        match self.file.read_at(at, bytes).map_err(|e| self.failed(e))? {
            read if read == bytes.len() => Ok(()),
            _ => Err(fatal(
                "cannot install changes",
                "what was received is cut off",
            )),
        }
    }

    fn each_piece(&self, visit: &mut dyn FnMut(Ino, Piece<'_>) -> FsResult<()>) -> FsResult<()> {
        self.each(self.rows_end..self.len, &mut |chunk| {
            let Chunk::Data { ino, pieces } = chunk else {
                return Ok(());
            };
            for piece in PieceIter(pieces) {
                visit(ino, piece.map_err(|e| fatal("cannot install changes", e))?)?;
            }
            Ok(())
        })
    }

    fn each_row(&self, visit: Put<'_>) -> FsResult<()> {
        self.each(0..self.rows_end, &mut |chunk| {
            let Chunk::Edits(edits) = chunk else {
                return Ok(());
            };
            for edit in EditIter(edits) {
                let (key, value) = edit.map_err(|e| fatal("cannot install changes", e))?;
                visit(key, value)?;
            }
            Ok(())
        })
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = self.disk.remove_dir_all(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "received changes stay until restart");
        }
    }
}
