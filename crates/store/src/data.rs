//! Contents of regular files that are not kept in rows: one sparse file per inode, made when there is
//! something to write.
//!
//! Replay safety: after a crash (or in a received snapshot) a data file may be ahead of the metadata.
//! Writing and cutting the same ranges again gives the same contents. Growing does not by itself: it
//! would show what a later write had already put past the size. Therefore every operation that may grow
//! a file first cuts it to the size the metadata says, once per opening; from then on nothing in it past that size
//! counts, because every change goes through here.
//!
//! Cutting much costs time that changes have not got, so it is put off: `cut`.
//!
//! The same holds when a flush failed before the crash, so that not everything that can be read is on the disk: whatever was
//! written since the checkpoint is written again. But cutting a file that is short enough changes nothing, so nothing
//! would be flushed; and the cut may be in memory only, with what was cut off still on the disk, to show when the file grows.
//! Therefore a file that is shorter than the metadata says is cut anew to the length that it has, once per
//! opening: only a cut since the checkpoint can have made it so, or nothing was ever written there. (One that is as long as
//! the metadata says is cut, in truth, when the replay comes to it.)
//!
//! Invariants
//! - At most [`OPEN_FILES_MAX`] files stay open.
//! - Every file changed since the last [`DataFiles::take_dirty`] is in the next one, unless removed.
//!
//! It must not know attributes or permissions.

mod cut;

use crate::changed_ranges::ChangedRanges;
use crate::fatal;
use cut::Cuts;
use haven_disk::{Disk, DiskFile, renew};
use haven_fs::{FsError, FsResult, Ino};
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most data files kept open.
pub const OPEN_FILES_MAX: usize = 1024;

/// From how many files and directories on everything on the disk is flushed at once. Measured on ext4 on a
/// virtual disk (`cargo run --release -p haven-disk --example flush`), new files of 8 KiB, in milliseconds:
///
/// | files | each by itself | everything at once |
/// |---|---|---|
/// | 1 | 0.7 | 0.8 |
/// | 4 | 12 | 0.9 |
/// | 64 | 121 | 2.3 |
/// | 4096 | 7722 | 32 |
///
/// Not from the second on, because others may use the same file system, and what they wrote is flushed,
/// too.
const FLUSH_ALL_FROM: usize = 8;

/// A file that is written from front to back goes to the device in pieces of this many bytes while it is written.
/// Otherwise a checkpoint has it all to write at once, and the log's flushes wait behind that.
const STREAM_BYTES: u64 = 4 << 20;

/// What is written so many times as widely as there are bytes is no stream: its pages may well change again.
const STREAM_GAPS: u64 = 4;

/// Data directories: one for each value of an inode number's lowest byte.
const DIRS: usize = 256;

/// The data files of one generation.
pub struct DataFiles {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    state: Mutex<State>,
    /// There is something to give back.
    cut_wanted: Condvar,
    /// A piece was given back, or a file is not written any more.
    cut_ended: Condvar,
}

struct State {
    open: HashMap<u64, Open>,
    by_use: BTreeMap<u64, u64>,
    uses: u64,
    dirty: Dirty,
    known_dirs: [bool; DIRS],
    cuts: Cuts,
}

struct Open {
    file: Arc<dyn DiskFile>,
    used: u64,
    /// Whether nothing past the size that the metadata says is known to count.
    trimmed: bool,
    /// What was written and not yet sent to the device.
    stream: Stream,
}

/// Sees that a file is written from front to back, though a client's calls overtake each other.
#[derive(Default)]
struct Stream {
    /// From the first to the last byte of what was written.
    within: Range<u64>,
    /// How much of that was written.
    written: u64,
}

impl Stream {
    /// Takes note of a write; gives what is to be sent to the device now.
    fn wrote(&mut self, start: u64, end: u64) -> Option<Range<u64>> {
        if self.written == 0 {
            self.within = start..end;
        }
        self.within = self.within.start.min(start)..self.within.end.max(end);
        self.written += end - start;
        if self.within.end - self.within.start > self.written.saturating_mul(STREAM_GAPS) {
            *self = Self {
                within: start..end,
                written: end - start,
            };
        }
        let full = self.written >= STREAM_BYTES;
        full.then(|| std::mem::take(self).within)
    }
}

/// What must be flushed before a checkpoint of the metadata.
#[derive(Default)]
pub struct Dirty {
    /// Changed files.
    files: BTreeSet<u64>,
    /// Directories (by inode numbers' lowest byte) with new names, or less.
    dirs: BTreeSet<u8>,
    /// What operations changed of which files. What a file merely grows by is not among it: there are zeros, unless a
    /// later operation left something there before a crash, and that one counts itself.
    pub ranges: ChangedRanges,
}

impl DataFiles {
    /// The data files below `dir`.
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        let state = State {
            open: HashMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            dirty: Dirty::default(),
            known_dirs: [false; DIRS],
            cuts: Cuts::default(),
        };
        Self {
            disk,
            dir,
            state: Mutex::new(state),
            cut_wanted: Condvar::new(),
            cut_ended: Condvar::new(),
        }
    }

    /// Makes the names of all data files durable, and that those which are gone are gone. An earlier process may have
    /// made or removed files and ended before it flushed their names, or failed to; replaying finds them there (or gone)
    /// and does not make (or remove) them again.
    pub fn renew_names(&self) -> FsResult<()> {
        let names = self
            .disk
            .list(&self.dir)
            .map_err(|e| fatal(format!("cannot list {}", self.dir.display()), e))?;
        let low = |name: &String| u8::from_str_radix(name, 16).ok();
        let lows: Vec<u8> = names.iter().filter_map(low).collect();
        let mut dirs: Vec<PathBuf> = lows.iter().map(|&low| dir_path(&self.dir, low)).collect();
        dirs.push(self.dir.clone());
        for dir in &dirs {
            renew::touch(self.disk.as_ref(), dir)
                .map_err(|e| fatal(format!("cannot write to directory {}", dir.display()), e))?;
        }
        if !self.flush_all()? {
            dirs.iter().try_for_each(|dir| self.flush_dir(dir))?;
        }
        // They are durable now: the first write into each need not see to it again.
        let mut state = self.state.lock();
        for low in lows {
            state.known_dirs[usize::from(low)] = true;
        }
        Ok(())
    }

    /// The `len` bytes at `offset`; zeros where the file has none.
    pub fn read(&self, ino: Ino, offset: u64, len: usize) -> FsResult<Vec<u8>> {
        let end = offset.saturating_add(len as u64);
        // Asked before: what is given back meanwhile reads as zeros either way.
        let remains = self.state.lock().cuts.remains.within(ino, offset, end);
        let mut out = Vec::with_capacity(len);
        if let Some(file) = self.existing(ino)? {
            file.read_onto(offset, len, &mut out)
                .map_err(|e| self.failed("read", ino, e))?;
        }
        out.resize(len, 0);
        hide(&mut out, offset, &remains);
        Ok(out)
    }

    /// Where at or after `offset` the file may have bytes other than zeros.
    pub fn next_data(&self, ino: Ino, offset: u64) -> FsResult<Option<u64>> {
        let Some(file) = self.existing(ino)? else {
            return Ok(None);
        };
        let mut at = offset;
        loop {
            let found = file.next_data(at);
            let found = found.map_err(|e| self.failed("look for data in", ino, e))?;
            let Some(found) = found else {
                return Ok(None);
            };
            match self.state.lock().cuts.remains.end_of(ino, found) {
                Some(end) => at = end,
                None => return Ok(Some(found)),
            }
        }
    }

    /// Makes the file hold these bytes and nothing else, whatever it held.
    pub fn start_over(&self, ino: Ino, contents: &[u8]) -> FsResult<()> {
        let file = self.create(ino)?;
        self.cut(ino, file.as_ref(), 0)?;
        self.put(ino, file.as_ref(), 0, contents)?;
        let mut state = self.state.lock();
        state.dirty.files.insert(ino.0);
        state.dirty.ranges.mark(ino, 0, u64::MAX);
        Ok(())
    }

    /// Writes `data` at `offset` into the file of an inode of `size` bytes.
    pub fn write(&self, ino: Ino, size: u64, offset: u64, data: &[u8]) -> FsResult<()> {
        let file = match self.trimmed(ino, size)? {
            Some(file) => file,
            None => self.create(ino)?,
        };
        self.put(ino, file.as_ref(), offset, data)?;
        let stream = {
            let mut state = self.state.lock();
            state.dirty.files.insert(ino.0);
            let end = offset.saturating_add(data.len() as u64);
            state.dirty.ranges.mark(ino, offset, end);
            let open = state.open.get_mut(&ino.0);
            open.and_then(|open| open.stream.wrote(offset, end))
        };
        if let Some(range) = stream {
            file.start_writeback(range.start, range.end - range.start);
        }
        Ok(())
    }

    /// Prepares the file of an inode of `old` bytes for having `new` bytes: nothing past either stays.
    pub fn resize(&self, ino: Ino, old: u64, new: u64) -> FsResult<()> {
        if new >= old {
            return self.trimmed(ino, old).map(drop);
        }
        self.state.lock().dirty.ranges.mark(ino, new, u64::MAX);
        match self.trimmed(ino, old)? {
            Some(file) => self.cut(ino, file.as_ref(), new),
            None => Ok(()),
        }
    }

    /// The inode is gone: its file need not be flushed any more. The file itself stays.
    pub fn forget(&self, ino: Ino) {
        let mut state = self.state.lock();
        if let Some(open) = state.open.remove(&ino.0) {
            state.by_use.remove(&open.used);
        }
        state.dirty.files.remove(&ino.0);
        state.dirty.ranges.forget(ino);
        state.cuts.remains.forget(ino);
    }

    /// Nothing is known of the open files any more: they may be longer than the metadata says, as after
    /// a start.
    pub fn forget_all(&self) {
        let mut state = self.state.lock();
        state.open.clear();
        state.by_use.clear();
    }

    /// Puts what another replica has at `offset` into the file. Whoever patches calls
    /// [`DataFiles::forget_all`] before and after.
    pub fn patch(&self, ino: Ino, offset: u64, bytes: &[u8]) -> FsResult<()> {
        let file = match self.existing(ino)? {
            Some(file) => file,
            None => self.create(ino)?,
        };
        self.put(ino, file.as_ref(), offset, bytes)?;
        self.state.lock().dirty.files.insert(ino.0);
        Ok(())
    }

    /// As [`DataFiles::patch`], with a hole from `start` to `end`: whatever is there goes.
    pub fn patch_hole(&self, ino: Ino, start: u64, end: u64) -> FsResult<()> {
        let Some(file) = self.existing(ino)? else {
            return Ok(());
        };
        let len = file.len().map_err(|e| self.failed("clear", ino, e))?;
        if start >= len {
            // What was cut off may be gone from memory only, see the module's head comment.
            renew::length(file.as_ref(), 1).map_err(|e| self.failed("clear", ino, e))?;
            self.state.lock().dirty.files.insert(ino.0);
            return Ok(());
        }
        self.clear(ino, file.as_ref(), start, end.min(len))
    }

    /// Takes the list of what must be flushed.
    pub fn take_dirty(&self) -> Dirty {
        std::mem::take(&mut self.state.lock().dirty)
    }

    /// Makes all of it durable.
    pub fn flush(&self, dirty: &Dirty) -> FsResult<()> {
        let several = dirty.files.len() + dirty.dirs.len() >= FLUSH_ALL_FROM;
        if several && self.flush_all()? {
            return Ok(());
        }
        for &ino in &dirty.files {
            self.flush_file(Ino(ino))?;
        }
        for &low in &dirty.dirs {
            self.flush_dir(&dir_path(&self.dir, low))?;
        }
        Ok(())
    }

    /// Removes the file of an inode that no durable state knows; its directory joins `dirty`. False: that would take
    /// long, so its space is given back first.
    pub fn unlink(&self, ino: Ino, dirty: &mut Dirty) -> FsResult<bool> {
        let failed = |e| self.failed("remove", ino, e);
        if self.is_too_large(ino).map_err(failed)? {
            return Ok(false);
        }
        match self.disk.remove_file(&self.path(ino)) {
            Ok(()) => drop(dirty.dirs.insert(low_byte(ino))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(true)
    }

    /// Where the file of `ino` is.
    pub fn path(&self, ino: Ino) -> PathBuf {
        file_path(&self.dir, ino)
    }

    /// Flushes everything on the disk. Whether the disk can do that.
    fn flush_all(&self) -> FsResult<bool> {
        match self.disk.sync_all() {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(false),
            Err(error) => Err(fatal("cannot flush data files", error)),
        }
    }

    fn flush_file(&self, ino: Ino) -> FsResult<()> {
        let open = self
            .state
            .lock()
            .open
            .get(&ino.0)
            .map(|open| Arc::clone(&open.file));
        let flushed = match open {
            Some(file) => file.sync(),
            None => self
                .disk
                .open(&self.path(ino), false)
                .and_then(|file| file.sync()),
        };
        flushed.map_err(|e| self.failed("flush", ino, e))
    }

    fn flush_dir(&self, dir: &Path) -> FsResult<()> {
        self.disk
            .sync_dir(dir)
            .map_err(|e| fatal(format!("cannot flush directory {}", dir.display()), e))
    }

    /// The open file, cut to `size` if this opening has not done so; see the module's head comment.
    fn trimmed(&self, ino: Ino, size: u64) -> FsResult<Option<Arc<dyn DiskFile>>> {
        let Some(file) = self.existing(ino)? else {
            return Ok(None);
        };
        if !self
            .state
            .lock()
            .open
            .get(&ino.0)
            .is_some_and(|open| open.trimmed)
        {
            let failed = |e| self.failed("cut", ino, e);
            if file.len().map_err(failed)? < size {
                renew::length(file.as_ref(), 1).map_err(failed)?;
                self.state.lock().dirty.files.insert(ino.0);
            }
            self.cut(ino, file.as_ref(), size)?;
        }
        Ok(Some(file))
    }

    /// Writes into the file; what is written is no remainder of a cut any more.
    fn put(&self, ino: Ino, file: &dyn DiskFile, offset: u64, bytes: &[u8]) -> FsResult<()> {
        let held = self.hold(ino, offset, offset.saturating_add(bytes.len() as u64));
        file.write_at(offset, bytes)
            .map_err(|e| self.failed("write", ino, e))?;
        match held {
            None => Ok(()),
            Some(held) => {
                drop(held);
                self.bound_remains()
            }
        }
    }

    fn existing(&self, ino: Ino) -> FsResult<Option<Arc<dyn DiskFile>>> {
        if let Some(file) = self.state.lock().touch(ino) {
            return Ok(Some(file));
        }
        match self.disk.open(&self.path(ino), false) {
            Ok(file) => {
                self.state.lock().keep(ino, &file, false);
                Ok(Some(file))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("open", ino, error)),
        }
    }

    fn create(&self, ino: Ino) -> FsResult<Arc<dyn DiskFile>> {
        let low = low_byte(ino);
        if !self.state.lock().known_dirs[usize::from(low)] {
            let dir = dir_path(&self.dir, low);
            self.disk
                .create_dir_all(&dir)
                .map_err(|e| fatal(format!("cannot make directory {}", dir.display()), e))?;
        }
        let file = self
            .disk
            .open(&self.path(ino), true)
            .map_err(|e| self.failed("create", ino, e))?;
        let mut state = self.state.lock();
        state.known_dirs[usize::from(low)] = true;
        state.dirty.dirs.insert(low);
        state.keep(ino, &file, true);
        Ok(file)
    }

    fn failed(&self, what: &str, ino: Ino, error: io::Error) -> FsError {
        fatal(
            format!("cannot {what} data file {}", self.path(ino).display()),
            error,
        )
    }
}

impl State {
    /// The open file, marked as just used.
    fn touch(&mut self, ino: Ino) -> Option<Arc<dyn DiskFile>> {
        let open = self.open.get_mut(&ino.0)?;
        self.by_use.remove(&open.used);
        self.uses += 1;
        open.used = self.uses;
        self.by_use.insert(self.uses, ino.0);
        Some(Arc::clone(&open.file))
    }

    /// Keeps a file open, in place of the one unused for longest when there are too many.
    fn keep(&mut self, ino: Ino, file: &Arc<dyn DiskFile>, trimmed: bool) {
        self.uses += 1;
        let open = Open {
            file: Arc::clone(file),
            used: self.uses,
            trimmed,
            stream: Stream::default(),
        };
        if let Some(old) = self.open.insert(ino.0, open) {
            self.by_use.remove(&old.used);
        }
        self.by_use.insert(self.uses, ino.0);
        while self.open.len() > OPEN_FILES_MAX {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                break;
            };
            self.open.remove(&oldest);
        }
    }
}

/// Makes zeros of the `ranges` of a file among its bytes from `offset` on.
pub fn hide(bytes: &mut [u8], offset: u64, ranges: &[(u64, u64)]) {
    for (start, end) in ranges {
        let place = |at: u64| usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (start, end) = (place(*start), place(*end).min(bytes.len()));
        if let Some(part) = bytes.get_mut(start..end) {
            part.fill(0);
        }
    }
}

/// The data file of `ino` below the data directory `dir`.
pub fn file_path(dir: &Path, ino: Ino) -> PathBuf {
    dir_path(dir, low_byte(ino)).join(format!("{:016x}", ino.0))
}

fn dir_path(dir: &Path, low: u8) -> PathBuf {
    dir.join(format!("{low:02x}"))
}

fn low_byte(ino: Ino) -> u8 {
    ino.0.to_be_bytes()[7]
}

#[cfg(test)]
mod tests {
    use super::{STREAM_BYTES, Stream};

    const MIB: u64 = 1 << 20;

    /// What is sent to the device when pieces of 1 MiB are written at these places.
    fn sent(places: impl Iterator<Item = u64>) -> Vec<std::ops::Range<u64>> {
        let mut stream = Stream::default();
        places
            .filter_map(|at| stream.wrote(at * MIB, (at + 1) * MIB))
            .collect()
    }

    #[test]
    fn a_stream_whose_writes_overtake_each_other_is_sent_whole() {
        // Of eight calls in flight any may come first.
        let order = (0..128).map(|n| (n & !7) | [3, 0, 7, 1, 2, 6, 5, 4][n as usize & 7]);
        let sent = sent(order);
        assert_eq!(sent.len() as u64, 128 * MIB / STREAM_BYTES);
        let mut covered = vec![false; 128];
        for range in sent {
            assert!(range.end - range.start <= 2 * STREAM_BYTES, "{range:?}");
            (range.start / MIB..range.end / MIB).for_each(|at| covered[at as usize] = true);
        }
        assert!(covered.into_iter().all(|at| at));
    }

    #[test]
    fn what_is_written_here_and_there_is_left_to_the_checkpoint() {
        assert!(sent((0..128).map(|n| n * 37 % 128 * 100)).is_empty());
    }

    #[test]
    fn a_stream_begins_after_writes_elsewhere() {
        let order = [9000, 20].into_iter().chain(100..108);
        let expected = vec![100 * MIB..104 * MIB, 104 * MIB..108 * MIB];
        assert_eq!(sent(order), expected);
    }
}
