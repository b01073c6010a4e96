//! Cutting data files, and giving back what was cut off piece by piece.
//!
//! A cut of more than [`CUT_NOW_BYTES`] costs its caller nothing but a note ([`Remains`]); whoever has time gives the space
//! back ([`DataFiles::cut_piece`]). The same for removed files that take more than [`UNLINK_NOW_BYTES`]: they are cut
//! down first, and unlinked by a later checkpoint.
//!
//! Replay safety: what remains is part of a checkpoint (rows of this replica alone). After a crash the remains are those of
//! the checkpoint; a byte of them that was given back since is zero either way, and one that was written since is written
//! again by the log, which takes it out again. A range leaves the remains after it was given back, and its file then
//! counts as changed: no checkpoint without the range becomes durable before the giving back is.
//!
//! Invariants
//! - Nothing that counts is given back: a piece is taken while nobody writes the file, and until it is done nobody does.
//! - At most [`REMAINS_MAX`] ranges: who adds more gives the shortest back himself.
//!
//! It must not know when or how often pieces are asked for.

use super::{DataFiles, State};
use crate::remains::{Place, Remains};
use haven_disk::{DiskFile, renew};
use haven_fs::{FsResult, Ino};
use parking_lot::{MutexGuard, WaitTimeoutResult};
use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

/// So many bytes are cut at once, at most: they are in 16 places of the device if they are in none together.
pub const CUT_NOW_BYTES: u64 = 64 << 10;
/// A removed file that takes no more of the device is unlinked at once.
const UNLINK_NOW_BYTES: u64 = 1 << 20;
/// Ranges of all files: about a MiB.
const REMAINS_MAX: usize = 16 << 10;

/// What is to be given back.
#[derive(Default)]
pub struct Cuts {
    pub remains: Remains,
    /// Removed inodes whose files are too large to be unlinked.
    dead: BTreeSet<u64>,
    /// A file of which a piece is being given back.
    busy: Option<Ino>,
    /// Files that are being written.
    held: Vec<Ino>,
    /// Nobody gives back any more.
    stopped: bool,
}

impl Cuts {
    fn has_work(&self) -> bool {
        self.remains.count() > 0 || !self.dead.is_empty()
    }
}

/// Keeps pieces of a file from being given back while it is written.
pub struct Hold<'a>(&'a DataFiles, Ino);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        let held = &mut state.cuts.held;
        if let Some(at) = held.iter().position(|ino| *ino == self.1) {
            held.swap_remove(at);
        }
        self.0.cut_ended.notify_all();
    }
}

impl DataFiles {
    /// Makes the file no longer than `size` for everybody.
    pub(super) fn cut(&self, ino: Ino, file: &dyn DiskFile, size: u64) -> FsResult<()> {
        let failed = |e| self.failed("cut", ino, e);
        let len = file.len().map_err(failed)?;
        if len > size {
            self.clear(ino, file, size, len)?;
        }
        if let Some(open) = self.state.lock().open.get_mut(&ino.0) {
            open.trimmed = true;
        }
        Ok(())
    }

    /// Makes the bytes from `start` to `end` of a file that has them zeros for everybody; it may become shorter.
    pub(super) fn clear(
        &self,
        ino: Ino,
        file: &dyn DiskFile,
        start: u64,
        end: u64,
    ) -> FsResult<()> {
        if end - start > CUT_NOW_BYTES {
            let mut state = self.state.lock();
            state.cuts.remains.add(ino, start, end);
            self.cut_wanted.notify_one();
            return Ok(());
        }
        let _held = self.hold(ino, start, end);
        self.state.lock().dirty.files.insert(ino.0);
        give_back(file, start, end).map_err(|e| self.failed("cut", ino, e))
    }

    /// To be called, and its result kept, before bytes of a file are written: they are no remains any more.
    pub(super) fn hold(&self, ino: Ino, start: u64, end: u64) -> Option<Hold<'_>> {
        let mut state = self.state.lock();
        // Nothing is given back of a file that nothing remains of.
        if !state.cuts.remains.has(ino) {
            return None;
        }
        while state.cuts.busy == Some(ino) {
            self.cut_ended.wait(&mut state);
        }
        state.cuts.remains.remove(ino, start, end);
        state.cuts.held.push(ino);
        drop(state);
        Some(Hold(self, ino))
    }

    /// Gives back the shortest ranges while there are too many.
    pub(super) fn bound_remains(&self) -> FsResult<()> {
        loop {
            let state = self.state.lock();
            if state.cuts.remains.count() <= REMAINS_MAX {
                return Ok(());
            }
            let Some(place) = state.cuts.remains.shortest() else {
                return Ok(());
            };
            self.give_back_place(state, place)?;
        }
    }

    /// Gives back a piece of what was cut off or removed, of at most `most` bytes of a file (holes count). How many it
    /// was; `None`: there is nothing to give back. Waits while the file is written.
    ///
    /// # Errors
    /// The disk's. Nothing is lost by it; the piece can be tried again.
    pub fn cut_piece(&self, most: u64) -> FsResult<Option<u64>> {
        let mut state = self.state.lock();
        loop {
            if state.cuts.stopped {
                return Ok(None);
            }
            if let Some(place) = state.cuts.remains.last(&state.cuts.held) {
                let start = place.start.max(place.end.saturating_sub(most));
                let piece = Place { start, ..place };
                if self.give_back_place(state, piece)? {
                    return Ok(Some(piece.end - piece.start));
                }
                state = self.state.lock();
                continue;
            }
            if let Some(&ino) = state.cuts.dead.first() {
                drop(state);
                return self.shorten_dead(Ino(ino), most).map(Some);
            }
            if !state.cuts.has_work() {
                return Ok(None);
            }
            self.cut_ended.wait(&mut state);
        }
    }

    /// Waits until there is something to give back, at most so long.
    pub fn wait_for_cuts(&self, at_most: Duration) {
        let mut state = self.state.lock();
        if !state.cuts.has_work() && !state.cuts.stopped {
            let _: WaitTimeoutResult = self.cut_wanted.wait_for(&mut state, at_most);
        }
    }

    /// Ends waits, and giving back, for good.
    pub fn stop_cuts(&self) {
        self.state.lock().cuts.stopped = true;
        self.cut_wanted.notify_all();
        self.cut_ended.notify_all();
    }

    /// Files and bytes (with holes) that wait to be given back; removed files count without bytes.
    pub fn cuts_left(&self) -> (usize, u64) {
        let state = self.state.lock();
        let cuts = &state.cuts;
        let files = cuts.remains.files().count() + cuts.dead.len();
        (files, cuts.remains.bytes())
    }

    /// The rows of the remains that changed since the last call.
    pub fn changed_remains(&self) -> Vec<(Ino, Option<Vec<u8>>)> {
        let mut state = self.state.lock();
        let changed = state.cuts.remains.take_changed();
        let row = |ino| (Ino(ino), state.cuts.remains.row(Ino(ino)));
        changed.into_iter().map(row).collect()
    }

    /// The rows of all remains.
    pub fn all_remains(&self) -> Vec<(Ino, Vec<u8>)> {
        let state = self.state.lock();
        let remains = &state.cuts.remains;
        let rows = remains.files().map(|ino| (ino, remains.row(ino)));
        rows.filter_map(|(ino, row)| Some((ino, row?))).collect()
    }

    /// Takes the remains of a file as a checkpoint has them.
    pub fn load_remains(&self, ino: Ino, ranges: &[(u64, u64)]) {
        self.state.lock().cuts.remains.load(ino, ranges);
    }

    /// Sees to it that a removed file is cut down, if it is too large to be unlinked now. Whether it is.
    pub(super) fn is_too_large(&self, ino: Ino) -> io::Result<bool> {
        if self.disk.taken(&self.path(ino))? <= UNLINK_NOW_BYTES {
            return Ok(false);
        }
        self.state.lock().cuts.dead.insert(ino.0);
        self.cut_wanted.notify_one();
        Ok(true)
    }

    /// Gives back a place, which is no remainder then. False: something else was under way, and it waited for that.
    fn give_back_place(&self, mut state: MutexGuard<'_, State>, place: Place) -> FsResult<bool> {
        let Place { ino, start, end } = place;
        if state.cuts.busy.is_some() || state.cuts.held.contains(&ino) {
            self.cut_ended.wait(&mut state);
            return Ok(false);
        }
        state.cuts.busy = Some(ino);
        drop(state);
        let done = match self.disk.open(&self.path(ino), false) {
            Ok(file) => give_back(file.as_ref(), start, end),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        let mut state = self.state.lock();
        state.cuts.busy = None;
        // If it is none any more, its inode was removed meanwhile, and its file must not be flushed.
        if done.is_ok() && state.cuts.remains.remove(ino, start, end) {
            state.dirty.files.insert(ino.0);
        }
        drop(state);
        self.cut_ended.notify_all();
        done.map_err(|e| self.failed("give back space of", ino, e))?;
        Ok(true)
    }

    /// Cuts at most `most` bytes off a removed file.
    fn shorten_dead(&self, ino: Ino, most: u64) -> FsResult<u64> {
        let shorten = || -> io::Result<(u64, bool)> {
            let path = self.path(ino);
            if self.disk.taken(&path)? <= UNLINK_NOW_BYTES {
                return Ok((0, true));
            }
            let file = self.disk.open(&path, false)?;
            let len = file.len()?;
            let less = len.saturating_sub(most);
            file.set_len(less)?;
            Ok((len - less, less == 0))
        };
        let (bytes, over) = match shorten() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (0, true),
            shortened => shortened.map_err(|e| self.failed("give back space of", ino, e))?,
        };
        if over {
            // The next checkpoint unlinks it.
            self.state.lock().cuts.dead.remove(&ino.0);
        }
        Ok(bytes)
    }
}

/// Makes the bytes zeros and gives their space back. What is past the file's end stays there.
///
/// It may have been done by an earlier process whose flush failed, and then be in memory only: so it is done again in
/// truth, also where there is nothing to be seen any more.
fn give_back(file: &dyn DiskFile, start: u64, end: u64) -> io::Result<()> {
    let len = file.len()?;
    if start >= len {
        renew::length(file, 1)
    } else if end >= len {
        file.set_len(start)
    } else {
        file.punch(start, end - start)
    }
}
