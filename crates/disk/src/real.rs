//! [`RealDisk`]: a directory of the machine's file system.
//!
//! Invariants
//! - Everything is reached through the root's descriptor: when the file system is unmounted lazily or
//!   the directory moved, nothing is ever written to whatever appears at the path instead.
//! - An `io::Error` names the operation and the path; its `kind` is that of the system's error.
//! - A file handle whose flush failed once fails every later flush: the kernel may have dropped the
//!   pages it could not write, so that a repeated flush would lie.
//!
//! It must not know what is stored.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, Dir, FallocateFlags, FileType, Mode, OFlags, SeekFrom};
use rustix::io::{Errno, retry_on_intr};

use crate::direct::{self, Bounce, Direct, Division};
use crate::path::{STAGING, below_root, joined, names, reserved};
use crate::root::{self, RootLock};
use crate::writeback;
use crate::{Disk, DiskError, DiskFile, Space};

/// Parts handed to one `pwritev` (the kernel's IOV_MAX).
const IOV_MAX: usize = 1024;
/// The kernel from which on `syncfs` reports errors of writing back.
const SYNCFS_TELLS: (u32, u32) = (5, 8);
/// Unit of `st_blocks`, whatever the file system's blocks are.
const STAT_BLOCK_BYTES: u64 = 512;
/// Zeros written at once where no hole can be made.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
/// Mode of files and directories below the root.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const DIR_MODE: Mode = Mode::RWXU;

/// A directory of the machine's file system, held by this process alone.
#[derive(Debug)]
pub struct RealDisk {
    root: PathBuf,
    dir: OwnedFd,
    lock: Arc<RootLock>,
    flush_failed: FlushFailed,
    bounce: Bounce,
    /// Whether flushing the file system tells of bytes that could not be written.
    tells_failures: bool,
}

impl RealDisk {
    /// Opens the root, making it (mode 0700) when it is missing, and locks it for this process.
    ///
    /// # Errors
    /// [`DiskError::InUse`] when it is held already; permission and other trouble by name.
    pub fn open(root: &Path) -> Result<RealDisk, DiskError> {
        let disk = RealDisk::on(root::open(root)?);
        // What a killed `VolatileDisk` left there was never durable.
        match disk.remove_tree(Path::new(STAGING)) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(DiskError::new("clear", disk.root.join(STAGING), e)),
        }
        Ok(disk)
    }

    /// A root that exists, for [`crate::ReadOnlyDisk`].
    pub(crate) fn open_to_read(root: &Path) -> Result<RealDisk, DiskError> {
        Ok(RealDisk::on(root::open_to_read(root)?))
    }

    fn on((root, dir, lock): (PathBuf, OwnedFd, RootLock)) -> RealDisk {
        RealDisk {
            root,
            dir,
            lock: Arc::new(lock),
            flush_failed: FlushFailed::default(),
            bounce: Bounce::default(),
            tells_failures: release_is_at_least(SYNCFS_TELLS),
        }
    }

    /// The root, as an absolute path.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn release_lock(&self) -> io::Result<()> {
        self.lock.release()
    }

    /// `open` of a checked path.
    pub(crate) fn open_file(&self, path: &Path, create: bool) -> io::Result<RealFile> {
        let mut flags = OFlags::RDWR;
        if create {
            flags |= OFlags::CREATE;
        }
        self.open_with(path, flags)
    }

    /// `open` of a checked path, for reading only.
    pub(crate) fn open_to_read_file(&self, path: &Path) -> io::Result<RealFile> {
        self.open_with(path, OFlags::RDONLY)
    }

    fn open_with(&self, path: &Path, flags: OFlags) -> io::Result<RealFile> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = retry_on_intr(|| rustix::fs::openat(&self.dir, path, flags, FILE_MODE))
            .map_err(|e| said("open", path, e))?;
        Ok(RealFile {
            fd,
            path: path.to_owned(),
            flush_failed: FlushFailed::default(),
            direct: Direct::default(),
            bounce: self.bounce.clone(),
            _lock: Arc::clone(&self.lock),
        })
    }

    /// Names and whether each is a directory, in the directory's own order.
    pub(crate) fn entries(&self, path: &Path) -> io::Result<Vec<(String, bool)>> {
        let fd = self.open_dir(path)?;
        let mut found = Vec::new();
        for entry in Dir::read_from(&fd).map_err(|e| said("list", path, e))? {
            let entry = entry.map_err(|e| said("list", path, e))?;
            let name = entry.file_name().to_str().map_err(|_| {
                let text = format!("{}: a name in it is not valid UTF-8", path.display());
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?;
            if name == "." || name == ".." {
                continue;
            }
            let is_dir = match entry.file_type() {
                FileType::Unknown => self.is_dir(&path.join(name))?.unwrap_or(false),
                kind => kind == FileType::Directory,
            };
            found.push((name.to_owned(), is_dir));
        }
        Ok(found)
    }

    /// `Some(true)` for a directory, `Some(false)` for anything else, `None` when there is nothing.
    pub(crate) fn is_dir(&self, path: &Path) -> io::Result<Option<bool>> {
        match rustix::fs::statat(&self.dir, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(
                FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
            )),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(said("look at", path, e)),
        }
    }

    /// `taken` of a checked path.
    pub(crate) fn taken_by(&self, path: &Path) -> io::Result<u64> {
        match rustix::fs::statat(&self.dir, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(u64::try_from(stat.st_blocks)
                .unwrap_or(0)
                .saturating_mul(STAT_BLOCK_BYTES)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(0),
            Err(e) => Err(said("look at", path, e)),
        }
    }

    pub(crate) fn make_dir(&self, path: &Path) -> io::Result<()> {
        match rustix::fs::mkdirat(&self.dir, path, DIR_MODE) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) if self.is_dir(path)? == Some(true) => Ok(()),
            Err(e) => Err(said("make the directory", path, e)),
        }
    }

    pub(crate) fn rename_raw(&self, from: &Path, to: &Path) -> io::Result<()> {
        rustix::fs::renameat(&self.dir, from, &self.dir, to).map_err(|e| {
            let text = format!("rename {} to {}", from.display(), to.display());
            io::Error::new(e.kind(), format!("{text}: {e}"))
        })
    }

    pub(crate) fn link_raw(&self, from: &Path, to: &Path) -> io::Result<()> {
        rustix::fs::linkat(&self.dir, from, &self.dir, to, AtFlags::empty())
            .map_err(|e| said("link", from, e))
    }

    pub(crate) fn unlink(&self, path: &Path) -> io::Result<()> {
        rustix::fs::unlinkat(&self.dir, path, AtFlags::empty()).map_err(|e| said("remove", path, e))
    }

    /// Removes a directory and all below it. One open directory per level, names taken first.
    pub(crate) fn remove_tree(&self, path: &Path) -> io::Result<()> {
        for (name, is_dir) in self.entries(path)? {
            let child = path.join(name);
            if is_dir {
                self.remove_tree(&child)?;
            } else {
                self.unlink(&child)?;
            }
        }
        rustix::fs::unlinkat(&self.dir, path, AtFlags::REMOVEDIR)
            .map_err(|e| said("remove the directory", path, e))
    }

    pub(crate) fn flush_dir(&self, path: &Path) -> io::Result<()> {
        let fd = self.open_dir(path)?;
        retry_on_intr(|| rustix::fs::fsync(&fd)).map_err(|e| said("flush the directory", path, e))
    }

    fn open_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.dir, path, flags, Mode::empty())
            .map_err(|e| said("open the directory", path, e))
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.open_file(&joined(&below_root(path)?), create)?;
        Ok(Arc::new(file))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut made = PathBuf::new();
        for name in names(path)? {
            let parent = made.clone();
            made.push(name);
            self.make_dir(&made)?;
            // Also when it was there: a crash may have come between its making and its flush.
            self.flush_dir(&parent)?;
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let from = joined(&below_root(from)?);
        let to = joined(&below_root(to)?);
        let from_dir = self.is_dir(&from)?;
        check_rename(&from, from_dir, &to, self.is_dir(&to)?)?;
        self.rename_raw(&from, &to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.unlink(&joined(&below_root(path)?))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.remove_tree(&joined(&below_root(path)?))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let names = names(path)?;
        let mut found: Vec<String> = self
            .entries(&joined(&names))?
            .into_iter()
            .map(|(name, _)| name)
            .filter(|name| !(names.is_empty() && reserved(name)))
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.is_dir(&joined(&names(path)?))?.is_some())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.flush_dir(&joined(&names(path)?))
    }

    fn sync_all(&self) -> io::Result<()> {
        if !self.tells_failures {
            let text = "this kernel does not tell failures of flushing a whole file system";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        self.flush_failed
            .check(&self.root, || rustix::fs::syncfs(&self.dir))
    }

    fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::fstatvfs(&self.dir)
            .map_err(|e| said("read the space of", &self.root, e))?;
        Ok(Space {
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            // A file system that makes inodes as they are needed has no number of them.
            free_files: (stat.f_files > 0).then_some(stat.f_favail),
        })
    }

    fn taken(&self, path: &Path) -> io::Result<u64> {
        self.taken_by(&joined(&below_root(path)?))
    }
}

/// What both disks allow: a file replaces a file; nothing replaces a directory.
pub(crate) fn check_rename(
    from: &Path,
    from_dir: Option<bool>,
    to: &Path,
    to_dir: Option<bool>,
) -> io::Result<()> {
    let refuse = |kind, why: &str| {
        let text = format!("rename {} to {}: {why}", from.display(), to.display());
        Err(io::Error::new(kind, text))
    };
    match (from_dir, to_dir) {
        (None, _) => refuse(io::ErrorKind::NotFound, "there is no such file"),
        (Some(_), _) if from == to => Ok(()),
        (Some(true), _) if to.starts_with(from) => refuse(
            io::ErrorKind::InvalidInput,
            "a directory cannot move into itself",
        ),
        (Some(_), Some(true)) => refuse(
            io::ErrorKind::AlreadyExists,
            "there is a directory of that name",
        ),
        (Some(true), Some(false)) => {
            refuse(io::ErrorKind::AlreadyExists, "there is a file of that name")
        }
        (Some(_), _) => Ok(()),
    }
}

/// A file of a [`RealDisk`].
#[derive(Debug)]
pub(crate) struct RealFile {
    fd: OwnedFd,
    path: PathBuf,
    flush_failed: FlushFailed,
    direct: Direct,
    bounce: Bounce,
    _lock: Arc<RootLock>,
}

impl RealFile {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Writes zeros over what is data between `start` and `end`.
    fn clear(&self, start: u64, end: u64) -> io::Result<()> {
        let mut at = start;
        while let Some(data) = self.next_data(at)?.filter(|&data| data < end) {
            at = data;
            let stop = self.next_hole(at)?.min(end);
            while at < stop {
                let piece = (stop - at).min(ZEROS.len() as u64);
                self.write_at(at, &ZEROS[..piece as usize])?;
                at += piece;
            }
        }
        Ok(())
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let rest = &mut buf[done..];
            match retry_on_intr(|| rustix::io::pread(self.fd(), &mut *rest, offset + done as u64)) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) => return Err(said("read", &self.path, e)),
            }
        }
        Ok(done)
    }

    fn read_onto(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> io::Result<usize> {
        let start = out.len();
        out.reserve_exact(len);
        while out.len() < start + len {
            let done = (out.len() - start) as u64;
            match retry_on_intr(|| {
                rustix::io::pread(&self.fd, rustix::buffer::spare_capacity(out), offset + done)
            }) {
                Ok(0) => break,
                Ok(_) => {}
                Err(e) => {
                    out.truncate(start);
                    return Err(said("read", &self.path, e));
                }
            }
        }
        // There may be more room than was asked for.
        out.truncate(start + len);
        Ok(out.len() - start)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < data.len() {
            let rest = &data[done..];
            match retry_on_intr(|| rustix::io::pwrite(self.fd(), rest, offset + done as u64)) {
                Ok(0) => return Err(wrote_nothing(&self.path)),
                Ok(n) => done += n,
                Err(e) => return Err(said("write", &self.path, e)),
            }
        }
        Ok(())
    }

    fn write_vectored_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut at = offset;
        let mut next = 0; // first part not wholly written
        let mut skip = 0; // bytes of it that are
        while next < parts.len() {
            if skip == parts[next].len() {
                next += 1;
                skip = 0;
                continue;
            }
            let mut slices = Vec::with_capacity((parts.len() - next).min(IOV_MAX));
            slices.push(IoSlice::new(&parts[next][skip..]));
            let more = parts[next + 1..].iter().take(IOV_MAX - 1);
            slices.extend(more.map(|p| IoSlice::new(p)));
            let mut wrote = match retry_on_intr(|| rustix::io::pwritev(self.fd(), &slices, at)) {
                Ok(0) => return Err(wrote_nothing(&self.path)),
                Ok(n) => n,
                Err(e) => return Err(said("write", &self.path, e)),
            };
            at += wrote as u64;
            while wrote > 0 {
                let step = wrote.min(parts[next].len() - skip);
                skip += step;
                wrote -= step;
                if skip == parts[next].len() {
                    next += 1;
                    skip = 0;
                }
            }
        }
        Ok(())
    }

    fn write_past_cache_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let len = parts.iter().map(|p| p.len()).sum();
        let Some(Division { head, middle }) = Division::of(offset, len) else {
            return self.write_vectored_at(offset, parts);
        };
        let blocks = direct::cut(parts, head, middle);
        let blocks_at = offset + head as u64;
        let written = self
            .direct
            .write(&self.fd, &self.bounce, blocks_at, &blocks);
        if !written.map_err(|e| said("write", &self.path, e))? {
            return self.write_vectored_at(offset, parts);
        }
        self.write_vectored_at(offset, &direct::cut(parts, 0, head))?;
        let rest = head + middle;
        self.write_vectored_at(offset + rest as u64, &direct::cut(parts, rest, len - rest))
    }

    fn start_writeback(&self, offset: u64, len: u64) {
        // A file system that cannot leaves all to the flush, which also reports what cannot be written.
        let _ = writeback::start(self.fd(), offset, len);
    }

    fn finish_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        match writeback::finish(self.fd(), offset, len) {
            // A file system that cannot: the flush waits for all.
            Ok(()) | Err(Errno::NOSYS | Errno::INVAL | Errno::SPIPE | Errno::OPNOTSUPP) => Ok(()),
            Err(e) => Err(said("write back", &self.path, e)),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        retry_on_intr(|| rustix::fs::ftruncate(&self.fd, len))
            .map_err(|e| said("set the length of", &self.path, e))
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::empty();
        match retry_on_intr(|| rustix::fs::fallocate(&self.fd, flags, offset, len)) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                if offset + len > self.len()? {
                    self.set_len(offset + len)?;
                }
                Ok(())
            }
            Err(e) => Err(said("reserve space for", &self.path, e)),
        }
    }

    fn len(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstat(&self.fd).map_err(|e| said("look at", &self.path, e))?;
        u64::try_from(stat.st_size).map_err(|_| said("look at", &self.path, Errno::OVERFLOW))
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        // The position that this moves is used by nothing else.
        match rustix::fs::seek(&self.fd, SeekFrom::Data(offset)) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NXIO) => Ok(None),
            // A file system that does not know its holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok((offset < self.len()?).then_some(offset)),
            Err(e) => Err(said("look for data in", &self.path, e)),
        }
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        match rustix::fs::seek(&self.fd, SeekFrom::Hole(offset)) {
            Ok(found) => Ok(found),
            Err(Errno::NXIO) => Ok(offset),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(self.len()?.max(offset)),
            Err(e) => Err(said("look for a hole in", &self.path, e)),
        }
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        // The kernel takes no empty range, and none past its largest offset.
        let len = len.min(self.len()?.saturating_sub(offset));
        if len == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match retry_on_intr(|| rustix::fs::fallocate(&self.fd, flags, offset, len)) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.clear(offset, offset + len),
            Err(e) => Err(said("make a hole in", &self.path, e)),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.flush_failed
            .check(&self.path, || rustix::fs::fdatasync(&self.fd))
    }
}

/// Remembers that a flush failed, and fails all later ones.
#[derive(Debug, Default)]
struct FlushFailed(OnceLock<(io::ErrorKind, String)>);

impl FlushFailed {
    fn check(&self, path: &Path, flush: impl Fn() -> rustix::io::Result<()>) -> io::Result<()> {
        if let Some((kind, text)) = self.0.get() {
            return Err(io::Error::new(*kind, text.clone()));
        }
        retry_on_intr(flush).map_err(|e| {
            let text = format!("flush {}: {e} (not retried)", path.display());
            self.0.get_or_init(|| (e.kind(), text.clone()));
            io::Error::new(e.kind(), text)
        })
    }
}

/// Whether the running kernel is of this release (major, minor) or a later one.
fn release_is_at_least(wanted: (u32, u32)) -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    next()
        .zip(next())
        .is_some_and(|running: (u32, u32)| running >= wanted)
}

fn said(what: &str, path: &Path, e: Errno) -> io::Error {
    io::Error::new(e.kind(), format!("{what} {}: {e}", path.display()))
}

fn wrote_nothing(path: &Path) -> io::Error {
    let text = format!("write {}: the system took no bytes", path.display());
    io::Error::new(io::ErrorKind::WriteZero, text)
}
