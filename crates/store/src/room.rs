//! Whether a stream fits on the receiver's disk: the sender announces about how much will follow, the receiver asks its disk
//! before it takes anything, and again now and then, since others may use the same file system.
//!
//! Figures are estimates. They are rather too large than too small for rows, and of file data they count what the files
//! take at the sender: the receiver's file system may need a little more or less.
//!
//! It must not know what streams hold.

use crate::base;
use crate::changes::{Changed, Ranges};
use crate::delta_source::{From, Patches};
use crate::fatal;
use crate::keys;
use crate::record::{Inode, Place};
use crate::stream::SnapshotError;
use haven_disk::Disk;
use haven_fs::FsResult;
use std::ops::Bound;
use std::sync::Arc;

/// What a row takes in the database beside the contents of a small file: most are far below a hundred bytes, and pages are
/// not full.
const ROW_BYTES: u64 = 256;
/// Stays free for the log and the next checkpoint.
const SPARE_BYTES: u64 = 64 << 20;
/// The disk is asked again after so many bytes.
const LOOK_BYTES: u64 = 16 << 20;

/// About how much a stream brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Announced {
    /// What its rows take in a database.
    pub rows_bytes: u64,
    /// What its file data take on a disk.
    pub data_bytes: u64,
}

impl Announced {
    /// Of a whole snapshot: reads all inodes, and asks the disk about each data file.
    pub fn of_everything((disk, generation, view): From<'_>) -> FsResult<Self> {
        let mut sum = Self {
            rows_bytes: view.count()?.saturating_mul(ROW_BYTES),
            data_bytes: 0,
        };
        let (from, end) = ([keys::INODE], [keys::INODE + 1]);
        let mut rows = base::range(view, Bound::Included(&from), Bound::Excluded(&end))?;
        while let Some((key, value)) = base::next(&mut rows)? {
            let Some(ino) = keys::ino_of(key.value()) else {
                continue;
            };
            let inode = Inode::decode(ino, value.value())?;
            match inode.place {
                Place::Row => sum.add_row(inode.attr.size),
                Place::File => {
                    let path = generation.data.path(ino);
                    let taken = disk.taken(&path);
                    sum.data_bytes += taken.map_err(|e| {
                        fatal(format!("cannot look at data file {}", path.display()), e)
                    })?;
                }
            }
        }
        Ok(sum)
    }

    /// Of what changed: reads the records, and looks where the changed ranges have data.
    pub fn of_changes(from: From<'_>, mut changed: Changed) -> FsResult<Self> {
        let view = from.2;
        let mut sum = Self::default();
        while let Some(key) = changed.next(view)? {
            if key.first() != Some(&keys::RANGE) {
                let bytes = base::read(view, &key, |value| Ok(value.len() as u64))?;
                sum.rows_bytes += ROW_BYTES;
                sum.add_row(bytes.unwrap_or(0));
                continue;
            }
            let (mut ranges, mut patches) = (Ranges::from(&key), Patches::default());
            while let Some(range) = ranges.next(&mut changed, view)? {
                sum.data_bytes += patches.data_bytes(from, range)?;
            }
        }
        Ok(sum)
    }

    /// A quarter more: pages are not full.
    fn add_row(&mut self, bytes: u64) {
        self.rows_bytes += bytes.saturating_add(bytes / 4);
    }

    /// What the receiver's disk must have: changes are kept until they are whole, and then put in their places.
    fn need_bytes(self, partial: bool) -> u64 {
        let copies = if partial { 2 } else { 1 };
        let bytes = self.rows_bytes.saturating_add(self.data_bytes);
        bytes.saturating_mul(copies).saturating_add(SPARE_BYTES)
    }
}

/// The receiver's side.
pub struct Room {
    disk: Arc<dyn Disk>,
    partial: bool,
    /// Not here yet.
    ahead_bytes: u64,
    /// Came since the disk was asked.
    came_bytes: u64,
}

impl Room {
    /// For a stream of which so much is announced.
    ///
    /// # Errors
    /// [`SnapshotError::NoRoom`]: it cannot fit.
    pub fn admit(
        disk: &Arc<dyn Disk>,
        announced: Announced,
        partial: bool,
    ) -> Result<Self, SnapshotError> {
        let room = Self {
            disk: Arc::clone(disk),
            partial,
            ahead_bytes: announced.need_bytes(partial),
            came_bytes: 0,
        };
        room.look(room.ahead_bytes, room.ahead_bytes)?;
        Ok(room)
    }

    /// A part of it came.
    ///
    /// # Errors
    /// [`SnapshotError::NoRoom`]: what is still to come does not fit any more.
    pub fn take(&mut self, bytes: usize) -> Result<(), SnapshotError> {
        let bytes = bytes as u64;
        self.ahead_bytes = self.ahead_bytes.saturating_sub(bytes);
        self.came_bytes += bytes;
        if self.came_bytes < LOOK_BYTES {
            return Ok(());
        }
        self.came_bytes = 0;
        // Not what was announced less what came: on a disk both may be more, or less.
        self.look(SPARE_BYTES, self.ahead_bytes.max(SPARE_BYTES))
    }

    /// All of it came: what is put in its place now takes so much more.
    ///
    /// # Errors
    /// [`SnapshotError::NoRoom`].
    pub fn before_install(&self, bytes: u64) -> Result<(), SnapshotError> {
        let need_bytes = bytes.saturating_add(SPARE_BYTES);
        self.look(need_bytes, need_bytes)
    }

    /// Less than `least_bytes` are free: `need_bytes` are needed.
    fn look(&self, least_bytes: u64, need_bytes: u64) -> Result<(), SnapshotError> {
        let space = self.disk.space();
        let space = space.map_err(|e| fatal("cannot ask the disk for its free space", e))?;
        match space.free_bytes < least_bytes {
            true => Err(SnapshotError::NoRoom {
                need_bytes,
                free_bytes: space.free_bytes,
                partial: self.partial,
            }),
            false => Ok(()),
        }
    }
}

/// What is wrong.
pub fn what(need_bytes: u64, free_bytes: u64, partial: bool) -> String {
    let (need, free) = (need_bytes.div_ceil(1 << 20), free_bytes >> 20);
    let missing = need.saturating_sub(free);
    let what = match partial {
        true => "what this node missed",
        false => "a copy of everything",
    };
    format!(
        "{what} needs about {need} MiB on its disk, {free} MiB are free, {missing} MiB are missing"
    )
}

/// What to do.
pub const fn advice(partial: bool) -> &'static str {
    match partial {
        true => "give the node's file system more space",
        false => {
            "give the node's file system more space, or stop the node and empty its store's directory: what is there is \
             kept until the copy is whole"
        }
    }
}
