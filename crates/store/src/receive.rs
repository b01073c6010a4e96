//! Receiving: a stream of chunks becomes a new generation beside the present one, which it replaces in
//! one atomic step when it is whole.
//!
//! Invariants
//! - Nothing of the stream is believed: kinds, order, keys, values, sizes, counts and the hash are
//!   checked. What arrives changes only the new generation's directory.
//! - The switch is the replacement of `CURRENT`; before it everything received is durable.
//! - What is not installed is removed, at the latest by the next open.
//!
//! It must not know who sends.

use crate::base::{self, View};
use crate::changes::History;
use crate::current;
use crate::delta::{DeltaWriter, Site, StagedDelta};
use crate::layers::Rows;
use crate::open::{Generation, Store, StoreOptions};
use crate::record::{self, Counters, Inode, Place};
use crate::room::Room;
use crate::snapshot::absorb;
use crate::stream::{self, Chunk, Piece, PieceIter, RowIter, SnapshotError, Stage, Totals};
use crate::{fatal, keys};
use bytes::Bytes;
use haven_disk::Disk;
use haven_fs::{FsResult, Ino, Kind, rules};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows are committed whenever this many bytes have gathered.
const GATHERED_BYTES_MAX: usize = 8 << 20;

/// A snapshot being received, whole or as changes. Dropping it discards what came.
pub struct SnapshotWriter {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    number: u64,
    options: StoreOptions,
    live: Arc<Generation>,
    doubted: Arc<AtomicBool>,
    shape: Shape,
    /// Once it began.
    room: Option<Room>,
}

/// What the stream's header said.
enum Shape {
    Unknown,
    Whole(Box<WholeWriter>),
    Changes(Box<DeltaWriter>),
}

/// A whole snapshot being received.
struct WholeWriter {
    staging: Staging,
    stage: Stage,
    applied: u64,
    position: Bytes,
    gathered: Rows,
    gathered_bytes: usize,
    last_key: Vec<u8>,
    last_ino: Ino,
    view: Option<View>,
    last_data: (Ino, u64),
    hasher: blake3::Hasher,
    totals: Totals,
}

/// A snapshot that has arrived, beside the present state. Dropping it discards it.
pub struct StagedSnapshot(Staged);

enum Staged {
    /// Durable.
    Whole {
        staging: Staging,
        position: Bytes,
    },
    Changes(StagedDelta),
}

/// A generation that does not count yet: removed unless taken.
struct Staging {
    disk: Arc<dyn Disk>,
    generation: Option<Arc<Generation>>,
}

impl Staging {
    fn generation(&self) -> FsResult<&Arc<Generation>> {
        self.generation
            .as_ref()
            .ok_or_else(|| fatal("cannot receive a snapshot", "already taken"))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let Some(generation) = self.generation.take() else {
            return;
        };
        let dir = generation.dir.clone();
        drop(generation);
        if let Err(error) = self.disk.remove_dir_all(&dir) {
            tracing::warn!(dir = %dir.display(), %error, "discarded snapshot stays until restart");
        }
    }
}

impl Store {
    /// Starts receiving a snapshot beside the present state.
    pub fn receive(&self) -> SnapshotWriter {
        SnapshotWriter {
            disk: Arc::clone(&self.disk),
            dir: self.dir.clone(),
            number: self.generation_next.fetch_add(1, Ordering::Relaxed),
            options: self.options,
            live: Arc::clone(&self.generation),
            doubted: Arc::clone(&self.base_doubted),
            shape: Shape::Unknown,
            room: None,
        }
    }

    /// Replaces the present state by a received one, durably and atomically. A checkpoint under way
    /// loses its meaning; finishing it changes nothing. Changes, however, are put into the present state:
    /// there must be no checkpoint under way.
    pub fn install(&mut self, staged: StagedSnapshot) -> FsResult<()> {
        match staged.0 {
            Staged::Whole { staging, .. } => self.install_whole(staging)?,
            Staged::Changes(delta) => self.install_delta(&delta)?,
        }
        self.unpositioned = false;
        Ok(())
    }

    fn install_whole(&mut self, mut staging: Staging) -> FsResult<()> {
        let generation = Arc::clone(staging.generation()?);
        if generation.dir.parent() != Some(self.dir.as_path()) {
            return Err(fatal(
                "cannot install a snapshot",
                "it was received by another store",
            ));
        }
        self.mutate(|store| {
            // If this fails nobody knows which one counts; what does not goes at the next open.
            staging.generation = None;
            current::write(store.disk.as_ref(), &store.dir, generation.number)?;
            store.generation.retired.store(true, Ordering::Release);
            let old = store.generation.dir.clone();
            store.adopt(generation)?;
            store.base_doubted.store(false, Ordering::Release);
            remove_old(store.disk.as_ref(), &store.dir, &old)
        })
    }
}

impl StagedSnapshot {
    /// The position that the state belongs to.
    pub fn position(&self) -> Bytes {
        match &self.0 {
            Staged::Whole { position, .. } => position.clone(),
            Staged::Changes(delta) => delta.position(),
        }
    }

    /// Whether it holds only what changed.
    pub const fn is_partial(&self) -> bool {
        matches!(self.0, Staged::Changes(_))
    }
}

impl SnapshotWriter {
    /// Takes the next chunk.
    ///
    /// # Errors
    /// [`SnapshotError::Bad`] when the stream is not a valid one; the rest of it is of no use then.
    /// [`SnapshotError::NoRoom`] when it does not fit on the disk: with the first chunk, before anything is written, if
    /// that can be told from what the sender announces, and with the last one at the latest.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        if let Shape::Unknown = self.shape {
            self.begin(stream::parse(chunk)?)?;
        }
        if let Some(room) = &mut self.room {
            room.take(chunk.len())?;
        }
        match &mut self.shape {
            Shape::Whole(whole) => whole.push(chunk),
            Shape::Changes(changes) => {
                changes.push(chunk)?;
                match (&self.room, changes.ended()) {
                    (Some(room), Some(bytes)) => room.before_install(bytes),
                    _ => Ok(()),
                }
            }
            Shape::Unknown => Err(SnapshotError::Bad("chunks out of order")),
        }
    }

    /// Makes ready what was received: it must be whole.
    pub fn finish(self) -> Result<StagedSnapshot, SnapshotError> {
        match self.shape {
            Shape::Whole(whole) => whole.finish(),
            Shape::Changes(changes) => Ok(StagedSnapshot(Staged::Changes(changes.finish()?))),
            Shape::Unknown => Err(SnapshotError::Bad("the end is missing")),
        }
    }

    fn begin(&mut self, first: Chunk<'_>) -> Result<(), SnapshotError> {
        let Chunk::Header {
            base, announced, ..
        } = first
        else {
            return Err(SnapshotError::Bad("chunks out of order"));
        };
        self.room = Some(Room::admit(&self.disk, announced, base.is_some())?);
        if base.is_some() {
            let site = Site {
                disk: &self.disk,
                dir: &self.dir,
                number: self.number,
                live: &self.live,
                doubted: &self.doubted,
            };
            self.shape = Shape::Changes(Box::new(DeltaWriter::new(&site)?));
            return Ok(());
        }
        let generation = Generation::open(&self.disk, &self.dir, self.number, self.options)?;
        let staging = Staging {
            disk: Arc::clone(&self.disk),
            generation: Some(Arc::new(generation)),
        };
        self.shape = Shape::Whole(Box::new(WholeWriter::new(staging)));
        Ok(())
    }
}

impl WholeWriter {
    fn new(staging: Staging) -> Self {
        Self {
            staging,
            stage: Stage::Start,
            applied: 0,
            position: Bytes::new(),
            gathered: Rows::new(),
            gathered_bytes: 0,
            last_key: Vec::new(),
            last_ino: Ino(0),
            view: None,
            last_data: (Ino(0), 0),
            hasher: blake3::Hasher::new(),
            totals: Totals::default(),
        }
    }

    fn push(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        let parsed = stream::parse(chunk)?;
        match parsed {
            Chunk::Header {
                applied, position, ..
            } => {
                self.stage.advance(Stage::Start, Stage::Start)?;
                self.stage = Stage::Rows;
                self.applied = applied;
                self.position = Bytes::copy_from_slice(position);
            }
            Chunk::Rows(rows) => {
                self.stage.advance(Stage::Rows, Stage::Rows)?;
                for row in RowIter(rows) {
                    let (key, value) = row?;
                    self.take_row(key, value)?;
                }
            }
            Chunk::Data { ino, pieces } => {
                self.stage.advance(Stage::Rows, Stage::Data)?;
                self.take_data(ino, pieces)?;
            }
            Chunk::Edits(_) => {
                return Err(SnapshotError::Bad("changes in a whole snapshot"));
            }
            Chunk::End { totals, hash } => {
                self.stage.advance(Stage::Rows, Stage::Ended)?;
                if totals != self.totals {
                    return Err(SnapshotError::Bad("counts differ: a part is missing"));
                }
                if hash != *self.hasher.finalize().as_bytes() {
                    return Err(SnapshotError::Bad("checksum differs"));
                }
            }
        }
        absorb(&mut self.hasher, chunk);
        Ok(())
    }

    /// Makes what was received durable. It must be whole.
    fn finish(mut self: Box<Self>) -> Result<StagedSnapshot, SnapshotError> {
        if self.stage != Stage::Ended {
            return Err(SnapshotError::Bad("the end is missing"));
        }
        self.gathered
            .insert(keys::POSITION.into(), Some(self.position.clone()));
        if self.applied > 0 {
            let (applied, history) = (self.applied.to_be_bytes(), History::from(self.applied));
            let applied = Bytes::copy_from_slice(&applied);
            self.gathered.insert(keys::APPLIED.into(), Some(applied));
            let history = Some(history.encode().into());
            self.gathered.insert(keys::HISTORY.into(), history);
        }
        self.commit()?;
        self.check_whole()?;
        self.view = None;
        flush(self.staging.disk.as_ref(), self.staging.generation()?)?;
        Ok(StagedSnapshot(Staged::Whole {
            staging: self.staging,
            position: self.position,
        }))
    }

    fn take_row(&mut self, key: &[u8], value: &[u8]) -> Result<(), SnapshotError> {
        if key <= self.last_key.as_slice() {
            return Err(SnapshotError::Bad("rows out of order"));
        }
        record::validate(key, value).map_err(|_| SnapshotError::Bad("a row has no meaning"))?;
        if let (Some(&keys::INODE), Some(ino)) = (key.first(), keys::ino_of(key)) {
            self.last_ino = ino;
        }
        self.last_key = key.to_vec();
        self.totals.rows += 1;
        self.gathered_bytes += key.len() + value.len();
        self.gathered
            .insert(key.into(), Some(Bytes::copy_from_slice(value)));
        if self.gathered_bytes >= GATHERED_BYTES_MAX {
            self.commit()?;
        }
        Ok(())
    }

    fn take_data(&mut self, ino: Ino, pieces: &[u8]) -> Result<(), SnapshotError> {
        if self.view.is_none() {
            self.commit()?;
            self.view = Some(self.staging.generation()?.base.view()?);
        }
        let row = match &self.view {
            Some(view) => base::get(view, &keys::inode(ino))?,
            None => None,
        };
        let row = row.ok_or(SnapshotError::Bad("data of an unknown file"))?;
        let Inode { attr, place, .. } = Inode::decode(ino, &row)?;
        for piece in PieceIter(pieces) {
            let piece = piece?;
            let (start, end) = piece.span();
            let Piece::Data { bytes, .. } = piece else {
                return Err(SnapshotError::Bad("a hole in a whole snapshot"));
            };
            if (ino, start) < self.last_data {
                return Err(SnapshotError::Bad("file data out of order"));
            }
            if place != Place::File || end > attr.size {
                return Err(SnapshotError::Bad("data past the end of its file"));
            }
            let data = &self.staging.generation()?.data;
            data.write(ino, attr.size, start, bytes)?;
            self.last_data = (ino, end);
            self.totals.data_bytes += bytes.len() as u64;
        }
        self.totals.data_chunks += 1;
        Ok(())
    }

    fn commit(&mut self) -> FsResult<()> {
        let rows = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        self.staging
            .generation()?
            .base
            .commit_layer(&rows, &[], &[])
    }

    /// What every state has: a root directory, and counters that are ahead of all inodes.
    fn check_whole(&self) -> Result<(), SnapshotError> {
        let view = self.staging.generation()?.base.view()?;
        let root = base::get(&view, &keys::inode(rules::ROOT_INO))?;
        let root = root.ok_or(SnapshotError::Bad("no root directory"))?;
        let root = Inode::decode(rules::ROOT_INO, &root)?;
        let counters = base::get(&view, keys::COUNTERS)?;
        let counters = counters.ok_or(SnapshotError::Bad("no counters"))?;
        let counters = Counters::decode(&counters)?;
        if root.attr.kind != Kind::Directory || counters.next_ino <= self.last_ino.0 {
            return Err(SnapshotError::Bad("root or counters make no sense"));
        }
        Ok(())
    }
}

fn flush(disk: &dyn Disk, generation: &Generation) -> FsResult<()> {
    generation.data.flush(&generation.data.take_dirty())?;
    generation.sync_names(disk)
}

/// Removes the generation that was replaced. Other generations are other snapshots being received.
fn remove_old(disk: &dyn Disk, dir: &Path, old: &Path) -> FsResult<()> {
    disk.remove_dir_all(old)
        .and_then(|()| disk.sync_dir(dir))
        .map_err(|e| fatal(format!("cannot remove {}", old.display()), e))
}
