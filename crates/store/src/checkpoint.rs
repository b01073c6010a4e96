//! Checkpoints: making what was applied durable without holding up what is being applied.
//!
//! Three steps: [`Store::freeze`] (quick, exclusive) sets the changed rows aside; [`CheckpointJob::run`]
//! (slow, beside everything else) flushes file data, then commits the rows in one step;
//! [`Store::finish_checkpoint`] (quick, exclusive) drops the rows from memory.
//!
//! Invariants
//! - File data is durable before any row that speaks of it.
//! - A data file is unlinked only when a durable checkpoint says that its inode is gone. Until then a
//!   crash may bring the inode back, and replaying the log reads and writes its file again.
//! - What a checkpoint says of what remains in data files after cuts (`data::cut`) was so when it was frozen, or more.
//! - Rows that did not become durable stay in memory, whatever fails.
//!
//! It must not know what rows mean.

use crate::changes::Recorder;
use crate::data::Dirty;
use crate::layers::Rows;
use crate::open::{Generation, Store};
use crate::{fatal, keys};
use bytes::Bytes;
use haven_fs::{FsResult, Ino};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For how long a checkpoint unlinks data files; the rest is left to the next one.
const UNLINKING_MAX: Duration = Duration::from_secs(2);

/// A frozen checkpoint that is still to be made durable. Dropping it without running it means that this
/// store makes no checkpoint any more.
pub struct CheckpointJob {
    generation: Arc<Generation>,
    rows: Arc<Rows>,
    dirty: Dirty,
    buried: Vec<Ino>,
    applied: u64,
    token: Arc<()>,
}

/// A checkpoint that is durable, to be handed to [`Store::finish_checkpoint`].
#[must_use = "the store keeps the rows in memory until the checkpoint is finished"]
pub struct Checkpointed {
    generation: Arc<Generation>,
    /// Removed inodes whose data files are still there.
    graves: Vec<Ino>,
    /// Here to be freed with this, not under the store's lock.
    _rows: Arc<Rows>,
    _token: Arc<()>,
}

impl Store {
    /// Sets aside everything applied so far for a checkpoint. `None` when nothing changed since the last
    /// one or when one is under way.
    ///
    /// # Errors
    /// [`FsError::Fatal`](haven_fs::FsError::Fatal) when the last checkpoint failed, when the store
    /// stopped, or when something was applied that [`Store::set_position`] does not cover.
    pub fn freeze(&mut self) -> FsResult<Option<CheckpointJob>> {
        self.check_usable()?;
        if self.layers.is_frozen() {
            return match self.in_flight.strong_count() {
                0 => Err(fatal(
                    "cannot checkpoint",
                    "the last checkpoint failed; restart",
                )),
                _ => Ok(None),
            };
        }
        if self.unpositioned && self.position()?.is_some() {
            return Err(fatal(
                "cannot checkpoint",
                "an entry was applied without its position",
            ));
        }
        if self.layers.is_clean() && self.buried.is_empty() {
            return Ok(None);
        }
        self.note_applied();
        self.note_remains();
        let token = Arc::new(());
        self.in_flight = Arc::downgrade(&token);
        Ok(Some(CheckpointJob {
            generation: Arc::clone(&self.generation),
            rows: self.layers.freeze(),
            dirty: self.generation.data.take_dirty(),
            buried: std::mem::take(&mut self.buried),
            applied: self.applied,
            token,
        }))
    }

    /// Puts what remains of cuts among the changed rows. What is given back from here on and until the data files that
    /// changed are taken is said to remain, and does not: it is zeros either way.
    fn note_remains(&mut self) {
        for (ino, row) in self.generation.data.changed_remains() {
            match row {
                Some(row) => self.layers.put(keys::remains(ino), row),
                None => self.layers.remove(keys::remains(ino)),
            }
        }
    }

    /// Takes note that a checkpoint is durable. Returns the position that is durable now. Drop `done`
    /// after giving up exclusive access: freeing its rows takes long.
    pub fn finish_checkpoint(&mut self, done: &Checkpointed) -> FsResult<Option<Bytes>> {
        // A checkpoint of a state that a snapshot has replaced meanwhile is of no interest.
        if Arc::ptr_eq(&done.generation, &self.generation) {
            let view = self.generation.base.view()?;
            self.layers.thaw(view);
            self.buried.clone_from(&done.graves);
        }
        self.durable_position()
    }

    /// Makes everything applied so far durable. Returns the position that is durable now.
    pub fn checkpoint(&mut self) -> FsResult<Option<Bytes>> {
        match self.freeze()? {
            Some(job) => self.finish_checkpoint(&job.run()?),
            None if self.layers.is_frozen() => Err(fatal(
                "cannot checkpoint",
                "another checkpoint is under way",
            )),
            None => self.durable_position(),
        }
    }
}

impl CheckpointJob {
    /// Makes the checkpoint durable. Needs no access to the store and may take long.
    ///
    /// # Errors
    /// [`FsError::Fatal`](haven_fs::FsError::Fatal) when the disk fails. The store can still be read.
    pub fn run(mut self) -> FsResult<Checkpointed> {
        let mut left = Vec::new();
        let result = self.make_durable(&mut left);
        if !self.generation.is_retired() {
            result?;
        }
        left.extend(graves(&self.rows));
        Ok(Checkpointed {
            generation: self.generation,
            graves: left,
            _rows: self.rows,
            _token: self.token,
        })
    }

    /// Removed inodes whose data files take long to remove go into `left`.
    fn make_durable(&mut self, left: &mut Vec<Ino>) -> FsResult<()> {
        let data = &self.generation.data;
        let mut dirty = std::mem::take(&mut self.dirty);
        let mut unlinked = Vec::new();
        let began = Instant::now();
        for &ino in &self.buried {
            let in_time = began.elapsed() < UNLINKING_MAX;
            match in_time && data.unlink(ino, &mut dirty)? {
                true => unlinked.push(ino),
                false => left.push(ino),
            }
        }
        data.flush(&dirty)?;
        let base = &self.generation.base;
        let view = base.view()?;
        let mut recorder = Recorder::new(&view, self.applied)?;
        let mut record = Vec::new();
        // The keys of this replica alone come last of all.
        for key in self.rows.keys().take_while(|key| key[0] < keys::LOCAL) {
            record.extend(recorder.push(key));
        }
        for (ino, start, end) in dirty.ranges.iter() {
            record.extend(recorder.push(&keys::range(ino, start, end)));
        }
        record.extend(recorder.finish(&view)?);
        base.commit_layer(&self.rows, &unlinked, &record)
    }
}

/// The inodes that a layer marks for removal of their data files.
fn graves(rows: &Rows) -> Vec<Ino> {
    let end = keys::after_prefix(keys::GRAVEYARD).unwrap_or_default();
    let bounds = (
        Bound::Included(keys::GRAVEYARD),
        Bound::Excluded(end.as_slice()),
    );
    rows.range::<[u8], _>(bounds)
        .filter(|(_, value)| value.is_some())
        .filter_map(|(key, _)| keys::ino_of_grave(key))
        .collect()
}
