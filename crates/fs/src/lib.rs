//! File system semantics, independent of any protocol: the [`Filesystem`] trait that protocols are
//! served from and engines implement, its types and its errors.
//!
//! A file system here is a deterministic state machine: a mutation is a function of the state, the
//! caller, the arguments and a [`Change`] (log index and server time). Engines read no clock, no
//! randomness and no hash-map order, so that replicas which apply the same calls hold the same state.
//!
//! Invariants
//! - Inode numbers are assigned in order by the engine and never reused.
//! - An attribute's `change` is the log index of the inode's last change.
//! - Directory cookies are stored with the entry, unique and rising within a directory, never reused.
//! - A mutation that returns an error (other than [`FsError::Fatal`]) has changed nothing.
//! - Permissions are checked inside the operation, against the state it acts on.
//!
//! It must not know NFS, sockets, clocks or the disk.

pub mod blocks;
pub mod conformance;
mod error;
mod level;
pub mod model;
pub mod rules;
mod types;

pub use error::FsError;
pub use level::{Level, MOVE_DEPTH_MAX};
pub use types::*;

use bytes::Bytes;
use std::ops::ControlFlow;

/// Result of a file system operation.
pub type FsResult<T> = Result<T, FsError>;

/// Visitor of a system table's keys and values.
pub type SystemVisit<'a> = &'a mut (dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a);

/// Most bytes in a name (one path component).
pub const NAME_BYTES_MAX: usize = 255;
/// Most bytes in a symbolic link's target.
pub const LINK_TARGET_BYTES_MAX: usize = 4096;
/// Most hard links to one inode.
pub const LINKS_MAX: u32 = 65_000;
/// Largest file size in bytes: that of ext4 with blocks of 4 KiB, the lowest among the local file systems
/// in use. The same everywhere, so that all replicas refuse the same requests.
pub const FILE_SIZE_MAX: u64 = (16 << 40) - 4096;
/// Largest offset that can be meant: offsets fit a signed 64-bit integer everywhere.
pub const OFFSET_MAX: u64 = i64::MAX as u64;

/// A file system: queries take `&self`, mutations take `&mut self` and a [`Change`].
///
/// Every method checks permissions for `cred` as POSIX says (uid 0 passes all checks).
pub trait Filesystem: Send + Sync {
    /// The root directory.
    fn root(&self) -> Ino;

    /// Says which rules changes follow from now on; [`Level::NEWEST`] until it is said. The engine does not keep it: whoever
    /// opens it says it again.
    fn set_level(&mut self, level: Level);

    /// Attributes. [`FsError::Stale`] when there is no such inode.
    fn attr(&self, ino: Ino) -> FsResult<Attr>;

    /// Finds `name` in `dir` (search permission needed). `.` and `..` are understood; the root is its own parent.
    fn lookup(&self, cred: &Cred, dir: Ino, name: &[u8]) -> FsResult<Attr>;

    /// The subset of `want` that `cred` may do.
    fn access(&self, cred: &Cred, ino: Ino, want: Access) -> FsResult<Access>;

    /// A symbolic link's target. [`FsError::Invalid`] for anything else.
    fn readlink(&self, cred: &Cred, ino: Ino) -> FsResult<Bytes>;

    /// Reads up to `len` bytes. The owner may always read (an open file survives a chmod), and so may
    /// who has execute permission only (a program must load). Regular files only: a directory is
    /// [`FsError::IsDirectory`], anything else [`FsError::Invalid`].
    fn read(&self, cred: &Cred, ino: Ino, offset: u64, len: u32) -> FsResult<ReadData>;

    /// Visits the entries of `dir` after cookie `after` (0: from the start) in cookie order, until the
    /// visitor breaks. Returns true when the end was reached. `.` and `..` are visited too, with
    /// cookies 1 and 2; stored entries have cookies from 3 on. Read permission needed. With
    /// `attributes`, entries carry their attributes; otherwise `attr` is `None`.
    fn readdir(
        &self,
        cred: &Cred,
        dir: Ino,
        after: Cookie,
        attributes: bool,
        visit: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> FsResult<bool>;

    /// Space and inode counts.
    fn statfs(&self) -> FsResult<StatFs>;

    /// Creates (or, as `how` says, opens) a regular file.
    fn create(
        &mut self,
        at: &Change,
        cred: &Cred,
        dir: Ino,
        name: &[u8],
        how: &Create,
    ) -> FsResult<Attr>;

    /// Creates a directory.
    fn mkdir(
        &mut self,
        at: &Change,
        cred: &Cred,
        dir: Ino,
        name: &[u8],
        attr: &SetAttr,
    ) -> FsResult<Attr>;

    /// Creates a symbolic link.
    fn symlink(
        &mut self,
        at: &Change,
        cred: &Cred,
        dir: Ino,
        name: &[u8],
        target: &[u8],
        attr: &SetAttr,
    ) -> FsResult<Attr>;

    /// Creates a fifo, socket or device ([`FsError::BadType`] for other kinds; devices need uid 0).
    fn mknod(
        &mut self,
        at: &Change,
        cred: &Cred,
        dir: Ino,
        name: &[u8],
        kind: Kind,
        attr: &SetAttr,
    ) -> FsResult<Attr>;

    /// Changes attributes. With `guard`, only if the inode's ctime equals it ([`FsError::NotSync`]).
    fn setattr(
        &mut self,
        at: &Change,
        cred: &Cred,
        ino: Ino,
        attr: &SetAttr,
        guard: Option<Time>,
    ) -> FsResult<Attr>;

    /// Writes all of `data` at `offset`, clears setuid/setgid as POSIX says. The owner may always write.
    fn write(
        &mut self,
        at: &Change,
        cred: &Cred,
        ino: Ino,
        offset: u64,
        data: &[u8],
    ) -> FsResult<Attr>;

    /// Removes a name that is not a directory.
    fn remove(&mut self, at: &Change, cred: &Cred, dir: Ino, name: &[u8]) -> FsResult<()>;

    /// Removes an empty directory.
    fn rmdir(&mut self, at: &Change, cred: &Cred, dir: Ino, name: &[u8]) -> FsResult<()>;

    /// Renames, replacing a compatible target, as POSIX rename(2). Source and target being links to the
    /// same inode is success without change. A directory never moves below itself ([`FsError::Invalid`]).
    fn rename(
        &mut self,
        at: &Change,
        cred: &Cred,
        from_dir: Ino,
        from_name: &[u8],
        to_dir: Ino,
        to_name: &[u8],
    ) -> FsResult<()>;

    /// Makes another name for a non-directory.
    fn link(&mut self, at: &Change, cred: &Cred, ino: Ino, dir: Ino, name: &[u8])
    -> FsResult<Attr>;
}

/// A small ordered table that commits together with the file system: where the layers above keep
/// replicated state of their own (cached replies, identities). Part of the state hash.
pub trait SystemTable: Send + Sync {
    /// The value of `key`.
    fn system_get(&self, key: &[u8]) -> FsResult<Option<Bytes>>;

    /// Sets or (with `None`) removes `key`.
    fn system_put(&mut self, key: &[u8], value: Option<&[u8]>) -> FsResult<()>;

    /// Visits keys that start with `prefix`, in order, until the visitor breaks.
    fn system_scan(&self, prefix: &[u8], visit: SystemVisit<'_>) -> FsResult<()>;
}
