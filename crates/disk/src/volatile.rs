//! [`VolatileDisk`]: a directory of the machine behind a model of a power loss.
//!
//! What was not flushed lives in this process only: file contents and lengths until
//! [`DiskFile::sync`], names until [`Disk::sync_dir`] of their directory. Killing the process, or
//! [`VolatileDisk::forget`], loses exactly that. The model is the worst that POSIX allows:
//! - A created file whose directory was never flushed is lost, however often the file was flushed.
//! - A removed name is back until its directory is flushed.
//! - A rename happens, atomically, when the directory of the new name is flushed. When only the
//!   directory of the old name is flushed, the file is lost.
//!
//! Directories made by `create_dir_all` are durable at once, as the trait says.
//!
//! [`VolatileDisk::fail_flush`] makes a flush fail the way Linux does it. What could not be written counts as clean
//! then: it still reads as it was written, in this process and (the disk being left open) by whoever opens the same
//! files after it, but later flushes succeed without it. Only bytes that are written again, a length that changes
//! again, names in a directory in which another one changes again, get to the disk; a power loss takes the rest.
//! [`VolatileDisk::evict`] is what happens when memory is short: clean pages may be forgotten, and read as the disk has
//! them.
//!
//! Invariants
//! - The real directory always shows a state that a power loss at this moment may leave.
//! - Readers in this process always see the newest state, flushed or not.
//! - Lock order: power, then names (`tree`), then one file. Nothing is held while the device flushes
//!   except power, so `forget` waits for flushes under way.
//!
//! It must not know what is stored.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use crate::path::{STAGING, below_root, names};
use crate::{Disk, DiskError, DiskFile, RealDisk, Space};

mod faults;
mod file;
mod spans;
mod tree;

use faults::{Chances, Faults};
use file::FileNode;
use tree::Tree;

/// A [`RealDisk`] that keeps everything unflushed in memory. See the module's head comment.
pub struct VolatileDisk {
    real: Arc<RealDisk>,
    power: Arc<Power>,
    tree: Mutex<Tree>,
}

impl VolatileDisk {
    /// Opens (makes, locks) the root like [`RealDisk::open`].
    ///
    /// # Errors
    /// As [`RealDisk::open`].
    pub fn open(root: &Path) -> Result<VolatileDisk, DiskError> {
        let real = Arc::new(RealDisk::open(root)?);
        real.make_dir(Path::new(STAGING))
            .map_err(|e| DiskError::new("make", real.root().join(STAGING), e))?;
        Ok(VolatileDisk {
            tree: Mutex::new(Tree::new(Arc::clone(&real))),
            power: Arc::new(Power {
                on: RwLock::new(true),
                faults: Mutex::default(),
            }),
            real,
        })
    }

    /// Lets `after` flushes succeed and the next one fail; those after it succeed. Of what that one was to make
    /// durable, `seed` chooses what has reached the disk all the same, page by page or only sector by sector; the rest
    /// is as the module's head comment says. Directories count as made when their making fails, too.
    pub fn fail_flush(&self, after: u64, seed: u64) {
        self.power.faults.lock().plan(after, seed);
    }

    /// Whether the flush of the last [`VolatileDisk::fail_flush`] is still to come.
    #[must_use]
    pub fn flush_will_fail(&self) -> bool {
        self.power.faults.lock().is_planned()
    }

    /// Forgets pages that a failed flush left in memory only, but those for which `keep` answers true.
    pub fn evict(&self, mut keep: impl FnMut() -> bool) {
        let files = self.tree.lock().files();
        for file in files {
            file.evict(&mut keep);
        }
    }

    /// The power goes: everything unflushed is gone, every open handle and this disk fail from now
    /// on, and the root may be opened anew. Waits for calls under way.
    pub fn forget(&self) {
        self.forget_keeping(|| false);
    }

    /// As [`VolatileDisk::forget`], but of the unflushed bytes of files that exist durably, those
    /// sectors (512 bytes) for which `keep` answers true reach the disk, in any order: a power loss
    /// may also leave any part of what was written and not flushed. A shortening of a file is one
    /// such choice, made before its sectors (which are lost when it is).
    pub fn forget_keeping(&self, mut keep: impl FnMut() -> bool) {
        let mut on = self.power.on.write();
        if !*on {
            return;
        }
        *on = false;
        let mut tree = self.tree.lock();
        for node in tree.files() {
            // Losing more than asked for is within the model, so an error here is no failure.
            let _ = node.lose(&mut keep);
        }
        *tree = Tree::new(Arc::clone(&self.real));
        // Unlocking a lock we hold cannot fail in a way that matters: dropping it releases it too.
        let _ = self.real.release_lock();
    }

    fn with_tree<T>(&self, act: impl FnOnce(&mut Tree) -> io::Result<T>) -> io::Result<T> {
        let _on = self.power.enter()?;
        act(&mut self.tree.lock())
    }
}

impl Disk for VolatileDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let names = below_root(path)?;
        let node = self.with_tree(|tree| tree.open(&names, create))?;
        Ok(Arc::new(VolatileFile {
            node,
            power: Arc::clone(&self.power),
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let names = names(path)?;
        let fault = self.power.flush_fault();
        self.with_tree(|tree| tree.create_dir_all(&names, fault.is_some()))?;
        fault.map_or(Ok(()), |_| Err(faults::error(path)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (below_root(from)?, below_root(to)?);
        self.with_tree(|tree| tree.rename(&from, &to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let names = below_root(path)?;
        self.with_tree(|tree| tree.remove_file(&names))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let names = below_root(path)?;
        self.with_tree(|tree| tree.remove_dir_all(&names))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let names = names(path)?;
        self.with_tree(|tree| tree.list(&names))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let names = names(path)?;
        self.with_tree(|tree| tree.exists(&names))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let names = names(path)?;
        let _on = self.power.enter()?;
        if let Some(mut chances) = self.power.flush_fault() {
            self.tree
                .lock()
                .sync_dir_failing(&names, &mut || chances.next())?;
            return Err(faults::error(path));
        }
        let real_path = self.tree.lock().sync_dir(&names)?;
        self.real.flush_dir(&real_path)
    }

    fn sync_all(&self) -> io::Result<()> {
        let _on = self.power.enter()?;
        let files = self.tree.lock().files();
        if let Some(mut chances) = self.power.flush_fault() {
            for file in files {
                file.sync_failing(&mut || chances.next())?;
            }
            self.tree
                .lock()
                .sync_all_dirs_failing(&mut || chances.next())?;
            return Err(faults::error(Path::new("")));
        }
        for file in files {
            file.sync()?;
        }
        let dirs = self.tree.lock().sync_all_dirs()?;
        dirs.iter().try_for_each(|dir| self.real.flush_dir(dir))
    }

    fn space(&self) -> io::Result<Space> {
        let _on = self.power.enter()?;
        self.real.space()
    }
}

/// Whether the modelled machine still runs, and what its device will fail at.
struct Power {
    on: RwLock<bool>,
    faults: Mutex<Faults>,
}

impl Power {
    fn enter(&self) -> io::Result<RwLockReadGuard<'_, bool>> {
        let on = self.on.read();
        if *on {
            Ok(on)
        } else {
            Err(io::Error::other("the disk lost its power; open it anew"))
        }
    }

    /// Counts a flush; what decides what it brings to the disk, if it shall fail.
    fn flush_fault(&self) -> Option<Chances> {
        self.faults.lock().next()
    }
}

/// A handle of a file. All handles of one file share its node.
struct VolatileFile {
    node: Arc<FileNode>,
    power: Arc<Power>,
}

impl Drop for VolatileFile {
    fn drop(&mut self) {
        self.node.closed();
    }
}

impl DiskFile for VolatileFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let _on = self.power.enter()?;
        self.node.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let _on = self.power.enter()?;
        self.node.write_at(offset, &[data])
    }

    fn write_vectored_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let _on = self.power.enter()?;
        self.node.write_at(offset, parts)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let _on = self.power.enter()?;
        self.node.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let _on = self.power.enter()?;
        self.node.allocate(offset, len)
    }

    fn len(&self) -> io::Result<u64> {
        let _on = self.power.enter()?;
        Ok(self.node.len())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let _on = self.power.enter()?;
        self.node.next_data(offset)
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        let _on = self.power.enter()?;
        self.node.next_hole(offset)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let _on = self.power.enter()?;
        self.node.punch(offset, len)
    }

    fn sync(&self) -> io::Result<()> {
        let _on = self.power.enter()?;
        match self.power.flush_fault() {
            Some(mut chances) => {
                self.node.sync_failing(&mut || chances.next())?;
                Err(faults::error(self.node.staged()))
            }
            None => self.node.sync(),
        }
    }
}
