//! The rules of the file system as pure functions: permissions, names, attributes of new and changed
//! inodes. The reference model and every durable engine call these, so that no rule is written twice.
//!
//! Where POSIX leaves a choice, the rules follow what Linux and its kernel NFS server do.
//!
//! Checks of an operation on a name happen in this order, which decides the error when several apply:
//! 1. the directory exists ([`FsError::Stale`]) and is one ([`check_directory`]);
//! 2. the name is well formed ([`check_new_name`], [`check_old_name`], [`check_rename_name`],
//!    [`check_name`]), then the other arguments (kind, symbolic link target);
//! 3. for `link`: the inode exists and is no directory ([`check_link`]);
//! 4. the caller may search the directory ([`require`] with [`Perm::EXEC`]);
//! 5. the name exists, or does not, as the operation needs it;
//! 6. the caller may change the directory ([`may_create`], [`may_delete`]);
//! 7. the kinds fit, the directory to remove is empty, limits.
//!
//! Invariants
//! - Nothing here has a state, allocates more than an attribute, or overflows.
//! - Attributes made here keep `mode` within [`MODE_MASK`], and `used` in step with `size` but for regular files: their
//!   engine sets it from the file's [`crate::blocks::BlockMap`].
//!
//! It must not know how an engine stores anything.

mod tree;

pub use tree::{check_not_into_itself, check_not_onto_ancestor};

use crate::{
    Access, Attr, Change, Cred, FILE_SIZE_MAX, FsError, FsResult, Ino, Kind, LINK_TARGET_BYTES_MAX,
    LINKS_MAX, NAME_BYTES_MAX, SetAttr, SetTime, Time,
};

/// All bits a mode can have.
pub const MODE_MASK: u32 = 0o7777;
/// Set user id on execution.
pub const MODE_SETUID: u32 = 0o4000;
/// Set group id on execution; in a directory: entries inherit the group.
pub const MODE_SETGID: u32 = 0o2000;
/// In a directory: only owners remove entries.
pub const MODE_STICKY: u32 = 0o1000;
/// Mode of every symbolic link.
pub const SYMLINK_MODE: u32 = 0o777;
/// Mode of a new root directory.
pub const ROOT_MODE: u32 = 0o755;

/// The root directory's inode number.
pub const ROOT_INO: Ino = Ino(1);
/// The inode number of the first inode created.
pub const FIRST_INO: Ino = Ino(2);
/// Cookie of `.` in every directory.
pub const COOKIE_DOT: u64 = 1;
/// Cookie of `..` in every directory.
pub const COOKIE_DOT_DOT: u64 = 2;
/// Cookie of the first entry stored in a directory.
pub const COOKIE_FIRST: u64 = 3;

/// Unit of [`Attr::used`] and of directory sizes.
pub const BLOCK_BYTES: u64 = 4096;
/// Entries that one block of a directory's size stands for.
pub const DIR_ENTRIES_PER_BLOCK: u64 = 64;

const NANOS_PER_SEC: u32 = 1_000_000_000;
const MODE_GROUP_EXEC: u32 = 0o010;
const MODE_ANY_EXEC: u32 = 0o111;

/// A set of permissions, in the order of the mode bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Perm(u32);

impl Perm {
    /// Read data, list a directory.
    pub const READ: Self = Self(4);
    /// Write data, change a directory's entries.
    pub const WRITE: Self = Self(2);
    /// Execute a file, search a directory.
    pub const EXEC: Self = Self(1);
    /// What changing a directory's entries needs.
    pub const WRITE_EXEC: Self = Self(3);
}

impl std::ops::BitOr for Perm {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

// ---------------------------------------------------------------------------------------------
// Names

/// Whether `name` is `.` or `..`.
pub fn is_dot_name(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

/// A well-formed path component; `.` and `..` are.
///
/// # Errors
/// [`FsError::Invalid`] when empty or with a slash or NUL, [`FsError::NameTooLong`].
pub fn check_name(name: &[u8]) -> FsResult<()> {
    if name.is_empty() || name.iter().any(|&b| b == b'/' || b == 0) {
        return Err(FsError::Invalid);
    }
    if name.len() > NAME_BYTES_MAX {
        Err(FsError::NameTooLong)
    } else {
        Ok(())
    }
}

/// A name to create: well formed, and `.` and `..` exist already.
pub fn check_new_name(name: &[u8]) -> FsResult<()> {
    check_name(name)?;
    if is_dot_name(name) {
        Err(FsError::Exists)
    } else {
        Ok(())
    }
}

/// A name to remove: well formed, and neither `.` nor `..`.
pub fn check_old_name(name: &[u8]) -> FsResult<()> {
    check_name(name)?;
    if is_dot_name(name) {
        Err(FsError::AccessDenied)
    } else {
        Ok(())
    }
}

/// A name on either side of a rename: well formed, and neither `.` nor `..`.
pub fn check_rename_name(name: &[u8]) -> FsResult<()> {
    check_name(name)?;
    if is_dot_name(name) {
        Err(FsError::NotPermitted)
    } else {
        Ok(())
    }
}

/// A symbolic link's target.
///
/// # Errors
/// [`FsError::NotFound`] when empty (as symlink(2)), [`FsError::NameTooLong`], [`FsError::Invalid`]
/// with a NUL.
pub fn check_link_target(target: &[u8]) -> FsResult<()> {
    if target.is_empty() {
        return Err(FsError::NotFound);
    }
    if target.len() > LINK_TARGET_BYTES_MAX {
        return Err(FsError::NameTooLong);
    }
    if target.contains(&0) {
        Err(FsError::Invalid)
    } else {
        Ok(())
    }
}

// ---------------------------------------------------------------------------------------------
// Permissions

/// Whether the mode bits grant `cred` all of `mask`. The superuser may do everything but execute a file
/// that nobody may execute.
pub fn permitted(attr: &Attr, cred: &Cred, mask: Perm) -> bool {
    if cred.uid == 0 {
        let executable = attr.kind == Kind::Directory || attr.mode & MODE_ANY_EXEC != 0;
        return mask.0 & Perm::EXEC.0 == 0 || executable;
    }
    let shift = if cred.uid == attr.uid {
        6
    } else if cred.in_group(attr.gid) {
        3
    } else {
        0
    };
    (attr.mode >> shift) & mask.0 == mask.0
}

/// [`permitted`] as a check: [`FsError::AccessDenied`] otherwise.
pub fn require(attr: &Attr, cred: &Cred, mask: Perm) -> FsResult<()> {
    if permitted(attr, cred, mask) {
        Ok(())
    } else {
        Err(FsError::AccessDenied)
    }
}

/// [`FsError::NotDirectory`] unless it is one.
pub fn check_directory(attr: &Attr) -> FsResult<()> {
    if attr.kind == Kind::Directory {
        Ok(())
    } else {
        Err(FsError::NotDirectory)
    }
}

/// A regular file: [`FsError::IsDirectory`] for a directory, [`FsError::Invalid`] for the rest.
pub fn check_regular(attr: &Attr) -> FsResult<()> {
    match attr.kind {
        Kind::Regular => Ok(()),
        Kind::Directory => Err(FsError::IsDirectory),
        _ => Err(FsError::Invalid),
    }
}

/// Whether `cred` may read the file's data: its owner always, others with read or execute permission.
pub fn may_read(attr: &Attr, cred: &Cred) -> FsResult<()> {
    check_regular(attr)?;
    if cred.uid == attr.uid || permitted(attr, cred, Perm::READ) {
        return Ok(());
    }
    require(attr, cred, Perm::EXEC)
}

/// Whether `cred` may write the file's data: its owner always.
pub fn may_write(attr: &Attr, cred: &Cred) -> FsResult<()> {
    check_regular(attr)?;
    if cred.uid == attr.uid {
        Ok(())
    } else {
        require(attr, cred, Perm::WRITE)
    }
}

/// The subset of `want` that `cred` may do.
pub fn granted(attr: &Attr, cred: &Cred, want: Access) -> Access {
    let may = |mask| permitted(attr, cred, mask);
    let directory = attr.kind == Kind::Directory;
    let change = if directory {
        Perm::WRITE_EXEC
    } else {
        Perm::WRITE
    };
    Access {
        read: want.read && may(Perm::READ),
        lookup: want.lookup && directory && may(Perm::EXEC),
        modify: want.modify && may(change),
        extend: want.extend && may(change),
        delete: want.delete && directory && may(change),
        execute: want.execute && !directory && may(Perm::EXEC),
    }
}

/// Whether `cred` may add an entry to `dir`.
pub fn may_create(dir: &Attr, cred: &Cred) -> FsResult<()> {
    require(dir, cred, Perm::WRITE_EXEC)
}

/// Whether `cred` may remove the entry of `victim` from `dir`: [`FsError::AccessDenied`] when the mode
/// refuses, [`FsError::NotPermitted`] when the directory is sticky and the caller owns neither.
pub fn may_delete(dir: &Attr, victim: &Attr, cred: &Cred) -> FsResult<()> {
    require(dir, cred, Perm::WRITE_EXEC)?;
    let owns = cred.uid == 0 || cred.uid == victim.uid || cred.uid == dir.uid;
    if dir.mode & MODE_STICKY != 0 && !owns {
        Err(FsError::NotPermitted)
    } else {
        Ok(())
    }
}

/// Step 3 of `link`: what can have another name.
pub fn check_link(target: &Attr) -> FsResult<()> {
    if target.kind == Kind::Directory {
        Err(FsError::NotPermitted)
    } else {
        Ok(())
    }
}

/// What `mknod` makes: [`FsError::BadType`] for kinds that have an operation of their own.
pub fn check_mknod_kind(kind: Kind) -> FsResult<()> {
    match kind {
        Kind::Fifo | Kind::Socket | Kind::BlockDevice(_) | Kind::CharDevice(_) => Ok(()),
        Kind::Regular | Kind::Directory | Kind::Symlink => Err(FsError::BadType),
    }
}

/// Last check of `mknod`: devices are the superuser's.
pub fn may_mknod(kind: Kind, cred: &Cred) -> FsResult<()> {
    match kind {
        Kind::BlockDevice(_) | Kind::CharDevice(_) if cred.uid != 0 => Err(FsError::NotPermitted),
        _ => Ok(()),
    }
}

/// Permissions and kinds of a rename, once both names were looked up, the inodes differ, and neither
/// contains the other. Whether a replaced directory is empty is checked after this.
pub fn check_rename(
    from_dir: &Attr,
    source: &Attr,
    to_dir: &Attr,
    target: Option<&Attr>,
    cred: &Cred,
) -> FsResult<()> {
    may_delete(from_dir, source, cred)?;
    let moves_directory = source.kind == Kind::Directory;
    match target {
        None => may_create(to_dir, cred)?,
        Some(target) => {
            may_delete(to_dir, target, cred)?;
            match (moves_directory, target.kind == Kind::Directory) {
                (true, false) => return Err(FsError::NotDirectory),
                (false, true) => return Err(FsError::IsDirectory),
                _ => {}
            }
        }
    }
    // Moving a directory rewrites its `..`.
    if moves_directory && from_dir.ino != to_dir.ino {
        require(source, cred, Perm::WRITE)?;
    }
    Ok(())
}

/// `guard` against the inode's ctime.
pub fn check_guard(attr: &Attr, guard: Option<Time>) -> FsResult<()> {
    match guard {
        Some(ctime) if ctime != attr.ctime => Err(FsError::NotSync),
        _ => Ok(()),
    }
}

// ---------------------------------------------------------------------------------------------
// Attributes

/// [`Attr::used`] of anything but a regular file, of this size.
pub fn used(size: u64) -> u64 {
    size.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES)
}

/// Inodes that can still be made where so many bytes are available, if nothing else bounds them: one for each block.
/// Most take less, but somebody wants to put something into them.
pub const fn files_within(available_bytes: u64) -> u64 {
    available_bytes / BLOCK_BYTES
}

/// [`Attr::size`] of a directory with this many stored entries; an empty one has a block, too.
pub fn dir_size(entries: u64) -> u64 {
    entries
        .div_ceil(DIR_ENTRIES_PER_BLOCK)
        .max(1)
        .saturating_mul(BLOCK_BYTES)
}

/// Sets the size of anything but a regular file, and `used` with it.
pub fn set_size(attr: &mut Attr, size: u64) {
    attr.size = size;
    attr.used = used(size);
}

/// Marks a change of the inode itself.
pub fn touch(attr: &mut Attr, at: &Change) {
    attr.ctime = at.time;
    attr.change = at.index;
}

/// Marks a change of the inode's data or entries.
pub fn touch_data(attr: &mut Attr, at: &Change) {
    attr.mtime = at.time;
    touch(attr, at);
}

/// The mode after a write, truncation or change of owner by whomever: setuid goes, and setgid with it
/// where the group may execute (without that bit it is no privilege).
pub fn killpriv(mode: u32) -> u32 {
    let mode = mode & !MODE_SETUID;
    if mode & MODE_GROUP_EXEC != 0 {
        mode & !MODE_SETGID
    } else {
        mode
    }
}

/// The end of a write of `len` bytes at `offset`; [`FsError::TooLarge`] past [`FILE_SIZE_MAX`].
pub fn write_end(offset: u64, len: usize) -> FsResult<u64> {
    let len = u64::try_from(len).map_err(|_| FsError::TooLarge)?;
    match offset.checked_add(len) {
        Some(end) if end <= FILE_SIZE_MAX => Ok(end),
        _ => Err(FsError::TooLarge),
    }
}

/// The attributes after a write (of at least one byte) that ended at `end`, but for `used`. A write of nothing changes
/// nothing and is not passed here.
pub fn after_write(attr: &Attr, end: u64, at: &Change) -> Attr {
    let mut new = attr.clone();
    new.size = new.size.max(end);
    new.mode = killpriv(new.mode);
    touch_data(&mut new, at);
    new
}

/// The link count after one more name of a non-directory.
pub fn links_after_link(nlink: u32) -> FsResult<u32> {
    if nlink >= LINKS_MAX {
        Err(FsError::TooManyLinks)
    } else {
        Ok(nlink + 1)
    }
}

/// The link count of a directory after one more subdirectory. [`LINKS_MAX`] does not apply: it bounds
/// names of one file, not the number of subdirectories.
pub fn links_after_subdir(nlink: u32) -> FsResult<u32> {
    nlink.checked_add(1).ok_or(FsError::TooManyLinks)
}

/// The root directory of a new volume.
pub fn root_attr() -> Attr {
    let size = dir_size(0);
    let zero = Time::default();
    Attr {
        ino: ROOT_INO,
        generation: 0,
        kind: Kind::Directory,
        mode: ROOT_MODE,
        nlink: 2,
        uid: 0,
        gid: 0,
        size,
        used: used(size),
        atime: zero,
        mtime: zero,
        ctime: zero,
        change: 0,
    }
}

/// The attributes of an inode about to be created in `parent`. A symbolic link's size is set by the
/// caller ([`set_size`]), and what a regular file uses ([`crate::blocks`]). The superuser may give an owner; anybody else's is ignored, as are sizes of
/// anything but regular files and modes of symbolic links. Without a mode nothing is granted.
///
/// # Errors
/// [`FsError::Invalid`] for times that are none, [`FsError::TooLarge`].
pub fn new_attr(
    parent: &Attr,
    kind: Kind,
    set: &SetAttr,
    cred: &Cred,
    at: &Change,
    ino: Ino,
) -> FsResult<Attr> {
    let inherits_group = parent.mode & MODE_SETGID != 0;
    let own_gid = if inherits_group { parent.gid } else { cred.gid };
    let (uid, gid) = match cred.uid {
        0 => (set.uid.unwrap_or(0), set.gid.unwrap_or(own_gid)),
        uid => (uid, own_gid),
    };
    let size = match kind {
        Kind::Regular => checked_size(set.size.unwrap_or(0))?,
        Kind::Directory => dir_size(0),
        _ => 0,
    };
    Ok(Attr {
        ino,
        // The low half, on purpose: see the field.
        generation: (at.index & u64::from(u32::MAX)) as u32,
        kind,
        mode: new_mode(
            kind,
            set.mode.unwrap_or(0),
            inherits_group,
            cred.uid == 0 || cred.in_group(gid),
        ),
        nlink: if kind == Kind::Directory { 2 } else { 1 },
        uid,
        gid,
        size,
        used: match kind {
            // What its engine says.
            Kind::Regular => 0,
            _ => used(size),
        },
        atime: new_time(set.atime, at.time, at)?,
        mtime: new_time(set.mtime, at.time, at)?,
        ctime: at.time,
        change: at.index,
    })
}

fn new_mode(kind: Kind, mode: u32, inherits_group: bool, in_group: bool) -> u32 {
    let mode = mode & MODE_MASK;
    match kind {
        Kind::Symlink => SYMLINK_MODE,
        Kind::Directory => {
            let inherited = if inherits_group { MODE_SETGID } else { 0 };
            (mode & !(MODE_SETUID | MODE_SETGID)) | inherited
        }
        // Nobody gets to run something as a group that he is not in.
        _ if mode & MODE_GROUP_EXEC != 0 && !in_group => mode & !MODE_SETGID,
        _ => mode,
    }
}

/// Checks a change of attributes and returns the attributes after it. Setting nothing changes nothing,
/// not even the ctime. The data of a shrunk file is the engine's to cut, and `used` its to set.
///
/// # Errors
/// [`FsError::NotPermitted`] where ownership is needed, [`FsError::AccessDenied`] where write permission
/// would do, [`FsError::IsDirectory`], [`FsError::Invalid`] and [`FsError::TooLarge`] for sizes and times.
pub fn apply_setattr(attr: &Attr, set: &SetAttr, cred: &Cred, at: &Change) -> FsResult<Attr> {
    if *set == SetAttr::default() {
        return Ok(attr.clone());
    }
    let mut new = attr.clone();
    if let Some(size) = set.size {
        may_write(attr, cred)?;
        new.size = checked_size(size)?;
        new.mode = killpriv(new.mode);
        new.mtime = at.time;
    }
    set_owner(&mut new, attr, set, cred)?;
    set_mode(&mut new, attr, set, cred)?;
    check_set_time(attr, set.atime, cred)?;
    check_set_time(attr, set.mtime, cred)?;
    new.atime = new_time(set.atime, new.atime, at)?;
    new.mtime = new_time(set.mtime, new.mtime, at)?;
    touch(&mut new, at);
    Ok(new)
}

fn set_owner(new: &mut Attr, attr: &Attr, set: &SetAttr, cred: &Cred) -> FsResult<()> {
    let owner = cred.uid == attr.uid;
    if let Some(uid) = set.uid {
        if cred.uid != 0 && !(owner && uid == attr.uid) {
            return Err(FsError::NotPermitted);
        }
        new.uid = uid;
    }
    if let Some(gid) = set.gid {
        if cred.uid != 0 && !(owner && (gid == attr.gid || cred.in_group(gid))) {
            return Err(FsError::NotPermitted);
        }
        new.gid = gid;
    }
    if (set.uid.is_some() || set.gid.is_some()) && attr.kind != Kind::Directory {
        new.mode = killpriv(new.mode);
    }
    Ok(())
}

fn set_mode(new: &mut Attr, attr: &Attr, set: &SetAttr, cred: &Cred) -> FsResult<()> {
    let Some(mode) = set.mode else { return Ok(()) };
    if cred.uid != 0 && cred.uid != attr.uid {
        return Err(FsError::NotPermitted);
    }
    // A symbolic link's mode means nothing and stays.
    if attr.kind == Kind::Symlink {
        return Ok(());
    }
    let mut mode = mode & MODE_MASK;
    if cred.uid != 0 && !cred.in_group(new.gid) {
        mode &= !MODE_SETGID;
    }
    // Owner and mode in one request: the owner changes last, as if they were two.
    let chown = set.uid.is_some() || set.gid.is_some();
    new.mode = if chown && attr.kind != Kind::Directory {
        killpriv(mode)
    } else {
        mode
    };
    Ok(())
}

fn check_set_time(attr: &Attr, set: Option<SetTime>, cred: &Cred) -> FsResult<()> {
    let owner = cred.uid == 0 || cred.uid == attr.uid;
    match set {
        None => Ok(()),
        Some(SetTime::Client(_)) if !owner => Err(FsError::NotPermitted),
        Some(SetTime::Server) if !owner => require(attr, cred, Perm::WRITE),
        Some(_) => Ok(()),
    }
}

fn new_time(set: Option<SetTime>, old: Time, at: &Change) -> FsResult<Time> {
    match set {
        None => Ok(old),
        Some(SetTime::Server) => Ok(at.time),
        Some(SetTime::Client(time)) if time.nanos < NANOS_PER_SEC => Ok(time),
        Some(SetTime::Client(_)) => Err(FsError::Invalid),
    }
}

fn checked_size(size: u64) -> FsResult<u64> {
    if size > FILE_SIZE_MAX {
        Err(FsError::TooLarge)
    } else {
        Ok(size)
    }
}

#[cfg(test)]
mod tests;
