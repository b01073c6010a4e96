//! The nouns of the file system.

use bytes::Bytes;

/// An inode number: assigned in order, never reused. 0 is never assigned; the root is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u64);

/// Position of an entry in its directory; 0 means "before the first".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cookie(pub u64);

/// A point in time since the Unix epoch; `nanos` is below 1,000,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    /// Whole seconds.
    pub secs: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

/// When and where in the log a mutation happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Log index of the entry: the new value of every touched inode's `change`.
    pub index: u64,
    /// Server time: strictly rising from entry to entry.
    pub time: Time,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cred {
    /// User id; 0 passes every permission check.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

impl Cred {
    /// The superuser.
    pub const fn root() -> Self {
        Self {
            uid: 0,
            gid: 0,
            groups: Vec::new(),
        }
    }

    /// Whether `gid` is among the caller's groups.
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Regular file.
    Regular,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Unix domain socket.
    Socket,
    /// Block device with its numbers.
    BlockDevice(Device),
    /// Character device with its numbers.
    CharDevice(Device),
}

/// A device's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Device {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// Attributes of an inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// Low 32 bits of the log index that created the inode; goes into file handles, so that a handle
    /// from another history of the volume is recognised as stale.
    pub generation: u32,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, setuid, setgid and sticky: within 0o7777.
    pub mode: u32,
    /// Number of names (a directory: 2 + subdirectories).
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes (symbolic link: length of its target; directory: 4096 for each started 64 entries).
    pub size: u64,
    /// Bytes of disk space used. Must be the same on every replica, so it is part of the state, never asked from the
    /// disk: of a regular file the blocks that were written ([`crate::blocks`]), of everything else the size rounded up.
    pub used: u64,
    /// Time of last access (set by SETATTR and creation only: reads are not logged).
    pub atime: Time,
    /// Time of last data change.
    pub mtime: Time,
    /// Time of last change.
    pub ctime: Time,
    /// Log index of the last change.
    pub change: u64,
}

/// Attributes to set; `None` leaves one as it is (or, at creation, to its default).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetAttr {
    /// New permission bits (within 0o7777).
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New size (regular files).
    pub size: Option<u64>,
    /// New access time.
    pub atime: Option<SetTime>,
    /// New modification time.
    pub mtime: Option<SetTime>,
}

/// How a time is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// To the server's time ([`Change::time`]).
    Server,
    /// To a given time.
    Client(Time),
}

/// How a regular file is created (RFC 1813 section 3.3.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Create {
    /// Use an existing file (applying `size` only, if given and permitted) or create one.
    Unchecked(SetAttr),
    /// Fail with `Exists` if the name exists.
    Guarded(SetAttr),
    /// Like guarded, but an existing file that was created with the same verifier is a success: it is
    /// the same request again. The verifier is kept with the inode for good.
    Exclusive([u8; 8]),
}

/// A set of permissions asked for or granted (RFC 1813 section 3.3.4 gives the meaning of each).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access {
    /// Read data or list a directory.
    pub read: bool,
    /// Look up a name in a directory.
    pub lookup: bool,
    /// Rewrite existing data or change existing directory entries.
    pub modify: bool,
    /// Append data or add directory entries.
    pub extend: bool,
    /// Remove a directory entry.
    pub delete: bool,
    /// Execute a file.
    pub execute: bool,
}

/// What a read returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadData {
    /// The bytes; shorter than asked only at the end of the file.
    pub data: Bytes,
    /// Whether the read reached the end of the file.
    pub eof: bool,
}

/// A directory entry as visited by `readdir`.
#[derive(Debug, Clone)]
pub struct DirEntry<'a> {
    /// The entry's inode.
    pub ino: Ino,
    /// Its name.
    pub name: &'a [u8],
    /// Where to go on after this entry.
    pub cookie: Cookie,
    /// Its attributes, if asked for.
    pub attr: Option<Attr>,
}

/// Space and inode counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatFs {
    /// Bytes in total.
    pub total_bytes: u64,
    /// Bytes free.
    pub free_bytes: u64,
    /// Bytes of those that files may still take.
    pub available_bytes: u64,
    /// Inodes that there are, and can still be made.
    pub total_files: u64,
    /// Inodes that can still be made.
    pub free_files: u64,
}
